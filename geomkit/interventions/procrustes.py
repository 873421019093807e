"""The orthogonal map that brings the text embeddings nearest to the image embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from geomkit._core.array import Array, like, namespace, to_numpy, upcast
from geomkit.errors import GeomkitError, unknown_name
from geomkit.interventions.base import Intervention

__all__ = ["Procrustes"]


@dataclass(frozen=True, eq=False)
class Procrustes(Intervention):
    r"""Orthogonal Procrustes map of the text embeddings; image embeddings stay as they are.

    With :math:`X^T Y = U \Sigma V^T` and :math:`W = U V^T`, the rows y become y Wᵀ, which
    minimises :math:`\lVert X - Y W^T \rVert_F` over all orthogonal W (Schönemann 1966). Fahim,
    Murphy and Fyshe (arXiv 2405.18570) close the gap of their idealised control with it.

    Attributes:
        matrix: W, ``(d, d)``, orthogonal, float64.

    Example:
        >>> turned = np.eye(3)[[1, 2, 0]]
        >>> closed = Procrustes.fit(np.eye(3), turned).apply(turned, "text")
        >>> bool(np.allclose(closed, np.eye(3)))
        True
    """

    name: ClassVar[str] = "procrustes"

    matrix: np.ndarray

    @classmethod
    def fit(cls, x: Array, y: Array) -> Procrustes:
        """Return the map that brings y nearest to x.

        Args:
            x: Image embeddings, unit rows ``(n, d)``.
            y: Text embeddings, unit rows ``(n, d)``; row i belongs to row i of ``x``.

        Raises:
            GeomkitError: If the shapes differ.
        """
        if tuple(x.shape) != tuple(y.shape):
            raise GeomkitError(
                "procrustes: expected image and text embeddings of equal shape, "
                f"got {tuple(x.shape)} and {tuple(y.shape)}; give one text per image"
            )
        images, texts = (to_numpy(rows).astype(np.float64) for rows in (x, y))
        u, _, vt = np.linalg.svd(images.T @ texts)
        return cls(u @ vt)

    def apply(self, rows: Array, modality: str = "image") -> Array:
        """Return text embeddings mapped to the images' side, or image embeddings unchanged.

        Args:
            rows: Unit rows ``(k, d)``; half precision becomes float32.
            modality: Modality of the rows: ``image`` or ``text``.

        Raises:
            GeomkitError: If the modality is unknown or the dimension is not the fitted one.
        """
        if modality not in ("image", "text"):
            raise unknown_name("modality", modality, ("image", "text"))
        if rows.ndim != 2 or rows.shape[1] != len(self.matrix):
            raise GeomkitError(
                f"procrustes: expected rows of {len(self.matrix)} dimensions, as fitted, "
                f"got shape {tuple(rows.shape)}"
            )
        if modality == "image":
            return rows
        rows = upcast(rows)
        return rows @ namespace(rows).astype(like(self.matrix.T, rows), rows.dtype)
