"""Numbers over training: a grid of panels, a column an experiment, a row a metric."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from geomkit.errors import GeomkitError
from geomkit.plots.labels import axis_label
from geomkit.plots.style import INK, panels, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Curve", "Grid", "Mark", "over_steps"]

_LIMITS = {"linear_separability": (0.47, 1.02)}
_LABELS = {"contrastive_loss": "Contrastive loss"}


@dataclass(frozen=True)
class Curve:
    """A number over training.

    Attributes:
        label: in the legend; curves of one label are one entry.
        colour: of the line.
        steps: ``(k,)``.
        values: ``(s, k)``, a row a seed.
        low, high: ``(k,)``, bounds of the interval of their mean, or ``None``.
        faint: drawn thin and dashed: held-out pairs beside training pairs.
        dashed: drawn dashed: what is changed beside what is usual.
    """

    label: str
    colour: str
    steps: np.ndarray
    values: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    faint: bool = False
    dashed: bool = False

    @property
    def look(self) -> dict[str, Any]:
        """Arguments of matplotlib's lines."""
        look: dict[str, Any] = {"color": self.colour, "linewidth": 0.9 if self.faint else 1.4}
        if self.faint or self.dashed:
            look["linestyle"] = (0, (2.5, 1.5)) if self.faint else (0, (4.0, 1.2))
        return look


@dataclass(frozen=True)
class Mark:
    """A published number, at a step."""

    step: int
    value: float


@dataclass
class Grid:
    """What :func:`over_steps` draws.

    Attributes:
        titles: of the columns.
        curves: by column and metric.
        marks: published numbers, likewise.
        notes: by column, what stands in its place where there is nothing to draw.
    """

    titles: Sequence[str]
    curves: dict[tuple[int, str], list[Curve]] = field(default_factory=dict)
    marks: dict[tuple[int, str], list[Mark]] = field(default_factory=dict)
    notes: dict[int, str] = field(default_factory=dict)

    def add(self, column: int, metric: str, curve: Curve) -> None:
        """One more curve in a panel."""
        self.curves.setdefault((column, metric), []).append(curve)

    def mark(self, column: int, metric: str, mark: Mark) -> None:
        """One more published number in a panel."""
        self.marks.setdefault((column, metric), []).append(mark)


def over_steps(
    grid: Grid, metrics: Sequence[str], *, row_height: float = 1.3, by_column: bool = False
) -> Figure:
    """Draw a grid: means over seeds, the intervals of those that are not faint as bands.

    Args:
        grid: what.
        metrics: a row each, on one scale.
        row_height: inches.
        by_column: a legend under each column rather than one for all.

    Raises:
        GeomkitError: if there is no curve.
    """
    if not grid.curves:
        raise GeomkitError("nothing to draw: expected at least one run")
    across = len(grid.titles)
    made, axes = panels(
        len(metrics),
        across,
        height=row_height * len(metrics) + (1.0 if by_column else 0.55),
        sharex="col",
        sharey="row",
    )
    with style():
        for line, metric in enumerate(metrics):
            for column in range(across):
                _panel(axes[line, column], grid, column, metric)
            axes[line, 0].set_ylabel(_LABELS.get(metric, axis_label(metric)), fontsize=8)
            if metric in _LIMITS:
                axes[line, 0].set_ylim(*_LIMITS[metric])
            else:
                axes[line, 0].set_ylim(bottom=0.0)
        made.align_ylabels(axes[:, 0])
        for column, title in enumerate(grid.titles):
            axes[0, column].set_title(title, fontsize=8, pad=5)
            axes[-1, column].set_xlabel("Steps", fontsize=8, labelpad=2)
            if not any(key[0] == column for key in grid.curves):
                for place in axes[:, column]:
                    place.set_axis_off()
                _note(axes[0, column], grid.notes.get(column, "not measured"))
        if by_column:
            for column in range(across):
                handles = _legend(grid, column)
                if handles:
                    axes[-1, column].legend(
                        handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.32),
                        fontsize=7, handlelength=2.0, labelspacing=0.25, borderpad=0.0,
                    )  # fmt: skip
        else:
            handles = _legend(grid)
            made.legend(
                handles=handles, loc="outside lower center", ncols=min(4, len(handles)),
                fontsize=7.5, handlelength=2.2, columnspacing=1.4,
            )  # fmt: skip
        # The layout of one drawing decides the ticks that the next one makes room for.
        made.draw_without_rendering()
    return made


def _panel(axes: Axes, grid: Grid, column: int, metric: str) -> None:
    if metric == "linear_separability":
        axes.axhline(0.5, color="#999999", linewidth=0.7, linestyle=":", zorder=0)
    for curve in grid.curves.get((column, metric), []):
        if curve.low is not None and curve.high is not None and not curve.faint:
            axes.fill_between(
                curve.steps, curve.low, curve.high, color=curve.colour, alpha=0.18, linewidth=0
            )
        axes.plot(curve.steps, curve.values.mean(axis=0), **curve.look)
    for mark in grid.marks.get((column, metric), []):
        axes.plot(
            [mark.step], [mark.value], marker="D", markersize=4.5, markerfacecolor="white",
            markeredgecolor=INK, markeredgewidth=0.9, linestyle="none", zorder=5, clip_on=False,
        )  # fmt: skip


def _note(axes: Axes, text: str) -> None:
    from textwrap import fill

    axes.text(0.5, 0.5, fill(text, 26), transform=axes.transAxes, fontsize=7, color="#666666",
              ha="center", va="center")  # fmt: skip


def _legend(grid: Grid, column: int | None = None) -> list:
    from matplotlib.lines import Line2D

    keys = [key for key in grid.curves if column is None or key[0] == column]
    curves = [curve for key in keys for curve in grid.curves[key]]
    looks = {curve.label: curve.look for curve in curves if not curve.faint}
    handles = [Line2D([], [], label=name, **look) for name, look in looks.items()]
    if any(curve.faint for curve in curves):
        look = Curve("", "#777777", np.empty(0), np.empty(0), faint=True).look
        handles.append(Line2D([], [], label="held-out pairs", **look))
    if any(column is None or key[0] == column for key in grid.marks):
        handles.append(
            Line2D([], [], label="paper", linestyle="none", marker="D", markersize=4.5,
                   markerfacecolor="white", markeredgecolor=INK)
        )  # fmt: skip
    return handles
