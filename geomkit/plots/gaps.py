"""The modality gap of several sources side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from geomkit.errors import GeomkitError
from geomkit.plots.labels import axis_label, fitted, value_range
from geomkit.plots.multiples import Panel, Series, small_multiples
from geomkit.plots.style import INK, distinct_looks, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from geomkit.metrics import GapResult

__all__ = ["gap_figure", "gap_panels"]

_NULL = "#888888"
_KEY = "markers: value with 95% interval over pairs; grey tick: with no gap, or no pairing"


def gap_panels(results: Mapping[str, GapResult], metrics: Sequence[str]) -> list[Panel]:
    """Return a panel for each metric, with a dot for each source.

    Raises:
        GeomkitError: If there is no source or no metric.
    """
    if not results or not metrics:
        raise GeomkitError("nothing to draw: expected at least one source and one metric")
    names = fitted(list(results), 1.9, 7)
    looks = distinct_looks([result.meta.get("loss") for result in results.values()])

    def panel(metric: str) -> Panel:
        series = []
        for at, (result, look) in enumerate(zip(results.values(), looks, strict=True)):
            value = result.metrics.get(metric, math.nan)
            low, high = interval(result, metric)
            series.append(
                Series("", [at], [value], [low], [high], colour=look.colour, marker=look.marker,
                       line="", size=4.2)
            )  # fmt: skip
            if math.isfinite(value) and metric in result.null:
                null = [result.null[metric]]
                series.append(Series("", [at], null, colour=_NULL, marker="|", line="", size=8))
        return Panel(series, axis_label(metric), categories=names, horizontal=True,
                     grid="x")  # fmt: skip

    return [panel(metric) for metric in metrics]


def interval(result: GapResult, metric: str) -> tuple[float, float]:
    """Return the ends of a 95% interval over pairs, NaN where there is none.

    Of a recall it is Wilson's, for the number of independent pairs that its standard error stands
    for; of another metric, 1.96 errors to each side, within its range.

    >>> from geomkit.metrics import GapResult
    >>> share = "text_retrieval_recall@1"
    >>> result = GapResult({share: 0.5}, n=100, dim=3, stderr={share: 0.05})
    >>> [round(end, 3) for end in interval(result, share)]
    [0.404, 0.596]
    """
    value, error = result.metrics.get(metric, math.nan), result.stderr.get(metric, math.nan)
    low, high = value_range(metric)
    if not math.isfinite(value + error):
        return math.nan, math.nan
    if "recall@" not in metric:
        return max(low, value - 1.96 * error), min(high, value + 1.96 * error)
    asked = result.meta.get("queries", result.n) if metric in result.estimated else result.n
    inside = 0 < value < 1 and error > 0
    count = min(value * (1 - value) / error**2, asked) if inside else asked
    z = 1.96**2 / count
    centre = (value + z / 2) / (1 + z)
    half = math.sqrt(z * value * (1 - value) + z**2 / 4) / (1 + z)
    return max(0.0, centre - half), min(1.0, centre + half)


def gap_figure(results: Mapping[str, GapResult], metrics: Sequence[str]) -> Figure:
    """Return a figure of :func:`gap_panels`, with words for what is undefined.

    Arguments and errors are those of :func:`gap_panels`.
    """
    from matplotlib.ticker import MaxNLocator

    panels = gap_panels(results, metrics)
    figure = small_multiples(
        panels,
        columns=1 if len(panels) < 3 else 2,
        height=0.6 + 0.2 * len(results),
        sharey=True,
    )
    with style():
        for axes, metric in zip(figure.axes, metrics, strict=True):
            axes.margins(x=0.12)
            axes.xaxis.set_major_locator(MaxNLocator(3))
            for at, result in enumerate(results.values()):
                if not math.isfinite(result.metrics.get(metric, math.nan)):
                    axes.text(0.5, at, "undefined", fontsize=7, va="center", ha="center",
                              transform=axes.get_yaxis_transform(), color="#777777")  # fmt: skip
        if any(one.colour == _NULL for panel in panels for one in panel.series):
            figure.supxlabel(_KEY, fontsize=7, color=INK)
    return figure
