"""TensorBoard and Weights & Biases, through their own packages and under open_clip's names."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from geomkit.errors import GeomkitError, unknown_name
from geomkit.training.loop import Event

__all__ = ["TRACKERS", "scalars", "tracker"]

TRACKERS = ("tensorboard", "wandb")

_RECALLS = {
    f"{side}_retrieval_recall@{k}": f"{name}_R@{k}"
    for side, name in (("text", "image_to_text"), ("image", "text_to_image"))
    for k in (1, 5, 10)
}
_RANKS = {
    f"{side}_retrieval_{kind}_rank": f"{name}_{kind}_rank"
    for side, name in (("text", "image_to_text"), ("image", "text_to_image"))
    for kind in ("mean", "median")
}


def scalars(event: Event) -> dict[str, float]:
    """What an event says in numbers, by open_clip's names.

    A step gives ``train/loss``, ``train/contrastive_loss``, each further term,
    ``train/lr``, ``train/scale``, ``train/data_time``, ``train/batch_time``,
    ``train/samples_per_second`` and ``…_per_gpu``; an evaluation ``val/clip_val_loss`` (of the
    whole loss), ``val/image_to_text_R@1`` and the like, ``val/epoch``, ``val/num_samples``, and
    every metric of ours as ``val/NAME``.
    """
    if event.kind == "step":
        named = {
            "contrastive_loss" if name == "clip_loss" else name: value
            for name, value in event.terms.items()
        }
        if event.terms:
            named["loss"] = sum(event.terms.values())
        if event.temperature is not None:
            named["scale"] = 1.0 / event.temperature
        from geomkit.training.config import learning_rate

        named |= {
            "lr": learning_rate(event.config, event.step - 1),
            "data_time": event.seconds[1],
            "batch_time": event.seconds[0],
            "samples_per_second": event.images_per_second,
            "samples_per_second_per_gpu": event.images_per_second / event.ranks,
        }
        return {f"train/{name}": value for name, value in named.items()}
    if event.kind == "evaluation":
        record = event.record
        metrics = record["metrics"]
        named = {"clip_val_loss": record["loss"], "epoch": record["epoch"]}
        named["num_samples"] = record["pairs"]
        named |= {new: metrics[old] for old, new in {**_RECALLS, **_RANKS}.items()}
        named |= {name: value for name, value in metrics.items() if name not in _RECALLS}
        return {f"val/{name}": value for name, value in named.items()}
    return {}


def tracker(
    name: str, out: Path, *, every: int = 1, project: str = "geomkit"
) -> Callable[[Event], None]:
    """A watcher for :func:`geomkit.training.loop.train` that writes scalars as training goes on.

    Args:
        name: of :data:`TRACKERS`.
        out: the run's checkpoint; TensorBoard's files go into the folder ``NAME_tensorboard``
            beside it, Weights & Biases takes its name.
        every: steps between writes.
        project: at Weights & Biases.

    Raises:
        GeomkitError: for an unknown name, or if the package is not installed.
    """
    if name not in TRACKERS:
        raise unknown_name("tracker", name, TRACKERS)
    if importlib.util.find_spec(name) is None:
        raise GeomkitError(
            f"--log {name}: the package {name} is not installed; pip install 'geomkit[{name}]'"
        )
    write = (_tensorboard if name == "tensorboard" else _wandb)(out, project)

    def watch(event: Event) -> None:
        if event.kind == "step" and event.step % every and event.step != event.config.steps:
            return
        write(event, scalars(event))

    return watch


def _tensorboard(out: Path, project: str) -> Callable[[Event, dict[str, float]], None]:
    from torch.utils.tensorboard import SummaryWriter

    folder = out.with_name(f"{out.stem}_tensorboard")
    writers: list[Any] = []

    def write(event: Event, values: dict[str, float]) -> None:
        if event.kind == "start":
            # A run that goes on hides what was written past the checkpoint it goes on from.
            writers.append(SummaryWriter(str(folder), purge_step=event.step + 1))
        for name, value in values.items():
            writers[0].add_scalar(name, value, event.step)
        if event.kind == "evaluation":
            writers[0].flush()
        if event.kind == "end" and writers:
            writers[0].close()

    return write


def _wandb(out: Path, project: str) -> Callable[[Event, dict[str, float]], None]:
    import wandb

    runs: list[Any] = []

    def write(event: Event, values: dict[str, float]) -> None:
        if event.kind == "start":
            # Under one id a run that goes on continues its own curves.
            runs.append(
                wandb.init(
                    project=project,
                    name=out.stem,
                    id=_run_id(out, event),
                    resume="allow",
                    config=asdict(event.config),
                )
            )
        if values:
            runs[0].log({**values, "step": event.step}, step=event.step)
        if event.kind == "end" and runs:
            runs[0].finish()

    return write


def _run_id(out: Path, event: Event) -> str:
    import hashlib

    config = {k: v for k, v in asdict(event.config).items() if k not in ("threads", "precision")}
    text = f"{out.resolve()} {sorted(config.items(), key=lambda item: item[0])}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]
