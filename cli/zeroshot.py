"""``geomkit zeroshot``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import console

if TYPE_CHECKING:
    from geomkit.evaluate.result import TaskResult

__all__ = ["drawing", "show", "zeroshot"]


def zeroshot(
    sources: Annotated[list[str], typer.Argument(help="Models: checkpoints, open_clip:NAME/TAG…")],
    data: Annotated[
        str,
        typer.Option(
            help="imagefolder:DIR, cifar10:ROOT, cifar100:ROOT, dtd:ROOT, caltech101:ROOT, "
            "imagenet:ROOT, or openmoji,attribute=skin_tone (gender, flag, keycap)."
        ),
    ],
    split: Annotated[
        str | None, typer.Option(help="By default the data set's test or val split.")
    ] = None,
    classnames: Annotated[
        Path | None, typer.Option(help="File of class names, one a line or a JSON list.")
    ] = None,
    templates: Annotated[
        Path | None, typer.Option(help="File of prompts with {} or {c}, one a line or JSON.")
    ] = None,
    per_class: Annotated[
        bool, typer.Option("--per-class", help="With the recall of each class.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON in CLIP_benchmark's form.")
    ] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write that JSON here.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace --out.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda[:n] or mps.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16 or fp64.")] = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures and prompts at a time.")] = 256,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes that decode; by default one a core.")
    ] = None,
    max_bad: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Largest share of pictures that may be bad.")
    ] = 0.01,
    download: Annotated[
        bool, typer.Option("--download", help="Let a model's weights be downloaded.")
    ] = False,
) -> None:
    """Zero-shot classification: accuracy, top-5 accuracy and mean recall per class."""
    from geomkit._io import check_target
    from geomkit._runtime import resolve_device, resolve_precision
    from geomkit.evaluate import load_classes
    from geomkit.evaluate import zeroshot as classify
    from geomkit.sources import open_source

    if out is not None:
        check_target(out, overwrite=overwrite)
    device = resolve_device(device)
    precision = resolve_precision(precision, device)
    results: list[TaskResult] = []
    for source in sources:
        loaded = open_source(source, download=download)
        classes = load_classes(
            data,
            preprocess=loaded.preprocess,
            split=split,
            classnames=classnames,
            templates=templates,
            max_bad=max_bad,
            progress=drawing,
        )
        if not results:
            console.line(
                f"{data} ({classes.data.split}): {len(classes):,} pictures of "
                f"{len(classes.class_names)} classes; names {classes.names_from}; "
                f"{len(classes.templates)} prompts {classes.templates_from}; {device}, {precision}"
            )
            if classes.data.attribution:
                console.line(classes.data.attribution)
        results.append(
            classify(
                loaded,
                classes,
                device=device,
                precision=precision,
                batch_size=batch_size,
                workers=workers,
                progress=progress_of(source),
            )
        )
    show(results, as_json=as_json, out=out, overwrite=overwrite, per_class=per_class)


def drawing(done: int, total: int) -> None:
    """Say once that pictures were drawn."""
    if done == total:
        console.line(f"prepared {total} pictures")


def progress_of(source: str) -> Callable[[int, int], None] | None:
    """A counter on a terminal that somebody watches, nothing elsewhere."""
    if not console.interactive():
        return None

    def count(done: int, total: int) -> None:
        end = "\n" if done >= total else ""
        print(f"\r{source}: {done:,} of {total:,} pictures", end=end, file=sys.stderr, flush=True)

    return count


def show(
    results: list[TaskResult], *, as_json: bool, out: Path | None, overwrite: bool, per_class: bool
) -> None:
    """Print a table or JSON, and write JSON: one object for one model, ``results`` for several."""
    from geomkit._io import atomic_write
    from geomkit.evaluate.result import SCHEMA_VERSION, plain

    found = [r.to_json(per_class=per_class) for r in results]
    whole = found[0] if len(found) == 1 else {"schema_version": SCHEMA_VERSION, "results": found}
    text = json.dumps(whole, indent=2, ensure_ascii=False, allow_nan=False)
    if out is not None:
        with atomic_write(out, overwrite=overwrite) as file:
            file.write((text + "\n").encode())
    typer.echo(text if as_json else plain(results, per_class=per_class))
    for r in results:
        for name, reason in r.reasons.items():
            console.line(f"{r.source}: {name} is undefined: {reason}")
        if r.bad:
            first = r.bad[0]
            console.line(
                f"{r.source}: {len(r.bad)} pictures left out, such as {first.id}, which "
                f"{first.reason}"
            )
