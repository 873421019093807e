"""Training configuration, and the named recipes that its defaults come from. Needs no torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import Field, asdict, dataclass, fields, replace
from typing import Any

from geomkit.data import parse_spec
from geomkit.errors import GeomkitError, unknown_name
from geomkit.losses import PRESETS, TERMS, parse_loss
from geomkit.models.freezing import FREEZES

__all__ = [
    "CHOICES",
    "RECIPES",
    "TrainConfig",
    "configure",
    "default_words",
    "differences",
    "evaluation_metrics",
    "evaluation_steps",
    "learning_rate",
    "scheduled_log_scale",
]

Range = tuple[str, Callable[[float], bool]]
"""A range in words, and whether a value is in it."""


def _whole(low: int, high: int) -> Range:
    return f"{low} or more, up to {high:,}", lambda value: low <= value <= high


_POSITIVE: Range = ("a positive number", lambda value: 0 < value < math.inf)
_FROM_0: Range = ("0 or more", lambda value: 0 <= value < math.inf)
_BELOW_1: Range = ("a number in [0, 1)", lambda value: 0 <= value < 1)
_TEMPERATURES: Range = ("0.01 to 1", lambda value: 0.01 <= value <= 1)


MAX_THREADS, MAX_WORKERS = 1024, 256
_MAX_STEPS, _MAX_EVALUATIONS = 10**8, 10**5
_WITHIN: dict[str, Range] = {
    **dict.fromkeys(("accumulate", "steps", "epochs"), _whole(1, _MAX_STEPS)),
    **dict.fromkeys(("warmup", "eval_every"), _whole(0, _MAX_STEPS)),
    **dict.fromkeys(("weight_decay", "clip_norm"), _FROM_0),
    **dict.fromkeys(("beta1", "beta2"), _BELOW_1),
    "batch_size": _whole(2, 10**7),
    "image_size": _whole(1, 10**4),
    "seed": _whole(0, 2**63 - 1),
    "threads": _whole(0, MAX_THREADS),
    "lr": _POSITIVE,
    **dict.fromkeys(("temperature", "final_temperature"), _TEMPERATURES),
}
"""Permitted range of a field of :class:`TrainConfig`."""
CHOICES = {
    "freeze": ("part to freeze", tuple(FREEZES)),
    "captions": ("choice of captions", ("first", "random")),
    "schedule": ("schedule", ("cosine", "constant")),
    "eval_split": ("split", ("train", "val", "all")),
}
"""Name of a field in an error, and its permitted values."""
_DEFAULTS = {
    "dim": "128, or the pretrained model's own",
    "pairs": "all; sphere 1024",
    "image_size": "the model's own",
    "steps": "600; sphere 700; paper 9 epochs",
    "epochs": "paper 9",
    "eval_metrics": "all",
    "final_temperature": "--temperature, throughout",
}
"""Defaults in words, where the value does not say it."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that decides what a training run computes; :data:`RECIPES` change the defaults.

    Attributes:
        loss: Loss: {presets}, or a weighted sum of terms ({terms}), such as
            'clip + 0.5*uniformity'.
        dim: Embedding dimension, 2 or more. With --pretrained, new projections replace the model's.
        recipe: Set of defaults: standard, sphere (d ≤ 3), paper (fine-tuning), or auto: paper for a
            pretrained model, else sphere for d ≤ 3, else standard.
        model: Architecture to train: tiny, nano or an open_clip name.
        pretrained: SOURCE of the model to start from: open_clip:…, hf:…, openai:…, paper:…, or a
            path.
        keep_projection: Keep the projections of the pretrained model.
        freeze: Part that is not trained: image, text, or backbone (all but the projections).
        lock_image: Number of last layers of the image encoder to train; the others are locked.
        lock_text: Number of last layers of the text encoder to train; the others are locked.
        data: DATA spec, NAME[:PATH][,key=value…].
        captions: Caption of an image: first, or random in each epoch.
        distinct_captions: Whether captions differ within a batch.
        pairs: Number of training pairs.
        image_size: Side of the square images, in pixels.
        batch_size: Pairs per step over all ranks.
        accumulate: Parts in which a rank computes its pairs, one after the other, to save memory;
            the loss is that of the whole batch.
        steps: Optimizer steps.
        epochs: Passes over the data, instead of --steps.
        lr: Peak learning rate of AdamW.
        beta1: AdamW decay rate of the mean gradient.
        beta2: AdamW decay rate of the mean squared gradient.
        weight_decay: AdamW weight decay of matrices; embeddings, gains and biases have none.
        warmup: Steps of linear warm-up of the learning rate.
        schedule: Learning rate after warm-up: cosine (to zero) or constant.
        clip_norm: Largest norm of the gradient; 0: no clipping.
        temperature: Temperature τ, 0.01 to 1; of the first step, if it is learned or scheduled.
        final_temperature: Temperature of the last step; log τ changes by the same amount in every
            step.
        learn_temperature: Train the temperature, kept within 0.01 to 1.
        eval_every: Steps between evaluations; 0: one epoch.
        eval_split: Split to evaluate on: train, val or all.
        eval_metrics: Metrics of an evaluation: names or groups, separated by commas.
        seed: Random seed for initial weights and data order.
        precision: Precision; auto: bf16 on CUDA, else fp32.
        threads: CPU threads; 0: torch's default.
    """

    loss: str = "clip"
    dim: int = 128
    recipe: str = "standard"
    model: str = "tiny"
    pretrained: str | None = None
    keep_projection: bool = False
    freeze: str | None = None
    lock_image: int | None = None
    lock_text: int | None = None
    data: str = "openmoji"
    captions: str = "first"
    distinct_captions: bool = True
    pairs: int | None = None
    image_size: int | None = None
    batch_size: int = 64
    accumulate: int = 1
    steps: int = 600
    epochs: int | None = None
    lr: float = 5e-4
    beta1: float = 0.9
    beta2: float = 0.98
    weight_decay: float = 0.1
    warmup: int = 50
    schedule: str = "cosine"
    clip_norm: float = 1.0
    temperature: float = 0.01
    final_temperature: float | None = None
    learn_temperature: bool = False
    eval_every: int = 100
    eval_split: str = "val"
    eval_metrics: str | None = None
    seed: int = 0
    precision: str = "auto"
    threads: int = 0


TrainConfig.__doc__ = (TrainConfig.__doc__ or "").format(
    presets=", ".join(PRESETS), terms=", ".join(TERMS)
)


RECIPES: dict[str, dict[str, Any]] = {
    "standard": {},
    "sphere": {
        "model": "nano",
        "pairs": 1024,
        "batch_size": 256,
        "steps": 700,
        "lr": 2e-3,
        "weight_decay": 0.0,
        "warmup": 50,
        "temperature": 0.05,
        "eval_every": 50,
        "eval_split": "train",
    },
    "paper": {
        "model": "ViT-B-32-quickgelu",
        "epochs": 9,
        "batch_size": 64,
        "lr": 1e-6,
        "beta1": 0.9,
        "beta2": 0.99,
        "weight_decay": 0.1,
        "warmup": 0,
        "schedule": "constant",
        "clip_norm": 0.0,
        "temperature": 0.01,
        "eval_every": 0,
        "precision": "fp32",
    },
}
"""Recipes: what each one changes in the defaults of :class:`TrainConfig`.

