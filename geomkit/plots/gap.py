"""The modality gap of several sources side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from geomkit.errors import GeomkitError
from geomkit.plots.labels import axis_label
from geomkit.plots.multiples import Panel, Series, small_multiples
from geomkit.plots.style import INK, distinct_looks, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from geomkit.metrics import GapResult

__all__ = ["gap_panels"]


def gap_panels(results: Mapping[str, GapResult], metrics: Sequence[str] | None = None) -> Figure:
    """Return a figure with a panel per metric and a dot per source.

    Dots have 95% intervals over pairs. A grey bar is the value with no gap, or with no pairing, of
    the metrics that have one.

    Args:
        results: Result of :func:`geomkit.gap` for each source, by name, top to bottom.
        metrics: Names of metrics. Default: all that the first result has.

    Raises:
        GeomkitError: If there is no source or no metric.

    >>> import numpy as np
    >>> from geomkit.metrics import gap
    >>> rng = np.random.default_rng(0)
    >>> x, y = rng.standard_normal((2, 30, 4))
    >>> figure = gap_panels({"random": gap(x, y, metrics=["alignment", "mmd"])})
    >>> [axes.get_title() for axes in figure.axes]
    ['Alignment', 'MMD²']
    """
    if metrics is None:
        metrics = [name for result in list(results.values())[:1] for name in result.metrics]
    if not results or not metrics:
        raise GeomkitError("nothing to draw: expected at least one source and one metric")
    looks = distinct_looks([result.meta.get("loss") for result in results.values()])

    def panel(metric: str) -> Panel:
        series = []
        for at, (result, (colour, marker)) in enumerate(zip(results.values(), looks, strict=True)):
            value, half = result.metrics.get(metric, math.nan), 1.96 * result.stderr.get(metric, 0)
            series.append(
                Series("", [at], [value], [value - half], [value + half], colour=colour,
                       marker=marker, line="", size=4.2)
            )  # fmt: skip
            if math.isfinite(value) and metric in result.null:
                null = [result.null[metric]]
                series.append(Series("", [at], null, colour="#888888", marker="|", line="", size=8))
        return Panel(series, axis_label(metric), categories=list(results), horizontal=True,
                     grid="x")  # fmt: skip

    figure = small_multiples(
        [panel(metric) for metric in metrics],
        columns=1 if len(metrics) < 3 else 2,
        height=0.6 + 0.2 * len(results),
        sharey=True,
    )
    with style():
        for axes, metric in zip(figure.axes, metrics, strict=True):
            axes.margins(x=0.12)
            for at, result in enumerate(results.values()):
                if not math.isfinite(result.metrics.get(metric, math.nan)):
                    axes.text(0.5, at, "undefined", fontsize=7, va="center", ha="center",
                              transform=axes.get_yaxis_transform(), color="#777777")  # fmt: skip
        if any(metric in result.null for result in results.values() for metric in metrics):
            figure.supxlabel(
                "dots: value with 95% interval over pairs; grey bar: with no gap, or no pairing",
                fontsize=7,
                color=INK,
            )
    return figure
