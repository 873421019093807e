"""Nearest neighbours in the other modality, a block of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from geomkit._core.array import Array, is_torch, like, to_numpy
from geomkit._core.parallel import SOLO, cores, in_order
from geomkit.engine.nearest import MORE
from geomkit.engine.neighbours import TopK
from geomkit.engine.precision import cosines_at, rounding, unit64

__all__ = ["BLOCK", "nearest_across"]

BLOCK = 1024
"""Rows whose neighbours are found at once."""
_GALLERY = 2048
_AT_ONCE = 1 << 23
"""Cosines in float64 that are held at once."""


def nearest_across(
    queries: Array, gallery: Array, k: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the nearest rows of a gallery and their cosines, for one block of queries at a time.

    All rows of the gallery are compared. The order is by cosines in float64, then by row number:
    where the rounding of the products may hide one of the k nearest, all are computed in float64.

    Args:
        queries: Unit rows ``(q, d)``: an array, a tensor or
            :class:`geomkit.embeddings.rows.Rows`.
        gallery: Unit rows ``(m, d)`` of the same kind.
        k: Number of neighbours; all rows of a smaller gallery.

    Yields:
        Row numbers ``(b, k)`` and cosines ``(b, k)``, of :data:`BLOCK` queries or the rest.

    >>> number, cosine = next(nearest_across(np.eye(3), np.eye(3)[::-1], 1))
    >>> number.ravel().tolist(), cosine.ravel().tolist()
    ([2, 1, 0], [1.0, 1.0, 1.0])
    """
    size = len(gallery)
    k, keep = min(k, size), min(k + MORE, size)
    step = max(1, _AT_ONCE // size)

    def work(start: int) -> tuple[np.ndarray, np.ndarray]:
        left = queries[start : start + BLOCK]
        top, rows = TopK(len(left), keep), range(len(left))
        for first in range(0, size, _GALLERY):
            right = gallery[first : first + _GALLERY]
            found = top.candidates(left @ right.T, rows, range(first, first + len(right)))
            top.keep(rows, *found)
        score, number = top.finish(SOLO)
        once, which = np.unique(number, return_inverse=True)
        row = np.repeat(np.arange(len(left)), keep)
        chosen = gallery[like(once, gallery)]
        cosine = cosines_at(left, chosen, row, which.ravel()).reshape(number.shape)
        order = np.lexsort((number, -cosine))[:, :k]
        number, cosine = np.take_along_axis(number, order, 1), np.take_along_axis(cosine, order, 1)
        if keep < size:
            slack = 2 * rounding(left.shape[1], left, chosen)
            unsure = np.flatnonzero(score[:, k - 1] - score[:, -1] <= slack)
            for at in range(0, len(unsure), step):
                some = unsure[at : at + step]
                number[some], cosine[some] = whole(left[like(some, left)])
        return number, cosine

    def whole(left: Array) -> tuple[np.ndarray, np.ndarray]:
        """The nearest of a few queries, by all cosines in float64."""
        rows, parts = unit64(left), []
        for first in range(0, size, _GALLERY):
            parts.append(to_numpy(rows @ unit64(gallery[first : first + _GALLERY]).T))
        cosine = np.concatenate(parts, axis=1)
        number = np.broadcast_to(np.arange(size), cosine.shape)
        order = np.lexsort((number, -cosine))[:, :k]
        return order, np.take_along_axis(cosine, order, 1)

    threads = 1 if is_torch(queries) else cores()
    yield from in_order(work, range(0, len(queries), BLOCK), threads=threads)
