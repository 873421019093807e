"""Translation of images and texts towards each other, along the gap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from geomkit.engine.moments import Moments
from geomkit.errors import GeomkitError, unknown_name
from geomkit.interventions.affine import MODALITIES, Affine

__all__ = ["Translation"]

_ON = ("both", *MODALITIES)


@dataclass(frozen=True, eq=False)
class Translation(Affine):
    r"""A shift along the gap vector :math:`Δ = \bar x - \bar y`, by a fraction s of it.

    :math:`x ↦ (x - \frac s2 Δ)/\lVert·\rVert` and :math:`y ↦ (y + \frac s2 Δ)/\lVert·\rVert`; on
    one modality alone, that one by the whole sΔ. s = 1 brings the centroids together but for the
    normalisation, s < 0 opens the gap (Liang et al., "Mind the Gap", arXiv 2203.02053, which moves
    both by λΔ: s = 2λ).

    Example:
        >>> import numpy as np
        >>> x = np.array([[1, 0, 0], [0.8, 0.6, 0], [0.8, -0.6, 0]])
        >>> y = np.array([[0, 0, 1], [0, 0.6, 0.8], [0, -0.6, 0.8]])
        >>> fitted = Translation.fit(x, y)
        >>> gap = fitted.apply(x).mean(axis=0) - fitted.apply(y, "text").mean(axis=0)
        >>> bool(np.linalg.norm(x.mean(axis=0) - y.mean(axis=0)) > 1.2 > 0.1 > np.linalg.norm(gap))
        True
    """

    name: ClassVar[str] = "translate"

    @classmethod
    def of(cls, moments: Moments, strength: float = 1.0, on: str = "both") -> Translation:
        """Return the translation of pairs with these moments.

        Args:
            moments: Moments of paired rows.
            strength: Fraction s of the gap vector.
            on: What moves: ``both``, ``image`` or ``text``.

        Raises:
            GeomkitError: For an unknown modality or a fraction that is not finite.
        """
        if on not in _ON:
            raise unknown_name("modality", on, _ON)
        if not abs(strength) < float("inf"):
            raise GeomkitError(f"strength: expected a number, got {strength:g}")
        way = strength * (moments.mean_x - moments.mean_y)
        if on == "both":
            return cls(image_offset=-way / 2, text_offset=way / 2)
        return cls(image_offset=-way) if on == "image" else cls(text_offset=way)
