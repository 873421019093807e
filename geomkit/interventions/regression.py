"""The linear map that predicts the image of a text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from geomkit.engine.moments import Moments
from geomkit.errors import GeomkitError
from geomkit.interventions.affine import Affine

__all__ = ["Ridge"]


@dataclass(frozen=True, eq=False)
class Ridge(Affine):
    r"""Ridge regression of the images on the texts; the images stay.

    :math:`y ↦ \bar x + (y - \bar y) W`, where W minimises :math:`\frac1n\sum_i \lVert x_i -
    \bar x - (y_i - \bar y) W \rVert^2 + λ \frac{\operatorname{tr} Σ_y}{d} \lVert W \rVert_F^2`, so
    :math:`W = (Σ_y + λ \frac{\operatorname{tr} Σ_y}{d} I)^{-1} Σ_{yx}`.

    Example:
        >>> x = np.array([[1, 0, 0], [0.8, 0.6, 0], [0.8, -0.6, 0]])
        >>> y = np.array([[0, 0, 1], [0, 0.6, 0.8], [0, -0.6, 0.8]])
        >>> Ridge.fit(x, y, penalty=1e-6).apply(y, "text").round(3).tolist()
        [[1.0, 0.0, 0.0], [0.8, 0.6, 0.0], [0.8, -0.6, 0.0]]
    """

    name: ClassVar[str] = "ridge"

    @classmethod
    def of(cls, moments: Moments, penalty: float = 0.1) -> Ridge:
        """Return the map of pairs with these moments.

        Args:
            moments: Moments of paired rows.
            penalty: λ, positive.

        Raises:
            GeomkitError: For a penalty that is not positive, or texts that are all equal.
        """
        if not 0 < penalty < float("inf"):
            raise GeomkitError(f"penalty: expected a positive number, got {penalty:g}")
        covariance = moments.covariance("yy")
        d = len(covariance)
        scale = float(covariance.trace()) / d
        if scale <= moments.ROUNDING:
            raise GeomkitError("ridge: all texts are equal; there is nothing to fit")
        matrix = np.linalg.solve(
            covariance + penalty * scale * np.eye(d), moments.covariance("xy").T
        )
        return cls(text_centre=moments.mean_y, text_matrix=matrix, text_offset=moments.mean_x)
