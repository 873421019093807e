"""Centring of each modality, alone and with equal variances of all dimensions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from geomkit._core.array import Array, to_numpy
from geomkit.engine.moments import Moments
from geomkit.interventions.affine import Affine

__all__ = ["Centring", "Standardisation"]


@dataclass(frozen=True, eq=False)
class Centring(Affine):
    r"""Each modality less its own mean: :math:`x ↦ (x - \bar x)/\lVert·\rVert`, and so y.

    It is the calibration of GR-CLIP (Li et al., "Closing the Modality Gap for Mixed Modality
    Search", arXiv 2507.19054).

    Example:
        >>> x = np.array([[1, 0, 0], [0.8, 0.6, 0], [0.8, -0.6, 0]])
        >>> y = np.array([[0, 0, 1], [0, 0.6, 0.8], [0, -0.6, 0.8]])
        >>> Centring.fit(x, y).apply(x)[1:].round(3).tolist()
        [[-0.11, 0.994, 0.0], [-0.11, -0.994, 0.0]]
    """

    name: ClassVar[str] = "centre"

    @classmethod
    def of(cls, moments: Moments) -> Centring:
        """Return the centring of pairs with these moments."""
        return cls(image_centre=moments.mean_x, text_centre=moments.mean_y)


@dataclass(frozen=True, eq=False)
class Standardisation(Affine):
    r"""Each dimension of each modality less its mean, over its standard deviation.

    :math:`x_j ↦ (x_j - \bar x_j)/σ_j`, then normalised; a dimension without variance becomes 0.
    The usual z-score; I0T (An et al., arXiv 2412.14384) standardises embeddings after training too,
    and its code was not compared.

    Example:
        >>> x = np.array([[1, 0, 0], [0.8, 0.6, 0], [0.8, -0.6, 0]])
        >>> y = np.array([[0, 0, 1], [0, 0.6, 0.8], [0, -0.6, 0.8]])
        >>> Standardisation.fit(x, y).apply(y, "text").round(3).tolist()
        [[0.0, 0.0, 1.0], [0.0, 0.866, -0.5], [0.0, -0.866, -0.5]]
    """

    name: ClassVar[str] = "standardise"

    @classmethod
    def of(cls, moments: Moments) -> Standardisation:
        """Return the standardisation of pairs with these moments."""
        image, text = (_inverse_deviations(moments.covariance(kind)) for kind in ("xx", "yy"))
        return cls(
            image_centre=moments.mean_x,
            image_matrix=image,
            text_centre=moments.mean_y,
            text_matrix=text,
        )


def _inverse_deviations(covariance: Array) -> np.ndarray:
    variances = np.diag(to_numpy(covariance))
    known = variances > 1e-14 * variances.max(initial=0.0)
    return np.where(known, 1.0 / np.sqrt(np.where(known, variances, 1.0)), 0.0)
