"""Figures of the ablation: the gap against retrieval, weights, and each preset's effects."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from geomkit.reproduce.experiments.ablation import PRESETS, RETRIEVAL, effect
from geomkit.reproduce.framework.claims import Interval, mean_interval
from geomkit.reproduce.framework.results import Rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["effects", "fronts", "pareto"]

GAP = "centroid_distance"
EFFECTS = {
    GAP: "Centroid distance",
    "linear_separability": "Separability",
    "uniformity": "Uniformity",
    "alignment": "Alignment",
    RETRIEVAL: "Recall@1",
}


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Which points no other one beats: less of the first, more of the second; by the first.

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
    """Gap against retrieval with the Pareto front, and both against the weight."""
    from geomkit.plots.style import INK, loss_colour, loss_marker, panel, panels, style

    figure, axes = panels(1, 3, height=2.5, width_ratios=(1.5, 1, 1))
    left, middle, right = axes[0]
    presets = rows.where(condition="")
    names = [loss for loss in PRESETS if presets.where(loss=loss)]
    found = [
        (_interval(presets, GAP, loss=loss), _interval(presets, RETRIEVAL, loss=loss))
        for loss in names
    ]
    with style():
        front = pareto([(gap.value, recall.value) for gap, recall in found])
        left.plot(
            [found[k][0].value for k in front], [found[k][1].value for k in front],
            color="#b0b0b0", linewidth=1.0, zorder=1, label="Pareto front",
        )  # fmt: skip
        for name, (gap, recall) in zip(names, found, strict=True):
            left.errorbar(
                gap.value, recall.value, xerr=_arms(gap), yerr=_arms(recall), label=name,
                color=loss_colour(name), marker=loss_marker(name), linestyle="none",
                elinewidth=0.6, markersize=5,
            )  # fmt: skip
        panel(
            left, x="Centroid distance (0: no gap)", y="Recall@1, both ways (0 to 1)", grid="both"
        )
        handles, labels = left.get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside lower center", ncols=8, fontsize=7, columnspacing=0.9,
            handletextpad=0.3, handlelength=1.2,
        )  # fmt: skip
        weights = sorted((w for w in rows.values("weight") if w is not None), key=float)
        for one, metric, label in (
            (middle, GAP, "Centroid distance"), (right, RETRIEVAL, "Recall@1, both ways"),
        ):  # fmt: skip
            _weights(one, rows, weights, metric, INK)
            panel(one, x="Weight of U and A", y=label, grid="y")
    return figure


def _weights(axes: Axes, rows: Rows, weights: Sequence[str], metric: str, colour: str) -> None:
    found = [_interval(rows, metric, weight=w) for w in weights]
    arms = [_arms(one) for one in found]
    axes.errorbar(
        [float(w) for w in weights],
        [one.value for one in found],
        yerr=[[a[0][0] for a in arms], [a[1][0] for a in arms]],
        color=colour, marker="o", capsize=2, elinewidth=0.8,
    )  # fmt: skip
    axes.set_xscale("log")
    axes.set_xticks([float(w) for w in weights], list(weights))
    axes.minorticks_off()


def _interval(rows: Rows, metric: str, **more: Any) -> Interval:
    chosen = rows.where(metric=metric, **more)
    try:
        return mean_interval([r.value for r in chosen], [r.stderr for r in chosen])
    except ValueError:  # a number without an error, or none
        value = chosen[0].value if chosen else math.nan
        return Interval(value, value, value, "nothing", 0)


def _arms(interval: Interval) -> list[list[float]]:
    return [[interval.value - interval.low], [interval.high - interval.value]]


def effects(rows: Rows) -> Figure:
    """Each preset's difference from clip, a panel a metric, with intervals over seeds."""
    from geomkit.plots.style import INK, loss_colour, loss_marker, panel, panels, style

    names = [loss for loss in PRESETS if loss != "clip" and rows.where(loss=loss, condition="")]
    metrics = [metric for metric in EFFECTS if rows.where(metric=metric)]
    figure, axes = panels(1, len(metrics), height=0.75 + 0.24 * len(names), sharey=True)
    with style():
        for one, metric in zip(axes[0], metrics, strict=True):
            one.axvline(0.0, color=INK, linewidth=0.7, zorder=1)
            for place, name in enumerate(names):
                try:
                    found = effect(rows, name, "clip", metric)
                except ValueError:
                    continue
                one.errorbar(
                    found.value, place, xerr=_arms(found), color=loss_colour(name),
                    marker=loss_marker(name), capsize=2, elinewidth=1.0, markersize=4.5,
                )  # fmt: skip
            one.set_yticks(range(len(names)), names)
            one.locator_params(axis="x", nbins=4)
            panel(one, title=EFFECTS[metric], grid="x")
        axes[0, 0].set_ylim(len(names) - 0.5, -0.5)
        figure.supxlabel("Difference from clip, 95% interval", fontsize=8)
    return figure
