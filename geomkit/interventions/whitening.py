"""Whitening: uncorrelated dimensions of equal variance, of each modality or of both together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from geomkit.engine.moments import Moments
from geomkit.interventions.affine import Affine, power, shrunk

__all__ = ["JointWhitening", "Whitening"]


@dataclass(frozen=True, eq=False)
class Whitening(Affine):
    r"""Each modality whitened by its own covariance: :math:`x ↦ (x - \bar x)\, Σ_x^{-1/2}`.

    The symmetric (ZCA) root, which turns the rows least, of the covariance shrunk by
    :func:`geomkit.interventions.affine.shrunk`. Before they are normalised, the rows of the fit
    have mean 0 and, without shrinkage, identity covariance.

    Example:
        >>> import numpy as np
        >>> x, y = np.random.default_rng(0).standard_normal((2, 50, 3))
        >>> Whitening.fit(x, y).apply(x).shape
        (50, 3)
    """

    name: ClassVar[str] = "whiten"

    @classmethod
    def of(cls, moments: Moments, shrinkage: float | None = None) -> Whitening:
        """Return the whitening of pairs with these moments.

        Args:
            moments: Moments of paired rows.
            shrinkage: ρ, 0 to 1; default: the oracle approximating shrinkage.

        Raises:
            GeomkitError: For a shrinkage out of range.
        """
        image, text = (
            power(shrunk(moments.covariance(kind), moments.n, shrinkage), -0.5)
            for kind in ("xx", "yy")
        )
        return cls(
            image_centre=moments.mean_x,
            image_matrix=image,
            text_centre=moments.mean_y,
            text_matrix=text,
        )


@dataclass(frozen=True, eq=False)
class JointWhitening(Affine):
    r"""Both modalities whitened by one covariance, :math:`\frac12(Σ_x + Σ_y)`, about their means.

    One matrix for both keeps the angles between images and texts that a matrix for each would turn.

    Example:
        >>> import numpy as np
        >>> x, y = np.random.default_rng(0).standard_normal((2, 50, 3))
        >>> fitted = JointWhitening.fit(x, y)
        >>> bool((fitted.image_matrix == fitted.text_matrix).all())
        True
    """

    name: ClassVar[str] = "whiten-joint"

    @classmethod
    def of(cls, moments: Moments, shrinkage: float | None = None) -> JointWhitening:
        """Return the whitening of pairs with these moments.

        Args:
            moments: Moments of paired rows.
            shrinkage: ρ, 0 to 1; default: the oracle approximating shrinkage.

        Raises:
            GeomkitError: For a shrinkage out of range.
        """
        pooled = (moments.covariance("xx") + moments.covariance("yy")) / 2
        matrix = power(shrunk(pooled, 2 * moments.n, shrinkage), -0.5)
        return cls(
            image_centre=moments.mean_x,
            image_matrix=matrix,
            text_centre=moments.mean_y,
            text_matrix=matrix,
        )
