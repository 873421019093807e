"""What a row of the gallery does to the queries: the weight of those whose answer it beats."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from geomkit._core.array import Array, accumulator, like, namespace, summable, to_numpy
from geomkit.engine.precision import rounding, unit64

__all__ = ["beaten"]

_BLOCK = 4096
"""Queries compared at once."""
_FEW = 64
"""Dimensions up to which products are float64: they cost little, and near ties are many there."""


def beaten(
    queries: Array,
    rows: Array,
    reference: np.ndarray,
    weights: np.ndarray,
    owner: np.ndarray,
    label: np.ndarray,
) -> np.ndarray:
    """Return for each row the sum of the weights of the queries whose right answer it beats.

    Args:
        queries: Unit rows ``(q, d)``.
        rows: Unit rows ``(r, d)``.
        reference: Cosine of each query with its right answer, ``(q,)``.
        weights: Weights of each query, ``(q, w)``.
        owner: Image of each query, ``(q,)``.
        label: Image of each row, ``(r,)``; a row beats no query of its own image.

    Returns:
        Sums ``(r, w)``.

    >>> x = np.eye(2)
    >>> zeros, ones = np.zeros(2), np.ones((2, 1))
    >>> number = np.arange(2)
    >>> beaten(x, x, zeros - 1, ones, number, number)
    array([[1.],
           [1.]])
    """
    xp, few = namespace(rows), rows.shape[1] <= _FEW
    rows = unit64(rows) if few else rows
    total = accumulator((len(label), weights.shape[1]), float, rows)
    for part in _parts(len(owner)):
        block = unit64(queries[part]) if few else queries[part]
        width = rounding(rows.shape[1], block, rows)
        gram = block @ rows.T
        bar = xp.astype(like(reference[part, None] + width, gram), gram.dtype)
        above = (gram > bar) & like(owner[part, None] != label, gram)
        held = xp.astype(like(weights[part], gram), gram.dtype)
        total += summable(xp.astype(above, gram.dtype).T @ held)
    return to_numpy(total)


def _parts(count: int) -> Iterator[slice]:
    return (slice(start, min(start + _BLOCK, count)) for start in range(0, count, _BLOCK))
