"""Training configuration, and the named recipes that its defaults come from."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from geomkit.errors import GeomkitError, unknown_name
from geomkit.losses import parse_loss

__all__ = [
    "CAPTION_CHOICES",
    "FREEZES",
    "RECIPES",
    "SCHEDULES",
    "TrainConfig",
    "configure",
    "differences",
    "evaluation_steps",
    "learning_rate",
]

SCHEDULES = ("cosine", "constant")
FREEZES = ("image", "text", "backbone")
CAPTION_CHOICES = ("first", "random")


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides what a training run computes.

    Attributes:
        loss: a preset or a weighted sum, see :func:`geomkit.losses.spec.parse_loss`.
        dim: embedding dimension; 0 until resolved means the pretrained model's own.
        recipe: the recipe that filled in what was not given.
        model: ``tiny``, ``nano`` or an architecture of open_clip's; empty for a pretrained one.
        pretrained: SOURCE of the model to start from, or ``None`` to start from scratch.
        keep_projection: of a pretrained model, rather than fresh projections.
        freeze: ``image``, ``text`` or ``backbone``, see :func:`geomkit.models.projections.freeze`.
        lock_image, lock_text: lock that encoder but for its last so many layers.
        data: DATA spec.
        captions: ``first``, or ``random``: another of an image's captions each epoch.
        distinct_captions: whether the captions of a batch must differ.
        pairs: training pairs, or ``None`` for all.
        image_size: side of the pictures in px, or ``None`` for the model's own.
        batch_size: pairs a step, over all ranks.
        accumulate: parts in which a rank computes its pairs, one after the other; the loss stays
            that of the whole batch.
        steps: optimizer steps.
        epochs: passes over the data that ``steps`` were computed from, or ``None``.
        lr: peak learning rate of AdamW.
        beta1, beta2: its decay rates.
        weight_decay: on matrices; embeddings, gains and biases have none.
        warmup: steps of linear warm-up.
        schedule: ``cosine`` to zero, or ``constant``.
        clip_norm: largest norm of the gradient; 0 leaves it alone.
        temperature: τ, at the start or throughout.
        learn_temperature: train τ, within [0.01, 1].
        eval_every: steps between evaluations; 0 until resolved means an epoch.
        eval_split: what evaluations look at.
        seed: of weights and order.
        precision: ``fp32``, ``bf16`` or ``fp64`` (for checks); ``auto`` until resolved.
        threads: of the CPU; 0 until resolved.
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
    learn_temperature: bool = False
    eval_every: int = 100
    eval_split: str = "val"
    seed: int = 0
    precision: str = "auto"
    threads: int = 0


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
"""``standard``: all training pairs, evaluated on held-out ones. ``sphere`` (d ≤ 3): a thousand
pairs learnt by heart and evaluated on themselves, as the paper's 3-D run is; its temperature is
what lets training pass from cone to sphere instead of collapsing to two points. ``paper``: the
paper's fine-tuning of a pretrained ViT-B/32 on COCO, also what any pretrained model gets."""


def configure(*, dim: int | None = None, recipe: str = "auto", **given: Any) -> TrainConfig:
    """A configuration from a recipe and whatever is given besides.

    Args:
        dim: embedding dimension; 128 if not given, or the pretrained model's own, its projections
            kept.
        recipe: ``standard``, ``sphere``, ``paper``, or ``auto``: paper for a pretrained model,
            else sphere for d ≤ 3 and standard above.
        given: fields of :class:`TrainConfig`; ``None`` means the recipe's.

    Raises:
        GeomkitError: for an unknown recipe, a value out of range, or values that exclude each
            other.

    >>> configure(dim=3).recipe, configure(dim=3).batch_size, configure(dim=64).batch_size
    ('sphere', 256, 64)
    """
    wanted = {key: value for key, value in given.items() if value is not None}
    pretrained = "pretrained" in wanted
    if pretrained and "model" in wanted:
        raise GeomkitError(
            "--model and --pretrained exclude each other: a pretrained model has one"
        )
    if recipe == "auto":
        recipe = "paper" if pretrained else "sphere" if (dim or 128) <= 3 else "standard"
    if recipe not in RECIPES:
        raise unknown_name("recipe", recipe, ["auto", *RECIPES])
    if "steps" in wanted and "epochs" in wanted:
        raise GeomkitError("--steps and --epochs exclude each other; give one")
    values = {**RECIPES[recipe], **wanted}
    if "steps" in wanted:
        values["epochs"] = None
    if pretrained:
        values["model"] = ""
        values["keep_projection"] = values.get("keep_projection", False) or dim is None
    elif values.get("keep_projection"):
        raise GeomkitError("--keep-projection: needs --pretrained, whose projection it keeps")
    if dim is None:
        dim = 0 if pretrained else 128
    if wanted.get("precision") == "auto" and "precision" in RECIPES[recipe]:
        values["precision"] = RECIPES[recipe]["precision"]
    config = replace(TrainConfig(dim=dim, recipe=recipe), **values)
    _check(config)
    return config


