"""Nearest neighbours from the pairwise walk."""

from __future__ import annotations

import numpy as np

from geomkit._array import Array, is_torch, to_numpy
from geomkit._parallel import Team
from geomkit.pairwise import Kind, Pairs, Tile

__all__ = ["Neighbours", "TopK"]


class Neighbours:
    """The k nearest other rows of every row: within each modality, and across the two.

    Equally near rows are taken in the order of their numbers.

    Args:
        k: how many.
        kinds: which matrices.

    Attributes:
        xx, yy: ``(n, k)`` row numbers, the neighbours within images and within texts.
        xy: the texts nearest each image (paired texts only), its own included.
        yx: the images nearest each text, its own included.
    """

    def __init__(
        self, k: int = 10, *, kinds: frozenset[Kind] = frozenset({"xx", "yy", "xy"})
    ) -> None:
        self.k = k
        self.kinds = kinds

    def start(self, pairs: Pairs) -> None:
        """Forget everything."""
        self._top = {name: TopK(pairs.n, self.k) for name in ("xx", "yy", "xy", "yx")}

    def tile(self, tile: Tile) -> list[tuple[np.ndarray, ...]]:
        """The entries of one tile that may be among the nearest, for its rows and its columns."""
        gram = tile.gram[:, : len(tile.cols)]
        if tile.diagonal and tile.kind != "xy":
            row, col, score = self._top[tile.kind].candidates(gram, tile.rows, tile.cols, spare=1)
            other = row != col
            return [(row[other], col[other], score[other])]
        forward = self._top[tile.kind].candidates(gram, tile.rows, tile.cols)
        back = self._top["yx" if tile.kind == "xy" else tile.kind]
        return [forward, back.candidates(gram.T, tile.cols, tile.rows)]

    def add(self, tile: Tile, part: list[tuple[np.ndarray, ...]]) -> None:
        """Keep the nearest."""
        self._top[tile.kind].keep(*part[0])
        if len(part) > 1:
            self._top["yx" if tile.kind == "xy" else tile.kind].keep(*part[1])

    def share(self, team: Team) -> None:
        """Tell every rank how near a row must be to count."""
        for top in self._top.values():
            top.share(team)

    def finish(self, team: Team) -> None:
        """Merge the ranks' nearest."""
        for name, top in self._top.items():
            setattr(self, name, top.finish(team))

    xx: np.ndarray
    yy: np.ndarray
    xy: np.ndarray
    yx: np.ndarray


class TopK:
    """The k highest scores of each row, from tiles in any order.

    Args:
        n: number of rows.
        k: how many to keep.
    """

    def __init__(self, n: int, k: int) -> None:
        self.k = k
        self.score = np.full((n, k), -np.inf)
        self.index = np.full((n, k), -1)
        self._bar = np.full(n, -np.inf)

    def candidates(
        self, gram: Array, rows: range, cols: range, *, spare: int = 0
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Row numbers, column numbers and scores of a tile's entries that reach the bar.

        The bar may lag behind what other threads have found: it then lets a few more through.
        ``spare`` entries more are let through for those that the caller will drop.
        """
        bar = self._bar[rows.start : rows.stop]
        k = self.k + spare
        if is_torch(gram):
            top = gram.topk(min(k, len(cols)), dim=1)
            score, col = to_numpy(top.values), to_numpy(top.indices)
            row = np.repeat(np.arange(len(rows)), score.shape[1])
            score, col = score.ravel(), col.ravel()
        elif np.isneginf(bar).any() and len(cols) > k:
            # Nothing is known yet: the k-th largest of this tile is the bar.
            bar = np.maximum(bar, np.partition(gram, len(cols) - k, axis=1)[:, len(cols) - k])
            row, col = np.nonzero(gram >= bar[:, None])
            score = gram[row, col]
        else:
            row, col = np.nonzero(gram >= bar[:, None].astype(gram.dtype))
            score = gram[row, col]
        return row + rows.start, col + cols.start, score.astype(np.float64)

    def keep(self, row: np.ndarray, col: np.ndarray, score: np.ndarray) -> None:
        """Merge entries into what is kept."""
        if not len(row):
            return
        touched, where = np.unique(row, return_inverse=True)
        kept = np.repeat(np.arange(len(touched)), self.k)
        where = np.concatenate([kept, where])
        col = np.concatenate([self.index[touched].ravel(), col])
        score = np.concatenate([self.score[touched].ravel(), score])
        order = np.lexsort((col, -score, where))
        where = where[order]
        starts = np.searchsorted(where, np.arange(len(touched)))
        take = order[(starts[:, None] + np.arange(self.k)).ravel()]
        self.score[touched] = score[take].reshape(-1, self.k)
        self.index[touched] = col[take].reshape(-1, self.k)
        self._bar[touched] = self.score[touched, -1]

    def share(self, team: Team) -> None:
        """Raise every rank's bar to the highest."""
        if team.size > 1:
            self._bar = np.max(team.gather(self._bar), axis=0)

    def finish(self, team: Team) -> np.ndarray:
        """Row numbers of the nearest, over all ranks: ``(n, k)``."""
        if team.size > 1:
            parts = team.gather((self.score, self.index))
            score = np.concatenate([part[0] for part in parts], axis=1)
            index = np.concatenate([part[1] for part in parts], axis=1)
            order = np.lexsort((index, -score), axis=1)[:, : self.k]
            self.score = np.take_along_axis(score, order, axis=1)
            self.index = np.take_along_axis(index, order, axis=1)
        return self.index
