"""``geomkit data``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import console

if TYPE_CHECKING:
    from geomkit.data import PairData

__all__ = ["data"]


def data(
    spec: Annotated[
        str | None, typer.Argument(help="A DATA spec; without one the data sets are listed.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Draw 64 samples: .png, .pdf or .svg.")
    ] = None,
    size: Annotated[int, typer.Option(help="Side of the pictures in px.")] = 72,
    seed: Annotated[int, typer.Option(help="Of the choice of samples.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace --out.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Decode every picture and list the bad ones.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(help="Processes that decode for --check; a core each by default.")
    ] = None,
    image_column: Annotated[
        str | None, typer.Option(help="Of a csv: where the paths of the pictures are.")
    ] = None,
    caption_column: Annotated[
        str | None, typer.Option(help="Of a csv: where the captions are.")
    ] = None,
    max_bad: Annotated[
        float | None, typer.Option(help="Share of pictures that may fail to decode.")
    ] = None,
) -> None:
    """List the data sets, or show one: counts, licence, attribution, a contact sheet."""
    from geomkit.data import DATASETS, load_data, parse_spec, with_options

    if spec is None:
        for name, dataset in DATASETS.items():
            pattern = f"{name}:{dataset.path}" if dataset.path else name
            options = ", ".join(dataset.options)
            splits = ", ".join(dataset.splits)
            typer.echo(f"{pattern}: {dataset.summary}\n  options: {options}\n  splits: {splits}")
            if dataset.attribution:
                typer.echo(f"  {dataset.attribution}")
        return
    given = {"image_column": image_column, "caption_column": caption_column, "max_bad": max_bad}
    spec = with_options(spec, **given)
    dataset = DATASETS[parse_spec(spec)[0]]
    if size < 1:
        from geomkit.errors import GeomkitError

        raise GeomkitError(f"--size: expected 1 or more, got {size}")
    if out is not None:
        from geomkit.plots import check_figure_path

        check_figure_path(out, overwrite=overwrite)

    def preparing(done: int, total: int) -> None:
        if done == total:
            console.line(f"prepared {total}")

    whole = load_data(spec, split="all", size=size, progress=preparing)
    typer.echo(f"data set:    {spec} ({dataset.summary})")
    typer.echo(f"pictures:    {len(whole):,}, {size} px; {_splits(spec, size, dataset.splits)}")
    captions = sum(map(len, whole.captions))
    typer.echo(f"captions:    {captions:,}; first: {', '.join(whole.names[:5])}")
    for label, text in [
        ("note", whole.note),
        ("source", whole.source),
        ("licence", whole.licence),
        ("attribution", whole.attribution),
        ("sha256", whole.fingerprint["sha256"]),
    ]:
        if text:
            typer.echo(f"{label + ':':<12} {text}")
    if out is not None:
        from geomkit.plots import save_figure
        from geomkit.plots.contact_sheet import contact_sheet

        save_figure(contact_sheet(_samples(whole, seed), seed=seed), out, overwrite=overwrite)
        typer.echo(f"sheet:       {out}")
    if check:
        _check(whole, workers)


def _splits(spec: str, size: int, names: tuple[str, ...]) -> str:
    """The count of each split, or why there is none."""
    from geomkit.data import load_data
    from geomkit.errors import GeomkitError

    counts = []
    for name in names:
        if name == "all":
            continue
        try:
            part = load_data(spec, split=name, size=size)
        except GeomkitError:
            counts.append(f"no {name}")
            continue
        captions = sum(map(len, part.captions))
        counts.append(f"{name} {len(part):,} with {captions:,} captions")
    return ", ".join(counts)


def _samples(data: PairData, seed: int, count: int = 64) -> PairData:
    """Pictures for the sheet, decoded; those that do not decode are no samples."""
    from dataclasses import replace

    import numpy as np

    rows = np.sort(np.random.default_rng(seed).permutation(len(data))[:count])
    pixels, kept, bad = data.read(rows)
    if not len(kept):
        data.check_bad(bad)
    return replace(data.take(kept), images=pixels, index=np.arange(len(kept)))


def _check(data: PairData, workers: int | None) -> None:
    """Decode everything; an error if more is bad than the data set allows."""
    import numpy as np

    from geomkit.data.loading import batches, resolve_workers

    jobs: list[Any] = [np.arange(i, min(i + 64, len(data))) for i in range(0, len(data), 64)]
    bad = []
    for done, batch in enumerate(batches(data, jobs, workers=resolve_workers(workers, data)), 1):
        bad += batch.bad
        for picture in batch.bad:
            typer.echo(f"bad:         {picture.id}: {picture.reason}")
        if done % 100 == 0 or done == len(jobs):
            console.line(f"decoded {jobs[done - 1][-1] + 1:,} of {len(data):,}")
    typer.echo(f"checked:     {len(data):,} pictures, {len(bad)} bad")
    data.check_bad(bad)
