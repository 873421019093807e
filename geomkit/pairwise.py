"""The tiled Gram engine: one walk over tiles of xxᵀ, yyᵀ and xyᵀ feeds every pairwise statistic.

What is quadratic in n comes from here. The walk visits each symmetric pair once, holds a few tiles
and never n², and hands each tile to every reducer that wants it. Texts are laid out so that the
texts of a block of images form the block of the same number: the tile on the diagonal then holds
every score of an image with its own texts, and no score is ever computed twice in two ways.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from geomkit._array import Array, is_torch, namespace, to_numpy
from geomkit.functional import gaussian_potential

__all__ = ["Pairs", "PotentialSums", "RankCounts", "Ranks", "Tile", "walk"]

Kind = Literal["xx", "yy", "xy"]

_TILE = {"cpu": 1024, "other": 8192}
"""Rows of a tile: on a CPU a float32 tile of 1,024² stays near the cache (512 rows cost a third
more time on small matrix products); on an accelerator big tiles amortise launches."""
_ALIGN = 64
_TIE = 8.0
"""Scores within this many units of rounding are level: two equal rows can get scores that differ
in the last digits, from different corners of a matrix product."""


@dataclass(frozen=True)
class Tile:
    """One block of a Gram matrix.

    Attributes:
        kind: which matrix it is a block of.
        row, col: numbers of its row and column block.
        gram: inner products, shape ``(r, c)``; not to be changed.
        rows: the images (``xx``, ``xy``) or texts (``yy``) of its rows, as a range of pair numbers.
        cols: likewise for its columns; in ``xy`` the first columns are the paired texts.
    """

    kind: Kind
    row: int
    col: int
    gram: Array
    rows: range
    cols: range

    @property
    def diagonal(self) -> bool:
        """Whether the tile lies on the diagonal of its matrix."""
        return self.row == self.col


class Reducer(Protocol):
    """What the walk feeds.

    ``tile`` may run in several threads at once and must not change the reducer; ``add`` takes its
    results in the order of the walk. Diagonal tiles come first.
    """

    kinds: frozenset[Kind]

    def start(self, pairs: Pairs) -> None: ...

    def tile(self, tile: Tile) -> Any: ...

    def add(self, tile: Tile, part: Any) -> None: ...


class Pairs:
    """Images and texts cut into aligned blocks.

    Args:
        x: images, ``(n, d)`` unit rows.
        y: texts, ``(m, d)`` unit rows.
        image_index: ``(m,)``, whose each text is; every image has at least one.
        first: ``(n,)``, the text that every statistic but retrieval uses for each image.
        tile: rows of a block; chosen from the device if not given.
    """

    def __init__(
        self,
        x: Array,
        y: Array,
        image_index: np.ndarray,
        first: np.ndarray,
        *,
        tile: int | None = None,
    ) -> None:
        self.x, self.y = x, y
        self.n, self.m = int(x.shape[0]), int(y.shape[0])
        self.on_torch = is_torch(x)
        on_cpu = not self.on_torch or x.device.type == "cpu"
        wanted = tile or _TILE["cpu" if on_cpu else "other"]
        # Several texts an image make the text blocks wider, so the image blocks are made smaller.
        wanted = max(_ALIGN, wanted * self.n // self.m)
        blocks = max(1, -(-self.n // wanted))
        self.block = _round_up(-(-self.n // blocks), _ALIGN)
        self.blocks = -(-self.n // self.block)
        self.first = first
        others = np.ones(self.m, bool)
        others[first] = False
        self._others = np.flatnonzero(others)
        self._others = self._others[np.argsort(image_index[self._others], kind="stable")]
        owner = image_index[self._others]
        starts = np.searchsorted(owner, np.arange(self.blocks + 1) * self.block)
        self._starts = starts
        self._owner = owner
        self._identity = self.m == self.n and bool(np.array_equal(first, np.arange(self.n)))

    def rows(self, block: int) -> range:
        """The images of a block."""
        return range(block * self.block, min((block + 1) * self.block, self.n))

    def texts(self, block: int) -> np.ndarray:
        """The texts of a block: the paired one of each image in order, then all the others."""
        rows = self.rows(block)
        others = self._others[self._starts[block] : self._starts[block + 1]]
        return np.concatenate([self.first[rows.start : rows.stop], others])

    def owners(self, block: int) -> np.ndarray:
        """For each text of a block, its image's row within the block."""
        rows = self.rows(block)
        others = self._owner[self._starts[block] : self._starts[block + 1]]
        return np.concatenate([np.arange(len(rows)), others - rows.start])

    def x_block(self, block: int) -> Array:
        """Images of a block."""
        rows = self.rows(block)
        return self.x[rows.start : rows.stop]

    def y_block(self, block: int, *, paired: bool) -> Array:
        """Texts of a block, the paired ones alone or all."""
        rows = self.rows(block)
        if self._identity:
            return self.y[rows.start : rows.stop]
        return self.y[
            _like(self.first[rows.start : rows.stop] if paired else self.texts(block), self.y)
        ]


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def walk(pairs: Pairs, reducers: Iterable[Reducer], *, threads: int | None = None) -> None:
    """Visit every tile that a reducer wants, once; diagonal tiles first.

    On a CPU with numpy, threads work on whole tiles (each with a single-threaded matrix product):
    the element-wise work between products then runs on all cores too.

    Args:
        pairs: the rows.
        reducers: fed in place.
        threads: how many at once on numpy; all cores if not given.
    """
    reducers = list(reducers)
    for reducer in reducers:
        reducer.start(pairs)
    wanted = frozenset().union(*(reducer.kinds for reducer in reducers))
    diagonal = [(kind, i, i) for i in range(pairs.blocks) for kind in ("xx", "yy", "xy")]
    rest = [
        (kind, i, j)
        for i in range(pairs.blocks)
        for j in range(pairs.blocks)
        for kind in ("xx", "yy", "xy")
        if (i < j or (kind == "xy" and i != j))
    ]

    def work(place: tuple[Kind, int, int]) -> tuple[Tile, list[Any]]:
        tile = _tile(pairs, *place)
        return tile, [r.tile(tile) if tile.kind in r.kinds else None for r in reducers]

    with _mapper(pairs, threads) as mapper:
        for places in (diagonal, rest):
            for tile, parts in mapper(work, [p for p in places if p[0] in wanted]):
                for reducer, part in zip(reducers, parts, strict=True):
                    if tile.kind in reducer.kinds:
                        reducer.add(tile, part)


