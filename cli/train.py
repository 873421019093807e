"""``geomkit train``."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import console
from .progress import Display, StopSignal

if TYPE_CHECKING:
    from geomkit.training.loop import Event

__all__ = ["train"]


def train(
    loss: Annotated[
        str, typer.Option(help="clip, cua, cuaxu, cu, ca, cxu, uaxu, or a weighted sum of terms.")
    ] = "clip",
    dim: Annotated[
        int | None,
        typer.Option(
            help="Embedding dimension, 2 or more: 128, or the pretrained model's own; given with "
            "--pretrained, both projections are replaced by fresh ones."
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The checkpoint.")] = Path("ckpt.pt"),
    data: Annotated[
        str, typer.Option(help="DATA spec, NAME[:PATH][,key=value…].", rich_help_panel="Data")
    ] = "openmoji",
    model: Annotated[
        str | None,
        typer.Option(
            help="tiny, nano, or an architecture of open_clip's.", rich_help_panel="Model"
        ),
    ] = None,
    pretrained: Annotated[
        str | None,
        typer.Option(
            help="Start from this SOURCE: open_clip:…, hf:…, openai:…, paper:…, a path.",
            rich_help_panel="Model",
        ),
    ] = None,
    keep_projection: Annotated[
        bool,
        typer.Option(
            "--keep-projection", help="Keep the pretrained projections.", rich_help_panel="Model"
        ),
    ] = False,
    freeze: Annotated[
        str | None,
        typer.Option(
            help="image, text, or backbone (all but the projections).", rich_help_panel="Model"
        ),
    ] = None,
    lock: Annotated[
        list[str] | None,
        typer.Option(
            help="image[=N] or text[=N]: lock that encoder but for its last N layers.",
            rich_help_panel="Model",
        ),
    ] = None,
    recipe: Annotated[
        str,
        typer.Option(
            help="Defaults: standard, sphere (d ≤ 3), paper (fine-tuning), or auto.",
            rich_help_panel="Optimisation",
        ),
    ] = "auto",
    captions: Annotated[
        str | None,
        typer.Option(
            help="first, or random: another of an image's each epoch.", rich_help_panel="Data"
        ),
    ] = None,
    repeat_captions: Annotated[
        bool,
        typer.Option(
            "--repeat-captions", help="Let a batch hold one caption twice.", rich_help_panel="Data"
        ),
    ] = False,
    pairs: Annotated[
        int | None, typer.Option(help="Train on so many pairs.", rich_help_panel="Data")
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Side of the pictures in px.", rich_help_panel="Model")
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(help="Pairs a step, over all ranks.", rich_help_panel="Optimisation"),
    ] = None,
    accumulate: Annotated[
        int | None,
        typer.Option(
            help="Compute a batch in so many parts; its loss stays the whole batch's.",
            rich_help_panel="Optimisation",
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Optimizer steps.", rich_help_panel="Optimisation")
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            help="Passes over the data, instead of --steps.", rich_help_panel="Optimisation"
        ),
    ] = None,
    lr: Annotated[
        float | None, typer.Option(help="Peak learning rate.", rich_help_panel="Optimisation")
    ] = None,
    weight_decay: Annotated[
        float | None, typer.Option(help="Of AdamW.", rich_help_panel="Optimisation")
    ] = None,
    beta1: Annotated[
        float | None, typer.Option(help="Of AdamW.", rich_help_panel="Optimisation")
    ] = None,
    beta2: Annotated[
        float | None, typer.Option(help="Of AdamW.", rich_help_panel="Optimisation")
    ] = None,
    warmup: Annotated[
        int | None, typer.Option(help="Steps of linear warm-up.", rich_help_panel="Optimisation")
    ] = None,
    schedule: Annotated[
        str | None, typer.Option(help="cosine or constant.", rich_help_panel="Optimisation")
    ] = None,
    clip_norm: Annotated[
        float | None,
        typer.Option(
            help="Largest gradient norm; 0 leaves it alone.", rich_help_panel="Optimisation"
        ),
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="τ, 0.01 to 1.", rich_help_panel="Optimisation")
    ] = None,
    learn_temperature: Annotated[
        bool,
        typer.Option(
            "--learn-temperature",
            help="Train τ from that start value.",
            rich_help_panel="Optimisation",
        ),
    ] = False,
    eval_every: Annotated[
        int | None,
        typer.Option(help="Steps between evaluations.", rich_help_panel="Evaluation and logging"),
    ] = None,
    eval_split: Annotated[
        str | None,
        typer.Option(help="train, val or all.", rich_help_panel="Evaluation and logging"),
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Of weights and order.", rich_help_panel="Optimisation")
    ] = 0,
    precision: Annotated[
        str | None,
        typer.Option(
            help="auto (bf16 on CUDA), fp32, bf16, or fp64 for checks.", rich_help_panel="Machine"
        ),
    ] = None,
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda[:n] or mps.", rich_help_panel="Machine")
    ] = "auto",
    threads: Annotated[
        int, typer.Option(help="CPU threads; 0: as many as torch takes.", rich_help_panel="Machine")
    ] = 0,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Processes that decode pictures; a core each if not given.",
            rich_help_panel="Machine",
        ),
    ] = None,
    cache_images: Annotated[
        bool,
        typer.Option(
            "--cache-images",
            help="Keep decoded, resized pictures in the cache.",
            rich_help_panel="Data",
        ),
    ] = False,
    max_bad: Annotated[
        float | None,
        typer.Option(help="Share of pictures that may fail to decode.", rich_help_panel="Data"),
    ] = None,
    image_column: Annotated[
        str | None, typer.Option(help="For csv: data sets.", rich_help_panel="Data")
    ] = None,
    caption_column: Annotated[
        str | None, typer.Option(help="For csv: data sets.", rich_help_panel="Data")
    ] = None,
    compile: Annotated[
        bool,
        typer.Option(
            "--compile", help="Run the model through torch.compile.", rich_help_panel="Machine"
        ),
    ] = False,
    log: Annotated[
        list[str] | None,
        typer.Option(
            help="tensorboard or wandb; may be given twice.",
            rich_help_panel="Evaluation and logging",
        ),
    ] = None,
    download: Annotated[
        bool,
        typer.Option(
            "--download", help="Let open_clip fetch a pretrained model.", rich_help_panel="Model"
        ),
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from --out if it exists.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start anew over --out.")] = False,
) -> int:
    """Train a two-encoder model and write its checkpoint.

    Under torchrun (torchrun --nproc-per-node N -m geomkit_cli train …) the ranks share each batch.
    """
    given = {name: value for name, value in locals().items() if name not in _RUN_OPTIONS}
    from geomkit.data import with_options
    from geomkit.errors import GeomkitError
    from geomkit.training.config import configure

    given["data"] = with_options(
        data, max_bad=max_bad, image_column=image_column, caption_column=caption_column
    )
    config = configure(
        **{**given, **_locks(lock or [])},
        keep_projection=keep_projection or None,
        distinct_captions=False if repeat_captions else None,
    )
    if log and len(set(log)) < len(log):
        raise GeomkitError(f"--log {log[0]}: given twice")
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
                    config,
                    out,
                    device=device,
                    workers=workers,
                    cache_images=cache_images,
                    compile=compile,
                    download=download,
                    fit_batch=batch_size is None,
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


_RUN_OPTIONS = frozenset(
    {"out", "device", "resume", "overwrite", "workers", "cache_images", "max_bad", "image_column"}
    | {"caption_column", "compile", "log", "download", "lock", "keep_projection"}
    | {"repeat_captions"}
)
"""What does not decide what is computed, or is put into words of :class:`TrainConfig` first."""


def _all(*watchers: Callable[[Event], None]) -> Callable[[Event], None]:
    def watch(event: Event) -> None:
        for watcher in watchers:
            watcher(event)

    return watch


def _locks(words: list[str]) -> dict[str, int]:
    """``--lock image=2`` as the field of the configuration."""
    from geomkit.errors import GeomkitError

    locks: dict[str, int] = {}
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
