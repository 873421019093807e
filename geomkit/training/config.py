"""Training configuration, and the named recipes that its defaults come from. Needs no torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import Field, asdict, dataclass, field, fields, replace
from functools import partial
from typing import Any

from geomkit.errors import GeomkitError, unknown_name
from geomkit.losses import PRESETS, TERMS, parse_loss
from geomkit.models.freezing import FREEZES

__all__ = [
    "RECIPES",
    "Option",
    "TrainConfig",
    "configure",
    "default_words",
    "differences",
    "evaluation_steps",
    "learning_rate",
]

Range = tuple[str, Callable[[float], bool]]
"""A range in words, and whether a value is in it."""
_POSITIVE: Range = ("a positive number", lambda value: 0 < value < math.inf)
_FROM_0: Range = ("0 or more", lambda value: 0 <= value < math.inf)
_FROM_1: Range = ("1 or more", lambda value: value >= 1)
_FROM_2: Range = ("2 or more", lambda value: value >= 2)
_BELOW_1: Range = ("a number in [0, 1)", lambda value: 0 <= value < 1)
_TEMPERATURES: Range = ("0.01 to 1", lambda value: 0.01 <= value <= 1)


@dataclass(frozen=True)
class Option:
    """How a field of :class:`TrainConfig` is documented, checked, and set by ``geomkit train``.

    Attributes:
        help: Meaning of the field, with its unit.
        within: Permitted range.
        panel: Panel of ``geomkit train --help``; empty for the first.
        choices: Permitted values.
        choice: Name of a choice in an error.
        default: Default in words, where the value does not say it.
        listed: Whether ``geomkit train`` has an option for the field.
    """

    help: str
    within: Range | None = None
    panel: str = "Optimisation"
    choices: tuple[str, ...] = ()
    choice: str = ""
    default: str = ""
    listed: bool = True


def _option(value: Any, *words: Any, **properties: Any) -> Any:
    return field(default=value, metadata={"option": Option(*words, **properties)})


_main, _data, _model, _watching, _machine = (
    partial(_option, panel=panel)
    for panel in ("", "Data", "Model", "Evaluation and logging", "Machine")
)
_SUM = f"a weighted sum of terms ({', '.join(TERMS)}), such as 'clip + 0.5*uniformity'"
_RECIPE = (
    "Set of defaults: standard, sphere (d ≤ 3), paper (fine-tuning), or auto: paper for a "
    "pretrained model, else sphere for d ≤ 3, else standard."
)
_DIM = "Embedding dimension, 2 or more. With --pretrained, new projections replace the model's."
_PRETRAINED = "SOURCE of the model to start from: open_clip:…, hf:…, openai:…, paper:…, or a path."
_FREEZE = "Part that is not trained: image, text, or backbone (all but the projections)."
_LOCK = "Number of last layers of the {} encoder to train; the others are locked."
_ACCUMULATE = (
    "Parts in which a rank computes its pairs, one after the other, to save memory; the loss is "
    "that of the whole batch."
)
_DECAY = "AdamW weight decay of matrices; embeddings, gains and biases have none."


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides what a training run computes."""

    # fmt: off
    loss: str = _main("clip", f"Loss: {', '.join(PRESETS)}, or {_SUM}.")
    dim: int = _main(128, _DIM, default="128, or the pretrained model's own")
    recipe: str = _option("standard", _RECIPE)
    model: str = _model("tiny", "Architecture to train: tiny, nano or an open_clip name.")
    pretrained: str | None = _model(None, _PRETRAINED)
    keep_projection: bool = _model(False, "Keep the projections of the pretrained model.")
    freeze: str | None = _model(None, _FREEZE, choices=tuple(FREEZES), choice="part to freeze")
    lock_image: int | None = _model(None, _LOCK.format("image"), listed=False)
    lock_text: int | None = _model(None, _LOCK.format("text"), listed=False)
    data: str = _data("openmoji", "DATA spec, NAME[:PATH][,key=value…].")
    captions: str = _data("first", "Caption of an image: first, or random in each epoch.",
                          choices=("first", "random"), choice="choice of captions")
    distinct_captions: bool = _data(True, "Whether captions differ within a batch.", listed=False)
    pairs: int | None = _data(None, "Number of training pairs.", default="all; sphere 1024")
    image_size: int | None = _model(None, "Side of the square images, in pixels.",
                                    default="the model's own")
    batch_size: int = _option(64, "Pairs per step over all ranks.", _FROM_2)
    accumulate: int = _option(1, _ACCUMULATE, _FROM_1)
    steps: int = _option(600, "Optimizer steps.", _FROM_1,
                         default="600; sphere 700; paper 9 epochs")
    epochs: int | None = _option(None, "Passes over the data, instead of --steps.", _FROM_1,
                                 default="paper 9")
    lr: float = _option(5e-4, "Peak learning rate of AdamW.", _POSITIVE)
    beta1: float = _option(0.9, "AdamW decay rate of the mean gradient.", _BELOW_1)
    beta2: float = _option(0.98, "AdamW decay rate of the mean squared gradient.", _BELOW_1)
    weight_decay: float = _option(0.1, _DECAY, _FROM_0)
    warmup: int = _option(50, "Steps of linear warm-up of the learning rate.", _FROM_0)
    schedule: str = _option("cosine", "Learning rate after warm-up: cosine (to zero) or constant.",
                            choices=("cosine", "constant"), choice="schedule")
    clip_norm: float = _option(1.0, "Largest norm of the gradient; 0: no clipping.", _FROM_0)
    temperature: float = _option(0.01, "Temperature τ, 0.01 to 1; at the start, if learned.",
                                 _TEMPERATURES)
    learn_temperature: bool = _option(False, "Train the temperature, kept within 0.01 to 1.")
    eval_every: int = _watching(100, "Steps between evaluations; 0: one epoch.", _FROM_0)
    eval_split: str = _watching("val", "Split to evaluate on: train, val or all.",
                                choices=("train", "val", "all"), choice="split")
    seed: int = _option(0, "Random seed for initial weights and data order.")
    precision: str = _machine("auto", "Precision: fp32, bf16, fp64, or auto (bf16 on CUDA).")
    threads: int = _machine(0, "CPU threads; 0: torch's default.", _FROM_0)
    # fmt: on


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
    option: Option = item.metadata["option"]
    values = {name: recipe.get(item.name, item.default) for name, recipe in RECIPES.items()}
    words = {n: f"{v:g}" if isinstance(v, float) else str(v) for n, v in values.items()}
    usual = words.pop("standard")
    others = (f"; {name} {word}" for name, word in words.items() if word != usual)
    return option.default or ("none" if item.default is None else usual + "".join(others))


