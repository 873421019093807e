"""TensorBoard and Weights & Biases, through their own packages and under open_clip's names."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable, Generator
from dataclasses import asdict
from pathlib import Path

from geomkit.errors import GeomkitError, unknown_name
from geomkit.training.config import learning_rate
from geomkit.training.loop import Event

__all__ = ["TRACKERS", "losses", "scalars", "tracker"]

_WAYS = (("text", "image_to_text"), ("image", "text_to_image"))
_RECALLS = {
    f"{side}_retrieval_recall@{k}": f"{name}_R@{k}" for side, name in _WAYS for k in (1, 5, 10)
}
_RANKS = {
    f"{side}_retrieval_{kind}_rank": f"{name}_{kind}_rank"
    for side, name in _WAYS
    for kind in ("mean", "median")
}


def scalars(event: Event) -> dict[str, float]:
    """Return the numbers of an event under open_clip's names.

    A step gives ``train/lr``, ``train/data_time``, ``train/batch_time``,
    ``train/samples_per_second`` and ``train/samples_per_second_per_gpu``. An evaluation gives
    ``val/clip_val_loss`` (the whole loss), ``val/image_to_text_R@1`` and the like, ``val/epoch``,
    ``val/num_samples``, and every geomkit metric as ``val/NAME``.
    """
    if event.kind == "step":
        named = {
            "lr": learning_rate(event.config, event.step - 1),
            "data_time": event.seconds[1],
            "batch_time": event.seconds[0],
            "samples_per_second": event.images_per_second,
            "samples_per_second_per_gpu": event.images_per_second / event.ranks,
        }
        return {f"train/{name}": value for name, value in named.items()}
    record = event.record
    if event.kind != "evaluation" or record is None:
        return {}
    named = {"clip_val_loss": record.loss, "epoch": record.epoch, "num_samples": record.pairs}
    known = record.metrics
    named |= {new: known[old] for old, new in {**_RECALLS, **_RANKS}.items() if old in known}
    named |= {name: value for name, value in known.items() if name not in _RECALLS}
    return {f"val/{name}": value for name, value in named.items()}


def losses(event: Event) -> dict[str, float]:
    """Return the loss that an event knows, of its ``terms_step``, under open_clip's names.

    They are ``train/loss``, ``train/contrastive_loss``, each further term, and ``train/scale``.
    """
    if not event.terms:
        return {}
    named = {
        "contrastive_loss" if name == "clip_loss" else name: value
        for name, value in event.terms.items()
    }
    named["loss"] = sum(event.terms.values())
    if event.temperature is not None:
        named["scale"] = 1.0 / event.temperature
    return {f"train/{name}": value for name, value in named.items()}


def _points(event: Event, done: int) -> list[tuple[int, dict[str, float]]]:
    """Steps and their numbers, in order: on CUDA, an event has the loss of the step before.

    Args:
        event: Event.
        done: Last step whose loss is written.
    """
    new = losses(event) if event.terms_step > done else {}
    found = [(event.terms_step, new), (event.step, scalars(event))]
    return [(step, values) for step, values in found if values]


def tracker(name: str, out: Path, *, project: str = "geomkit") -> Callable[[Event], None]:
    """Return a watcher for :func:`geomkit.train` that writes scalars during training.

    Args:
        name: Name of a tracker in :data:`TRACKERS`.
        out: Checkpoint of the run. TensorBoard's files go into the folder ``NAME_tensorboard``
            beside it; Weights & Biases uses its name.
        project: Project at Weights & Biases.

    Raises:
        GeomkitError: For an unknown name, or if the package is not installed.
    """
    if name not in TRACKERS:
        raise unknown_name("tracker", name, TRACKERS)
    if importlib.util.find_spec(name) is None:
        raise GeomkitError(
            f"--log {name}: the package {name} is not installed; pip install 'geomkit[{name}]'"
        )
    writer = TRACKERS[name](out, project)
    next(writer)
    return writer.send


Writer = Generator[None, Event, None]
"""Takes one event after the other."""


def _start() -> Generator[None, Event, Event]:
    """The event of a run's start; a finished run that is resumed has none."""
    while (event := (yield)).kind != "start":
        pass
    return event


def _tensorboard(out: Path, project: str) -> Writer:
    from torch.utils.tensorboard import SummaryWriter

    event = yield from _start()
    # A resumed run hides what was written after the checkpoint that it continues from.
    folder = out.with_name(f"{out.stem}_tensorboard")
    with SummaryWriter(str(folder), purge_step=event.step + 1) as writer:
        done = event.step
        while True:
            for step, values in _points(event, done):
                for name, value in values.items():
                    writer.add_scalar(name, value, step)
            done = max(done, event.terms_step)
            if event.kind in ("evaluation", "end"):
                writer.flush()
            event = yield


def _wandb(out: Path, project: str) -> Writer:
    import wandb

    event = yield from _start()
    # Under the same id, a resumed run continues its own curves.
    run = wandb.init(
        project=project,
        name=out.stem,
        id=_run_id(out, event),
        resume="allow",
        config=asdict(event.config),
    )
    done = event.step
    while True:
        for step, values in _points(event, done):
            run.log({**values, "step": step}, step=step)
        done = max(done, event.terms_step)
        if event.kind == "end":
            run.finish()
        event = yield


TRACKERS: dict[str, Callable[[Path, str], Writer]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
}
"""Trackers by the name of their package."""


def _run_id(out: Path, event: Event) -> str:
    config = {k: v for k, v in asdict(event.config).items() if k not in ("threads", "precision")}
    text = f"{out.resolve()} {sorted(config.items(), key=lambda item: item[0])}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]