def _tile(pairs: Pairs, kind: Kind, i: int, j: int) -> Tile:
    left = pairs.y_block(i, paired=True) if kind == "yy" else pairs.x_block(i)
    if kind == "xx":
        right = pairs.x_block(j)
    else:
        right = pairs.y_block(j, paired=kind == "yy")
    return Tile(kind, i, j, left @ right.T, pairs.rows(i), pairs.rows(j))


class _mapper:
    """``map`` over places: in threads for numpy, in order either way."""

    def __init__(self, pairs: Pairs, threads: int | None) -> None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        self.threads = 1 if pairs.on_torch or pairs.blocks == 1 else threads or cores or 1

    def __enter__(self) -> Callable[[Callable[[Any], Any], list[Any]], Iterator[Any]]:
        if self.threads == 1:
            return lambda work, places: map(work, places)
        from threadpoolctl import threadpool_limits

        self._limits = threadpool_limits(1, user_api="blas")
        self._pool = ThreadPoolExecutor(self.threads)
        return self._windowed

    def _windowed(self, work: Callable[[Any], Any], places: list[Any]) -> Iterator[Any]:
        # A plain pool.map would start every tile at once and hold all the results.
        window = 2 * self.threads
        futures = [self._pool.submit(work, place) for place in places[:window]]
        for k in range(len(places)):
            yield futures.pop(0).result()
            if k + window < len(places):
                futures.append(self._pool.submit(work, places[k + window]))

    def __exit__(self, *_: object) -> None:
        if self.threads > 1:
            self._pool.shutdown(cancel_futures=True)
            self._limits.restore_original_limits()


def _float64(values: Array) -> np.ndarray:
    return to_numpy(values).astype(np.float64)