TrainConfig.__doc__ = f"{TrainConfig.__doc__}\n\nAttributes:\n" + "\n".join(
    f"    {item.name}: {item.metadata['option'].help} Default: {default_words(item)}."
    for item in fields(TrainConfig)
)


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
    for item in fields(config):
        option, value = item.metadata["option"], getattr(config, item.name)
        if value is None:
            continue
        if option.choices and value not in option.choices:
            raise unknown_name(option.choice, value, option.choices)
        if option.within and not option.within[1](value):
            name = item.name.replace("_", " ")
            raise GeomkitError(f"{name}: expected {option.within[0]}, got {value}")
    if config.dim < 2 and not (config.pretrained and config.dim == 0):
        raise GeomkitError(f"dim: expected 2 or more, got {config.dim}")
    if config.learn_temperature and not loss.uses_temperature:
        raise GeomkitError(
            f"--learn-temperature: no term of the loss '{config.loss}' depends on the temperature; "
            "add clip"
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


def evaluation_steps(config: TrainConfig) -> list[int]:
    """Return the steps after which to evaluate: 0, the last, and every ``eval_every`` between.

    In 3-D also three early ones, each half of the next: the cone opens there.

    >>> evaluation_steps(TrainConfig(steps=250, eval_every=100))
    [0, 100, 200, 250]
    """
    steps = {0, config.steps, *range(config.eval_every, config.steps, config.eval_every)}
    if config.dim == 3:
        steps.update(config.eval_every >> k for k in (1, 2, 3))
    return sorted(s for s in steps if s <= config.steps)


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
