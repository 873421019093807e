"""Figures of the ablation: the gap against retrieval, weights, and each preset's effects."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from geomkit.plots.multiples import Panel, Series, small_multiples
from geomkit.plots.style import INK, loss_colour, loss_marker
from geomkit.reproduce.framework.claims import difference
from geomkit.reproduce.framework.figures import by_loss, series_of
from geomkit.reproduce.framework.results import Rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["effects", "fronts", "pareto"]

GAP, RETRIEVAL = "centroid_distance", "retrieval_recall@1"
EFFECTS = {
    GAP: "Centroid distance",
    "linear_separability": "Separability",
    "uniformity": "Uniformity",
    "alignment": "Alignment",
    RETRIEVAL: "Recall@1",
}


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the points that no other one beats: less of the first, more of the second.

    >>> pareto([(0.7, 0.2), (0.1, 0.1), (0.3, 0.3), (0.4, 0.25)])
    [1, 2]
    """
    front, best = [], -math.inf
    for k in sorted(range(len(points)), key=lambda k: (points[k][0], -points[k][1])):
        if points[k][1] > best:
            front.append(k)
            best = points[k][1]
    return front


def fronts(rows: Rows) -> Figure:
    """Return the gap against retrieval with the Pareto front, and both against the weight."""
    presets = rows.where(condition="")
    gaps = {series.name: series for series in by_loss(presets, GAP)}
    recalls = by_loss(presets, RETRIEVAL, line="", size=5.0)
    points = [(gaps[series.name].value[0], series.value[0]) for series in recalls]
    front = [points[k] for k in pareto(points)]
    found = [replace(series, x=gaps[series.name].value) for series in recalls]
    weighted = rows.where(lambda row: "weight" in row.conditions)

    def by_weight(metric: str, label: str) -> Panel:
        line = series_of(weighted.where(metric=metric), "weight", marker="o", size=4.0)
        return Panel([line], x="Weight of U and A", y=label, log=True, grid="y")

    figure = small_multiples(
        [
            Panel([Series.through(front, "Pareto front", colour="#b0b0b0", width=1.0), *found],
                  x="Centroid distance (0: no gap)", y="Recall@1, both ways (0 to 1)", grid="both"),
            by_weight(GAP, "Centroid distance"),
            by_weight(RETRIEVAL, "Recall@1, both ways"),
        ],
        height=2.05,
        width_ratios=(1.5, 1, 1),
    )  # fmt: skip
    for series in recalls:
        gap = gaps[series.name]
        figure.axes[0].hlines(series.value, gap.low, gap.high, colors=gap.colour, linewidth=0.8)
    return figure


def effects(rows: Rows) -> Figure:
    """Return each preset's difference from clip, with intervals over seeds: a panel per metric."""
    presets = rows.where(condition="")
    names = [loss for loss in presets.values("loss") if loss != "clip"]

    def panel(metric: str, title: str) -> Panel:
        series = []
        for at, name in enumerate(names):
            try:
                found = difference(presets, {"loss": name}, {"loss": "clip"}, metric=metric)
            except ValueError:  # no seed with both
                continue
            series.append(
                Series("", [at], [found.value], [found.low], [found.high], line="", size=4.5,
                       colour=loss_colour(name), marker=loss_marker(name))
            )  # fmt: skip
        return Panel(series, title, categories=names, horizontal=True, grid="x")

    panels = [
        panel(metric, title) for metric, title in EFFECTS.items() if rows.where(metric=metric)
    ]
    figure = small_multiples(
        panels, across=len(panels), columns=2, height=0.3 + 0.24 * len(names), sharey=True
    )
    for axes in figure.axes:
        axes.axvline(0.0, color=INK, linewidth=0.7, zorder=1)
        axes.locator_params(axis="x", nbins=4)
    figure.supxlabel("Difference from clip, 95% interval", fontsize=8, color=INK)
    return figure
