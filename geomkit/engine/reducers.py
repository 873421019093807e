"""Reducers of the pairwise walks: sums of potentials, and ranks; of all pairs and of a sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from geomkit._core.array import Array, is_torch, like, namespace, to_numpy
from geomkit._core.parallel import Team
from geomkit.engine.pairwise import Kind, Pairs, Reducer, Scratch, Tile
from geomkit.engine.ranks import Ranks, count_above, tie_width
from geomkit.engine.sampled import Sample, Strip, row_products
from geomkit.functional import gaussian_potential

__all__ = ["PotentialSums", "RankCounts", "SampledPotentials", "SampledRanks", "row_sums"]


@dataclass(eq=False)
class PotentialSums(Reducer[Pairs, Tile]):
    """Row sums of the Gaussian potential e^{−t‖u−v‖²} over the off-diagonal of each matrix.

    Args:
        t: Inverse temperature of the kernel.

    Attributes:
        xx: For each image, the sum over all other images, ``(n,)``.
        yy: For each paired text, the sum over the paired texts of other images, ``(n,)``.
        xy: For each image, the sum over the paired texts of other images, ``(n,)``.
        yx: For each paired text, the sum over all other images, ``(n,)``.
    """

    t: float = 2.0
    kinds = frozenset({"xx", "yy", "xy"})

    def start(self, pairs: Pairs) -> None:
        """Reset the sums."""
        self.n = pairs.n
        self._scratch = Scratch()
        self.xx, self.yy, self.xy, self.yx = np.zeros((4, pairs.n))

    def tile(self, tile: Tile) -> tuple[np.ndarray, np.ndarray]:
        """Return row and column sums of one tile."""
        cosine = tile.gram[:, : len(tile.cols)]
        potential = gaussian_potential(cosine, self.t, out=self._scratch.like(cosine))
        if tile.diagonal:
            index = range(len(tile.rows))
            potential[index, index] = 0.0
        return row_sums(potential), row_sums(potential.T)

    def add(self, tile: Tile, part: tuple[np.ndarray, np.ndarray]) -> None:
        """Add a tile's sums to its rows and, in a symmetric matrix, to its columns."""
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

    def finish(self, team: Team) -> None:
        """Add the sums of all ranks."""
        self.xx, self.yy, self.xy, self.yx = team.sum(
            np.stack([self.xx, self.yy, self.xy, self.yx])
        )

    def row_means(self, kind: Kind) -> np.ndarray:
        """Return each row's mean potential with all others; ``xy``: the mean of both directions."""
        sums = (self.xy + self.yx) / 2 if kind == "xy" else getattr(self, kind)
        return sums / (self.n - 1)

    def log_mean(self, kind: Kind) -> float:
        """Return the log of the mean potential over i ≠ j: (cross-)uniformity."""
        return float(np.log(self.row_means(kind).mean()))


@dataclass(eq=False)
class SampledPotentials(Reducer[Sample, Strip]):
    """The row sums of :class:`PotentialSums` for sampled pairs only.

    Args:
        t: Inverse temperature of the kernel.
    """

    t: float = 2.0
    kinds = frozenset({"xx", "yy", "xy", "yx"})

    def start(self, pairs: Sample) -> None:
        """Reset the sums."""
        self._sample = pairs
        self._scratch = Scratch()
        self._sums = {kind: np.zeros(len(pairs.rows)) for kind in sorted(self.kinds)}

    def tile(self, tile: Strip) -> np.ndarray:
        """Return the row sums of one strip."""
        cosine = tile.paired
        return row_sums(gaussian_potential(cosine, self.t, out=self._scratch.like(cosine)))

    def add(self, tile: Strip, part: np.ndarray) -> None:
        """Add a strip's sums."""
        self._sums[tile.kind] += part

    def finish(self, team: Team) -> None:
        """Add the sums of all ranks."""
        self._sums = {kind: team.sum(sums) for kind, sums in self._sums.items()}

    def row_means(self, kind: Kind) -> np.ndarray:
        """Return each sampled row's mean potential with all other rows, as the full walk does."""
        others = self._sample.n - 1
        if kind != "xy":  # the potential of a row with itself is 1
            return (self._sums[kind] - 1.0) / others
        own = to_numpy(gaussian_potential(self._sample.own, self.t)).astype(np.float64)
        return ((self._sums["xy"] + self._sums["yx"]) / 2 - own) / others


def row_sums(positive: Array) -> np.ndarray:
    """Return row sums of a matrix of positive numbers, as float64.

    A product with ones is the fastest sum there is, in the dtype of the matrix: a few thousand
    positive terms do not cancel.
    """
    return to_numpy(positive @ namespace(positive).ones_like(positive[0, :])).astype(np.float64)


