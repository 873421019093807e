"""``geomkit plot-sphere``."""

from __future__ import annotations

from pathlib import Path

from .many import Figure, draws, load_one
from .options import ModelOptions, PlotPairs

__all__ = ["plot_sphere"]


@draws("sphere.png")
def plot_sphere(
    source: str = "ckpt.pt",
    *,
    stages: int = 5,
    pairs: PlotPairs = 1000,
    options: ModelOptions,
) -> Figure:
    """Draw the stages of training on the sphere; rows with d > 3 on their first three PCs.

    The stages are snapshots that a 3-D checkpoint stores. With --data, --split, --close or
    another SOURCE, its embeddings are drawn.

    Args:
        source: A geomkit checkpoint, or any SOURCE: a model or embeddings.
        stages: Number of spheres in the row, 1 to 8.
        pairs: Number of pairs.
        options: How models become embeddings.

    Examples:
        $ geomkit plot-sphere
        $ geomkit plot-sphere ckpt.pt --stages 5 --out sphere.pdf
    """
    from geomkit.plots import project_to_sphere, sphere_row, training_stages
    from geomkit.sources import run_of

    others = (options.data, options.split, options.close)
    run = run_of(source) if others == (None,) * 3 else None
    if run is not None and run.snapshots:
        return sphere_row(training_stages(run, stages), pairs=pairs)
    embeddings, split = load_one(source, options)
    what = run.loss if run is not None else Path(source).name
    title = f"{what}, {split} split, n={embeddings.n}" if split else f"{what}, n={embeddings.n}"
    return sphere_row([project_to_sphere(embeddings, title=title)], pairs=pairs)
