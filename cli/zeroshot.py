"""``geomkit zeroshot``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import console
from .options import (
    Device,
    Download,
    JsonOut,
    MaxBad,
    Models,
    Overwrite,
    PerClass,
    Precision,
    TaskData,
    TaskJson,
    Workers,
)

if TYPE_CHECKING:
    from geomkit.tasks.result import TaskResult

__all__ = ["drawing", "progress_of", "show", "written", "zeroshot"]


def zeroshot(
    sources: Models,
    data: TaskData,
    split: Annotated[
        str | None, typer.Option(help="By default the data set's test or val split.")
    ] = None,
    classnames: Annotated[
        Path | None, typer.Option(help="File of class names, one a line or a JSON list.")
    ] = None,
    templates: Annotated[
        Path | None, typer.Option(help="File of prompts with {} or {c}, one a line or JSON.")
    ] = None,
    per_class: PerClass = False,
    as_json: TaskJson = False,
    out: JsonOut = None,
    overwrite: Overwrite = False,
    device: Device = "auto",
    precision: Precision = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures and prompts at a time.")] = 256,
    workers: Workers = None,
    max_bad: MaxBad = 0.01,
    download: Download = False,
) -> None:
    """Zero-shot classification: accuracy, top-5 accuracy and mean recall per class."""
    from geomkit._core.files import check_target
    from geomkit._core.runtime import resolve_device, resolve_precision
    from geomkit.data.labelled import load_classes
    from geomkit.sources import open_source
    from geomkit.tasks import zeroshot as classify

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
    """Print a table or JSON, and write JSON."""
    from geomkit.tasks.result import plain

    text = written([r.to_json(per_class=per_class) for r in results], out, overwrite=overwrite)
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


def written(found: list[dict[str, Any]], out: Path | None, *, overwrite: bool) -> str:
    """JSON, also in a file if one is named: one object for one result, ``results`` for several."""
    from geomkit._core.files import atomic_write

    version = found[0]["schema_version"]
    whole = found[0] if len(found) == 1 else {"schema_version": version, "results": found}
    text = json.dumps(whole, indent=2, ensure_ascii=False, allow_nan=False)
    if out is not None:
        with atomic_write(out, overwrite=overwrite) as file:
            file.write((text + "\n").encode())
    return text
