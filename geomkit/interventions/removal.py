"""Removal of what carries the gap: its direction, principal components, or dimensions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from geomkit.engine.moments import Moments
from geomkit.errors import GeomkitError
from geomkit.interventions.affine import Affine

__all__ = ["ComponentRemoval", "DimensionRemoval", "GapProjection"]

_SHARE = 0.9


@dataclass(frozen=True, eq=False)
class GapProjection(Affine):
    r"""Both modalities without the direction of the gap, :math:`u = Δ/\lVert Δ \rVert`.

    :math:`r ↦ r - (r·u) u`, then normalised: before that, the centroids coincide in u, and every
    other direction is as it was. If the gap is orthogonal to what the rows hold (arXiv 2603.29080),
    this costs nothing; ``gap_alignment_*`` of :func:`geomkit.gap` says how far that is so.

    Example:
        >>> x = np.array([[1, 0, 0], [0.8, 0.6, 0], [0.8, -0.6, 0]])
        >>> y = np.array([[0, 0, 1], [0, 0.6, 0.8], [0, -0.6, 0.8]])
        >>> GapProjection.fit(x, y).apply(x).round(3).tolist()
        [[0.707, 0.0, 0.707], [0.485, 0.728, 0.485], [0.485, -0.728, 0.485]]
    """

    name: ClassVar[str] = "project"

    @classmethod
    def of(cls, moments: Moments) -> GapProjection:
        """Return the projection of pairs with these moments.

        Raises:
            GeomkitError: If there is no gap.
        """
        matrix = _orthogonal_to(_gap(cls.name, moments)[:, None])
        return cls(image_matrix=matrix, text_matrix=matrix)


@dataclass(frozen=True, eq=False)
class ComponentRemoval(Affine):
    r"""Both modalities without the principal components that carry the gap.

    The components are the eigenvectors v of the uncentred second moments of all rows of both
    modalities, in the order of their part :math:`(v·u)^2` of the gap direction u: the spectral view
    of the gap (arXiv 2505.03703).

    Example:
        >>> x = np.array([[1, 0, 0], [0.8, 0.6, 0], [0.8, -0.6, 0]])
        >>> y = np.array([[0, 0, 1], [0, 0.6, 0.8], [0, -0.6, 0.8]])
        >>> matrix = ComponentRemoval.fit(x, y, count=1).image_matrix
        >>> bool(np.allclose(matrix @ matrix, matrix)), round(float(matrix.trace()))
        (True, 2)
    """

    name: ClassVar[str] = "remove-components"

    @classmethod
    def of(cls, moments: Moments, count: int | None = None) -> ComponentRemoval:
        """Return the removal for pairs with these moments.

        Args:
            moments: Moments of paired rows.
            count: Number of components; default: as many as carry 90% of the squared gap.

        Raises:
            GeomkitError: If there is no gap, or the count is out of range.
        """
        gap = _gap(cls.name, moments)
        second = sum(
            covariance + np.outer(mean, mean)
            for mean, covariance in map(moments.of_modality, ("image", "text"))
        )
        _, vectors = np.linalg.eigh(second)
        carried = (gap @ vectors) ** 2
        matrix = _orthogonal_to(vectors[:, _first(carried, count)])
        return cls(image_matrix=matrix, text_matrix=matrix)


@dataclass(frozen=True, eq=False)
class DimensionRemoval(Affine):
    r"""Both modalities without the dimensions that carry the gap: those of largest :math:`Δ_j^2`.

    A few dimensions of CLIP's embeddings hold most of its gap (Schrodi et al., "Two Effects, One
    Trigger", arXiv 2404.07983); the dimensions become 0.

    Example:
        >>> x = np.array([[1, 0, 0], [0.8, 0.6, 0], [0.8, -0.6, 0]])
        >>> y = np.array([[0, 0, 1], [0, 0.6, 0.8], [0, -0.6, 0.8]])
        >>> DimensionRemoval.fit(x, y, count=1).image_matrix.tolist()
        [0.0, 1.0, 1.0]
    """

    name: ClassVar[str] = "remove-dimensions"

    @classmethod
    def of(cls, moments: Moments, count: int | None = None) -> DimensionRemoval:
        """Return the removal for pairs with these moments.

        Args:
            moments: Moments of paired rows.
            count: Number of dimensions; default: as many as carry 90% of the squared gap.

        Raises:
            GeomkitError: If there is no gap, or the count is out of range.
        """
        gap = _gap(cls.name, moments)
        kept = np.ones(len(gap))
        kept[_first(gap**2, count)] = 0.0
        return cls(image_matrix=kept, text_matrix=kept)


def _gap(name: str, moments: Moments) -> np.ndarray:
    """Direction of the gap, ``(d,)``."""
    gap = moments.mean_x - moments.mean_y
    length = float(np.linalg.norm(gap))
    if length**2 <= moments.ROUNDING:
        raise GeomkitError(f"{name}: the centroids coincide; there is no gap to remove")
    return gap / length


def _orthogonal_to(directions: np.ndarray) -> np.ndarray:
    """Projection onto what is orthogonal to unit columns, ``(d, d)``."""
    return np.eye(len(directions)) - directions @ directions.T


def _first(carried: np.ndarray, count: int | None) -> np.ndarray:
    """The places that carry most, as many as asked for, of parts that sum to 1."""
    order = np.argsort(-carried)
    most = len(order) - 1
    if most < 1:
        raise GeomkitError("rows have one dimension: to remove it would leave nothing")
    if count is None:
        count = min(most, 1 + int(np.searchsorted(np.cumsum(carried[order]), _SHARE)))
    if not 1 <= count <= most:
        raise GeomkitError(f"count: expected 1 to {most}, got {count}")
    return order[:count]
