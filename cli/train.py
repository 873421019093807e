"""``geomkit train``."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import console

if TYPE_CHECKING:
    from geomkit.train import Event

__all__ = ["train"]


def train(
    loss: Annotated[
        str, typer.Option(help="clip, cua, cuaxu, cu, ca, cxu, uaxu, or a weighted sum of terms.")
    ] = "clip",
    dim: Annotated[int, typer.Option(help="Embedding dimension, 2 or more.")] = 128,
    out: Annotated[Path, typer.Option("--out", "-o", help="The checkpoint.")] = Path("ckpt.pt"),
    data: Annotated[str, typer.Option(help="DATA spec, NAME[,key=value…].")] = "openmoji",
    model: Annotated[
        str | None, typer.Option(help="tiny, nano, or an architecture of open_clip's.")
    ] = None,
    recipe: Annotated[
        str, typer.Option(help="Defaults: standard, sphere (d ≤ 3), or auto.")
    ] = "auto",
    pairs: Annotated[int | None, typer.Option(help="Train on so many pairs.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Side of the pictures in px.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Pairs a step.")] = None,
    steps: Annotated[int | None, typer.Option(help="Optimizer steps.")] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the data, instead of --steps.")
    ] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Of AdamW.")] = None,
    beta1: Annotated[float | None, typer.Option(help="Of AdamW.")] = None,
    beta2: Annotated[float | None, typer.Option(help="Of AdamW.")] = None,
    warmup: Annotated[int | None, typer.Option(help="Steps of linear warm-up.")] = None,
    schedule: Annotated[str | None, typer.Option(help="cosine or constant.")] = None,
    clip_norm: Annotated[
        float | None, typer.Option(help="Largest gradient norm; 0 leaves it alone.")
    ] = None,
    temperature: Annotated[float | None, typer.Option(help="τ, 0.01 to 1.")] = None,
    learn_temperature: Annotated[
        bool, typer.Option("--learn-temperature", help="Train τ from that start value.")
    ] = False,
    eval_every: Annotated[int | None, typer.Option(help="Steps between evaluations.")] = None,
    eval_split: Annotated[str | None, typer.Option(help="train, val or all.")] = None,
    seed: Annotated[int, typer.Option(help="Of weights and order.")] = 0,
    precision: Annotated[str, typer.Option(help="auto, fp32 or bf16.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda[:n] or mps.")] = "auto",
    threads: Annotated[int, typer.Option(help="CPU threads; 0: as many as torch takes.")] = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from --out if it exists.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start anew over --out.")] = False,
) -> int:
    """Train a two-encoder model and write its checkpoint."""
    given = {k: v for k, v in locals().items() if k not in ("out", "device", "resume", "overwrite")}
    from geomkit.errors import GeomkitError
    from geomkit.recipes import configure

    if steps is not None and given.pop("epochs") is not None:
        raise GeomkitError("--steps and --epochs exclude each other; give one")
    given.pop("epochs", None)
    config = configure(**given)
    console.line("geomkit: loading torch and open_clip …") if console.interactive() else None
    from geomkit.train import Interrupted
    from geomkit.train import train as run

    if epochs is not None:
        config = configure(**{**given, "steps": _steps(config, epochs)})
    stop = _StopSignal()
    try:
        with _Watcher(config.steps) as watcher:
            run(
                config,
                out,
                device=device,
                resume=resume,
                overwrite=overwrite,
                watch=watcher,
                should_stop=stop,
                progress=watcher.preparing,
            )
    except Interrupted as error:
        console.line(f"geomkit: {error}")
        return 128 + stop.number
    typer.echo(out)
    return 0


def _steps(config: Any, epochs: int) -> int:
    from geomkit.data import load_data
    from geomkit.errors import GeomkitError
    from geomkit.models import model_config, preprocess_config

    if epochs < 1:
        raise GeomkitError(f"epochs: expected 1 or more, got {epochs}")
    size = preprocess_config(model_config(config.model, image_size=config.image_size))["size"]
    count = len(load_data(config.data, size=size, n=config.pairs))
    return epochs * max(1, count // config.batch_size)


class _StopSignal:
    """Ctrl-C or a scheduler's SIGTERM: finish the step, save, stop; a second one stops at once."""

    def __init__(self) -> None:
        self.number = 0
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._received)

    def _received(self, number: int, frame: FrameType | None) -> None:
        if self.number:
            raise KeyboardInterrupt
        self.number = number
        console.line("\ngeomkit: stopping after this step (again: at once)")

    def __call__(self) -> bool:
        return self.number != 0


class _Watcher:
    """A bar on a terminal, a line an evaluation elsewhere."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.bar: Any = None
        self.started = time.monotonic()
        self.speed = 0.0

    def __enter__(self) -> _Watcher:
        if console.interactive():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            self.bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                TextColumn("{task.completed}/{task.total}"),
                TextColumn("{task.fields[terms]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self.bar.start()
            self.task = self.bar.add_task("preparing", total=None, terms="")
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar:
            self.bar.stop()

    def preparing(self, done: int, total: int) -> None:
        """Pictures drawn so far."""
        if self.bar:
            self.bar.update(self.task, description="drawing", completed=done, total=total)
        elif done == total:
            console.line(f"drew {total} pictures")

    def __call__(self, event: Event) -> None:
        if event.kind == "start":
            self._start(event)
        elif event.kind == "step":
            # A mean over about twenty steps: one step's speed jumps too much to read.
            seen = event.images_per_second
            self.speed = seen if not self.speed else 0.95 * self.speed + 0.05 * seen
            if self.bar:
                total = sum(event.terms.values())
                parts = " ".join(
                    f"{name.removesuffix('_loss')} {value:.3f}"
                    for name, value in event.terms.items()
                )
                self.bar.update(
                    self.task,
                    completed=event.step,
                    terms=f"loss {total:.3f} ({parts}) {self.speed:,.0f} img/s",
                )
        elif event.kind == "evaluation":
            self._log(self._evaluation(event))
        elif event.note:
            self._log(f"geomkit: {event.note} at step {event.step}; nothing to do")

    def _start(self, event: Event) -> None:
        c = event.config
        changed = f"τ={c.temperature:g}{' learned' if c.learn_temperature else ''}"
        self._log(
            f"{c.loss} in {c.dim}-D, recipe '{c.recipe}': {c.model} on {event.note}; "
            f"{c.steps} steps of {c.batch_size}, lr {c.lr:g} {c.schedule}, {changed}, "
            f"seed {c.seed}, {c.precision} on {event.device}"
            + (f", {c.threads} threads" if event.device == "cpu" else "")
        )
        if self.bar:
            self.bar.update(self.task, description="training", completed=event.step, total=c.steps)

    def _evaluation(self, event: Event) -> str:
        m = event.record["metrics"]
        return (
            f"step {event.step:>5}/{self.steps}  loss {event.record['loss']:7.3f}  "
            f"I→T@1 {m['text_retrieval_recall@1']:.3f}  "
            f"centroid distance {m['centroid_distance']:.3f}  "
            f"separability {m['linear_separability']:.3f}  "
            f"uniformity {m['uniformity']:.3f}"
            + (f"  {self.speed:,.0f} img/s" if self.speed else "")
            + f"  {time.monotonic() - self.started:.0f} s"
        )

    def _log(self, text: str) -> None:
        if self.bar:
            self.bar.console.print(text, highlight=False)
        else:
            console.line(text)
