"""What the pairwise walk is reduced to: sums of potentials, and ranks."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from geomkit._core.array import Array, is_torch, like, namespace, to_numpy
from geomkit._core.parallel import Team
from geomkit.engine.pairwise import Kind, Pairs, Tile
from geomkit.engine.ranks import Ranks, count_above, tie_width
from geomkit.functional import gaussian_potential

__all__ = ["PotentialSums", "RankCounts", "row_sums"]


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


def _max_by_owner(own: Array, owners: np.ndarray, n: int, paired: int) -> Array:
    best = own[:paired] + 0  # the paired texts come first, one an image, in order
    if len(owners) == n:
        return best
    extra = like(owners[paired:], own)
    if is_torch(own):
        return best.scatter_reduce(0, extra, own[paired:], "amax")
    np.maximum.at(best, extra, own[paired:])
    return best
