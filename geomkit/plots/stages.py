"""Stages of training: a row of spheres per run, above what was measured during training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from geomkit.errors import GeomkitError
from geomkit.plots.multiples import Panel, draw_panel, legend_below
from geomkit.plots.planes import modality_handles
from geomkit.plots.spheres import Stage, camera_for, choose_stages, draw_sphere
from geomkit.plots.style import figure, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["epoch_axis", "stages_figure"]

STAGES = 6
"""Spheres in a row."""
_LINEAR = 2.0
"""Epochs up to which their axis is linear."""
TICKS = (0, 2, 10, 50, 200, 1000, 4000)


def stages_figure(
    runs: Mapping[str, Sequence[Stage]], panels: Sequence[Panel], *, published: str = "paper"
) -> Figure:
    """Return a figure with a row of spheres per run, and panels over the epochs below.

    Args:
        runs: Every snapshot of each run, in order, by the run's name. Those drawn divide the path
            of training into stretches of equal length.
        panels: Panels over the epochs, left to right.
        published: Legend entry of what is from the paper.

    Raises:
        GeomkitError: If there is no run or no panel.
    """
    if not runs or not panels:
        raise GeomkitError("nothing to draw: expected at least one run and one panel")
    tall, low = 1.42 * len(runs), 1.95
    made = figure(columns=2, height=tall + low)
    with style():
        upper, lower = made.subfigures(2, 1, height_ratios=[tall, low], squeeze=False)[:, 0]
        spheres = upper.subplots(len(runs), STAGES, squeeze=False)
        for line, (name, snapshots) in zip(spheres, runs.items(), strict=True):
            _spheres(line, name, snapshots)
        upper.legend(handles=modality_handles(), loc="outside lower center", ncols=2, fontsize=7.5)
        series = [one for panel in panels for one in panel.series]
        last = max(float(np.max(one.x)) for one in series if len(one.x))
        (places,) = lower.subplots(1, len(panels), squeeze=False)
        for axes, panel in zip(places, panels, strict=True):
            draw_panel(axes, panel)
            epoch_axis(axes, last)
        legend_below(lower, series, published=published)
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


def epoch_axis(axes: Axes, last: float) -> None:
    """Make early epochs wide and late ones narrow, since the shapes change early."""
    from matplotlib.ticker import FixedLocator, NullLocator

    if last > _LINEAR and axes.get_xlabel():
        axes.set_xlabel(f"{axes.get_xlabel()} (logarithmic from {_LINEAR:g})")
    axes.set_xscale("symlog", linthresh=_LINEAR)
    axes.set_xlim(0, max(last, 1.0) * 1.12)
    axes.xaxis.set_major_locator(FixedLocator([t for t in TICKS if t <= 1.1 * max(last, 1.0)]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter("{x:g}")
