"""Maps of the texts that give them the images' mean and covariance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from geomkit.engine.moments import Moments
from geomkit.interventions.affine import Affine, power, shrunk

__all__ = ["Coral", "GaussianTransport"]


@dataclass(frozen=True, eq=False)
class Coral(Affine):
    r"""Texts whitened and coloured as images: :math:`y ↦ \bar x + (y-\bar y) Σ_y^{-1/2} Σ_x^{1/2}`.

    Sun, Feng and Saenko, "Return of Frustratingly Easy Domain Adaptation" (arXiv 1511.05547), with
    the means moved too. The images stay.

    Example:
        >>> x, y = np.random.default_rng(0).standard_normal((2, 50, 3))
        >>> Coral.fit(x, y).apply(y, "text").shape
        (50, 3)
    """

    name: ClassVar[str] = "coral"

    @classmethod
    def of(cls, moments: Moments, shrinkage: float | None = None) -> Coral:
        """Return the map of pairs with these moments.

        Args:
            moments: Moments of paired rows.
            shrinkage: ρ of both covariances, 0 to 1; default: the oracle approximating shrinkage.

        Raises:
            GeomkitError: For a shrinkage out of range.
        """
        image, text = _covariances(moments, shrinkage)
        matrix = power(text, -0.5) @ power(image, 0.5)
        return cls(text_centre=moments.mean_y, text_matrix=matrix, text_offset=moments.mean_x)


@dataclass(frozen=True, eq=False)
class GaussianTransport(Affine):
    r"""Optimal transport of the texts' moments onto the images', as if both were Gaussian.

    :math:`y ↦ \bar x + (y - \bar y) A` with :math:`A = Σ_y^{-1/2} (Σ_y^{1/2} Σ_x Σ_y^{1/2})^{1/2}
    Σ_y^{-1/2}`, which moves the rows least of all maps that give them the images' mean and
    covariance (Givens and Shortt 1984; Peyré and Cuturi, arXiv 1803.00567, remark 2.31). The images
    stay.

    Example:
        >>> x, y = np.random.default_rng(0).standard_normal((2, 50, 3))
        >>> matrix = GaussianTransport.fit(x, y).text_matrix
        >>> bool(np.allclose(matrix, matrix.T))
        True
    """

    name: ClassVar[str] = "gaussian-ot"

    @classmethod
    def of(cls, moments: Moments, shrinkage: float | None = None) -> GaussianTransport:
        """Return the map of pairs with these moments.

        Args:
            moments: Moments of paired rows.
            shrinkage: ρ of both covariances, 0 to 1; default: the oracle approximating shrinkage.

        Raises:
            GeomkitError: For a shrinkage out of range.
        """
        image, text = _covariances(moments, shrinkage)
        root, inverse = power(text, 0.5), power(text, -0.5)
        matrix = inverse @ power(root @ image @ root, 0.5) @ inverse
        return cls(text_centre=moments.mean_y, text_matrix=matrix, text_offset=moments.mean_x)


def _covariances(moments: Moments, shrinkage: float | None) -> list[np.ndarray]:
    return [shrunk(moments.covariance(kind), moments.n, shrinkage) for kind in ("xx", "yy")]
