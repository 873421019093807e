"""Cells that several experiments share, and how options become configurations."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from typing import Any

from geomkit.data import parse_spec, with_options
from geomkit.models.preprocess import Preprocess
from geomkit.reproduce.framework.experiment import FINETUNE, Cell, Options
from geomkit.training.config import TrainConfig, configure

__all__ = [
    "DIMS", "EVALUATED", "GEOMETRY", "LOSSES", "MARGIN", "MATTERS", "cell_of", "grid_data",
    "main_grid", "pairs_of", "quick_share", "start_of", "training_pairs",
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
MATTERS = {
    "centroid_distance": 0.02,
    "linear_separability": 0.05,
    "paired_cosine": 0.03,
    "alignment": 0.06,
    "uniformity": 0.05,
    "cross_uniformity": 0.07,
    "cumulative_variance@8": 0.02,
    "explained_variance_auc": 0.02,
    "components_to_80": 3.0,
    "zeroshot_mean": 0.01,
    "arithmetic": 0.03,
}
"""Difference that would matter, by metric: about half of the smallest one that the paper reports
between two losses at d = 128 (centroid distance 0.127 to 0.082, separability 0.826 to 0.729, paired
cosine 0.637 to 0.567, uniformity −3.647 to −3.754, zero-shot 0.346 to 0.367, SIMAT 35.6% to
41.7%)."""
PRETRAINING: dict[str, Any] = {
    "loss": "clip", "dim": 128, "batch_size": 128, "steps": 900, "lr": 1e-3, "captions": "random",
    "seed": 0,
}  # fmt: skip
"""The model that cells are fine-tuned from, by the standard recipe otherwise."""
CAPTIONS = 3
"""Largest number of an OpenMoji image's names and aliases in pretraining."""
FINETUNING_STEPS = 150
EVALUATED = "centroid_distance,linear_separability"
"""What is evaluated during training, where experiments measure the trained model themselves."""
QUICK_STEPS = 0.25
"""Share of the steps that a quick run trains."""
QUICK_EVALUATIONS = 2 * QUICK_STEPS
"""Share of the steps between its evaluations: half as many of them."""


def quick_share(options: Options) -> float:
    """Share of the steps that a run trains."""
    return QUICK_STEPS if options.quick else 1.0


def cell_of(options: Options, *, start: Cell | None = None, **fields: Any) -> Cell:
    """A cell with the data, model and length that the options ask for.

    Fields given go before the recipe's. A quick run trains a quarter of the steps; a data set
    smaller than the recipe's batch is trained in batches that it can fill. With ``start``, the
    cell is fine-tuned from that cell's model.
    """
    if start is not None:
        options = replace(options, model=None)
        fields = {"pretrained": f"{start.key}.pt", "recipe": "standard",
                  "steps": FINETUNING_STEPS, "eval_every": FINETUNING_STEPS, **fields}  # fmt: skip
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
    return Cell(config, start)


def grid_data(options: Options) -> str:
    """DATA spec of the main grid; of OpenMoji, the images with skin tones are part of it."""
    name, _, given = parse_spec(options.data)
    tones = name == "openmoji" and "skin_tones" not in given
    return with_options(options.data, **({"skin_tones": True} if tones else {}))


@cache
def start_of(options: Options, data: str) -> Cell:
    """The cell of the small model that others are fine-tuned from: one for all losses and seeds.

    It learns to match the same training pairs by ``clip``, with several captions an image; of
    OpenMoji with names, aliases and the words of Unicode's groups.

    Args:
        options: Options of the run.
        data: DATA spec of the cells.
    """
    name, _, given = parse_spec(data)
    more = {"captions": CAPTIONS, "groups": True} if name == "openmoji" else {}
    spec = with_options(data, **{key: more[key] for key in more if key not in given})
    scratch = replace(options, model=options.model or "tiny")
    return cell_of(scratch, data=spec, eval_metrics=EVALUATED, eval_every=PRETRAINING["steps"],
                   **PRETRAINING)  # fmt: skip


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


@cache
def pairs_of(data: str) -> int | None:
    """How many images a DATA spec and its split, as rows name them, have; ``None`` if unknown.

    >>> pairs_of("openmoji,n=40 train")
    40
    """
    from geomkit.data import load_data
    from geomkit.errors import GeomkitError
    from geomkit.models.architectures import model_config

    spec, _, split = data.rpartition(" ")
    try:
        preprocess = Preprocess.for_model(model_config("nano"))
        return len(load_data(spec, split=split, preprocess=preprocess))
    except GeomkitError:
        return None


def main_grid(
    options: Options,
    *,
    losses: Iterable[str] = LOSSES,
    dims: Iterable[int] = DIMS,
    seeds: Iterable[int] | None = None,
    **fields: Any,
) -> list[Cell]:
    """The paper's grid: losses × dimensions × seeds; experiments that use it share its cells.

    Its models are fine-tuned from :func:`start_of`, unless the options say otherwise.
    """
    fields = {"data": grid_data(options), "eval_metrics": EVALUATED, **fields}
    start = None
    if options.protocol == FINETUNE and options.pretrained is None:
        start = start_of(options.first(1), fields["data"])
    return [
        cell_of(options, start=start, loss=loss, dim=dim, seed=seed, **fields)
        for dim in dims
        for loss in losses
        for seed in (options.used_seeds if seeds is None else seeds)
    ]
