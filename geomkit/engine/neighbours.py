"""Reducers of the pairwise walks to nearest neighbours; of all pairs and of a sample."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from geomkit._core.array import Array, is_torch, like, to_numpy
from geomkit._core.parallel import Team
from geomkit.engine.nearest import MORE, Nearest
from geomkit.engine.pairwise import Kind, Pairs, Reducer, Tile
from geomkit.engine.precision import rounding
from geomkit.engine.sampled import Sample, Strip

if TYPE_CHECKING:
    pass

__all__ = ["Neighbours", "SampledNeighbours", "TopK"]


@dataclass(eq=False)
class Neighbours(Reducer[Pairs, Tile]):
    """The nearest neighbours of every row: within each modality, and across the two.

    Args:
        k: Number of neighbours.

    Attributes:
        near: Nearest neighbours of all images and paired texts.
    """

    k: int = 10
    near: Nearest = field(init=False)
    kinds = frozenset({"xx", "yy", "xy"})

    def start(self, pairs: Pairs) -> None:
        """Reset the neighbours."""
        self._pairs = pairs
        keep = min(self.k + MORE, pairs.n)
        kinds: tuple[Kind, ...] = ("xx", "yy", "xy", "yx")
        self._top = {kind: TopK(pairs.n, keep) for kind in kinds if kind in pairs.kinds}

    def tile(self, tile: Tile) -> list[tuple[Any, ...]]:
        """Return entries of one tile that may be among the nearest, of its rows and columns."""
        gram = tile.gram[:, : len(tile.cols)]
        parts = [self._top[tile.kind].candidates(gram, tile.rows, tile.cols)]
        if tile.kind == "xy" or not tile.diagonal:
            parts.append(self._back(tile).candidates(gram.T, tile.cols, tile.rows))
        return parts

    def add(self, tile: Tile, part: list[tuple[Any, ...]]) -> None:
        """Keep the nearest."""
        self._top[tile.kind].keep(tile.rows, *part[0])
        if len(part) > 1:
            self._back(tile).keep(tile.cols, *part[1])

    def share(self, team: Team) -> None:
        """Tell every rank how near a row must be to count."""
        for top in self._top.values():
            top.share(team)

    def finish(self, team: Team) -> None:
        """Merge the nearest of all ranks."""
        pairs = self._pairs
        lists = {kind: top.finish(team) for kind, top in self._top.items()}
        width = _width(pairs.x[:1], pairs.y[:1])
        self.near = Nearest(pairs.x, pairs.y, pairs.first, lists, self.k, width=width)

    def _back(self, tile: Tile) -> TopK:
        return self._top["yx" if tile.kind == "xy" else tile.kind]


@dataclass(eq=False)
class SampledNeighbours(Reducer[Sample, Strip]):
    """The nearest neighbours of sampled pairs, among all images and paired texts.

    Args:
        k: Number of neighbours.

    Attributes:
        near: Nearest neighbours of the sampled images and their paired texts.
    """

    k: int = 10
    near: Nearest = field(init=False)
    kinds = frozenset({"xx", "yy", "xy", "yx"})

    def start(self, pairs: Sample) -> None:
        """Reset the neighbours."""
        self._sample = pairs
        keep = min(self.k + MORE, pairs.n)
        kinds: tuple[Kind, ...] = ("xx", "yy", "xy", "yx")
        self._top = {kind: TopK(len(pairs.rows), keep) for kind in kinds if kind in pairs.kinds}

    def tile(self, tile: Strip) -> tuple[Any, ...]:
        """Return entries of one strip that may be among the nearest."""
        rows = range(len(self._sample.rows))
        return self._top[tile.kind].candidates(tile.paired, rows, tile.cols)

    def add(self, tile: Strip, part: tuple[Any, ...]) -> None:
        """Keep the nearest."""
        self._top[tile.kind].keep(range(len(self._sample.rows)), *part)

    def finish(self, team: Team) -> None:
        """Merge the nearest of all ranks."""
        s = self._sample
        lists = {kind: top.finish(team) for kind, top in self._top.items()}
        width = _width(s.images, s.texts)
        self.near = Nearest(s.x, s.y, s.first, lists, self.k, width=width, rows=s.rows)


def _width(x: Array, y: Array) -> float:
    """Largest difference of equal cosines in products of these rows."""
    return rounding(max(x.shape[1], y.shape[1]), x, y)


class TopK:
    """The k highest scores of each row, from tiles in any order.

    On a device everything stays there and each tile's k best are merged in. With numpy only the
    few entries that exceed a row's bar, its k-th best score when last sorted out, are looked at:
    they are collected in a buffer beside the k best.

    Args:
        n: Number of rows.
        k: Number of scores to keep per row.
    """

    _SPACE = 24

    def __init__(self, n: int, k: int) -> None:
        """Start without scores."""
        self.n, self.k = n, k
        self._score: Array | None = None
        self._index: Array | None = None
        self._bar = np.full(n, -np.inf)
        self._fill = np.zeros(n, np.int64)

    def candidates(self, gram: Array, rows: range, cols: range | np.ndarray) -> tuple[Any, ...]:
        """Return a tile's entries that may be among the best, in the form :meth:`keep` takes.

        Args:
            gram: Scores, ``(r, c)``; a transposed matrix is read as it lies in memory.
            rows: Numbers of the rows.
            cols: Numbers of the candidates.
        """
        if is_torch(gram):
            best = gram.topk(min(self.k, gram.shape[1]), dim=1)
            if isinstance(cols, range) or (np.diff(cols) == 1).all():
                return best.values, best.indices + int(cols[0])
            return best.values, like(cols, gram)[best.indices]
        # The bar may lag behind what other threads have found: a few more get through.
        bar = self._bar[rows.start : rows.stop].astype(gram.dtype)
        mask = gram > bar[:, None]
        if np.count_nonzero(mask) > 2 * self.k * len(rows):
            bar = np.maximum(bar, _lower_bound(to_numpy(gram), self.k))
            mask = gram >= bar[:, None]
        if mask.flags.c_contiguous:
            row, col = np.divmod(np.flatnonzero(mask), mask.shape[1])
        else:
            col, row = np.divmod(np.flatnonzero(mask.T), mask.shape[0])
            order = np.argsort(row, kind="stable")
            row, col = row[order], col[order]
        number = col + cols.start if isinstance(cols, range) else cols[col]
        return gram[row, col], number.astype(np.int32), row

    def keep(self, rows: range, score: Array, number: Array, row: np.ndarray | None = None) -> None:
        """Take the entries of a tile.

        Args:
            rows: Numbers of the tile's rows.
            score: Scores of the entries; of a tensor, ``(r, c)``.
            number: Numbers of the candidates.
            row: Row of each entry within the tile, ascending; ``None`` for a tensor.
        """
        if row is None:
            self._keep_on_device(rows, score, number)
            return
        if not len(row):
            return
        if self._score is None or self._index is None:
            self._score = np.full((self.n, self.k + self._SPACE), -np.inf, score.dtype)
            self._index = np.zeros(self._score.shape, np.int32)
        place = slice(rows.start, rows.stop)
        kept, index, fill = self._score[place], self._index[place], self._fill[place]
        count = np.bincount(row, minlength=len(rows))
        order = np.arange(len(row)) - (np.cumsum(count) - count)[row]
        most = int(count.max())
        for low in range(0, most, self._SPACE):
            more = np.clip(count - low, 0, self._SPACE)
            if (fill + more).max() > kept.shape[1]:
                self._sort_out(place)
            now: slice | np.ndarray = slice(None)
            if most > self._SPACE:
                now = np.flatnonzero((order >= low) & (order < low + self._SPACE))
            at = row[now], fill[row[now]] + order[now] - low
            kept[at], index[at] = score[now], number[now]
            fill += more
        if np.isneginf(self._bar[place]).any():
            self._sort_out(place)

    def _sort_out(self, place: slice) -> None:
        """Keep the k best of some rows, and raise their bars."""
        assert self._score is not None and self._index is not None
        score, index = self._score[place], self._index[place]
        best = np.argpartition(score, self._SPACE, axis=1)[:, self._SPACE :]
        score[:, : self.k] = np.take_along_axis(score, best, axis=1)
        index[:, : self.k] = np.take_along_axis(index, best, axis=1)
        score[:, self.k :] = -np.inf
        self._fill[place] = self.k  # with fewer scores some of these places hold −∞
        self._bar[place] = np.maximum(self._bar[place], score[:, : self.k].min(axis=1))

    def _keep_on_device(self, rows: range, score: Any, number: Any) -> None:
        import torch

        if self._score is None or self._index is None:
            shape = (self.n, self.k)
            self._score = torch.full(shape, -torch.inf, dtype=score.dtype, device=score.device)
            self._index = torch.zeros(shape, dtype=number.dtype, device=score.device)
        place = slice(rows.start, rows.stop)
        best = torch.cat([self._score[place], score], dim=1).topk(self.k, dim=1)
        index = torch.cat([self._index[place], number], dim=1)
        self._score[place], self._index[place] = best.values, index.gather(1, best.indices)

    def share(self, team: Team) -> None:
        """Raise the bars of every rank to the highest."""
        if team.size > 1:
            self._bar = np.max(team.gather(self._bar), axis=0)

    def finish(self, team: Team) -> tuple[np.ndarray, np.ndarray]:
        """Return scores, descending, and numbers of the best candidates of all ranks, ``(n, k)``.

        A row with fewer candidates has scores −∞ at its end.
        """
        found = None
        if self._score is not None and self._index is not None:
            found = to_numpy(self._score), to_numpy(self._index)
        parts = [part for part in team.gather(found) if part is not None]
        score = np.concatenate([part[0] for part in parts], axis=1)
        index = np.concatenate([part[1] for part in parts], axis=1)
        self._score = self._index = None
        best = np.argpartition(score, -self.k, axis=1)[:, -self.k :]
        score, index = (np.take_along_axis(a, best, axis=1) for a in (score, index))
        order = np.argsort(-score, axis=1)
        score, index = (np.take_along_axis(a, order, axis=1) for a in (score, index))
        return score, index


def _lower_bound(gram: np.ndarray, k: int) -> np.ndarray:
    """A score that k entries of each row reach: the k-th largest of the maxima of groups."""
    cols = gram.shape[1]
    folds = max(1, cols // (4 * k))
    groups = cols // folds
    if groups < k:
        return np.full(len(gram), -np.inf, gram.dtype)
    if gram.flags.c_contiguous or gram.strides[1] <= gram.strides[0]:
        parts = gram[:, : folds * groups].reshape(len(gram), folds, groups)
        maxima = parts.max(axis=1)
    else:
        maxima = gram.T[: folds * groups].reshape(folds, groups, len(gram)).max(axis=0).T
    return np.partition(maxima, groups - k, axis=1)[:, groups - k]
