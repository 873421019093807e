"""Reducers of the pairwise walks: sums of potentials, and ranks; of all pairs and of a sample."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from geomkit._core.array import Array, accumulator, is_torch, namespace, summable, to_numpy
from geomkit._core.parallel import Team
from geomkit.engine.pairwise import Kind, Pairs, Reducer, RightAnswers, Scratch, Tile
from geomkit.engine.ranks import Ranks, count_better
from geomkit.engine.sampled import Sample, Strip
from geomkit.functional import gaussian_potential

__all__ = [
    "OwnKindCounts",
    "PotentialSums",
    "RankCounts",
    "SampledOwnKindCounts",
    "SampledPotentials",
    "SampledRanks",
    "row_sums",
]


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
        self.xx, self.yy, self.xy, self.yx = accumulator((4, pairs.n), float, pairs.near)

    def tile(self, tile: Tile) -> tuple[Array, Array]:
        """Return row and column sums of one tile."""
        cosine = tile.gram[:, : len(tile.cols)]
        potential = gaussian_potential(cosine, self.t, out=self._scratch.like(cosine))
        if tile.diagonal:
            if is_torch(potential):
                potential.fill_diagonal_(0.0)
            else:
                np.fill_diagonal(potential, 0.0)
        return row_sums(potential), row_sums(potential.T)

    def add(self, tile: Tile, part: tuple[Array, Array]) -> None:
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
        sums = [self.xx, self.yy, self.xy, self.yx]
        self.xx, self.yy, self.xy, self.yx = team.sum(to_numpy(namespace(sums[0]).stack(sums)))

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
        count = len(pairs.rows)
        self._sums = {
            kind: accumulator((count,), float, pairs.images) for kind in sorted(self.kinds)
        }

    def tile(self, tile: Strip) -> Array:
        """Return the row sums of one strip."""
        cosine = tile.paired
        return row_sums(gaussian_potential(cosine, self.t, out=self._scratch.like(cosine)))

    def add(self, tile: Strip, part: Array) -> None:
        """Add a strip's sums."""
        self._sums[tile.kind] += part

    def finish(self, team: Team) -> None:
        """Add the sums of all ranks."""
        self._sums = {kind: team.sum(to_numpy(sums)) for kind, sums in self._sums.items()}

    def row_means(self, kind: Kind) -> np.ndarray:
        """Return each sampled row's mean potential with all other rows, as the full walk does."""
        others = self._sample.n - 1
        if kind != "xy":  # the potential of a row with itself is 1
            return (self._sums[kind] - 1.0) / others
        own = to_numpy(gaussian_potential(self._sample.own, self.t)).astype(np.float64)
        return ((self._sums["xy"] + self._sums["yx"]) / 2 - own) / others


def row_sums(positive: Array) -> Array:
    """Return row sums of a matrix of positive numbers, as float64, where the matrix is.

    A product with ones is the fastest sum there is, in the dtype of the matrix: a few thousand
    positive terms do not cancel.
    """
    return summable(positive @ namespace(positive).ones_like(positive[0, :]))


class RankCounts(Reducer[Pairs, Tile]):
    """Numbers of candidates above the right answer, and tied with it, both ways across xyᵀ."""

    kinds = frozenset({"xy"})

    def start(self, pairs: Pairs) -> None:
        """Reset the counts."""
        self._pairs = pairs
        self._image = accumulator((2, pairs.n), int, pairs.near)
        self._text = accumulator((2, pairs.m), int, pairs.near)

    def tile(self, tile: Tile) -> tuple[Array, Array]:
        """Return the counts of one tile, of its rows and of its columns."""
        best = self._pairs.reference(tile.row, "best")
        own = self._pairs.reference(tile.col, "own")
        return _better(tile, best, axis=1), _better(tile, own, axis=0)

    def add(self, tile: Tile, part: tuple[Array, Array]) -> None:
        """Add a tile's counts."""
        images, texts = part
        self._image[:, tile.rows.start : tile.rows.stop] += images
        self._text[:, self._pairs.text_index(tile.col)] += texts

    def finish(self, team: Team) -> None:
        """Add the counts of all ranks."""
        self._image, self._text = (team.sum(to_numpy(c)) for c in (self._image, self._text))

    @property
    def groups(self) -> np.ndarray | None:
        """Image of each query of ``image_retrieval``; ``None`` if they are in the images' order."""
        index = self._pairs.image_index
        return None if np.array_equal(index, np.arange(self._pairs.n)) else index

    @cached_property
    def right_answers(self) -> RightAnswers:
        """Cosines of all images with their own texts."""
        return self._pairs.all_right_answers()

    @property
    def text_retrieval(self) -> Ranks:
        """Ranks of each image's best own text among all texts."""
        tied = None if self.groups is None else self.right_answers.tied
        return Ranks(self._image[0], self._image[1], tied)

    @property
    def image_retrieval(self) -> Ranks:
        """Ranks of each text's image among all images, in the order of the texts."""
        return Ranks(*self._text)


