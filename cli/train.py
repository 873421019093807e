"""``geomkit train``."""

from __future__ import annotations

import inspect
import signal
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from geomkit.training.config import Option, TrainConfig, configure, default_words

from . import console
from .progress import Display, StopSignal

if TYPE_CHECKING:
    from geomkit.training.loop import Event

__all__ = ["train"]

_PANELS = ("Data", "Model", "Optimisation", "Evaluation and logging", "Machine")
_FOLLOWS = {
    "lock": "freeze", "repeat_captions": "captions", "weight_decay": "lr", "device": "precision"
}  # fmt: skip
"""Options that --help lists behind another one rather than at the end of their panel."""


def _in(panel: str, *names: str, help: str) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=panel)


def _config_option(name: str, kind: Any, default: Any, words: str, option: Option) -> Any:
    """The parameter that sets a field of the configuration."""
    start = inspect.signature(configure).parameters
    if name in start:
        default = start[name].default
    elif words != str(default):  # the recipe's
        default = None
    shown = words if default is None and words != "none" else True
    names = [f"--{name.replace('_', '-')}"] if kind is bool else []
    info = typer.Option(
        *names, help=option.help, show_default=shown, rich_help_panel=option.panel or None
    )
    if default is None:
        kind = kind | None
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, info]
    )


