"""``geomkit plot-pca``."""

from __future__ import annotations

from geomkit.errors import GeomkitError

from .many import Figure, draws, load_all
from .options import Drawn, ModelOptions, PlotPairs, PlotSources

__all__ = ["plot_pca"]


@draws("pca.png")
def plot_pca(
    sources: PlotSources = None,
    *,
    scatter: bool = False,
    lines: bool = False,
    pairs: PlotPairs = 1000,
    drawn: Drawn,
    options: ModelOptions,
) -> Figure:
    """Draw cumulative explained variance against the number of principal components.

    Components are those of each modality, centred; bands are 95% intervals over pairs.
    With --scatter, the pairs are drawn on the first two components of images and texts together.

    Args:
        sources: What to draw.
        scatter: Draw pairs on the first two components of both together.
        lines: Join the pairs of --scatter.
        pairs: Number of pairs.
        drawn: Further matrices, and names.
        options: How models become embeddings.

    Examples:
        $ geomkit plot-pca clip.pt cua.pt
        $ geomkit plot-pca emb/ --out spectrum.pdf
    """
    from geomkit.plots import pca_planes, spectrum

    if lines and not scatter:
        raise GeomkitError("--lines joins the pairs of --scatter; give both")
    if pairs < 1:
        raise GeomkitError(f"pairs: expected 1 or more, got {pairs}")
    loaded = load_all(sources, options, drawn)
    return pca_planes(loaded, pairs=pairs, lines=lines) if scatter else spectrum(loaded)
