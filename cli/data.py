"""``geomkit data``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import console

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
) -> None:
    """List the data sets, or show one: counts, licence, attribution, a contact sheet."""
    from geomkit.data import DATASETS, load_data, parse_spec

    if spec is None:
        for name, dataset in DATASETS.items():
            options = ", ".join(dataset.options)
            typer.echo(f"{name}: {dataset.summary}\n  options: {options}\n  {dataset.attribution}")
        return
    name, _, _ = parse_spec(spec)
    if out is not None:
        from geomkit.plots import check_figure_path

        check_figure_path(out, overwrite=overwrite)

    def drawing(done: int, total: int) -> None:
        if done == total:
            console.line(f"drew {total} pictures")

    parts = {
        split: load_data(spec, split=split, size=size, progress=drawing)
        for split in ("train", "val", "all")
    }
    whole = parts["all"]
    captions = sum(map(len, whole.captions))
    typer.echo(f"data set:    {spec} ({DATASETS[name].summary})")
    typer.echo(
        f"pictures:    {len(whole)}, {size} px; train {len(parts['train'])}, "
        f"val {len(parts['val'])}"
    )
    typer.echo(f"captions:    {captions}; first: {', '.join(whole.names[:5])}")
    typer.echo(f"source:      {whole.source}")
    typer.echo(f"licence:     {whole.licence}")
    typer.echo(f"attribution: {whole.attribution}")
    typer.echo(f"sha256:      {whole.fingerprint['sha256']}")
    if out is not None:
        from geomkit.plots import save_figure
        from geomkit.plots.contact_sheet import contact_sheet

        save_figure(contact_sheet(whole, seed=seed), out, overwrite=overwrite)
        typer.echo(f"sheet:       {out}")
