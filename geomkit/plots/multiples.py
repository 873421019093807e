"""Series, panels and small multiples: what every figure of numbers is made of."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from geomkit.errors import GeomkitError
from geomkit.plots.labels import fitted, text_width
from geomkit.plots.style import COLUMN_WIDTHS, INK, axes_grid, dress, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure
    from matplotlib.lines import Line2D

__all__ = ["DASHED", "DOTTED", "Panel", "Series", "draw_panel", "draw_series", "legend_below",
           "small_multiples"]  # fmt: skip

Numbers = Sequence[float] | np.ndarray
DASHED, DOTTED = (0, (4.0, 1.2)), (0, (2.5, 1.5))


@dataclass(frozen=True, eq=False)
class Series:
    """Numbers along an axis, with the intervals of those that have one.

    Attributes:
        name: Legend entry; series with one name share it. Empty for none.
        x: Positions, shape ``(k,)``; indices of :attr:`Panel.categories` where there are some.
        value: Estimates, shape ``(k,)``. Points that are not finite are left out.
        low, high: Bounds of the intervals, shape ``(k,)``; empty, or NaN, where there is none.
        each: For each point, the values that it is the mean of; drawn as small dots.
        colour, marker: Look, the same in every panel. No marker: a line alone.
        line: matplotlib line style. Empty: points alone.
        width, size: Line width and marker size in pt.
        published: Whether the numbers are the paper's: drawn hollow, and their lines dashed.
    """

    name: str
    x: Numbers
    value: Numbers
    low: Numbers = ()
    high: Numbers = ()
    each: Sequence[Numbers] = ()
    colour: str = INK
    marker: str = ""
    line: Any = "-"
    width: float = 1.2
    size: float = 3.6
    published: bool = False

    @classmethod
    def through(cls, points: Iterable[tuple[float, float]], name: str = "", **look: Any) -> Series:
        """Return a series of points (x, value) without intervals.

        >>> Series.through([(8, 0.25), (42, 0.8)], published=True).value
        (0.25, 0.8)
        """
        x, value = zip(*points, strict=True)
        return cls(name, x, value, **look)

    @property
    def look(self) -> dict[str, Any]:
        """Keywords of matplotlib's lines."""
        hollow = {"markerfacecolor": "white", "linestyle": "--", "linewidth": 0.8, "alpha": 0.55}
        look = {
            "color": self.colour, "marker": self.marker or "none", "markersize": self.size,
            "markeredgewidth": 0.8, "linewidth": self.width,
        } | (hollow if self.published else {"linestyle": self.line})  # fmt: skip
        return look if self.line else look | {"linestyle": "none", "alpha": 1.0}


@dataclass(frozen=True)
class Panel:
    """One of the small multiples.

    Attributes:
        series: Series to draw.
        title, x, y: Title and axis labels.
        categories: Names of positions 0, 1, …; empty for an axis of numbers.
        horizontal: Whether values run along the horizontal axis and positions down the vertical.
        log: Whether the positions are on a logarithmic axis, with a tick each.
        bands: Whether intervals are bands rather than bars.
        dodge: Whether series stand beside each other, so that their intervals stay apart.
        spread: Half the width over which the dots of :attr:`Series.each` are spread.
        limits: Ends of the value axis, ``None`` for those of the data.
        references: Levels with a meaning, such as chance, and what to write beside each.
        grid: Faint lines to read values by: ``x``, ``y`` or ``both``.
        note: Text that stands in for a panel without numbers.
    """

    series: Sequence[Series] = ()
    title: str = ""
    x: str = ""
    y: str = ""
    categories: Sequence[str] = ()
    horizontal: bool = False
    log: bool = False
    bands: bool = False
    dodge: bool = False
    spread: float = 0.0
    limits: tuple[float | None, float | None] = (None, None)
    references: Mapping[float, str] = field(default_factory=dict)
    grid: str = ""
    note: str = ""


