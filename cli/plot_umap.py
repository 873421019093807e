"""``geomkit plot-umap``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from . import console
from .many import load_all, write_figure
from .options import FigureOut, ModelOptions, Overwrite, PlotPairs, PlotSources

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_umap"]


def plot_umap(
    sources: PlotSources,
    *,
    out: FigureOut = Path("umap.png"),
    sphere: bool = False,
    pairs: PlotPairs = 1000,
    metric: str = "cosine",
    neighbours: int = 15,
    min_dist: float = 0.1,
    lines: bool = True,
    seed: int = 0,
    options: ModelOptions,
    overwrite: Overwrite = False,
) -> None:
    """Lay out images and texts together by UMAP: nearby points are nearby rows.

    Distances between far points mean nothing; geomkit gap measures the modality gap.

    Args:
        sources: What to draw.
        out: Figure file.
        sphere: Lay out on the sphere instead of the plane.
        pairs: Number of pairs.
        metric: Distance between rows: cosine, euclidean, correlation or manhattan.
        neighbours: Number of nearest rows that each row is to stay close to.
        min_dist: Smallest distance between points, 0 to 1.
        lines: Join the pairs.
        seed: Random seed of the layout.
        options: How models become embeddings.
        overwrite: Whether to replace the figure.

    Examples:
        $ geomkit plot-umap ckpt.pt
        $ geomkit plot-umap ckpt.pt --sphere --out umap.pdf
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
