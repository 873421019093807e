"""``geomkit probe``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

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
from .zeroshot import drawing, progress_of, show

if TYPE_CHECKING:
    from geomkit.tasks.result import TaskResult

__all__ = ["probe"]


def probe(
    sources: Models,
    data: TaskData,
    train_split: Annotated[
        str | None, typer.Option(help="By default the data set's own, such as train+val.")
    ] = None,
    test_split: Annotated[
        str | None,
        typer.Option(help="By default the data set's own; else a fifth of each class."),
    ] = None,
    C: Annotated[
        float | None,
        typer.Option(
            "--C", help="Inverse strength of the penalty; by default cross-validation chooses it."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the folds, and of a split of our own.")] = 0,
    per_class: PerClass = False,
    as_json: TaskJson = False,
    out: JsonOut = None,
    overwrite: Overwrite = False,
    device: Device = "auto",
    precision: Precision = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures at a time.")] = 256,
    workers: Workers = None,
    max_bad: MaxBad = 0.01,
    download: Download = False,
) -> None:
    """Linear probe: logistic regression on image rows, scored on pictures it never saw."""
    from geomkit._core.files import check_target
    from geomkit._core.runtime import resolve_device, resolve_precision
    from geomkit.data.labelled import load_parts
    from geomkit.sources import open_source
    from geomkit.tasks import probe as fit_and_score

    if out is not None:
        check_target(out, overwrite=overwrite)
    device = resolve_device(device)
    precision = resolve_precision(precision, device)
    results: list[TaskResult] = []
    for source in sources:
        loaded = open_source(source, download=download)
        train, test = load_parts(
            data,
            preprocess=loaded.preprocess,
            train_split=train_split,
            test_split=test_split,
            seed=seed,
            max_bad=max_bad,
            progress=drawing,
        )
        if not results:
            console.line(
                f"{data}: {len(train):,} pictures to train on ({train.data.split}), "
                f"{len(test):,} to test on ({test.data.split}), {len(test.class_names)} classes; "
                f"{device}, {precision}"
            )
            if test.data.attribution:
                console.line(test.data.attribution)
        results.append(
            fit_and_score(
                loaded,
                train,
                test,
                C=C,
                seed=seed,
                device=device,
                precision=precision,
                batch_size=batch_size,
                workers=workers,
                progress=progress_of(source),
            )
        )
    show(results, as_json=as_json, out=out, overwrite=overwrite, per_class=per_class)
    for r in results:
        how = f"by {r.meta['folds']}-fold cross-validation" if r.meta["C_chosen"] else "as given"
        console.line(f"{r.source}: C {r.meta['C']:.4g}, {how}")
        if not r.meta["converged"]:
            console.line(f"{r.source}: warning: the regression did not converge; a smaller --C may")
        if r.meta["unseen_classes"]:
            names = ", ".join(r.meta["unseen_classes"][:3])
            console.line(
                f"{r.source}: warning: {len(r.meta['unseen_classes'])} classes have no picture "
                f"to train on and count as missed ({names})"
            )