class RankCounts(Reducer[Pairs, Tile]):
    """Numbers of candidates above the right answer, and tied with it, both ways across xyᵀ.

    A tile on the diagonal holds every score of its images with their own texts.
    """

    kinds = frozenset({"xy"})

    def start(self, pairs: Pairs) -> None:
        """Reset the counts."""
        self._pairs = pairs
        self._best: list[Any] = [None] * pairs.blocks
        self._own: list[Any] = [None] * pairs.blocks
        self._image = np.zeros((2, pairs.n), np.int64)
        self._tied = np.zeros(pairs.n, np.int64)
        self._text = np.zeros((2, pairs.m), np.int64)

    def tile(self, tile: Tile) -> tuple[Any, ...]:
        """Return the counts of one tile; of a diagonal one also the scores of the right answers."""
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
            # The right answers do not compete with each other, nor with themselves.
            mine = own >= best[like(owners, best)] - tie_width(gram)
            tied = np.bincount(owners, weights=to_numpy(mine), minlength=len(tile.rows))
            images = images - np.stack([np.zeros_like(tied), tied]).astype(np.int64)
            texts[1] -= 1
            return images, texts, best, own, tied.astype(np.int64)
        return images, texts

    def add(self, tile: Tile, part: tuple[Any, ...]) -> None:
        """Add a tile's counts."""
        images, texts = part[:2]
        self._image[:, tile.rows.start : tile.rows.stop] += images
        self._text[:, self._pairs.texts(tile.col)] += texts
        if tile.diagonal:
            self._best[tile.row], self._own[tile.col] = part[2:4]
            self._tied[tile.rows.start : tile.rows.stop] = part[4]

    def share(self, team: Team) -> None:
        """Tell every rank the scores of the right answers."""
        if team.size > 1:
            mine = {
                k: (to_numpy(best), to_numpy(own))  # a tensor arrives on its sender's device
                for k, (best, own) in enumerate(zip(self._best, self._own, strict=True))
                if best is not None
            }
            for part in team.gather(mine):
                for k, (best, own) in part.items():
                    self._best[k], self._own[k] = (like(a, self._pairs.x) for a in (best, own))

    def finish(self, team: Team) -> None:
        """Add the counts of all ranks."""
        self._image, self._text = team.sum(self._image), team.sum(self._text)
        self._tied = team.sum(self._tied)

    @property
    def text_retrieval(self) -> Ranks:
        """Ranks of each image's best own text among all texts."""
        several = self._pairs.m > self._pairs.n
        return Ranks(self._image[0], self._image[1], self._tied if several else None)

    @property
    def image_retrieval(self) -> Ranks:
        """Ranks of each text's image among all images, in the order of the texts."""
        return Ranks(*self._text)


class SampledRanks(Reducer[Sample, Strip]):
    """The ranks of :class:`RankCounts` for sampled pairs only, among all candidates.

    ``image_retrieval`` has the paired text of each sampled image as its query.
    """

    kinds = frozenset({"xy", "yx"})

    def start(self, pairs: Sample) -> None:
        """Reset the counts, and find each image's best own text."""
        self._several = pairs.m > pairs.n
        self._own = pairs.own
        self._best, self._positives = _best_own(pairs)
        self._text, self._image = np.zeros((2, 2, len(pairs.rows)), np.int64)

    def tile(self, tile: Strip) -> np.ndarray:
        """Return the counts of one strip."""
        right = self._best if tile.kind == "xy" else self._own
        return count_above(tile.gram, right[:, None], axis=1)

    def add(self, tile: Strip, part: np.ndarray) -> None:
        """Add a strip's counts."""
        counts = self._text if tile.kind == "xy" else self._image
        counts += part

    def finish(self, team: Team) -> None:
        """Add the counts of all ranks."""
        self._text, self._image = team.sum(np.stack([self._text, self._image]))

    @property
    def text_retrieval(self) -> Ranks:
        """Ranks of each sampled image's best own text among all texts."""
        above, tied = self._text
        return Ranks(above, tied - self._positives, self._positives if self._several else None)

    @property
    def image_retrieval(self) -> Ranks:
        """Ranks of each sampled image among all images, by its paired text."""
        above, tied = self._image
        return Ranks(above, tied - 1)


def _best_own(sample: Sample) -> tuple[Array, np.ndarray]:
    """Each sampled image's best score with a text of its own, and how many are tied with it."""
    if sample.m == sample.n:
        return sample.own, np.ones(len(sample.rows), np.int64)
    position = np.full(sample.n, -1)
    position[sample.rows] = np.arange(len(sample.rows))
    texts = np.flatnonzero(position[sample.image_index] >= 0)
    owner = position[sample.image_index[texts]]
    rows = sample.images[like(owner, sample.images)]
    scores = row_products(rows, sample.y[like(texts, sample.y)])
    values = to_numpy(scores)
    best = np.full(len(sample.rows), -np.inf, values.dtype)
    np.maximum.at(best, owner, values)
    tied = np.bincount(owner, weights=values >= best[owner] - tie_width(scores))
    return like(best, scores), tied.astype(np.int64)


def _max_by_owner(own: Array, owners: np.ndarray, n: int, paired: int) -> Array:
    best = own[:paired] + 0  # the paired texts come first, one per image, in order
    if len(owners) == n:
        return best
    extra = like(owners[paired:], own)
    if is_torch(own):
        return best.scatter_reduce(0, extra, own[paired:], "amax")
    np.maximum.at(best, extra, own[paired:])
    return best
