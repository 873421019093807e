"""What the pairwise walk is reduced to: sums of potentials, and ranks."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np

from geomkit._core.array import Array, is_torch, like, namespace, to_numpy
from geomkit._core.parallel import Team
from geomkit.engine.pairwise import Kind, Pairs, Tile
from geomkit.functional import gaussian_potential

__all__ = ["PotentialSums", "RankCounts", "Ranks", "count_above", "row_sums", "tie_width"]

_TIE = 8.0
"""Scores within this many units of rounding are level: two equal rows can get scores that differ
in the last digits, from different corners of a matrix product."""


class PotentialSums:
    """Row sums of the Gaussian potential e^{−t‖u−v‖²} over the off-diagonal of each matrix.

    Args:
        t: inverse temperature of the kernel.
        kinds: which matrices.

    Attributes:
        xx, yy: ``(n,)``, for each row the sum over all others of its modality.
        xy: ``(n,)``, for each image the sum over the texts paired with other images.
        yx: ``(n,)``, the same seen from the texts.
    """

    def __init__(
        self, t: float = 2.0, *, kinds: frozenset[Kind] = frozenset({"xx", "yy", "xy"})
    ) -> None:
        self.t = t
        self.kinds = kinds

    def start(self, pairs: Pairs) -> None:
        """Forget everything."""
        self.n = pairs.n
        self._local = threading.local()
        self.xx, self.yy, self.xy, self.yx = np.zeros((4, pairs.n))

    def tile(self, tile: Tile) -> tuple[np.ndarray, np.ndarray]:
        """Row and column sums of one tile."""
        cosine = tile.gram[:, : len(tile.cols)]
        potential = gaussian_potential(cosine, self.t, out=self._scratch(cosine))
        if tile.diagonal:
            index = range(len(tile.rows))
            potential[index, index] = 0.0
        return row_sums(potential), row_sums(potential.T)

    def _scratch(self, cosine: Array) -> np.ndarray | None:
        """This thread's piece of memory, for numpy."""
        if is_torch(cosine):
            return None
        held = getattr(self._local, "scratch", None)
        if held is None or held.shape != cosine.shape or held.dtype != cosine.dtype:
            held = self._local.scratch = np.empty_like(cosine)
        return held

    def add(self, tile: Tile, part: tuple[np.ndarray, np.ndarray]) -> None:
        """Add a tile's sums to its rows and, in a symmetric matrix, to their mirror image."""
        along_rows, along_cols = part
        rows, cols = slice(tile.rows.start, tile.rows.stop), slice(tile.cols.start, tile.cols.stop)
        if tile.kind == "xy":
            self.xy[rows] += along_rows
            self.yx[cols] += along_cols
            return
        sums = self.xx if tile.kind == "xx" else self.yy
        sums[rows] += along_rows
        if not tile.diagonal:
            sums[cols] += along_cols

    def share(self, team: Team) -> None:
        """Nothing to tell."""

    def finish(self, team: Team) -> None:
        """Add the ranks' sums up."""
        self.xx, self.yy, self.xy, self.yx = team.sum(
            np.stack([self.xx, self.yy, self.xy, self.yx])
        )

    def row_means(self, kind: Kind) -> np.ndarray:
        """For each row its mean potential with all others; ``xy`` the mean of both directions."""
        sums = (self.xy + self.yx) / 2 if kind == "xy" else getattr(self, kind)
        return sums / (self.n - 1)

    def log_mean(self, kind: Kind) -> float:
        """Log of the mean potential over i ≠ j: a uniformity (``xx``, ``yy``) or ``xy``."""
        return float(np.log(self.row_means(kind).mean()))


def row_sums(positive: Array) -> np.ndarray:
    """Row sums of a matrix of positive numbers, as float64.

    A product with ones is the fastest sum there is, in the dtype of the matrix: a few thousand
    positive terms do not cancel.
    """
    return to_numpy(positive @ namespace(positive).ones_like(positive[0, :])).astype(np.float64)


