"""The orthogonal map that brings the text embeddings nearest to the image embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from geomkit.engine.moments import Moments
from geomkit.interventions.affine import Affine

__all__ = ["Procrustes"]


@dataclass(frozen=True, eq=False)
class Procrustes(Affine):
    r"""Orthogonal Procrustes map of the text embeddings; image embeddings stay as they are.

    With :math:`X^T Y = U \Sigma V^T` and :math:`W = U V^T`, the rows y become y Wᵀ, which
    minimises :math:`\lVert X - Y W^T \rVert_F` over all orthogonal W (Schönemann 1966). Fahim,
    Murphy and Fyshe (arXiv 2405.18570) close the gap of their idealised control with it.

    ``text_matrix`` is Wᵀ.

    Example:
        >>> turned = np.eye(3)[[1, 2, 0]]
        >>> closed = Procrustes.fit(np.eye(3), turned).apply(turned, "text")
        >>> bool(np.allclose(closed, np.eye(3)))
        True
    """

    name: ClassVar[str] = "procrustes"

    @property
    def matrix(self) -> np.ndarray:
        """W, ``(d, d)``, orthogonal, float64."""
        return np.asarray(self.text_matrix).T

    @classmethod
    def restored(cls, held: dict[str, Any]) -> Procrustes:
        """Return the map of the fields in a file; earlier versions wrote W as ``matrix``."""
        if isinstance(held.get("matrix"), np.ndarray):
            held = {"text_matrix": held["matrix"].T}
        return super().restored(held)

    @classmethod
    def of(cls, moments: Moments) -> Procrustes:
        """Return the map of pairs with these moments."""
        u, _, vt = np.linalg.svd(
            moments.covariance("xy") + np.outer(moments.mean_x, moments.mean_y)
        )
        return cls(text_matrix=(u @ vt).T)