def _check(config: TrainConfig) -> None:
    loss = parse_loss(config.loss)
    for name in ("batch_size", "steps", "epochs", "accumulate"):
        value = getattr(config, name)
        if value is not None and value < 1:
            raise GeomkitError(f"{_words(name)}: expected 1 or more, got {value}")
    for name in ("warmup", "weight_decay", "clip_norm", "threads", "eval_every"):
        value = getattr(config, name)
        if not (value >= 0 and math.isfinite(value)):
            raise GeomkitError(f"{_words(name)}: expected 0 or more, got {value}")
    if config.learn_temperature and not loss.uses_temperature:
        raise GeomkitError(
            f"--learn-temperature: no term of the loss '{config.loss}' depends on the temperature; "
            "add clip"
        )
    if config.freeze is not None and config.freeze not in FREEZES:
        raise unknown_name("part to freeze", config.freeze, FREEZES)
    if config.captions not in CAPTION_CHOICES:
        raise unknown_name("choice of captions", config.captions, CAPTION_CHOICES)
    if config.dim < 2 and not (config.pretrained and config.dim == 0):
        raise GeomkitError(f"dim: expected 2 or more, got {config.dim}")
    if config.batch_size < 2:
        raise GeomkitError("batch size: expected 2 or more: a lone pair has nothing to contrast")
    if not (config.lr > 0 and math.isfinite(config.lr)):
        raise GeomkitError(f"lr: expected a positive number, got {config.lr}")
    for name in ("beta1", "beta2"):
        if not 0 <= getattr(config, name) < 1:
            raise GeomkitError(f"{name}: expected a number in [0, 1), got {getattr(config, name)}")
    if not 0.01 <= config.temperature <= 1:
        raise GeomkitError(f"temperature: expected 0.01 to 1, got {config.temperature:g}")
    if config.schedule not in SCHEDULES:
        raise unknown_name("schedule", config.schedule, SCHEDULES)
    if config.eval_split not in ("train", "val", "all"):
        raise unknown_name("split", config.eval_split, ["train", "val", "all"])


def _words(name: str) -> str:
    return name.replace("_", " ")


def learning_rate(config: TrainConfig, step: int) -> float:
    """Learning rate of a step, counted from 0: a function of the step alone, so resuming is exact.

    >>> round(learning_rate(TrainConfig(warmup=10, lr=1.0), 0), 6)
    0.1
    """
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    if config.schedule == "constant":
        return config.lr
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.lr * 0.5 * (1.0 + math.cos(math.pi * done))


def evaluation_steps(config: TrainConfig) -> list[int]:
    """Steps after which to evaluate: the start, the end, and every ``eval_every`` between.

    In 3-D also a few early ones, each half the one after: that is where the cone opens.

    >>> evaluation_steps(TrainConfig(steps=250, eval_every=100))
    [0, 100, 200, 250]
    """
    steps = {0, config.steps, *range(config.eval_every, config.steps, config.eval_every)}
    if config.dim == 3:
        steps.update(config.eval_every >> k for k in (1, 2, 3))
    return sorted(s for s in steps if s <= config.steps)


def differences(stored: dict[str, Any], config: TrainConfig) -> list[str]:
    """Where a stored configuration and a new one differ, as ``name: stored → new``.

    Precision and threads are left out: a resumed run keeps what it started with.

    >>> differences(asdict(TrainConfig(lr=1.0)), TrainConfig(lr=2.0))
    ['lr: 1.0 → 2.0']
    """
    new = asdict(config)
    names = [f.name for f in fields(TrainConfig) if f.name not in ("precision", "threads")]
    # What an older checkpoint does not know had its default.
    old = {**asdict(TrainConfig()), **stored}
    return [f"{name}: {old[name]} → {new[name]}" for name in names if old[name] != new[name]]
