"""``geomkit plot-umap``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import console
from .many import load_all, write_figure
from .options import FigureOut, ModelOptions, Overwrite, PlotPairs, PlotSources, grouped

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_umap"]


@grouped
def plot_umap(
    sources: PlotSources,
    *,
    out: FigureOut = Path("umap.png"),
    sphere: Annotated[
        bool, typer.Option("--sphere", help="Lay out on the sphere instead of the plane.")
    ] = False,
    pairs: PlotPairs = 1000,
    metric: Annotated[
        str,
        typer.Option(help="Distance between rows: cosine, euclidean, correlation or manhattan."),
    ] = "cosine",
    neighbours: Annotated[
        int, typer.Option(help="Number of nearest rows that each row is to stay close to.")
    ] = 15,
    min_dist: Annotated[
        float, typer.Option(help="Smallest distance between points, 0 to 1.")
    ] = 0.1,
    lines: Annotated[bool, typer.Option(help="Join the pairs.")] = True,
    seed: Annotated[int, typer.Option(help="Random seed of the layout.")] = 0,
    options: ModelOptions,
    overwrite: Overwrite = False,
) -> None:
    """Lay out images and texts together by UMAP: nearby points are nearby rows.

    Distances between far points mean nothing; geomkit gap measures the modality gap.
    """

    def make() -> Figure:
        from geomkit.plots import UmapOptions, umap_figure

        layout = UmapOptions(
            pairs=pairs, metric=metric, neighbours=neighbours, min_dist=min_dist, seed=seed
        )
        loaded = load_all(sources, options)
        for name, embeddings in loaded.items():
            shown = min(pairs, embeddings.n)
            console.line(f"{name}: laying out {shown} of {embeddings.n} pairs, seed {seed}")
        return umap_figure(loaded, layout, sphere=sphere, lines=lines)

    write_figure(out, overwrite, make)