def small_multiples(
    panels: Sequence[Panel],
    *,
    across: int = 4,
    columns: int | None = None,
    height: float = 1.65,
    published: str = "paper",
    legend: Literal["figure", "column"] = "figure",
    **subplots: Any,
) -> Figure:
    """Return a figure of panels in rows, with one legend for all of them.

    A title, or an axis label, that the panel above, below or to the left has too is drawn once.

    Args:
        panels: Panels, row by row.
        across: Panels in a row.
        columns: Columns of a paper that the figure spans, 1 or 2. Default: 2 from three panels in a
            row.
        height: Height of a row in inches.
        published: Legend entry of what is from the paper.
        legend: One legend below the ``figure``, or one below each ``column``.
        **subplots: Further arguments of ``Figure.subplots``, such as ``sharey="row"``.

    Raises:
        GeomkitError: If no panel has a finite value.

    >>> line = Series("clip", [32, 64], [0.10, 0.31], low=[0.05, 0.2], high=[0.15, 0.4])
    >>> figure = small_multiples([Panel([line], "Centroid distance", log=True)])
    >>> figure.axes[0].get_title()
    'Centroid distance'
    """
    series = [one for panel in panels for one in panel.series]
    if not any(math.isfinite(value) for one in series for value in one.value):
        raise GeomkitError("nothing to draw: expected at least one finite value")
    across = min(across, len(panels))
    rows = -(-len(panels) // across)
    columns = columns or (1 if across < 3 else 2)
    titles = fitted([panel.title for panel in panels], 0.82 * COLUMN_WIDTHS[columns] / across, 8)
    panels = [replace(panel, title=title) for panel, title in zip(panels, titles, strict=True)]
    figure, axes = axes_grid(
        len(panels), across, columns=columns, height=height * rows + 0.45, **subplots
    )
    with style():
        for k, (place, panel) in enumerate(zip(axes, panels, strict=True)):
            _draw(place, _once(panel, panels, k, across))
        for place, panel in zip(axes, panels, strict=True):  # shared axes need all the data first
            _limit(place, panel)
        if rows > 1:
            figure.align_ylabels(axes[::across])
        if legend == "figure":
            legend_below(figure, series, published=published)
        else:
            for column in range(across):
                handles = _handles([s for p in panels[column::across] for s in p.series], published)
                if handles:
                    axes[across * (rows - 1) + column].legend(
                        handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.32),
                        fontsize=7, handlelength=2.0, labelspacing=0.25, borderpad=0.0,
                    )  # fmt: skip
        # The layout of one drawing decides the ticks that the next one makes room for.
        figure.draw_without_rendering()
    return figure


def _once(panel: Panel, panels: Sequence[Panel], k: int, across: int) -> Panel:
    """The panel without the words that a neighbour says."""
    if k >= across and panels[k - across].title == panel.title:
        panel = replace(panel, title="")
    if k % across and panels[k - 1].y == panel.y:
        panel = replace(panel, y="")
    if k + across < len(panels) and panels[k + across].x == panel.x:
        panel = replace(panel, x="")
    return panel


def draw_panel(axes: Axes, panel: Panel) -> None:
    """Draw a panel in axes of its own."""
    _draw(axes, panel)
    _limit(axes, panel)


def _limit(axes: Axes, panel: Panel) -> None:
    if panel.series and panel.limits != (None, None):
        (axes.set_xlim if panel.horizontal else axes.set_ylim)(*panel.limits)


def _draw(axes: Axes, panel: Panel) -> None:
    dress(axes, title=panel.title, x=panel.x, y=panel.y, grid=panel.grid)
    if not panel.series:
        from textwrap import fill

        axes.set_axis_off()
        axes.text(0.5, 0.5, fill(panel.note, 26), transform=axes.transAxes, fontsize=7,
                  color="#666666", ha="center", va="center")  # fmt: skip
        return
    marked = [series for series in panel.series if series.marker]
    names = list(dict.fromkeys(series.name for series in marked))
    mixed = len({series.published for series in marked}) > 1
    for series in panel.series:
        offset = 0.0
        if panel.dodge and series.marker:
            place = names.index(series.name) - (len(names) - 1) / 2
            place += 0.4 * (mixed and series.published)
            offset = place * (0.09 if panel.log else 0.7 / len(names))
        draw_series(axes, series, panel, offset)
    _set_positions(axes, panel)
    level = axes.axvline if panel.horizontal else axes.axhline
    for at, words in panel.references.items():
        level(at, color="#999999", linewidth=0.7, linestyle=":", zorder=0)
        if words:
            # Curves with bands rise to the right, and leave that end free; among categories the
            # first is the one that others are compared with, and lies nearest.
            right = panel.bands or panel.categories
            end, side = (0.98, "right") if right else (0.03, "left")
            axes.annotate(words, (end, at), xycoords=("axes fraction", "data"), xytext=(0, -8 if
                          panel.bands else 2), textcoords="offset points", fontsize=7,
                          color="#777777", ha=side)  # fmt: skip


