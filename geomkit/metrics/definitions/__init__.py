"""Every metric, beside its formula; one module per group of the table.

A module here declares a list ``METRICS`` of :class:`geomkit.metrics.metric.Metric`; it is found
by itself.
"""
