"""Cosines of pairs, of unpaired rows, and of rows of one modality, as densities."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from geomkit._core.array import Array, to_numpy
from geomkit.embeddings.embeddings import Embeddings
from geomkit.errors import GeomkitError
from geomkit.plots.multiples import Panel, Series
from geomkit.plots.planes import spaced
from geomkit.plots.style import IMAGE_COLOUR, TEXT_COLOUR

__all__ = ["Densities", "cosine_densities", "cosine_panels"]

_LOOKS: dict[str, dict[str, Any]] = {
    "pairs": {"colour": "#2e8b57"},
    "images": {"colour": IMAGE_COLOUR},
    "texts": {"colour": TEXT_COLOUR, "line": (0, (4, 2))},
    "unpaired": {"colour": "#8a8a8a", "line": (0, (1, 1.2)), "width": 1.4},
}
"""Look of each density: those that may coincide leave each other to be seen."""
_BLOCK = 1024
_NARROWEST = 1e-6
"""Range of the cosines that counts as one value: the rounding of float32 rows."""


@dataclass(frozen=True, eq=False)
class Densities:
    """Histograms of cosines, each with area 1 over common bins.

    Attributes:
        edges: Edges of the bins, shape ``(bins + 1,)``.
        pairs: Density of the cosine of an image and its text, shape ``(bins,)``.
        unpaired: Density for an image and the text of another image.
        images: Density for two images.
        texts: Density for two texts.
        n: Number of pairs.
        rows: Number of images, and of texts, whose cosines with each other are counted.
    """

    edges: np.ndarray
    pairs: np.ndarray
    unpaired: np.ndarray
    images: np.ndarray
    texts: np.ndarray
    n: int
    rows: int


def cosine_densities(embeddings: Embeddings, *, rows: int = 3000, bins: int = 50) -> Densities:
    """Return the densities of the cosines of embeddings.

    All pairs count. Of more rows than ``rows``, evenly spaced ones are compared with each other.

    Args:
        embeddings: Images and texts; the first text of each image counts.
        rows: Largest number of rows of a modality to compare with each other.
        bins: Number of bins between the smallest and the largest cosine.

    Raises:
        GeomkitError: For modalities with different dimensions.

    >>> found = cosine_densities(Embeddings.of(np.eye(4), -np.eye(4)), bins=10)
    >>> width = np.diff(found.edges)[0]
    >>> (found.pairs * width).round(3).tolist()[:2], (found.images * width).round(3).tolist()[-1]
    ([1.0, 0.0], 1.0)
    """
    if not embeddings.equal_dims:
        raise GeomkitError("cosines of images with texts need one dimension of both")
    x, y = embeddings.pairs()
    paired = np.concatenate(
        [_cosines(x[at : at + _BLOCK], y[at : at + _BLOCK]) for at in range(0, len(x), _BLOCK)]
    )
    kept = spaced(len(x), rows)
    image, text = (to_numpy(side[kept]).astype(np.float64) for side in (x, y))
    kinds = {"unpaired": (image, text), "images": (image, image), "texts": (text, text)}
    ends = [(c.min(), c.max()) for a, b in kinds.values() for c in _others(a, b)]
    low = min(paired.min(), *(end for end, _ in ends))
    high = max(paired.max(), *(end for _, end in ends))
    if high - low < _NARROWEST:
        low, high = low - _NARROWEST / 2, high + _NARROWEST / 2
    edges = np.linspace(low, high, bins + 1)

    def density(blocks: Iterator[np.ndarray]) -> np.ndarray:
        counts = np.zeros(bins)
        for cosines in blocks:
            places = ((cosines - low) * (bins / (high - low))).astype(np.int64)
            counts += np.bincount(np.minimum(places, bins - 1), minlength=bins)
        return counts / (counts.sum() * (high - low) / bins)

    found = {kind: density(_others(a, b)) for kind, (a, b) in kinds.items()}
    return Densities(edges, density(iter([paired])), **found, n=len(x), rows=len(kept))


def _cosines(x: Array, y: Array) -> np.ndarray:
    a, b = (to_numpy(rows).astype(np.float64) for rows in (x, y))
    cosines: np.ndarray = np.einsum("ij,ij->i", a, b)
    return cosines


def _others(a: np.ndarray, b: np.ndarray) -> Iterator[np.ndarray]:
    """Cosines of rows with different numbers; of one modality, those of two rows once."""
    for at in range(0, len(a), _BLOCK):
        cosines = a[at : at + _BLOCK] @ b.T
        here = np.arange(at, at + len(cosines))[:, None]
        columns = np.arange(len(b))
        wanted = columns > here if a is b else columns != here
        if (some := cosines[wanted]).size:
            yield some


def cosine_panels(embeddings: Mapping[str, Embeddings]) -> list[Panel]:
    """Return a panel of densities for each source."""
    panels = []
    for name, one in embeddings.items():
        found = cosine_densities(one)
        width = found.edges[1] - found.edges[0]
        centres = np.append(found.edges, found.edges[-1] + width) - width / 2
        # An empty bin at either end: no density ends in a cliff.
        series = [
            Series(kind, centres, values, np.zeros_like(values), values, **look)
            for kind, look in _LOOKS.items()
            for values in [np.pad(getattr(found, kind), 1)]
        ]
        part = f", {found.rows:,} of {found.n:,} rows" if found.rows < found.n else ""
        panels.append(Panel(series, name, f"Cosine{part}", "Density", bands=True, limits=(0, None)))
    return panels