@dataclass(frozen=True)
class Ranks:
    """Where each query's own answer stands among all candidates.

    Attributes:
        greater: candidates that score higher than the best own answer.
        tied: wrong candidates level with it, up to the rounding of the scores.
        own: right answers level with it, itself included; 1 each if not given.
    """

    greater: np.ndarray
    tied: np.ndarray
    own: np.ndarray | None = None

    def hits(self, k: int) -> np.ndarray:
        """For each query, whether it is answered within the top ``k``.

        A tie scores its expectation under random order: with r = k − greater places left for
        w wrong and p right answers that are level, 1 − C(w, r)/C(w + p, r), which for p = 1 is
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
        """Ranks from 1; a tie takes its expectation, (w + p + 1)/(p + 1) places on."""
        own = 1 if self.own is None else self.own
        return self.greater + (self.tied + own + 1.0) / (own + 1.0)

    @property
    def reciprocal(self) -> np.ndarray:
        """Reciprocal ranks; a tie takes the mean over its places, (H(b) − H(a)) / (b − a).

        Of several right answers in one tie only one is counted, which errs downwards.
        """
        if not self.tied.any():
            return 1.0 / (1.0 + self.greater)
        top = int((self.greater + self.tied).max()) + 1
        harmonic = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, top + 1))])
        last = self.greater + self.tied + 1
        return (harmonic[last] - harmonic[self.greater]) / (self.tied + 1.0)


class RankCounts:
    """Counts what stands above or level with the right answer, both ways across xyᵀ.

    Attributes:
        text_retrieval: :class:`Ranks` of each image's best own text among all texts.
        image_retrieval: :class:`Ranks` of each text's image among all images, in the texts' order.
    """

    kinds: frozenset[Kind] = frozenset({"xy"})

    def start(self, pairs: Pairs) -> None:
        """Forget everything."""
        self._pairs = pairs
        self._best: list[Any] = [None] * pairs.blocks
        self._own: list[Any] = [None] * pairs.blocks
        self._image = np.zeros((2, pairs.n), np.int64)
        self._level = np.zeros(pairs.n, np.int64)
        self._text = np.zeros((2, pairs.m), np.int64)

    def tile(self, tile: Tile) -> tuple[Any, ...]:
        """Counts of one tile; from a diagonal one the scores of the right answers as well."""
        gram = tile.gram
        if tile.diagonal:
            owners = self._pairs.owners(tile.col)
            own = gram[like(owners, gram), like(np.arange(len(owners)), gram)]
            best = _max_by_owner(own, owners, len(tile.rows), len(tile.cols))
        else:
            best, own = self._best[tile.row], self._own[tile.col]
        images = count_above(gram, best[:, None], axis=1)
        texts = count_above(gram, own[None, :], axis=0)
        if tile.diagonal:
            # The right answers are no rivals, to an image or to themselves.
            mine = own >= best[like(owners, best)] - tie_width(gram)
            level = np.bincount(owners, weights=to_numpy(mine), minlength=len(tile.rows))
            images = images - np.stack([np.zeros_like(level), level]).astype(np.int64)
            texts[1] -= 1
            return images, texts, best, own, level.astype(np.int64)
        return images, texts

    def add(self, tile: Tile, part: tuple[Any, ...]) -> None:
        """Add a tile's counts."""
        images, texts = part[:2]
        self._image[:, tile.rows.start : tile.rows.stop] += images
        self._text[:, self._pairs.texts(tile.col)] += texts
        if tile.diagonal:
            self._best[tile.row], self._own[tile.col] = part[2:4]
            self._level[tile.rows.start : tile.rows.stop] = part[4]

    def share(self, team: Team) -> None:
        """Tell every rank the scores of the right answers."""
        if team.size > 1:
            mine = {
                k: (to_numpy(best), to_numpy(own))  # a tensor would arrive on its sender's device
                for k, (best, own) in enumerate(zip(self._best, self._own, strict=True))
                if best is not None
            }
            for part in team.gather(mine):
                for k, (best, own) in part.items():
                    self._best[k], self._own[k] = (like(a, self._pairs.x) for a in (best, own))

    def finish(self, team: Team) -> None:
        """Add the ranks' counts up."""
        self._image, self._text = team.sum(self._image), team.sum(self._text)
        self._level = team.sum(self._level)

    @property
    def text_retrieval(self) -> Ranks:
        """Image → text."""
        several = self._pairs.m > self._pairs.n
        return Ranks(self._image[0], self._image[1], self._level if several else None)

    @property
    def image_retrieval(self) -> Ranks:
        """Text → image."""
        return Ranks(*self._text)


def tie_width(gram: Array) -> float:
    """How far two scores may differ and still be level."""
    return _TIE * float(namespace(gram).finfo(gram.dtype).eps)


def count_above(gram: Array, score: Array, *, axis: int) -> np.ndarray:
    """How many entries along an axis lie above a score, and how many level with it: ``(2, k)``."""
    near = tie_width(gram)
    above = _count(gram > score + near, axis)
    return np.stack([above, _count(gram >= score - near, axis) - above])


def _max_by_owner(own: Array, owners: np.ndarray, n: int, paired: int) -> Array:
    best = own[:paired] + 0  # the paired texts come first, one an image, in order
    if len(owners) == n:
        return best
    extra = like(owners[paired:], own)
    if is_torch(own):
        return best.scatter_reduce(0, extra, own[paired:], "amax")
    np.maximum.at(best, extra, own[paired:])
    return best


def _count(mask: Array, axis: int) -> np.ndarray:
    if is_torch(mask):
        return to_numpy(mask.sum(axis))
    return _count_numpy(np.ascontiguousarray(mask), axis)


def _count_numpy(mask: np.ndarray, axis: int) -> np.ndarray:
    """``np.count_nonzero`` along an axis, eight booleans at a time: numpy's own widens each one.

    Bytes are added without carrying into their neighbour, so at most 255 at once.
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
