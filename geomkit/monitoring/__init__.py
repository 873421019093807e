"""Monitoring: the gap of held-out pairs during a training that geomkit does not run.

Lightning, transformers and the loggers are imported only where they are used.
"""

from geomkit.monitoring.callbacks import lightning_callback, transformers_callback
from geomkit.monitoring.monitor import GapMonitor

__all__ = ["GapMonitor", "lightning_callback", "transformers_callback"]
