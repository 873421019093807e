"""Cosines in float64 of rows of any precision, and how far the matrix products may be off."""

from __future__ import annotations

import math

import numpy as np

from geomkit._core.array import Array, like, namespace, to_numpy

__all__ = ["cosines", "cosines_at", "is_wide", "rounding", "unit64"]

_CHUNK = 1 << 21
"""Numbers of a gathered block of rows."""


def unit64(rows: Array) -> Array:
    """Return rows as float64 and of unit norm to its precision.

    Rows that were divided by their norms in float32 are off by 1e-7 in length, which in a narrow
    cloud is more than their cosines differ by.

    >>> float(unit64(np.array([[0.6, 0.8]], np.float32))[0, 0])
    0.6000000095367...
    """
    xp = namespace(rows)
    if rows.dtype == xp.float64:
        return rows
    wide = xp.astype(rows, xp.float64)
    return wide / xp.sqrt(xp.sum(wide * wide, axis=1, keepdims=True))


def cosines(a: Array, b: Array) -> np.ndarray:
    """Return the cosine of each row of one matrix with the same row of another, in float64.

    >>> cosines(np.eye(2), np.eye(2)[[0, 0]]).tolist()
    [1.0, 0.0]
    """
    return to_numpy(namespace(a).sum(unit64(a) * unit64(b), axis=1))


def cosines_at(left: Array, right: Array, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    """Return the cosines of chosen pairs of rows of two matrices, in float64.

    Args:
        left: Unit rows ``(r, d)``.
        right: Unit rows ``(c, d)``.
        rows: For each pair, its row of ``left``, ``(k,)``.
        cols: For each pair, its row of ``right``, ``(k,)``.
    """
    step = max(1, _CHUNK // left.shape[1])
    parts = [
        cosines(left[like(rows[k : k + step], left)], right[like(cols[k : k + step], right)])
        for k in range(0, len(rows), step)
    ]
    return np.concatenate(parts) if parts else np.empty(0)


def rounding(dim: int, *matrices: Array) -> float:
    """Return how much products of unit rows may differ from the rows' cosines.

    8 + √d units of rounding: products of equal rows differ by less in every order of summation,
    and rows that were normalised in this precision are off by less.

    Args:
        dim: Number of columns of the rows.
        matrices: The rows; the coarsest counts. Default: float64.

    >>> rounding(64) == 16 * 2.0**-52
    True
    """
    units = (float(namespace(m).finfo(m.dtype).eps) for m in matrices)
    return (8.0 + math.sqrt(dim)) * max(units, default=2.0**-52)


def is_wide(*matrices: Array) -> bool:
    """Whether all matrices are float64."""
    return all(m.dtype == namespace(m).float64 for m in matrices)
