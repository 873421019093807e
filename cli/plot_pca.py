"""``geomkit plot-pca``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from geomkit.errors import GeomkitError

from .many import load_all, write_figure
from .options import FigureOut, ModelOptions, Overwrite, PlotPairs, PlotSources

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_pca"]


def plot_pca(
    sources: PlotSources,
    *,
    out: FigureOut = Path("pca.png"),
    scatter: bool = False,
    lines: bool = False,
    pairs: PlotPairs = 1000,
    options: ModelOptions,
    overwrite: Overwrite = False,
) -> None:
    """Draw cumulative explained variance against the number of principal components.

    Components are those of each modality, centred; bands are 95% intervals over pairs.
    With --scatter, the pairs are drawn on the first two components of images and texts together.

    Args:
        sources: What to draw.
        out: Figure file.
        scatter: Draw pairs on the first two components of both together.
        lines: Join the pairs of --scatter.
        pairs: Number of pairs.
        options: How models become embeddings.
        overwrite: Whether to replace the figure.

    Examples:
        $ geomkit plot-pca clip.pt cua.pt
        $ geomkit plot-pca emb/ --out spectrum.pdf
    """

    def make() -> Figure:
        from geomkit.plots import pca_planes, spectrum_curves

        if lines and not scatter:
            raise GeomkitError("--lines joins the pairs of --scatter; give both")
        if pairs < 1:
            raise GeomkitError(f"pairs: expected 1 or more, got {pairs}")
        loaded = load_all(sources, options)
        return pca_planes(loaded, pairs=pairs, lines=lines) if scatter else spectrum_curves(loaded)

    write_figure(out, overwrite, make)
