"""Which term does what: every preset, and the weight of what closes the gap against retrieval."""

from __future__ import annotations

from dataclasses import replace

from geomkit.losses import PRESETS as LOSSES
from geomkit.losses import parse_loss
from geomkit.reproduce.experiments.ablation_figures import effects, fronts
from geomkit.reproduce.framework import claims
from geomkit.reproduce.framework.cells import MARGIN, main_grid
from geomkit.reproduce.framework.claims import Claim, above, below, contrast, equivalent
from geomkit.reproduce.framework.experiment import Cell, Context, Experiment, Options
from geomkit.reproduce.framework.measuring import measured
from geomkit.reproduce.framework.results import Rows

__all__ = ["EXPERIMENT", "PRESETS", "RETRIEVAL", "WEIGHTS", "weighted"]

PRESETS = tuple(
    sorted(LOSSES, key=lambda name: ("clip" not in (terms := parse_loss(name).weights), len(terms)))
)
"""Every preset, by number of terms; last those without the contrastive one."""
WEIGHTS = (0.1, 0.3, 1.0, 3.0, 10.0)
DIM = 128
RETRIEVAL = "retrieval_recall@1"
METRICS = (
    "centroid_distance", "linear_separability", "uniformity", "cross_uniformity", "alignment",
    "text_retrieval_recall@1", "image_retrieval_recall@1",
)  # fmt: skip


def weighted(weight: float) -> str:
    """Loss with this weight on both uniformity and alignment.

    >>> weighted(0.1), weighted(1.0)
    ('clip + 0.1*uniformity + 0.1*alignment', 'cua')
    """
    return "cua" if weight == 1 else f"clip + {weight:g}*uniformity + {weight:g}*alignment"


def _presets(options: Options) -> list[Cell]:
    return main_grid(options, losses=PRESETS, dims=(DIM,))


def _weights(options: Options) -> dict[float, Cell]:
    weights = WEIGHTS[::2] if options.quick else WEIGHTS
    losses = [weighted(weight) for weight in weights]
    cells = main_grid(options, losses=losses, dims=(DIM,), seeds=options.used_seeds[:1])
    return dict(zip(weights, cells, strict=True))


def _cells(options: Options) -> list[Cell]:
    return [*_presets(options), *_weights(options).values()]


def _measure(context: Context) -> Rows:
    presets = [(cell, "") for cell in _presets(context.options)]
    weights = [(c, f"weight={weight:g}") for weight, c in _weights(context.options).items()]
    return Rows(row for cell, found in presets + weights for row in _of(cell, context, found))


def _of(cell: Cell, context: Context, condition: str) -> Rows:
    rows = measured("ablation", cell, context, metrics=METRICS, condition=condition)
    ways = rows.where(lambda row: row.metric.endswith("_" + RETRIEVAL))
    value, stderr = ways.mean()
    rows.append(replace(ways[0], metric=RETRIEVAL, value=value, stderr=stderr))
    return rows


def _test(
    test: claims.Comparison, metric: str, loss: str, against: str, limit: float = 0.0
) -> claims.Test:
    number = contrast(loss, against, metric=metric, condition="")
    return test(number, limit, f"{metric.replace('_', ' ')}, {loss} less {against}")


_LOW, _HIGH = (f"{weight:g}" for weight in (WEIGHTS[0], WEIGHTS[-1]))
_SMALL = (
    "On few pairs and from scratch the terms also act against overfitting, unlike in the paper."
)

EXPERIMENT = Experiment(
    "ablation",
    "Which term does what",
    "What does each term of the loss do to the gap, to uniformity and to retrieval, and what does "
    "its weight trade?",
    _cells,
    _measure,
    lambda rows, context: {"ablation": fronts(rows), "ablation-effects": effects(rows)},
    order=9,
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
    seconds=lambda options: 1.5 * (len(PRESETS) * len(options.used_seeds) + len(WEIGHTS)),
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
        "recipe. `uaxu` has no contrastive term."
    ),
)  # fmt: skip