def draw_series(axes: Axes, series: Series, panel: Panel, offset: float = 0.0) -> None:
    """Draw a series in axes: its line and markers, intervals, and the values behind its means.

    Args:
        axes: Axes to draw in.
        series: Series to draw.
        panel: Panel whose axes and intervals it has.
        offset: Shift along the positions; of a logarithmic axis in powers of 2.
    """
    value = np.asarray(series.value, float)
    keep = np.isfinite(value)
    x, value = np.asarray(series.x, float)[keep], value[keep]
    at = x * 2.0**offset if panel.log else x + offset
    low, high = (
        np.asarray(ends, float)[keep] if len(ends) else np.full(len(value), np.nan)
        for ends in (series.low, series.high)
    )
    points = not series.line
    look: dict[str, Any] = series.look | {"zorder": 2 if series.published and not points else 3}
    if points and series.published:
        look |= {"zorder": 4, "clip_on": False}
    places = (value, at) if panel.horizontal else (at, value)
    if panel.bands or not np.isfinite(low + high).any():
        (line,) = axes.plot(*places, **look)
        if panel.bands:
            axes.fill_between(at, low, high, color=series.colour, alpha=0.18, linewidth=0)
    else:
        error = np.maximum(np.nan_to_num(np.stack([value - low, high - value])), 0.0)
        bars: dict[str, Any] = {"xerr" if panel.horizontal else "yerr": error}
        bars |= {"elinewidth": 0.8, "capsize": 1.6, "capthick": 0.8}
        line = axes.errorbar(places[0], places[1], **bars, **look).lines[0]
    line.set_label(series.name or "_")
    each = [values for values, kept in zip(series.each, keep, strict=False) if kept]
    if not panel.bands and any(len(values) > 1 for values in each):
        spread = [np.linspace(-panel.spread, panel.spread, len(values)) for values in each]
        across = np.concatenate([one + place for one, place in zip(spread, at, strict=True)])
        axes.scatter(across, np.concatenate(each), s=7 if panel.spread else 3, color=series.colour,
                     alpha=0.45, linewidths=0, zorder=2.5)  # fmt: skip


def _set_positions(axes: Axes, panel: Panel) -> None:
    """Ticks and limits of the axis of positions: names, or a tick for each number on a log axis."""
    count = len(panel.categories)
    if count and panel.horizontal:
        axes.set_yticks(range(count), panel.categories)
        axes.set_ylim(count - 0.4, -0.6)
    elif count:
        axes.set_xticks(range(count), panel.categories)
        axes.set_xlim(-0.6, count - 0.4)
        longest = max(len(line) for name in panel.categories for line in name.splitlines())
        inches = axes.get_position().width * axes.figure.get_figure(root=True).get_figwidth()
        if count * (longest + 1) * 0.045 > inches:  # the width of a letter of 7 pt
            slant(axes)
    elif panel.log:
        ticks = sorted({float(x) for series in panel.series for x in series.x})
        if len(ticks) > 1 and ticks[0] > 0:
            axes.set_xscale("log", base=2)
            axes.set_xlim(ticks[0] / 1.25, ticks[-1] * 1.25)
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()


def slant(axes: Axes, degrees: float = 25.0) -> None:
    """Turn long names below an axis, with their ends at their ticks."""
    for label in axes.get_xticklabels():
        label.set(rotation=degrees, ha="right", rotation_mode="anchor")


def legend_below(
    figure: Figure | SubFigure, series: Sequence[Series], *, published: str = "paper"
) -> None:
    """Add a legend below a figure or subfigure: an entry for each name.

    Args:
        figure: Figure or subfigure.
        series: Series of all its panels.
        published: Entry of the series that are from the paper, where there are some.
    """
    handles = _handles(series, published)
    if not handles:
        return
    width = figure.bbox.width / figure.get_figure(root=True).dpi
    names = fitted([str(handle.get_label()) for handle in handles], width - 0.6, 7.5)
    for handle, name in zip(handles, names, strict=True):
        handle.set_label(name)

    def fits(rows: int) -> bool:
        # matplotlib fills a legend column by column.
        wide = [text_width(name, 7.5) + 0.5 for name in names]
        columns = np.array_split(wide, -(-len(names) // rows))
        return sum(column.max() for column in columns) <= width

    rows = next((k for k in range(1, len(names)) if fits(k)), len(names))
    figure.legend(handles=handles, loc="outside lower center", ncols=-(-len(names) // rows),
                  fontsize=7.5, handlelength=2.2, columnspacing=1.4)  # fmt: skip


def _handles(series: Sequence[Series], published: str) -> list[Line2D]:
    from matplotlib.lines import Line2D

    named = {one.name: replace(one, published=False) for one in reversed(series) if one.name}
    order = dict.fromkeys(one.name for one in series if one.name)
    handles = [Line2D([], [], label=name, **named[name].look) for name in order]
    hollow = [one for one in series if one.published]
    if hollow:
        alike = len({one.marker for one in hollow}) == 1
        grey = replace(hollow[0], colour="#777777", marker=hollow[0].marker if alike else "o")
        if grey.line and len(hollow) < len(series):
            handles.append(Line2D([], [], label="geomkit", **replace(grey, published=False).look))
        handles.append(Line2D([], [], label=published, **grey.look | {"alpha": 1.0}))
    return handles
