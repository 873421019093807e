"""``geomkit probe``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import console
from .zeroshot import drawing, progress_of, show

if TYPE_CHECKING:
    from geomkit.evaluate.result import TaskResult

__all__ = ["probe"]


def probe(
    sources: Annotated[list[str], typer.Argument(help="Models: checkpoints, open_clip:NAME/TAG…")],
    data: Annotated[
        str,
        typer.Option(
            help="imagefolder:DIR, cifar10:ROOT, cifar100:ROOT, dtd:ROOT, caltech101:ROOT, "
            "imagenet:ROOT, or openmoji,attribute=skin_tone (gender, flag, keycap)."
        ),
    ],
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
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures at a time.")] = 256,
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
    """Linear probe: logistic regression on image rows, scored on pictures it never saw."""
    from geomkit._io import check_target
    from geomkit._runtime import resolve_device, resolve_precision
    from geomkit.evaluate import load_parts
    from geomkit.evaluate import probe as fit_and_score
    from geomkit.sources import open_source

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