class SampledRanks(Reducer[Sample, Strip]):
    """The ranks of :class:`RankCounts` for sampled pairs only, among all candidates.

    ``image_retrieval`` has every text of the sampled images as a query.
    """

    kinds = frozenset({"xy", "tx"})

    def start(self, pairs: Sample) -> None:
        """Reset the counts, and choose the products with the texts of the sample as queries."""
        self._sample, self.right_answers = pairs, pairs.right_answers
        self.kinds = frozenset({"xy", "yx" if pairs.m == pairs.n else "tx"})
        self._text = accumulator((2, len(pairs.rows)), int, pairs.images)
        self._image = accumulator((2, len(pairs.captions)), int, pairs.images)

    def tile(self, tile: Strip) -> Array:
        """Return the counts of one strip."""
        of = "best" if tile.kind == "xy" else "own"
        return _better(tile, self._sample.reference(of), axis=1)

    def add(self, tile: Strip, part: Array) -> None:
        """Add a strip's counts."""
        counts = self._text if tile.kind == "xy" else self._image
        counts += part

    def finish(self, team: Team) -> None:
        """Add the counts of all ranks."""
        self._text, self._image = (team.sum(to_numpy(c)) for c in (self._text, self._image))

    @property
    def groups(self) -> np.ndarray | None:
        """Image of each query of ``image_retrieval``; ``None`` if they are in the images' order."""
        return self._sample.owners if self._sample.m > self._sample.n else None

    @property
    def text_retrieval(self) -> Ranks:
        """Ranks of each sampled image's best own text among all texts."""
        tied = None if self.groups is None else self.right_answers.tied
        return Ranks(self._text[0], self._text[1], tied)

    @property
    def image_retrieval(self) -> Ranks:
        """Ranks of the image of each text of the sampled images, among all images."""
        return Ranks(*self._image)


class OwnKindCounts(Reducer[Pairs, Tile]):
    """Numbers of other rows of a query's own modality above its right answer, and tied with it.

    The queries are all images and all texts, as in :class:`RankCounts`.

    Attributes:
        image: Other images above each image's best own text, and tied with it, ``(2, n)``.
        text: Other texts above each text's image, and tied with it, ``(2, m)``; other texts of
            the same image count.
    """

    kinds = frozenset({"xx", "tt"})

    def start(self, pairs: Pairs) -> None:
        """Reset the counts, and choose the products of all texts."""
        self._pairs = pairs
        self.kinds = frozenset({"xx", "yy" if pairs.m == pairs.n else "tt"})
        self.image, self.text = (accumulator((2, k), int, pairs.near) for k in (pairs.n, pairs.m))

    def tile(self, tile: Tile) -> list[Array]:
        """Return the counts of one tile, of its rows and, off the diagonal, of its columns."""
        sides = ((tile.row, 1),) if tile.diagonal else ((tile.row, 1), (tile.col, 0))
        of = "best" if tile.kind == "xx" else "own"
        return [_better(tile, self._pairs.reference(block, of), axis=axis) for block, axis in sides]

    def add(self, tile: Tile, part: list[Array]) -> None:
        """Add a tile's counts."""
        for block, counts in zip((tile.row, tile.col), part, strict=False):
            if tile.kind == "xx":
                rows = self._pairs.rows(block)
                self.image[:, rows.start : rows.stop] += counts
            else:
                self.text[:, self._pairs.text_index(block)] += counts

    def finish(self, team: Team) -> None:
        """Add the counts of all ranks."""
        self.image, self.text = (team.sum(to_numpy(c)) for c in (self.image, self.text))


class SampledOwnKindCounts(Reducer[Sample, Strip]):
    """The counts of :class:`OwnKindCounts` for the queries of :class:`SampledRanks`."""

    kinds = frozenset({"xx", "tt"})

    def start(self, pairs: Sample) -> None:
        """Reset the counts, and choose the products of all texts."""
        self._sample = pairs
        self.kinds = frozenset({"xx", "yy" if pairs.m == pairs.n else "tt"})
        self.image, self.text = (
            accumulator((2, len(queries)), int, pairs.images)
            for queries in (pairs.rows, pairs.captions)
        )

    def tile(self, tile: Strip) -> Array:
        """Return the counts of one strip."""
        return _better(tile, self._sample.reference("best" if tile.kind == "xx" else "own"), axis=1)

    def add(self, tile: Strip, part: Array) -> None:
        """Add a strip's counts."""
        counts = self.image if tile.kind == "xx" else self.text
        counts += part

    def finish(self, team: Team) -> None:
        """Add the counts of all ranks."""
        self.image, self.text = (team.sum(to_numpy(c)) for c in (self.image, self.text))


def _better(tile: Tile | Strip, reference: Array, *, axis: int) -> Array:
    return count_better(tile.gram, tile.left, tile.right, reference, axis=axis, own=tile.own)
