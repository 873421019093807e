"""Which term does what: every preset, and the weight of what closes the gap against retrieval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from geomkit.losses import PRESETS as LOSSES
from geomkit.losses import parse_loss
from geomkit.plots.multiples import Panel, Series, small_multiples
from geomkit.plots.style import INK, loss_colour, loss_marker
from geomkit.reproduce.framework import claims
from geomkit.reproduce.framework.cells import MARGIN, MATTERS, main_grid
from geomkit.reproduce.framework.claims import Claim, above, below, contrast, equivalent
from geomkit.reproduce.framework.experiment import Cell, Context, Experiment, Options
from geomkit.reproduce.framework.figures import by_loss, series_of
from geomkit.reproduce.framework.measuring import measured
from geomkit.reproduce.framework.results import Rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["EXPERIMENT", "PRESETS", "RETRIEVAL", "WEIGHTS", "pareto", "weighted"]

PRESETS = tuple(
    sorted(LOSSES, key=lambda name: ("clip" not in (terms := parse_loss(name).weights), len(terms)))
)
"""Every preset, by number of terms; last those without ``clip``."""
CLAIMED = ("clip", "cu", "ca", "cua", "cuaxu", "uaxu")
"""Presets that claims are about: those of a quick run."""
WEIGHTS = (0.1, 0.3, 1.0, 3.0, 10.0)
DIM = 128
GAP, RETRIEVAL = "centroid_distance", "retrieval_recall@1"
METRICS = (
    "centroid_distance", "linear_separability", "uniformity", "cross_uniformity", "alignment",
    "text_retrieval_recall@1", "image_retrieval_recall@1",
)  # fmt: skip
EFFECTS = {
    GAP: "Centroid distance", "linear_separability": "Separability", "uniformity": "Uniformity",
    "alignment": "Alignment", RETRIEVAL: "Recall@1",
}  # fmt: skip


def weighted(weight: float) -> str:
    """Loss with this weight on both uniformity and alignment.

    >>> weighted(0.1), weighted(1.0)
    ('clip + 0.1*uniformity + 0.1*alignment', 'cua')
    """
    return "cua" if weight == 1 else f"clip + {weight:g}*uniformity + {weight:g}*alignment"


def _grid(options: Options) -> list[tuple[Cell, str]]:
    """Cells with the condition of their rows: every preset, then the weights, of one seed."""
    losses = [name for name in PRESETS if name in CLAIMED or not options.quick]
    presets = main_grid(options, losses=losses, dims=(DIM,))
    weights = WEIGHTS[::2] if options.quick else WEIGHTS
    losses = [weighted(weight) for weight in weights]
    cells = main_grid(options, losses=losses, dims=(DIM,), seeds=options.used_seeds[:1])
    conditions = [f"weight={weight:g}" for weight in weights]
    return [(cell, "") for cell in presets] + list(zip(cells, conditions, strict=True))


def _measure(context: Context) -> Rows:
    grid = _grid(context.options)
    return Rows(row for cell, condition in grid for row in _of(cell, context, condition))


def _of_cell(cell: Cell, context: Context) -> Rows:
    conditions = [condition for other, condition in _grid(context.options) if other == cell]
    return Rows(row for condition in conditions for row in _of(cell, context, condition))


def _of(cell: Cell, context: Context, condition: str) -> Rows:
    rows = measured("ablation", cell, context, metrics=METRICS, condition=condition)
    ways = rows.where(lambda row: row.metric.endswith("_" + RETRIEVAL))
    value, stderr = ways.mean()
    rows.append(replace(ways[0], metric=RETRIEVAL, value=value, stderr=stderr))
    return rows


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
    varied = rows.where(lambda row: "weight" in row.conditions)

    def by_weight(metric: str, label: str) -> Panel:
        line = series_of(varied.where(metric=metric), "weight", marker="o", size=4.0)
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
                found = claims.difference(presets, {"loss": name}, {"loss": "clip"}, metric=metric)
            except claims.MissingRows:
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


def _test(
    test: claims.Comparison, metric: str, loss: str, against: str, limit: float = 0.0
) -> claims.Test:
    number = contrast(loss, against, metric=metric, condition="")
    what = f"{metric.replace('_', ' ')}, {loss} less {against}"
    # Recall: what is comparable to within a margin is no better or worse by less.
    matters = () if test is equivalent else (MATTERS.get(metric, MARGIN),)
    return test(number, limit, what, *matters)


_LOW, _HIGH = (f"{weight:g}" for weight in (WEIGHTS[0], WEIGHTS[-1]))
_SMALL = "On few pairs the terms also act against overfitting, unlike in the paper."

EXPERIMENT = Experiment(
    "ablation",
    "Which term does what",
    "What does each term of the loss do to the gap, to uniformity and to retrieval, and what does "
    "its weight trade?",
    lambda options: [cell for cell, _ in _grid(options)],
    _measure,
    lambda rows, context: {"ablation": fronts(rows), "ablation-effects": effects(rows)},
    order=9,
    of_cell=_of_cell,
    claims=(
        Claim(
            "Uniformity and alignment together close the gap",
            "centroid distance 0.661 to 0.082, separability 1.000 to 0.729 (d = 128)",
            [_test(below, metric, "cua", "clip")
             for metric in ("centroid_distance", "linear_separability")],
        ),
        Claim(
            "Uniformity by itself narrows the gap",
            "none: the paper trains no such loss",
            _test(below, "centroid_distance", "cu", "clip"),
            "The term spreads each cloud over the sphere without regard to where the other is.",
        ),
        Claim(
            "Alignment by itself narrows the gap",
            "none: the paper trains no such loss",
            _test(below, "centroid_distance", "ca", "clip"),
            "Pairs are drawn together, but within a small part of the sphere.",
        ),
        Claim(
            "It is the uniformity term that spreads the space, not alignment",
            "uniformity of clip −1.911, of cua −3.647 (d = 128)",
            [_test(below, "uniformity", "cu", "clip"), _test(below, "uniformity", "cu", "ca")],
        ),
        Claim(
            "Cross-uniformity spreads pairs that do not belong together",
            "cross-uniformity of cua −3.686, of cuaxu −3.823 (d = 128)",
            _test(below, "cross_uniformity", "cuaxu", "cua"),
        ),
        Claim(
            "Cross-uniformity on top opens the gap again a little",
            "centroid distance 0.082 to 0.127 (d = 128)",
            _test(above, "centroid_distance", "cuaxu", "cua"),
        ),
        Claim(
            f"Retrieval is kept, within {MARGIN}",
            "recall@1, mean of both ways: clip 0.272, cua 0.256, cuaxu 0.268 (d = 128)",
            [_test(equivalent, RETRIEVAL, loss, "clip", MARGIN) for loss in ("cua", "cuaxu")],
            _SMALL,
            persists=True,
        ),
        Claim(
            "The contrastive term is needed for retrieval",
            "none: the paper trains no such loss",
            _test(below, RETRIEVAL, "uaxu", "cuaxu"),
            _SMALL,
        ),
        Claim(
            "The largest weight on uniformity and alignment leaves a smaller gap than the least",
            "none: the paper's weights are all 1",
            below(contrast({"weight": _HIGH}, {"weight": _LOW}, metric="centroid_distance"), 0,
                  f"centroid distance, weight {_HIGH} less weight {_LOW}"),
        ),
    ),
    seconds=lambda options: 1.0 * (len(PRESETS) * len(options.used_seeds) + len(WEIGHTS)),
    sequential=True,
    published="coco-finetune",
    captions={
        "ablation": "Gap against retrieval, and what the weight of uniformity and alignment trades",
        "ablation-effects": "Each preset's difference from `clip`",
    },
    notes=(
        "The first figure has the gap to the right and retrieval upwards: better is up and to the "
        "left. The line is the Pareto front: of what lies on it nothing else is better in both. "
        "Beside it what the weight of uniformity and alignment trades, 1 being `cua`. The second "
        "figure has each preset's difference from `clip`, paired by seed, with 95% intervals.\n\n"
        "`retrieval_recall@1` is the mean of image → text and text → image, on held-out pairs. The "
        f"weights are of one seed, with intervals over pairs; all is d = {DIM} by the standard "
        "recipe, at its temperature, which is not that of other papers' losses in their papers. "
        "`uaxu` has no contrastive term."
    ),
)  # fmt: skip