``standard``: all training pairs, evaluated on held-out pairs. ``sphere`` (d ≤ 3): 1,024 pairs,
evaluated on the same pairs, as the paper's 3-D run is; its temperature lets training pass from a
cone to the sphere instead of collapsing to two points. ``paper``: the paper's fine-tuning of a
pretrained ViT-B/32 on COCO, used for every pretrained model.
"""


def default_words(item: Field[Any]) -> str:
    """Return the default of a field of :class:`TrainConfig` in words, with recipes that differ.

    >>> {f.name: default_words(f) for f in fields(TrainConfig)}["batch_size"]
    '64; sphere 256'
    """
    values = {name: recipe.get(item.name, item.default) for name, recipe in RECIPES.items()}
    words = {n: f"{v:g}" if isinstance(v, float) else str(v) for n, v in values.items()}
    usual = words.pop("standard")
    others = (f"; {name} {word}" for name, word in words.items() if word != usual)
    told = "none" if item.default is None else usual + "".join(others)
    return _DEFAULTS.get(item.name, told)


def configure(*, dim: int | None = None, recipe: str = "auto", **given: Any) -> TrainConfig:
    """Return a training configuration: a recipe, changed by the given values.

    Args:
        dim: Embedding dimension; default: 128, or for a pretrained model its own, with its
            projections kept.
        recipe: ``standard``, ``sphere``, ``paper``, or ``auto``: paper for a pretrained model,
            else sphere for d ≤ 3, else standard.
        given: Further fields of :class:`TrainConfig`; ``None`` stands for the recipe's value.

    Returns:
        The configuration, checked.

    Raises:
        GeomkitError: For an unknown recipe, a value out of range, or values that exclude each
            other.

    >>> configure(dim=3).recipe, configure(dim=3).batch_size, configure(dim=64).batch_size
    ('sphere', 256, 64)
    """
    wanted = {key: value for key, value in given.items() if value is not None}
    unknown = sorted(wanted.keys() - {item.name for item in fields(TrainConfig)})
    if unknown:
        raise unknown_name("training option", unknown[0], [f.name for f in fields(TrainConfig)])
    pretrained = "pretrained" in wanted
    if pretrained and "model" in wanted:
        raise GeomkitError("--model and --pretrained exclude each other; give one")
    if recipe == "auto":
        recipe = "paper" if pretrained else "sphere" if (dim or 128) <= 3 else "standard"
    if recipe not in RECIPES:
        raise unknown_name("recipe", recipe, ["auto", *RECIPES])
    if "steps" in wanted and "epochs" in wanted:
        raise GeomkitError("--steps and --epochs exclude each other; give one")
    if "pairs" in wanted and "data" in wanted:
        n = parse_spec(wanted["data"]).options.get("n", wanted["pairs"])
        if n != wanted["pairs"]:
            raise GeomkitError(
                f"--pairs {wanted['pairs']}: the data '{wanted['data']}' has n={n}; give one"
            )
    values = {**RECIPES[recipe], **wanted}
    if "steps" in wanted:
        values["epochs"] = None
    if pretrained:
        values["model"] = ""
        values["keep_projection"] = values.get("keep_projection", False) or dim is None
    elif values.get("keep_projection"):
        raise GeomkitError(
            "--keep-projection: needs --pretrained, the model whose projections to keep"
        )
    if dim is None:
        dim = 0 if pretrained else 128
    if wanted.get("precision") == "auto" and "precision" in RECIPES[recipe]:
        values["precision"] = RECIPES[recipe]["precision"]
    config = replace(TrainConfig(dim=dim, recipe=recipe), **values)
    _check(config)
    return config


def _check(config: TrainConfig) -> None:
    loss = parse_loss(config.loss)
    for name, (what, choices) in CHOICES.items():
        if getattr(config, name) not in (None, *choices):
            raise unknown_name(what, getattr(config, name), choices)
    for name, (words, holds) in _WITHIN.items():
        value = getattr(config, name)
        if value is not None and not holds(value):
            raise GeomkitError(f"{name.replace('_', ' ')}: expected {words}, got {value}")
    words, holds = _whole(2, 10**5)
    if not holds(config.dim) and not (config.pretrained and config.dim == 0):
        raise GeomkitError(f"dim: expected {words}, got {config.dim}")
    if config.eval_every:
        evaluation_steps(config)
    evaluation_metrics(config)
    learned, scheduled = config.learn_temperature, config.final_temperature is not None
    if learned and scheduled:
        raise GeomkitError("--learn-temperature and --final-temperature exclude each other")
    if (learned or scheduled) and not loss.uses_temperature:
        option = "--learn-temperature" if learned else "--final-temperature"
        raise GeomkitError(
            f"{option}: no term of the loss '{config.loss}' depends on the temperature; add clip"
        )


def learning_rate(config: TrainConfig, step: int) -> float:
    """Return the learning rate of a step, counted from 0; it depends on the step alone.

    >>> round(learning_rate(TrainConfig(warmup=10, lr=1.0), 0), 6)
    0.1
    """
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    if config.schedule == "constant":
        return config.lr
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.lr * 0.5 * (1.0 + math.cos(math.pi * done))


def scheduled_log_scale(config: TrainConfig, step: int) -> float | None:
    """Return log 1/τ in the loss of a step, counted from 0; ``None`` without a schedule.

    log τ is linear in the step, from ``temperature`` to ``final_temperature`` in the last one, so τ
    changes by the same factor in every step. It depends on the step alone, so that a resumed run
    continues it.

    >>> config = TrainConfig(steps=3, temperature=1.0, final_temperature=0.01)
    >>> [round(math.exp(-scheduled_log_scale(config, step)), 6) for step in range(3)]
    [1.0, 0.1, 0.01]
    """
    if config.final_temperature is None:
        return None
    first, last = (math.log(1.0 / t) for t in (config.temperature, config.final_temperature))
    return first + (last - first) * step / max(1, config.steps - 1)


def evaluation_steps(config: TrainConfig) -> list[int]:
    """Return the steps after which to evaluate: 0, the last, and every ``eval_every`` between.

    In 3-D also three early ones, each half of the next: the cone opens there.

    Raises:
        GeomkitError: If there are more than 100,000 of them.

    >>> evaluation_steps(TrainConfig(steps=250, eval_every=100))
    [0, 100, 200, 250]
    """
    if (count := config.steps // config.eval_every) > _MAX_EVALUATIONS:
        raise GeomkitError(
            f"eval every: {config.eval_every} gives {count:,} evaluations in {config.steps:,} "
            "steps; give a larger --eval-every"
        )
    steps = {0, config.steps, *range(config.eval_every, config.steps, config.eval_every)}
    if config.dim <= 3:
        steps.update(config.eval_every >> k for k in (1, 2, 3))
    return sorted(s for s in steps if s <= config.steps)


def evaluation_metrics(config: TrainConfig) -> list[str]:
    """Return the names of the metrics that an evaluation measures.

    Raises:
        GeomkitError: If a name is unknown.

    >>> evaluation_metrics(TrainConfig(eval_metrics="alignment, uniformity"))
    ['alignment', 'uniformity']
    """
    from geomkit.metrics.registry import select  # what imports the options needs no metrics

    names = config.eval_metrics
    return select(None if names is None else [name.strip() for name in names.split(",")])


def differences(stored: dict[str, Any], config: TrainConfig) -> list[str]:
    """Return where a stored configuration and a new one differ, as ``name: stored → new``.

    Precision and threads are left out: a resumed run keeps those it started with.

    >>> differences(asdict(TrainConfig(lr=1.0)), TrainConfig(lr=2.0))
    ['lr: 1.0 → 2.0']
    """
    new = asdict(config)
    names = [f.name for f in fields(TrainConfig) if f.name not in ("precision", "threads")]
    # An older checkpoint lacks newer fields: they had their defaults.
    old = {**asdict(TrainConfig()), **stored}
    return [f"{name}: {old[name]} → {new[name]}" for name in names if old[name] != new[name]]
