"""Ranks of the right answers among all candidates, with ties counted by their expectation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from geomkit._core.array import Array, is_torch, like, namespace, to_numpy
from geomkit.engine.precision import cosines_at, is_wide, rounding, unit64

__all__ = ["Ranks", "count_above", "count_better", "tie_width"]

_TIE = 8.0
"""Scores that differ by at most this many units of rounding are tied: two equal rows can get scores
that differ in the last digits, from different corners of a matrix product."""
_CHUNK = 1 << 24
"""Numbers of a gathered block of rows on a device."""
_FEW = 64
"""Up to one product in this many is taken again alone; past it, all products of the matrix are."""


@dataclass(frozen=True)
class Ranks:
    """Position of each query's right answer among all candidates.

    Attributes:
        greater: ``(q,)``, wrong candidates that score higher than the best right answer.
        tied: ``(q,)``, wrong candidates tied with it, up to the rounding of the scores.
        own: ``(q,)``, right answers tied with it, itself included; ``None`` means 1 for each query.
    """

    greater: np.ndarray
    tied: np.ndarray
    own: np.ndarray | None = None

    def hits(self, k: int) -> np.ndarray:
        """Probability that each query is answered within the top ``k``; 0 or 1 without ties.

        A tie scores its expectation under random order: with r = k − greater places left for
        w wrong and p right answers that are tied, 1 − C(w, r)/C(w + p, r), which for p = 1 is
        clip(r/(w + 1), 0, 1). A collapsed model, for which all scores are equal, is at chance.

        >>> Ranks(np.array([0, 1, 0]), np.array([0, 0, 3])).hits(1).tolist()
        [1.0, 0.0, 0.25]
        """
        if self.own is None:
            return np.clip((k - self.greater) / (self.tied + 1.0), 0.0, 1.0)
        missed = np.ones(len(self.greater))
        for place in range(k):
            left = place < k - self.greater
            share = (self.tied - place) / np.maximum(self.tied + self.own - place, 1)
            missed = np.where(left, missed * np.clip(share, 0.0, 1.0), missed)
        return 1.0 - missed

    def recall(self, k: int) -> float:
        """Share of queries answered within the top ``k``."""
        return float(self.hits(k).mean())

    @property
    def ranks(self) -> np.ndarray:
        """Ranks from 1, ``(q,)``; a tie takes its expectation, (w + p + 1)/(p + 1) places on."""
        own = 1 if self.own is None else self.own
        return self.greater + (self.tied + own + 1.0) / (own + 1.0)

    @property
    def reciprocal(self) -> np.ndarray:
        """Reciprocal ranks, ``(q,)``; a tie takes the mean over its places, (H(b) − H(a))/(b − a).

        Of several right answers in one tie only one is counted, so the result is too small there.
        """
        if not self.tied.any():
            return 1.0 / (1.0 + self.greater)
        top = int((self.greater + self.tied).max()) + 1
        harmonic = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, top + 1))])
        last = self.greater + self.tied + 1
        return (harmonic[last] - harmonic[self.greater]) / (self.tied + 1.0)


def tie_width(scores: Array) -> float:
    """Largest difference of two tied scores, in the precision of ``scores``."""
    return _TIE * float(namespace(scores).finfo(scores.dtype).eps)


def count_above(scores: Array, reference: Array, *, axis: int) -> np.ndarray:
    """Numbers of scores along an axis that are above a reference, and that are tied with it.

    Args:
        scores: Matrix of scores, ``(r, c)``.
        reference: Scores to compare with, broadcast against ``scores``.
        axis: Axis to count along.

    Returns:
        Counts above and counts tied, ``(2, k)``.
    """
    near = tie_width(scores)
    above = _count(scores > reference + near, axis)
    return np.stack([above, _count(scores >= reference - near, axis) - above])


def count_better(
    gram: Array,
    left: Array,
    right: Array,
    reference: Array,
    *,
    axis: int,
    own: tuple[np.ndarray, np.ndarray],
) -> Array:
    """Numbers of products along an axis that are above a cosine, and that are tied with it.

    Products of float32 that are too near the reference to be told from it are taken again in
    float64: alone if they are few, else all of them at once.

    Args:
        gram: Products ``left @ right.T``, ``(r, c)``.
        left: Unit rows ``(r, d)``.
        right: Unit rows ``(c, d)``.
        reference: Cosine to compare with in float64, for each row (axis 1) or column (axis 0);
            beside ``gram``.
        axis: Axis to count along.
        own: Rows and columns of entries that do not count.

    Returns:
        Counts above and counts tied, ``(2, k)``; on a device they stay there.
    """
    if is_torch(gram) and gram.device.type != "mps":
        return _count_better_there(gram, left, right, reference, axis=axis, own=own)
    dim, size = left.shape[1], gram.shape[0] * gram.shape[1]
    width = rounding(dim, left, right)
    low, high = (_along(reference + side * width, gram, axis) for side in (-1, 1))
    place, ours = own[1 - axis], gram[like(own[0], gram), like(own[1], gram)]

    def count(entries: Array, of_own: Array) -> np.ndarray:
        mine = np.bincount(place[to_numpy(of_own)], minlength=len(reference))
        return _count(entries, axis) - mine

    at = (like(place, gram), 0) if axis == 1 else (0, like(place, gram))
    above = count(gram > high, ours > high[at])
    near = count(gram >= low, ours >= low[at]) - above
    if is_wide(left, right) or not near.any():
        return np.stack([above, near])
    if near.sum() * _FEW > size:
        left, right = unit64(left), unit64(right)
        return count_better(left @ right.T, left, right, reference, axis=axis, own=own)
    rows, cols = _near(gram, low, high, np.flatnonzero(near), axis)
    other = ~np.isin(rows * gram.shape[1] + cols, own[0] * gram.shape[1] + own[1])
    rows, cols = rows[other], cols[other]
    place = rows if axis == 1 else cols
    ahead = cosines_at(left, right, rows, cols) - reference[place]
    width = rounding(dim)
    above = above + np.bincount(place[ahead > width], minlength=len(above))
    return np.stack([above, np.bincount(place[abs(ahead) <= width], minlength=len(above))])


def _count_better_there(
    gram: Any, left: Any, right: Any, reference: Any, *, axis: int,
    own: tuple[np.ndarray, np.ndarray],
) -> Any:  # fmt: skip
    """The counts of :func:`count_better` without a vector that leaves the device.

    Only the number of near products is read, which decides how they are taken again.
    """
    import torch

    dim, wide = left.shape[1], is_wide(left, right)
    width = rounding(dim, left, right)
    reference = reference.to(gram.device)
    low, high = ((reference + side * width).to(gram.dtype).unsqueeze(axis) for side in (-1, 1))
    is_above, is_near = gram > high, gram >= low
    if len(own[0]):
        place = like(own[0], gram), like(own[1], gram)
        is_above[place], is_near[place] = False, False
    above = is_above.sum(axis)
    near = is_near.sum(axis) - above
    many = 0 if wide else int(near.sum())
    if not many:
        return torch.stack([above, near])
    if many * _FEW > gram.numel():
        left, right = unit64(left), unit64(right)
        return count_better(left @ right.T, left, right, reference, axis=axis, own=own)
    rows, cols = (is_near & ~is_above).nonzero(as_tuple=True)
    width = rounding(dim)
    tied = torch.zeros_like(above)
    step = max(1, _CHUNK // dim)
    for r, c in zip(rows.split(step), cols.split(step), strict=True):
        place = r if axis == 1 else c
        ahead = (unit64(left[r]) * unit64(right[c])).sum(1) - reference[place]
        above.index_add_(0, place, (ahead > width).long())
        tied.index_add_(0, place, (ahead.abs() <= width).long())
    return torch.stack([above, tied])


def _near(
    gram: Array, low: Array, high: Array, lines: np.ndarray, axis: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the products between two bounds, in the given rows (axis 1) or columns.

    The bounds are columns (axis 1) or rows of numbers.
    """
    pick = like(lines, gram)
    key = pick if axis == 1 else (slice(None), pick)
    some = gram[key]
    found = namespace(gram).nonzero((some >= low[key]) & (some <= high[key]))
    rows, cols = (to_numpy(k) for k in found)
    return (lines[rows], cols) if axis == 1 else (rows, lines[cols])


