"""Cells that several experiments share, and how options become configurations."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

from geomkit.models.preprocess import Preprocess
from geomkit.reproduce.framework.experiment import Cell, Options
from geomkit.training.config import TrainConfig, configure

__all__ = [
    "DIMS", "GEOMETRY", "LOSSES", "MARGIN", "cell_of", "main_grid", "quick_share",
    "training_pairs",
]  # fmt: skip

LOSSES = ("clip", "cua", "cuaxu")
DIMS = (32, 64, 128)
GEOMETRY = (
    "centroid_distance", "linear_separability", "paired_cosine", "alignment", "uniformity",
    "cross_uniformity", "text_retrieval_recall@1", "image_retrieval_recall@1",
)  # fmt: skip
"""Metrics of the gap and of what goes with it."""
MARGIN = 0.03
"""Largest change of recall that counts as comparable: the paper's own largest change by either loss
(image retrieval at 10, d = 128: 0.693 to 0.665), rounded up."""
QUICK_STEPS = 0.3
"""Share of the steps that a quick run trains."""
QUICK_EVALUATIONS = 2 * QUICK_STEPS
"""Share of the steps between its evaluations: half as many of them."""


def quick_share(options: Options) -> float:
    """Share of the steps that a run trains."""
    return QUICK_STEPS if options.quick else 1.0


def cell_of(options: Options, **fields: Any) -> Cell:
    """A cell with the data, model and length that the options ask for.

    Fields given go before the recipe's. A quick run trains three tenths of the steps; a data set
    smaller than the recipe's batch is trained in batches that it can fill.
    """
    base = {"data": options.data, "recipe": "standard", **fields}
    if options.pretrained is not None:
        base |= {"pretrained": options.pretrained, "recipe": fields.get("recipe", "paper")}
    elif options.model is not None:
        base["model"] = options.model
    config = configure(**base)
    if config.batch_size > (most := training_pairs(config.data)):
        base["batch_size"] = most
        config = configure(**base)
    if options.quick:
        config = configure(**{**base, **_shortened(config)})
    return Cell(config)


def _shortened(config: TrainConfig) -> dict[str, int]:
    """What a quick run changes in a configuration."""
    if config.epochs is not None:
        return {"epochs": max(1, round(config.epochs * QUICK_STEPS))}
    steps = max(20, round(config.steps * QUICK_STEPS))
    every = min(steps, max(1, round(config.eval_every * QUICK_EVALUATIONS)))
    warmup = min(config.warmup, steps // 4)
    return {"steps": steps, "warmup": warmup, "eval_every": every if config.eval_every else 0}


@cache
def training_pairs(spec: str) -> int:
    """How many training pairs with a caption of their own a DATA spec has: no batch has one twice.

    Raises:
        GeomkitError: as :func:`geomkit.data.load_data`.
    """
    from geomkit.data import load_data
    from geomkit.models.architectures import model_config

    preprocess = Preprocess.for_model(model_config("nano"))
    return len(set(load_data(spec, split="train", preprocess=preprocess).names))


def main_grid(
    options: Options,
    *,
    losses: Iterable[str] = LOSSES,
    dims: Iterable[int] = DIMS,
    seeds: Iterable[int] | None = None,
    **fields: Any,
) -> list[Cell]:
    """The paper's grid: losses × dimensions × seeds; experiments that use it share its cells."""
    return [
        cell_of(options, loss=loss, dim=dim, seed=seed, **fields)
        for dim in dims
        for loss in losses
        for seed in (options.used_seeds if seeds is None else seeds)
    ]
