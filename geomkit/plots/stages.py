"""Stages of training: a row of spheres a run, over what was measured all along."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from geomkit.errors import GeomkitError
from geomkit.plots.spectrum import modality_handles
from geomkit.plots.sphere import Stage, camera_for, choose_stages, draw_sphere
from geomkit.plots.style import INK, figure, panel, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Course", "TimePanel", "epoch_axis", "stages_figure"]

TICKS = (0, 2, 10, 50, 200, 1000, 4000)


@dataclass(frozen=True)
class Course:
    """A number over the epochs.

    Attributes:
        name: in the legend; courses of one name are one entry.
        epochs, values: of each snapshot.
        half: half the width of each interval, or nothing.
        colour, dashes: of the line.
        marks: another's numbers, as (epoch, value): hollow.
        marker: of those.
    """

    name: str
    epochs: Sequence[float]
    values: Sequence[float]
    half: Sequence[float] = ()
    colour: str = INK
    dashes: Any = "-"
    marks: Sequence[tuple[float, float]] = ()
    marker: str = "o"


@dataclass(frozen=True)
class TimePanel:
    """Courses in one pair of axes.

    Attributes:
        title: above.
        courses: in it.
        bottom, top: of the vertical axis, ``None`` for as the data have it.
        reference: a level that means something, and what; or ``None``.
    """

    title: str
    courses: Sequence[Course]
    bottom: float | None = None
    top: float | None = None
    reference: tuple[float, str] | None = None


def stages_figure(
    runs: Mapping[str, Sequence[Stage]],
    panels: Sequence[TimePanel],
    *,
    stages: int = 6,
    theirs: str = "paper",
) -> Figure:
    """A row of spheres a run, from its start to its end, and panels over the epochs below.

    Args:
        runs: every snapshot of each run, in order, by the run's name; those drawn cut the path of
            training into stretches of equal length.
        panels: left to right.
        stages: spheres a row.
        theirs: what hollow marks are.

    Raises:
        GeomkitError: if there is no run or no panel.
    """
    if not runs or not panels:
        raise GeomkitError("nothing to draw: expected at least one run and one panel")
    tall, low = 1.42 * len(runs), 1.95
    made = figure(columns=2, height=tall + low)
    with style():
        upper, lower = made.subfigures(2, 1, height_ratios=[tall, low], squeeze=False)[:, 0]
        spheres = upper.subplots(len(runs), stages, squeeze=False)
        for line, (name, snapshots) in zip(spheres, runs.items(), strict=True):
            _spheres(line, name, snapshots)
        upper.legend(handles=modality_handles(), loc="outside lower center", ncols=2, fontsize=7.5)
        last = max(float(np.max(c.epochs)) for one in panels for c in one.courses)
        last = max([last, *[x for one in panels for c in one.courses for x, _ in c.marks]])
        for axes, one in zip(lower.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            _over_time(axes, one)
            epoch_axis(axes, last)
        handles = _handles([c for one in panels for c in one.courses], theirs)
        lower.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=7.5,
                     handlelength=2.0, columnspacing=1.2)  # fmt: skip
    return made


def _spheres(line: Sequence[Axes], name: str, snapshots: Sequence[Stage]) -> None:
    chosen = choose_stages([np.stack([s.image, s.text]) for s in snapshots], len(line))
    shown = [snapshots[k] for k in chosen]
    camera = camera_for(shown)
    for axes in line:
        axes.set_axis_off()
    for axes, stage in zip(line, shown, strict=False):
        draw_sphere(axes, stage, camera, scale=0.35, fontsize=7)
    line[0].text(-0.04, 0.5, name, transform=line[0].transAxes, fontsize=8, rotation=90,
                 va="center", ha="right")  # fmt: skip


def _over_time(axes: Axes, one: TimePanel) -> None:
    panel(axes, title=one.title, x="Epoch", grid="y")
    for course in one.courses:
        look: dict[str, Any] = {"color": course.colour, "linewidth": 1.1}
        axes.plot(course.epochs, course.values, linestyle=course.dashes, **look)
        if len(course.half):
            low, high = (np.array(course.values) + s * np.array(course.half) for s in (-1, 1))
            axes.fill_between(course.epochs, low, high, color=course.colour, alpha=0.2, linewidth=0)
        if course.marks:
            x, y = zip(*course.marks, strict=True)
            axes.plot(x, y, marker=course.marker, color=course.colour, markersize=3.6,
                      markerfacecolor="white", ls="none", zorder=4, clip_on=False)  # fmt: skip
    axes.set_ylim(bottom=one.bottom, top=one.top)
    if one.reference is not None:
        level, what = one.reference
        axes.axhline(level, color="#999999", linewidth=0.8, linestyle=":")
        axes.annotate(what, (0.03, level), xycoords=("axes fraction", "data"), xytext=(0, 2),
                      textcoords="offset points", fontsize=7, color="#777777")  # fmt: skip


def epoch_axis(axes: Axes, last: float) -> None:
    """Early epochs wide, late ones narrow: the shapes change early."""
    from matplotlib.ticker import FixedLocator, NullLocator

    axes.set_xscale("symlog", linthresh=2.0)
    axes.set_xlim(0, max(last, 1.0) * 1.12)
    axes.xaxis.set_major_locator(FixedLocator([t for t in TICKS if t <= 1.1 * max(last, 1.0)]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter("{x:g}")


def _handles(courses: Sequence[Course], theirs: str) -> list:
    from matplotlib.lines import Line2D

    seen = {course.name: course for course in reversed(courses)}
    handles = [
        Line2D([], [], color=seen[name].colour, linestyle=seen[name].dashes, label=name)
        for name in dict.fromkeys(course.name for course in courses)
    ]
    if any(course.marks for course in courses):
        handles.append(
            Line2D([], [], marker="o", markerfacecolor="white", markersize=3.6, linestyle="none",
                   color="#666666", label=theirs)
        )  # fmt: skip
    return handles
