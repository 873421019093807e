"""What several experiments share: their trained cells, and the metrics of a cell as rows."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cache
from typing import Any

from geomkit.recipes import TrainConfig, configure
from geomkit.reproduce.claims import together
from geomkit.reproduce.experiment import Cell, Context, Options
from geomkit.reproduce.results import Row, Rows

__all__ = ["LOSSES", "cell_of", "main_grid", "measured", "together", "training_pairs", "where"]

LOSSES = ("clip", "cua", "cuaxu")
DIMS = (32, 64, 128)
QUICK_STEPS = 0.3
"""Share of the steps that a quick run trains."""
QUICK_EVALUATIONS = 2 * QUICK_STEPS
"""Share of the steps between its evaluations: half as many of them."""


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
    """How many training pairs a DATA spec has.

    Raises:
        GeomkitError: as :func:`geomkit.data.load_data`.
    """
    if spec == "openmoji":  # known without drawing it
        return 1481
    from geomkit.data import load_data
    from geomkit.models import model_config, preprocess_config

    return len(load_data(spec, split="train", preprocess=preprocess_config(model_config("nano"))))


def main_grid(
    options: Options,
    *,
    losses: Iterable[str] = LOSSES,
    dims: Iterable[int] = DIMS,
    seeds: Iterable[int] | None = None,
) -> list[Cell]:
    """The paper's grid: losses × dimensions × seeds; experiments that use it share its cells."""
    return [
        cell_of(options, loss=loss, dim=dim, seed=seed)
        for dim in dims
        for loss in losses
        for seed in (options.used_seeds if seeds is None else seeds)
    ]


def where(config: TrainConfig, split: str) -> str:
    """The data column of a row."""
    return f"{config.data} {split}"


def measured(
    experiment: str,
    cell: Cell,
    context: Context,
    *,
    metrics: Iterable[str],
    split: str = "val",
    condition: str = "",
) -> Rows:
    """Metrics of a trained cell with their standard errors, a row each."""
    from geomkit.metrics import gap

    c = cell.config
    result = gap(context.embeddings(cell, split), metrics=list(metrics), seed=c.seed)
    return Rows(
        Row(
            experiment,
            where(c, split),
            c.dim,
            c.loss,
            c.seed,
            name,
            value,
            result.stderr.get(name, math.nan),
            condition,
        )
        for name, value in result.metrics.items()
    )
