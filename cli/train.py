"""``geomkit train``."""

from __future__ import annotations

import inspect
import signal
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from geomkit.errors import GeomkitError
from geomkit.training.config import Option, TrainConfig, configure, default_words

from . import console, options
from .progress import Display, StopSignal

if TYPE_CHECKING:
    from geomkit.models.checkpoints import Record
    from geomkit.training.loop import Event

__all__ = ["train"]

_PANELS = ("", "Data", "Model", "Optimisation", "Evaluation and logging", "Machine")
"""Panels of --help, in order."""
_AFTER = {
    **dict.fromkeys(("out", "resume", "overwrite"), "dim"),
    "repeat_captions": "captions",
    **dict.fromkeys(("cache_images", "max_bad", "image_column", "caption_column"), "pairs"),
    "lock": "freeze",
    "download": "image_size",
    "weight_decay": "lr",
    "log": "eval_split",
    "device": "precision",
    **dict.fromkeys(("workers", "compile"), "threads"),
}
"""Fields of the configuration behind which --help lists an option, in the same panel."""


def _config_option(name: str, kind: Any, default: Any, words: str, option: Option) -> Any:
    """The parameter that sets a field of the configuration."""
    start = inspect.signature(configure).parameters
    if name in start:
        default = start[name].default
    elif words != str(default):  # the recipe's
        default = None
    info = typer.Option(
        *([f"--{name.replace('_', '-')}"] if kind is bool else []),
        help=option.help,
        show_default=words if default is None and words != "none" else True,
    )
    kind = kind | None if default is None else kind
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, info]
    )


def _with_config(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command an option for each listed field of the configuration, in order of panels."""
    hints = get_type_hints(TrainConfig)
    described: dict[str, Option] = {f.name: f.metadata["option"] for f in fields(TrainConfig)}
    found = [
        _config_option(f.name, hints[f.name], f.default, default_words(f), described[f.name])
        for f in fields(TrainConfig)
        if described[f.name].listed
    ] + options.parameters(command)

    def place(parameter: inspect.Parameter) -> tuple[int, int, bool]:
        behind = _AFTER.get(parameter.name, parameter.name)
        panel = described[behind].panel
        parameter.annotation.__metadata__[0].rich_help_panel = panel or None  # "": typer's own
        return _PANELS.index(panel), list(described).index(behind), behind != parameter.name

    made = options.as_command(command)
    made.__signature__ = inspect.Signature(sorted(found, key=place))  # type: ignore[attr-defined]
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

    Under torchrun (torchrun --nproc-per-node N -m geomkit_cli train …) the ranks share each batch.

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
    config["data"] = given.complete(config["data"])
    config["distinct_captions"] = not repeat_captions
    asked = configure(**config, **_locks(lock or []))
    if log and len(set(log)) < len(log):
        raise GeomkitError(f"--log {log[0]}: given twice; give each tracker once")
    console.line("geomkit: loading torch and open_clip …") if console.interactive() else None
    from geomkit import training
    from geomkit._core.parallel import Team

    team = Team.from_environment()
    watchers = [training.tracker(name, out) for name in log or [] if team.rank == 0]

    def watch(event: Event) -> None:
        for watcher in watchers:
            watcher(event)

    with StopSignal("stopping after this step", patient=team.size > 1) as stop:
        try:
            with _Watcher(quiet=team.rank > 0) as display:
                watchers.insert(0, display)
                training.train(
                    asked, out, device=device, workers=workers, cache_images=cache_images,
                    compile=compile, download=download, fit_batch=config["batch_size"] is None,
                    resume=resume, overwrite=overwrite, watch=watch, should_stop=stop,
                    progress=display.preparing, team=team,
                )  # fmt: skip
        except training.Interrupted as error:
            if team.rank == 0:
                console.line(f"geomkit: {error}")
            return 128 + (stop.number or signal.SIGTERM)
        finally:
            team.close()
    if team.rank == 0:
        typer.echo(out)
    return 0


def _locks(words: list[str]) -> dict[str, Any]:
    """The fields of the configuration that ``--lock image=2`` stands for."""
    locks = {}
    for word in words:
        side, _, layers = word.partition("=")
        if side not in ("image", "text") or not (layers or "0").isdigit():
            raise GeomkitError(f"--lock {word}: expected image, image=N, text or text=N")
        locks[f"lock_{side}"] = int(layers or 0)
    return locks


class _Watcher(Display):
    """A bar on a terminal, a line per evaluation elsewhere."""

    speed = 0.0

    def __call__(self, event: Event) -> None:
        if event.kind == "bad":  # each rank knows only its own
            self.log(f"geomkit: {event.note}", even_if_quiet=True)
        elif self.quiet:
            return
        elif event.kind == "start":
            self._start(event)
        elif event.kind == "step":
            # A mean over about twenty steps: the speed of one step varies too much to read.
            seen = event.images_per_second
            self.speed = seen if not self.speed else 0.95 * self.speed + 0.05 * seen
            terms = {name.removesuffix("_loss"): value for name, value in event.terms.items()}
            parts = " ".join(f"{name} {value:.3f}" for name, value in terms.items())
            loss = f"loss {sum(terms.values()):.3f} ({parts}) {self.speed:,.0f} img/s"
            self.show("training", event.step, event.config.steps, loss)
        elif event.record is not None and event.kind == "evaluation":
            self.log(self._evaluation(event, event.record))
        elif event.note:
            self.log(f"geomkit: {event.note} at step {event.step}; nothing to do")

    def _start(self, event: Event) -> None:
        c = event.config
        changed = f"τ={c.temperature:g}{' learned' if c.learn_temperature else ''}"
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
        m = record.metrics
        return (
            f"step {event.step:>5}/{event.config.steps}  {_loss(record)}  "
            f"I→T@1 {m['text_retrieval_recall@1']:.3f}  "
            f"centroid distance {m['centroid_distance']:.3f}  "
            f"separability {m['linear_separability']:.3f}  "
            f"uniformity {m['uniformity']:.3f}"
            + (f"  {self.speed:,.0f} img/s" if self.speed else "")
            + f"  {self.seconds:.0f} s"
        )


def _loss(record: Record) -> str:
    """The loss of the evaluated pairs, and of the last batch where these are held out."""
    if record.split == "train":
        return f"loss {record.loss:7.3f}"
    terms = record.train_terms.values()
    last = f"{sum(terms):7.3f}" if terms else f"{'–':>7}"
    return f"loss {last} train {record.loss:7.3f} {record.split}"