def _with_config(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command an option for each listed field of the configuration, in order of panels."""
    hints = get_type_hints(TrainConfig)
    options = [
        _config_option(f.name, hints[f.name], f.default, default_words(f), f.metadata["option"])
        for f in fields(TrainConfig)
        if f.metadata["option"].listed
    ]
    own = inspect.signature(command, eval_str=True)
    options += [p for p in own.parameters.values() if p.kind is not p.VAR_KEYWORD]
    names = ["", *_PANELS]
    options.sort(key=lambda p: names.index(p.annotation.__metadata__[0].rich_help_panel or ""))
    for name, before in _FOLLOWS.items():
        places = {p.name: k for k, p in enumerate(options)}
        moved = options.pop(places[name])
        options.insert(places[before] + (places[before] < places[name]), moved)
    command.__signature__ = own.replace(parameters=options)  # type: ignore[attr-defined]
    return command


@_with_config
def train(
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="Checkpoint to write.")] = Path(
        "ckpt.pt"
    ),
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue from --out if it exists.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace --out if it exists.")
    ] = False,
    repeat_captions: Annotated[
        bool, _in("Data", "--repeat-captions", help="Allow equal captions in one batch.")
    ] = False,
    cache_images: Annotated[
        bool, _in("Data", "--cache-images", help="Keep decoded, resized images in the cache.")
    ] = False,
    max_bad: Annotated[
        float | None, _in("Data", help="Share of images that may fail to decode, 0 to 1.")
    ] = None,
    image_column: Annotated[
        str | None, _in("Data", help="Column of image files in a csv: data set.")
    ] = None,
    caption_column: Annotated[
        str | None, _in("Data", help="Column of captions in a csv: data set.")
    ] = None,
    lock: Annotated[
        list[str] | None,
        _in(
            "Model",
            help="image[=N] or text[=N]: lock that encoder except its last N layers (default: 0).",
        ),
    ] = None,
    download: Annotated[
        bool, _in("Model", "--download", help="Allow the download of a pretrained model.")
    ] = False,
    log: Annotated[
        list[str] | None,
        _in("Evaluation and logging", help="Tracker: tensorboard or wandb; may be repeated."),
    ] = None,
    device: Annotated[str, _in("Machine", help="Device: auto, cpu, cuda[:n] or mps.")] = "auto",
    workers: Annotated[
        int | None, _in("Machine", help="Processes that decode images; default: one per core.")
    ] = None,
    compile: Annotated[
        bool, _in("Machine", "--compile", help="Run the model through torch.compile.")
    ] = False,
    **config: Any,
) -> int:
    """Train a two-encoder model and write its checkpoint.

    Under torchrun (torchrun --nproc-per-node N -m geomkit_cli train …) the ranks share each batch.
    """
    from geomkit.data import with_options
    from geomkit.errors import GeomkitError

    config["data"] = with_options(
        config["data"], max_bad=max_bad, image_column=image_column, caption_column=caption_column
    )
    config["distinct_captions"] = not repeat_captions
    asked = configure(**config, **_locks(lock or []))
    if log and len(set(log)) < len(log):
        raise GeomkitError(f"--log {log[0]}: given twice; give each tracker once")
    console.line("geomkit: loading torch and open_clip …") if console.interactive() else None
    from geomkit._core.parallel import Team
    from geomkit.training.loop import Interrupted
    from geomkit.training.loop import train as run

    team = Team.from_environment()
    watchers: list[Any] = []
    if log and team.rank == 0:
        from geomkit.training.trackers import tracker

        watchers = [tracker(name, out) for name in log]
    with StopSignal("stopping after this step", patient=team.size > 1) as stop:
        try:
            with _Watcher(quiet=team.rank > 0) as watcher:
                run(
                    asked,
                    out,
                    device=device,
                    workers=workers,
                    cache_images=cache_images,
                    compile=compile,
                    download=download,
                    fit_batch=config["batch_size"] is None,
                    resume=resume,
                    overwrite=overwrite,
                    watch=_all(watcher, *watchers),
                    should_stop=stop,
                    progress=watcher.preparing,
                    team=team,
                )
        except Interrupted as error:
            if team.rank == 0:
                console.line(f"geomkit: {error}")
            return 128 + (stop.number or signal.SIGTERM)
        finally:
            team.close()
    if team.rank == 0:
        typer.echo(out)
    return 0


def _all(*watchers: Callable[[Event], None]) -> Callable[[Event], None]:
    def watch(event: Event) -> None:
        for watcher in watchers:
            watcher(event)

    return watch


def _locks(words: list[str]) -> dict[str, Any]:
    """``--lock image=2`` as the field of the configuration."""
    from geomkit.errors import GeomkitError

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
        if event.kind == "bad":  # a rank is the only one to know its own
            self.log(f"geomkit: {event.note}", even_if_quiet=True)
        elif self.quiet:
            return
        elif event.kind == "start":
            self._start(event)
        elif event.kind == "step":
            # A mean over about twenty steps: one step's speed jumps too much to read.
            seen = event.images_per_second
            self.speed = seen if not self.speed else 0.95 * self.speed + 0.05 * seen
            total = sum(event.terms.values())
            parts = " ".join(
                f"{name.removesuffix('_loss')} {value:.3f}" for name, value in event.terms.items()
            )
            self.show(
                "training", event.step, event.config.steps,
                f"loss {total:.3f} ({parts}) {self.speed:,.0f} img/s",
            )  # fmt: skip
        elif event.kind == "evaluation":
            self.log(self._evaluation(event))
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

    def _evaluation(self, event: Event) -> str:
        m = event.record["metrics"]
        return (
            f"step {event.step:>5}/{event.config.steps}  {_loss(event.record)}  "
            f"I→T@1 {m['text_retrieval_recall@1']:.3f}  "
            f"centroid distance {m['centroid_distance']:.3f}  "
            f"separability {m['linear_separability']:.3f}  "
            f"uniformity {m['uniformity']:.3f}"
            + (f"  {self.speed:,.0f} img/s" if self.speed else "")
            + f"  {self.seconds:.0f} s"
        )


def _loss(record: dict[str, Any]) -> str:
    """The loss of the evaluated pairs, and of the last batch where these are held out.

    >>> _loss({"split": "val", "loss": 2.5, "train_terms": {"clip": 0.5, "alignment": 0.25}})
    'loss   0.750 train   2.500 val'
    """
    if record["split"] == "train":
        return f"loss {record['loss']:7.3f}"
    terms = record["train_terms"].values()
    last = f"{sum(terms):7.3f}" if terms else f"{'–':>7}"
    return f"loss {last} train {record['loss']:7.3f} {record['split']}"
