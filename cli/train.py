"""``geomkit train``."""

from __future__ import annotations

import inspect
import signal
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from geomkit.errors import GeomkitError, reason
from geomkit.training.config import CHOICES, RECIPES, TrainConfig, configure, default_words

from . import console, options
from .progress import Display, StopSignal
from .ranks import joined

if TYPE_CHECKING:
    from geomkit.models.checkpoints import Record
    from geomkit.training.loop import Event

__all__ = ["train"]

_PANELS = {
    None: "loss dim out resume overwrite",
    "Data": "data captions repeat_captions pairs cache_images max_bad image_column caption_column "
    "fast_decode",
    "Model": "model pretrained keep_projection freeze lock image_size download",
    "Optimisation": "recipe batch_size accumulate steps epochs lr weight_decay beta1 beta2 warmup "
    "schedule clip_norm temperature learn_temperature seed final_temperature",
    "Evaluation and logging": "eval_every eval_split eval_metrics log",
    "Machine": "precision device threads workers compile",
}
"""Panels of --help with their options: fields of the configuration, and parameters of the command.
The first one is typer's own."""

_CHOICES = {name: values for name, (_, values) in CHOICES.items()} | {
    "recipe": ("auto", *RECIPES),
    "precision": options.PRECISIONS,
}


def _config_option(parameter: inspect.Parameter, words: str) -> inspect.Parameter:
    """The parameter that sets a field of the configuration, with its default in words."""
    start = inspect.signature(configure).parameters
    default = parameter.default
    if parameter.name in start:
        default = start[parameter.name].default
    elif words != str(default):  # the recipe's
        default = None
    kind, (info,) = parameter.annotation.__origin__, parameter.annotation.__metadata__
    if parameter.name in _CHOICES:
        options.offer(info, _CHOICES[parameter.name])
    if default is None:
        kind, info.show_default = kind | None, words if words != "none" else True
    return parameter.replace(default=default, annotation=Annotated[kind, info])


