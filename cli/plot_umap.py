"""``geomkit plot-umap``."""

from __future__ import annotations

from typing import Annotated

from . import console
from .many import Figure, draws, load_all
from .options import Drawn, ModelOptions, PlotPairs, PlotSources, one_of

__all__ = ["plot_umap"]


@draws("umap.png")
def plot_umap(
    sources: PlotSources = None,
    *,
    sphere: bool = False,
    pairs: PlotPairs = 1000,
    metric: Annotated[str, one_of("cosine", "euclidean", "correlation", "manhattan")] = "cosine",
    neighbours: int = 15,
    min_dist: float = 0.1,
    lines: bool = True,
    seed: int = 0,
    drawn: Drawn,
    options: ModelOptions,
) -> Figure:
    """Lay out images and texts together by UMAP: nearby points are nearby rows.

    Distances between far points mean nothing; geomkit gap measures the modality gap.

    Args:
        sources: What to draw.
        sphere: Lay out on the sphere instead of the plane.
        pairs: Number of pairs.
        metric: Distance between rows.
        neighbours: Number of nearest rows that each row is to stay close to.
        min_dist: Smallest distance between points, 0 to 1.
        lines: Join the pairs.
        seed: Random seed of the layout.
        drawn: Further matrices, and names.
        options: How models become embeddings.

    Examples:
        $ geomkit plot-umap ckpt.pt
        $ geomkit plot-umap ckpt.pt --sphere --out umap.pdf
    """
    from geomkit.plots import UmapOptions, umap

    drawing = UmapOptions(
        pairs=pairs, metric=metric, neighbours=neighbours, min_dist=min_dist, seed=seed
    )
    loaded = load_all(sources, options, drawn)
    for name, embeddings in loaded.items():
        shown = min(pairs, embeddings.n)
        console.line(f"{name}: laying out {shown} of {embeddings.n} pairs, seed {seed}")
    return umap(loaded, options=drawing, sphere=sphere, lines=lines)
