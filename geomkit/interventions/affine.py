"""Interventions that move each modality by an affine map, fitted on moments alone."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np

from geomkit._core.array import Array, like, namespace, upcast
from geomkit.engine.moments import Moments
from geomkit.errors import GeomkitError, unknown_name
from geomkit.interventions.base import Intervention

__all__ = ["MODALITIES", "Affine", "power", "shrunk"]

MODALITIES = ("image", "text")
_SMALLEST = 1e-10
"""Directions whose variance is a smaller part of the largest hold rounding, and are left out."""
_ROUNDING = 16.0
"""Units of rounding up to which nothing is left of a row: its direction would be that of errors."""


@dataclass(frozen=True, eq=False)
class Affine(Intervention):
    r"""A map r ↦ (r − c) A + b of each modality, back on the sphere by normalising.

    A subclass gives :meth:`of`, which needs the moments of the pairs alone: rows of any number, in
    any number of parts, are fitted in one pass.

    Attributes:
        image_centre: c of the images, ``(d,)``; ``None`` for 0.
        image_matrix: A of the images: ``(d, d)``, or ``(d,)`` for a diagonal; ``None`` for 1.
        image_offset: b of the images, ``(d,)``; ``None`` for 0.
        text_centre: c of the texts.
        text_matrix: A of the texts.
        text_offset: b of the texts.
    """

    image_centre: Array | None = None
    image_matrix: Array | None = None
    image_offset: Array | None = None
    text_centre: Array | None = None
    text_matrix: Array | None = None
    text_offset: Array | None = None

    def __post_init__(self) -> None:
        """Refuse parts that do not fit each other, as a damaged file may hold."""
        parts = {f.name: getattr(self, f.name) for f in fields(Affine)}
        given = {name: part for name, part in parts.items() if part is not None}
        dims = {size for part in given.values() for size in np.shape(part)}
        for name, part in given.items():
            if not (
                isinstance(part, np.ndarray)
                and part.dtype.kind == "f"
                and 1 <= part.ndim <= 1 + name.endswith("_matrix")
                and len(dims) == 1
                and np.isfinite(part).all()
            ):
                raise GeomkitError(f"{self.name}: {name}: does not fit; fit it again")

    @classmethod
    @abstractmethod
    def of(cls, moments: Moments, *args: Any, **options: Any) -> Self:
        """Return the intervention fitted on the moments of paired rows."""

    @classmethod
    def fit(cls, x: Array, y: Array, **options: Any) -> Self:
        """Return the intervention fitted on paired rows.

        Args:
            x: Image embeddings, unit rows ``(n, d)``.
            y: Text embeddings, unit rows ``(n, d)``; row i belongs to row i of ``x``.
            options: Options of the method.

        Raises:
            GeomkitError: If the shapes differ, or an option is out of range.
        """
        if tuple(x.shape) != tuple(y.shape):
            raise GeomkitError(
                f"{cls.name}: expected image and text embeddings of equal shape, "
                f"got {tuple(x.shape)} and {tuple(y.shape)}; give one text per image"
            )
        return cls.of(Moments.of(x, y).numpy(), **options)

    def apply(self, rows: Array, modality: str = "image") -> Array:
        """Return rows of one modality after the intervention.

        Args:
            rows: Rows ``(k, d)``, which are normalised first; half precision becomes float32. Those
                of a modality that stays are returned as they are.
            modality: Modality of the rows: ``image`` or ``text``.

        Raises:
            GeomkitError: If the modality is unknown, the dimension is not the fitted one, or
                nothing of a row is left, or it is not finite.
        """
        if modality not in MODALITIES:
            raise unknown_name("modality", modality, MODALITIES)
        parts = [getattr(self, f"{modality}_{part}") for part in ("centre", "matrix", "offset")]
        given = [part for part in parts if part is not None]
        if not given:
            return rows
        rows = rows if hasattr(rows, "ndim") else np.asarray(rows)
        if rows.ndim != 2 or rows.shape[1] != len(given[0]):
            raise GeomkitError(
                f"{self.name}: expected rows of {len(given[0])} dimensions, as fitted, "
                f"got shape {tuple(rows.shape)}"
            )
        rows = upcast(rows)
        xp = namespace(rows)
        centre, matrix, offset = (
            None if part is None else xp.astype(like(part, rows), rows.dtype) for part in parts
        )
        with np.errstate(all="ignore"):  # what overflows, or is no row, is refused below
            lengths = xp.sqrt(xp.vecdot(rows, rows))
            rows = rows / lengths[:, None]
            moved = rows if centre is None else rows - centre
            if matrix is not None:
                moved = moved * matrix if matrix.ndim == 1 else moved @ matrix
            if offset is not None:
                moved = moved + offset
            norms = xp.sqrt(xp.vecdot(moved, moved))
            sizes = [0.0 if part is None else float(np.linalg.norm(part)) for part in parts]
            reach = (1.0 + sizes[0]) * (1.0 if matrix is None else sizes[1]) + sizes[2]
        rounding = _ROUNDING * float(xp.finfo(rows.dtype).eps) * reach
        lengths = xp.where(lengths > 0.0, lengths, float("inf"))
        if not bool(xp.all((norms > rounding) & (norms < float("inf")) & (lengths < float("inf")))):
            raise GeomkitError(
                f"{self.name}: nothing is left of a row of modality {modality}, or it overflows"
            )
        return moved / norms[:, None]


def shrunk(covariance: Array, n: int, shrinkage: float | None) -> np.ndarray:
    r"""Return :math:`(1-ρ) Σ + ρ \frac{\operatorname{tr} Σ}{d} I`.

    Args:
        covariance: Σ of n rows (ddof 0), ``(d, d)``.
        n: Number of rows.
        shrinkage: ρ, 0 to 1; ``None``: the oracle approximating shrinkage of Gaussian rows (Chen,
            Wiesel, Eldar and Hero, "Shrinkage Algorithms for MMSE Covariance Estimation", 2010).

    Raises:
        GeomkitError: For a shrinkage out of range.

    >>> shrunk(np.diag([1.0, 3.0]), 10, 0.5).diagonal().tolist()
    [1.5, 2.5]
    """
    d, scale = len(covariance), float(covariance.trace()) / len(covariance)
    if shrinkage is None:
        square = float(np.mean(np.square(covariance)))
        excess = (n + 1.0) * (square - scale**2 / d)
        shrinkage = 1.0 if excess <= 0 else min(1.0, (square + scale**2) / excess)
    if not 0.0 <= shrinkage <= 1.0:
        raise GeomkitError(f"shrinkage: expected 0 to 1, got {shrinkage:g}")
    return np.asarray((1.0 - shrinkage) * covariance + shrinkage * scale * np.eye(d))


def power(covariance: Array, exponent: float) -> np.ndarray:
    """Return a symmetric power of a covariance ``(d, d)``, on the directions that it has.

    >>> bool(np.allclose(power(np.diag([4.0, 9.0, 0.0]), -0.5), np.diag([1 / 2, 1 / 3, 0])))
    True
    """
    values, vectors = np.linalg.eigh(covariance)
    kept = values > _SMALLEST * max(float(values[-1]), 0.0)
    vectors = vectors[:, kept]
    return (vectors * values[kept] ** exponent) @ vectors.T