def _with_config(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command an option for each field of the configuration that a panel lists."""
    words = {f.name: default_words(f) for f in fields(TrainConfig)}
    known = {p.name: _config_option(p, words[p.name]) for p in options.parameters(TrainConfig)}
    known |= {p.name: p for p in options.parameters(command)}
    shown = []
    for panel, names in _PANELS.items():
        for name in names.split():
            shown.append(known[name])
            known[name].annotation.__metadata__[0].rich_help_panel = panel
    made = options.as_command(command)
    made.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
    return made


@_with_config
def train(
    *,
    out: Path = Path("ckpt.pt"),
    resume: bool = False,
    overwrite: options.Overwrite = False,
    repeat_captions: bool = False,
    cache_images: options.CacheImages = False,
    given: options.DataOptions,
    lock: list[str] | None = None,
    download: options.Download = False,
    log: list[str] | None = None,
    device: options.Device = "auto",
    workers: options.Workers = None,
    compile: bool = False,
    **config: Any,
) -> int:
    """Train a two-encoder model and write its checkpoint.

    Under torchrun (torchrun --nproc-per-node N -m geomkit train …) the ranks share each batch.

    Args:
        out (--out, -o): Checkpoint to write.
        resume: Continue --out if it exists.
        overwrite: Whether to replace the checkpoint.
        repeat_captions: Allow equal captions in one batch.
        cache_images: Whether to cache images.
        given: Options that complete the DATA spec.
        lock: image[=N] or text[=N]: train only the last N layers of that encoder.
        download: Whether to download weights.
        log: Tracker: tensorboard or wandb; may be repeated.
        device: Device.
        workers: Processes.
        compile: Run the model through torch.compile.
        config: Fields of the configuration.

    Examples:
        $ geomkit train --loss cua --dim 3
        $ geomkit train --loss clip --dim 128 --data coco:/data/coco --out c.pt
    """
    from geomkit.data import find_data
    from geomkit.models.architectures import model_config

    with joined(device) as team:
        config["data"] = given.complete(config["data"])
        config["distinct_captions"] = not repeat_captions
        asked = configure(**config, **_locks(lock or []))
        if log and len(set(log)) < len(log):
            raise GeomkitError(f"--log {log[0]}: given twice; give each tracker once")
        find_data(asked.data)
        if asked.model and not (asked.pretrained or resume):
            model_config(asked.model, dim=asked.dim, image_size=asked.image_size)
        team.meet()  # what is wrong with the data of one rank ends all, before a long import
        from geomkit.training import loop, tracker

        def watch(event: Event) -> None:
            stop.graceful = True
            display(event)
            for watcher in list(watchers):
                try:
                    watcher(event)
                except OSError as error:
                    watchers.remove(watcher)
                    console.line(f"--log: cannot be written ({reason(error)}); training continues")

        watchers = [tracker(name, out) for name in log or [] if team.rank == 0]
        # Until the first step there is nothing to save. torchrun sends a second signal.
        ranks = team.size > 1
        with StopSignal("stopping after this step", patient=ranks, graceful=ranks) as stop:
            try:
                with _Watcher() as display:
                    loop.train(
                        asked, out, device=device, workers=workers, cache_images=cache_images,
                        compile=compile, download=download, fit_batch=config["batch_size"] is None,
                        resume=resume, overwrite=overwrite, watch=watch, should_stop=stop,
                        progress=display.preparing, team=team,
                    )  # fmt: skip
            except loop.Interrupted as error:
                console.line(f"geomkit: {error}")
                return 128 + (stop.number or signal.SIGTERM)
    if team.rank == 0:
        console.wrote(out)
    return 0


def _locks(words: list[str]) -> dict[str, Any]:
    """The fields of the configuration that ``--lock image=2`` stands for."""
    locks = {}
    for word in words:
        side, _, layers = word.partition("=")
        if side not in ("image", "text") or not (layers or "0").isdecimal():
            raise GeomkitError(f"--lock {word}: expected image, image=N, text or text=N")
        locks[f"lock_{side}"] = int(layers or 0)
    return locks


_SHOWN = {
    "text_retrieval_recall@1": ("I→T@1", "I→T@1"),
    "centroid_distance": ("centroid distance", "gap"),
    "linear_separability": ("separability", "separ."),
    "uniformity": ("uniformity", "unif."),
}
"""Metrics in the line of an evaluation, where they are measured, their words, and short ones."""
_NARROW = 128
"""Columns of a terminal below which the line of an evaluation has short words."""


class _Watcher(Display):
    """A bar on a terminal, a line per evaluation elsewhere."""

    speed = 0.0

    def __call__(self, event: Event) -> None:
        if event.kind == "bad":
            self.log(f"geomkit: {event.note}")
        elif event.kind == "start":
            self._start(event)
        elif event.kind == "step":
            # A mean over about twenty steps: the speed of one step varies too much to read.
            seen = event.images_per_second
            self.speed = seen if not self.speed else 0.95 * self.speed + 0.05 * seen
            terms = {name.removesuffix("_loss"): value for name, value in event.terms.items()}
            parts = " ".join(f"{name} {value:.3f}" for name, value in terms.items())
            loss = f"loss {sum(terms.values()):.3f}"
            if not self.short:
                loss += f" ({parts}) {self.speed:,.0f} img/s"
            self.show("training", event.step, event.config.steps, loss)
        elif event.record is not None and event.kind == "evaluation":
            self.log(self._evaluation(event, event.record))
        elif event.note:
            self.log(f"geomkit: {event.note} at step {event.step}; nothing to do")

    @property
    def short(self) -> bool:
        """Whether the terminal is too narrow for long words."""
        return bool(self.progress) and self.progress.console.width < _NARROW

    def _start(self, event: Event) -> None:
        c = event.config
        end = "" if c.final_temperature is None else f"→{c.final_temperature:g}"
        changed = f"τ={c.temperature:g}{end}{' learned' if c.learn_temperature else ''}"
        frozen = f", {c.freeze} frozen" if c.freeze else ""
        self.log(
            f"{c.loss} in {c.dim}-D, recipe '{c.recipe}': {c.model or c.pretrained}{frozen} "
            f"on {event.note}; {c.steps} steps of {c.batch_size}"
            + (f" over {event.ranks} ranks" if event.ranks > 1 else "")
            + (f" in {c.accumulate} parts" if c.accumulate > 1 else "")
            + f", lr {c.lr:g} {c.schedule}, {changed}, "
            f"seed {c.seed}, {c.precision} on {event.device}"
            + (f", {c.threads} thread{'s' * (c.threads > 1)}" if event.device == "cpu" else "")
        )
        self.show("training", event.step, c.steps)

    def _evaluation(self, event: Event, record: Record) -> str:
        known = record.metrics
        short = self.short
        shown = [f"{both[short]} {known[k]:.3f}" for k, both in _SHOWN.items() if k in known]
        loss = f"loss {record.loss:.3f}" if short else _loss(record)
        speed = [f"{self.speed:,.0f} img/s"] if self.speed and not short else []
        parts = [loss, *shown, *speed, *([] if short else [f"{self.seconds:.0f} s"])]
        return f"step {event.step:>5}/{event.config.steps}  {'  '.join(parts)}"


def _loss(record: Record) -> str:
    """The loss of the evaluated pairs, and of the last batch where these are held out."""
    if record.split == "train":
        return f"loss {record.loss:7.3f}"
    terms = record.train_terms.values()
    last = f"{sum(terms):7.3f}" if terms else f"{'–':>7}"
    return f"loss {last} train {record.loss:7.3f} {record.split}"
