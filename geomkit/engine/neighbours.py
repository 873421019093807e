"""Reducers of the pairwise walks to nearest neighbours; of all pairs and of a sample."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from geomkit._core.array import Array, is_torch, to_numpy
from geomkit._core.parallel import Team
from geomkit.engine.pairwise import Pairs, Reducer, Tile
from geomkit.engine.sampled import Sample, Strip

if TYPE_CHECKING:
    import torch

__all__ = ["Neighbours", "SampledNeighbours", "TopK"]


@dataclass(eq=False)
class Neighbours(Reducer[Pairs, Tile]):
    """The k nearest other rows of every row: within each modality, and across the two.

    Equally near rows are taken in the order of their numbers (on a device in any order).

    Args:
        k: Number of neighbours.

    Attributes:
        xx: Row numbers of the nearest other images of each image, ``(n, k)``.
        yy: Row numbers of the nearest other paired texts of each paired text, ``(n, k)``.
        xy: Paired texts nearest to each image, its own included, ``(n, k)``.
        yx: Images nearest to each paired text, its own included, ``(n, k)``.

    Places beyond the number of candidates hold −1.
    """

    k: int = 10
    xx: np.ndarray = field(init=False)
    yy: np.ndarray = field(init=False)
    xy: np.ndarray = field(init=False)
    yx: np.ndarray = field(init=False)
    kinds = frozenset({"xx", "yy", "xy"})

    def start(self, pairs: Pairs) -> None:
        """Reset the neighbours."""
        self._top = {name: TopK(pairs.n, self.k) for name in ("xx", "yy", "xy", "yx")}

    def tile(self, tile: Tile) -> list[tuple[Any, ...]]:
        """Return entries of one tile that may be among the nearest, of its rows and columns."""
        gram = tile.gram[:, : len(tile.cols)]
        top = self._top[tile.kind]
        if tile.diagonal and tile.kind != "xy":
            numbers = np.arange(tile.rows.start, tile.rows.stop)
            return [top.candidates(gram, tile.rows, tile.cols, skip=numbers)]
        back = self._top["yx" if tile.kind == "xy" else tile.kind]
        return [
            top.candidates(gram, tile.rows, tile.cols),
            back.candidates(gram.T, tile.cols, tile.rows),
        ]

    def add(self, tile: Tile, part: list[tuple[Any, ...]]) -> None:
        """Keep the nearest."""
        self._top[tile.kind].keep(*part[0])
        if len(part) > 1:
            self._top["yx" if tile.kind == "xy" else tile.kind].keep(*part[1])

    def share(self, team: Team) -> None:
        """Tell every rank how near a row must be to count."""
        for top in self._top.values():
            top.share(team)

    def finish(self, team: Team) -> None:
        """Merge the nearest of all ranks."""
        for name, top in self._top.items():
            setattr(self, name, top.finish(team))


@dataclass(eq=False)
class SampledNeighbours(Reducer[Sample, Strip]):
    """The k nearest other rows of each sampled row within its modality, among all rows.

    Args:
        k: Number of neighbours.

    Attributes:
        xx: Row numbers of the nearest other images of each sampled image, ``(q, k)``.
        yy: Row numbers of the nearest other paired texts of each sampled text, ``(q, k)``.
    """

    k: int = 10
    xx: np.ndarray = field(init=False)
    yy: np.ndarray = field(init=False)
    kinds = frozenset({"xx", "yy"})

    def start(self, pairs: Sample) -> None:
        """Reset the neighbours."""
        self._rows = pairs.rows
        self._top = {name: TopK(len(pairs.rows), self.k) for name in ("xx", "yy")}

    def tile(self, tile: Strip) -> tuple[Any, ...]:
        """Return entries of one strip that may be among the nearest."""
        rows = range(len(self._rows))
        return self._top[tile.kind].candidates(tile.gram, rows, tile.cols, skip=self._rows)

    def add(self, tile: Strip, part: tuple[Any, ...]) -> None:
        """Keep the nearest."""
        self._top[tile.kind].keep(*part)

    def finish(self, team: Team) -> None:
        """Merge the nearest of all ranks."""
        self.xx, self.yy = (self._top[name].finish(team) for name in ("xx", "yy"))


class TopK:
    """The k highest scores of each row, from tiles in any order.

    On a device everything stays there and each tile's k best are merged in. With numpy only the
    few entries that reach a row's bar, its k-th best score so far, are looked at.

    Args:
        n: Number of rows.
        k: Number of scores to keep per row.
    """

    def __init__(self, n: int, k: int) -> None:
        """Start without scores."""
        self.n, self.k = n, k
        self.score: Array = np.full((n, k), -np.inf)
        self.index: Array = np.full((n, k), -1)
        self._bar = np.full(n, -np.inf)

    def candidates(
        self,
        gram: Array,
        rows: range,
        cols: range | np.ndarray,
        *,
        skip: np.ndarray | None = None,
    ) -> tuple[Any, ...]:
        """Return a tile's entries that may be among the best, in the form :meth:`keep` takes.

        Args:
            gram: Scores, ``(r, c)``.
            rows: Numbers of the rows.
            cols: Numbers of the candidates.
            skip: For each row, a candidate that does not count, such as the row itself.
        """
        numbers = np.asarray(cols)
        if is_torch(gram):
            return (rows, *self._best_on_device(gram, numbers, skip))
        bar = self._bar[rows.start : rows.stop].astype(gram.dtype)
        k = self.k + (skip is not None)
        if np.isneginf(bar).any() and len(numbers) > k:
            # Nothing is known yet: the k-th largest of this tile is the bar.
            bar = np.maximum(bar, np.partition(gram, len(numbers) - k, axis=1)[:, -k])
        # The bar may lag behind what other threads have found: a few more get through.
        row, col = np.nonzero(gram >= bar[:, None])
        score, number = gram[row, col].astype(np.float64), numbers[col]
        if skip is not None:
            other = number != skip[row]
            row, number, score = row[other], number[other], score[other]
        return row + rows.start, number, score

    def _best_on_device(
        self, gram: torch.Tensor, numbers: np.ndarray, skip: np.ndarray | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        import torch

        best = gram.topk(min(self.k + (skip is not None), gram.shape[1]), dim=1)
        number = torch.from_numpy(numbers).to(gram.device)[best.indices]
        score = best.values
        if skip is not None:
            own = torch.from_numpy(skip).to(gram.device)[:, None]
            score = score.masked_fill(number == own, -torch.inf)
        return number, score

    def keep(self, rows: range | np.ndarray, number: Array, score: Array) -> None:
        """Merge entries into the kept ones."""
        if isinstance(rows, range):
            self._keep_on_device(rows, number, score)
            return
        if not len(rows):
            return
        touched, where = np.unique(rows, return_inverse=True)
        where = np.concatenate([np.repeat(np.arange(len(touched)), self.k), where])
        number = np.concatenate([self.index[touched].ravel(), number])
        score = np.concatenate([self.score[touched].ravel(), score])
        order = np.lexsort((number, -score, where))
        starts = np.searchsorted(where[order], np.arange(len(touched)))
        take = order[(starts[:, None] + np.arange(self.k)).ravel()]
        self.score[touched] = score[take].reshape(-1, self.k)
        self.index[touched] = number[take].reshape(-1, self.k)
        self._bar[touched] = self.score[touched, -1]

    def _keep_on_device(self, rows: range, number: Any, score: Any) -> None:
        import torch

        if not is_torch(self.score):
            shape = (self.n, self.k)
            self.score = torch.full(shape, -torch.inf, dtype=score.dtype, device=score.device)
            self.index = torch.full(shape, -1, device=score.device)
        place = slice(rows.start, rows.stop)
        both = torch.cat([self.score[place], score], dim=1)
        best = both.topk(self.k, dim=1)
        self.score[place] = best.values
        self.index[place] = torch.cat([self.index[place], number], dim=1).gather(1, best.indices)

    def share(self, team: Team) -> None:
        """Raise the bars of every rank to the highest."""
        if team.size > 1:
            self._bar = np.max(team.gather(self._bar), axis=0)

    def finish(self, team: Team) -> np.ndarray:
        """Return the numbers of the best candidates over all ranks, ``(n, k)``."""
        self.score, self.index = to_numpy(self.score), to_numpy(self.index)
        if team.size > 1:
            parts = team.gather((self.score, self.index))
            score = np.concatenate([part[0] for part in parts], axis=1)
            index = np.concatenate([part[1] for part in parts], axis=1)
            order = np.lexsort((index, -score), axis=1)[:, : self.k]
            self.score = np.take_along_axis(score, order, axis=1)
            self.index = np.take_along_axis(index, order, axis=1)
        return self.index
