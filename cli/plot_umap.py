"""``geomkit plot-umap``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from . import console
from .many import load_all
from .options import Device, Download, ModelData, ModelSplit, Overwrite, Workers

__all__ = ["plot_umap"]


def plot_umap(
    sources: Annotated[
        list[str],
        typer.Argument(help="Any number of checkpoints, models (with --data) or embeddings."),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The picture: .png, .pdf or .svg.")
    ] = Path("umap.png"),
    sphere: Annotated[
        bool, typer.Option("--sphere", help="To the sphere instead of the plane.")
    ] = False,
    pairs: Annotated[int, typer.Option(help="Fit and draw at most so many pairs.")] = 1000,
    metric: Annotated[
        str, typer.Option(help="Between rows: cosine, euclidean, correlation or manhattan.")
    ] = "cosine",
    neighbours: Annotated[int, typer.Option(help="Of each row, that are to stay near.")] = 15,
    min_dist: Annotated[float, typer.Option(help="How closely points may be packed.")] = 0.1,
    lines: Annotated[bool, typer.Option(help="Join the pairs.")] = True,
    seed: Annotated[int, typer.Option(help="Of the layout.")] = 0,
    data: ModelData = None,
    split: ModelSplit = None,
    device: Device = "auto",
    workers: Workers = None,
    download: Download = False,
    overwrite: Overwrite = False,
) -> None:
    """Lay out images and texts together by UMAP, pairs joined: near in the picture is near in d.

    Distances between far points mean nothing in such a picture: read the gap off geomkit gap.
    """
    from geomkit.plots import check_figure_path, save_figure

    check_figure_path(out, overwrite=overwrite)
    from geomkit.plots.umap import check_options, globe_row, umap_plane, umap_sphere

    options: dict[str, Any] = {
        "pairs": pairs,
        "metric": metric,
        "neighbours": neighbours,
        "min_dist": min_dist,
        "seed": seed,
    }
    check_options(**options)
    loaded = load_all(
        sources, data=data, split=split, device=device, workers=workers, download=download
    )
    for name, embeddings, _ in loaded:
        shown = min(pairs, embeddings.n)
        console.line(f"{name}: laying out {shown} of {embeddings.n} pairs, seed {seed}")
    if sphere:
        stages = [umap_sphere(e, title=name, **options) for name, e, _ in loaded]
        figure = globe_row(stages, lines=lines)
    else:
        from geomkit.plots.spectrum import plane_row

        planes = [umap_plane(e, title=name, **options) for name, e, _ in loaded]
        figure = plane_row(planes, lines=lines, equal=False)
    save_figure(figure, out, overwrite=overwrite)
    typer.echo(out)