class PotentialSums:
    """Row sums of the Gaussian potential e^{−t‖u−v‖²} over the off-diagonal of each matrix.

    Attributes:
        xx, yy: ``(n,)``, for each row the sum over all others of its modality.
        xy: ``(n,)``, for each image the sum over the texts paired with other images.
        yx: ``(n,)``, the same seen from the texts.
    """

    kinds: frozenset[Kind] = frozenset({"xx", "yy", "xy"})

    def __init__(self, t: float = 2.0) -> None:
        self.t = t

    def start(self, pairs: Pairs) -> None:
        """Forget everything."""
        self.n = pairs.n
        self.xx, self.yy, self.xy, self.yx = np.zeros((4, pairs.n))

    def tile(self, tile: Tile) -> tuple[np.ndarray, np.ndarray]:
        """Row and column sums of one tile."""
        cosine = tile.gram[:, : len(tile.cols)]
        potential = gaussian_potential(cosine, self.t)
        if tile.diagonal:
            index = range(len(tile.rows))
            potential[index, index] = 0.0
        xp = namespace(potential)
        # A product with ones is the fastest sum there is, in the dtype of the tile: its few
        # thousand terms are positive, so nothing cancels. Tiles are added up in float64.
        ones = xp.ones_like(potential[0, :])
        return _float64(potential @ ones), _float64(xp.ones_like(potential[:, 0]) @ potential)

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

    def log_mean(self, kind: Kind) -> float:
        """Log of the mean potential over i ≠ j: a uniformity (``xx``, ``yy``) or ``xy``."""
        return float(np.log(getattr(self, kind).sum() / (self.n * (self.n - 1))))


@dataclass(frozen=True)
class Ranks:
    """Where each query's own answer stands among all candidates.

    Attributes:
        greater: candidates that score higher than the best own answer.
        tied: wrong candidates level with it, up to the rounding of the scores.
    """

    greater: np.ndarray
    tied: np.ndarray

    def recall(self, k: int) -> float:
        """Share of queries answered within the top ``k``.

        A tie scores its expectation under random order, clip((k − greater)/(tied + 1), 0, 1), so a
        collapsed model, for which all scores are equal, gets k over the number of candidates.

        >>> Ranks(np.array([0, 1, 0]), np.array([0, 0, 3])).recall(1)
        0.4166666666666667
        """
        return float(np.clip((k - self.greater) / (self.tied + 1.0), 0.0, 1.0).mean())


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
        self._best = np.empty(pairs.blocks, object)
        self._own = np.empty(pairs.blocks, object)
        self._image = np.zeros((2, pairs.n), np.int64)
        self._text = np.zeros((2, pairs.m), np.int64)

    def tile(self, tile: Tile) -> tuple[Any, ...]:
        """Counts of one tile; from a diagonal one the scores of the right answers as well."""
        gram = tile.gram
        if tile.diagonal:
            owners = self._pairs.owners(tile.col)
            own = _take_pairs(gram, owners)
            best = _max_by_owner(own, owners, len(tile.rows), len(tile.cols))
        else:
            best, own = self._best[tile.row], self._own[tile.col]
        near = _TIE * float(namespace(gram).finfo(gram.dtype).eps)
        images = _above_and_level(gram, best[:, None], near, axis=1)
        texts = _above_and_level(gram, own[None, :], near, axis=0)
        if tile.diagonal:
            # The right answers are no rivals, to an image or to themselves.
            mine = own >= best[_like(owners, best)] - near
            images[1][...] -= np.bincount(
                owners, weights=to_numpy(mine), minlength=len(tile.rows)
            ).astype(np.int64)
            texts[1][...] -= 1
            return images, texts, best, own
        return images, texts

    def add(self, tile: Tile, part: tuple[Any, ...]) -> None:
        """Add a tile's counts."""
        images, texts = part[:2]
        self._image[:, tile.rows.start : tile.rows.stop] += images
        self._text[:, self._pairs.texts(tile.col)] += np.stack(texts)
        if tile.diagonal:
            self._best[tile.row], self._own[tile.col] = part[2:]

    @property
    def text_retrieval(self) -> Ranks:
        """Image → text."""
        return Ranks(*self._image)

    @property
    def image_retrieval(self) -> Ranks:
        """Text → image."""
        return Ranks(*self._text)


def _above_and_level(
    gram: Array, score: Array, near: float, axis: int
) -> tuple[np.ndarray, np.ndarray]:
    above = _count(gram > score + near, axis)
    return above, _count(gram >= score - near, axis) - above


def _like(index: np.ndarray, array: Array) -> Array:
    if is_torch(array):
        import torch

        return torch.from_numpy(index).to(array.device)
    return index


def _take_pairs(gram: Array, owners: np.ndarray) -> Array:
    return gram[_like(owners, gram), _like(np.arange(len(owners)), gram)]


def _max_by_owner(own: Array, owners: np.ndarray, n: int, paired: int) -> Array:
    best = own[:paired] + 0  # the paired texts come first, one an image, in order
    if len(owners) == n:
        return best
    extra = _like(owners[paired:], own)
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