def _along(values: np.ndarray, gram: Array, axis: int) -> Any:
    """Values for the rows (axis 1) or columns of a matrix, in its dtype and on its device."""
    values = values[:, None] if axis == 1 else values[None]
    if is_torch(gram):
        return namespace(gram).astype(like(values, gram), gram.dtype)
    return values.astype(gram.dtype)


def _count(mask: Array, axis: int) -> np.ndarray:
    if is_torch(mask):
        return to_numpy(mask.sum(axis))
    return _count_numpy(np.ascontiguousarray(mask), axis)


def _count_numpy(mask: np.ndarray, axis: int) -> np.ndarray:
    """``np.count_nonzero`` along an axis, eight booleans at a time: numpy's widens each of them.

    Bytes are added without carrying into the next byte, so at most 255 at once.
    """
    rows, cols = mask.shape
    if cols % 8:
        return np.count_nonzero(mask, axis=axis).astype(np.int64)
    lanes = mask.view(np.uint64)
    if axis == 0:
        total = np.zeros(cols, np.int64)
        for start in range(0, rows, 255):
            total += np.add.reduce(lanes[start : start + 255], axis=0).view(np.uint8)
        return total
    total = np.zeros(rows, np.int64)
    for start in range(0, cols // 8, 255):
        part = np.ascontiguousarray(np.add.reduce(lanes[:, start : start + 255], axis=1))
        total += part.view(np.uint8).reshape(rows, 8).sum(axis=1, dtype=np.int64)
    return total
