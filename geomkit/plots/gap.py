"""The gap in figures: metrics against the dimension, or of several sources side by side.

Nothing here computes: values come with the bounds of their intervals, and are drawn as they are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from geomkit.errors import GeomkitError
from geomkit.plots.labels import axis_label
from geomkit.plots.style import INK, panels, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Line", "Measured", "Panel", "Point", "against", "side_by_side"]


@dataclass(frozen=True)
class Point:
    """A value with its interval.

    Attributes:
        x: where it stands.
        value: the estimate.
        low, high: bounds of its interval; NaN where there is none.
        each: what it is the mean of, such as one value a seed.
    """

    x: float
    value: float
    low: float = math.nan
    high: float = math.nan
    each: tuple[float, ...] = ()


@dataclass(frozen=True)
class Line:
    """Points of one series.

    Attributes:
        name: in the legend; lines of one name are one entry.
        points: left to right.
        colour, marker: of the series, the same in every panel.
        theirs: another's numbers: hollow, dashed and behind our own.
    """

    name: str
    points: Sequence[Point]
    colour: str
    marker: str
    theirs: bool = False


@dataclass(frozen=True)
class Panel:
    """One of the small multiples.

    Attributes:
        title: what it shows.
        lines: in it.
        label: of the vertical axis: units or range.
        reference: a level that means something (chance, an ideal), or ``None``.
    """

    title: str
    lines: Sequence[Line]
    label: str = ""
    reference: float | None = None


def against(
    shown: Sequence[Panel],
    *,
    x: str = "Embedding dimension",
    across: int = 4,
    ours: str = "ours",
    theirs: str = "paper",
) -> Figure:
    """Small multiples: every panel a metric, against dimensions on a logarithmic axis.

    Means are drawn with their intervals and, small and faint, the values behind them.

    Args:
        shown: panels, row by row.
        x: label of the horizontal axes.
        across: panels in a row.
        ours, theirs: what filled and hollow markers mean; said only where both are there.

    Raises:
        GeomkitError: if there is nothing to draw.
    """
    lines = [line for one in shown for line in one.lines]
    if not any(line.points for line in lines):
        raise GeomkitError("nothing to draw: expected at least one finite value")
    across = min(across, len(shown))
    rows = -(-len(shown) // across)
    columns = 1 if across < 3 else 2
    figure, axes = panels(rows, across, columns=columns, height=1.65 * rows + 0.45)
    ticks = sorted({point.x for line in lines for point in line.points})
    with style():
        for k, (place, one) in enumerate(zip(axes.flat, shown, strict=False)):
            _draw(place, one, ticks)
            if k + across >= len(shown):
                place.set_xlabel(x, fontsize=8, labelpad=2)
        for place in axes.flat[len(shown) :]:
            place.remove()
        handles = _legend(lines, ours, theirs)
        figure.legend(
            handles=handles,
            loc="outside lower center",
            ncols=len(handles) if columns == 2 else 3,
            fontsize=7.5,
            handlelength=2.2,
            columnspacing=1.4,
        )
    return figure


def _draw(axes: Axes, one: Panel, ticks: Sequence[float]) -> None:
    from matplotlib.ticker import FixedLocator, NullLocator

    axes.set_title(one.title, fontsize=8, pad=4)
    axes.set_ylabel(one.label, fontsize=7, labelpad=1)
    if one.reference is not None:
        axes.axhline(one.reference, color="#999999", linewidth=0.7, linestyle=":", zorder=0)
    names = list(dict.fromkeys(line.name for line in one.lines))
    for line in one.lines:
        points = [point for point in line.points if math.isfinite(point.value)]
        if not points:
            continue
        # Aside of each other, or intervals at one dimension hide each other.
        shift = 2.0 ** (0.09 * (names.index(line.name) - (len(names) - 1) / 2))
        shift *= 2.0**0.035 if line.theirs else 1.0
        at = np.array([point.x for point in points]) * shift
        value = np.array([point.value for point in points])
        spread = np.array([[p.value - p.low, p.high - p.value] for p in points]).T
        axes.errorbar(
            at,
            value,
            yerr=np.maximum(np.nan_to_num(spread), 0.0),
            color=line.colour,
            marker=line.marker,
            markersize=3.6,
            markerfacecolor="white" if line.theirs else line.colour,
            markeredgewidth=0.8,
            linewidth=0.8 if line.theirs else 1.2,
            linestyle="--" if line.theirs else "-",
            elinewidth=0.8,
            capsize=1.6,
            capthick=0.8,
            alpha=0.55 if line.theirs else 1.0,
            zorder=2 if line.theirs else 3,
        )
        each = [(x, v) for x, p in zip(at, points, strict=True) for v in p.each]
        if each and len(each) > len(points):
            across, up = np.array(each).T
            axes.scatter(across, up, s=3, color=line.colour, alpha=0.45, linewidths=0, zorder=2.5)
    if len(ticks) > 1 and min(ticks) > 0:
        axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(list(ticks)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels([f"{tick:g}" for tick in ticks])
    if len(ticks) > 1:
        axes.set_xlim(ticks[0] / 1.25, ticks[-1] * 1.25)


def _legend(lines: Sequence[Line], ours: str, theirs: str) -> list:
    from matplotlib.lines import Line2D

    seen = {line.name: line for line in reversed(lines)}
    names = dict.fromkeys(line.name for line in lines)
    handles = [
        Line2D([], [], color=line.colour, marker=line.marker, markersize=3.6, label=line.name)
        for line in (seen[name] for name in names)
    ]
    if any(line.theirs for line in lines) and not all(line.theirs for line in lines):
        look: dict[str, Any] = {"color": "#999999", "marker": "o", "markersize": 3.6}
        handles.append(Line2D([], [], label=ours, **look))
        look |= {"markerfacecolor": "white", "linestyle": "--", "linewidth": 0.8}
        handles.append(Line2D([], [], label=theirs, **look))
    return handles


@dataclass(frozen=True)
class Measured:
    """Numbers of one source, as :func:`geomkit.metrics.gap` found them.

    Attributes:
        name: of the source.
        values: by metric.
        stderr: standard errors, of those that have one.
        null: the value without a gap or without pairing, of those that have one.
        colour, marker: of its dots.
    """

    name: str
    values: Mapping[str, float]
    stderr: Mapping[str, float] = field(default_factory=dict)
    null: Mapping[str, float] = field(default_factory=dict)
    colour: str = INK
    marker: str = "o"


def side_by_side(sources: Sequence[Measured], metrics: Sequence[str]) -> Figure:
    """Metrics of several sources: a panel a metric, a dot a source, its 95% interval, its null.

    Args:
        sources: top to bottom.
        metrics: names, a panel each.

    Raises:
        GeomkitError: if there is no source or metric.
    """
    if not sources or not metrics:
        raise GeomkitError("nothing to draw: expected at least one source and one metric")
    across = min(4, len(metrics))
    rows = -(-len(metrics) // across)
    height = rows * (0.6 + 0.2 * len(sources)) + 0.35
    figure, axes = panels(
        rows, across, columns=1 if across < 3 else 2, height=height, sharey=True
    )  # one scale of names
    places = np.arange(len(sources))[::-1]
    with style():
        for place, metric in zip(axes.flat, metrics, strict=False):
            place.set_title(axis_label(metric), fontsize=8, pad=4)
            place.grid(axis="x", color="#dddddd", linewidth=0.5)
            place.set_axisbelow(True)
            for at, source in zip(places, sources, strict=True):
                value = source.values.get(metric, math.nan)
                if not math.isfinite(value):
                    place.text(0.5, at, "undefined", fontsize=7, va="center", ha="center",
                               transform=place.get_yaxis_transform(), color="#777777")  # fmt: skip
                    continue
                null = source.null.get(metric)
                if null is not None:
                    place.plot([null], [at], marker="|", markersize=8, color="#888888", zorder=2)
                error = source.stderr.get(metric, 0.0)
                place.errorbar([value], [at], xerr=[1.96 * error], color=source.colour,
                               marker=source.marker, markersize=4.2, capsize=1.8, elinewidth=0.9,
                               linestyle="none", zorder=3)  # fmt: skip
            place.set_yticks(places, [source.name for source in sources], fontsize=7.5)
            place.set_ylim(-0.6, len(sources) - 0.4)
            place.margins(x=0.12)
        for place in axes.flat[len(metrics) :]:
            place.remove()
        if any(metric in source.null for source in sources for metric in metrics):
            figure.supxlabel(
                "dots: value with 95% interval over pairs; grey bar: with no gap, or no pairing",
                fontsize=7,
                color=INK,
            )
    return figure
