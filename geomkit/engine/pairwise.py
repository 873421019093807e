"""The tiled Gram engine: one walk over tiles of xxᵀ, yyᵀ and xyᵀ feeds every pairwise statistic.

What is quadratic in n comes from here. The walk visits each symmetric pair once, holds a few tiles
and never n², and hands each tile to every reducer that wants it. Texts are laid out so that the
texts of a block of images form the block of the same number: the tile on the diagonal then holds
every score of an image with its own texts, and no score is ever computed twice in two ways.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np

from geomkit._core.array import Array, is_torch, like
from geomkit._core.parallel import SOLO, Team, cores, in_order

__all__ = ["Kind", "Pairs", "Reducer", "Tile", "walk"]

Kind = Literal["xx", "yy", "xy"]
KINDS: tuple[Kind, ...] = ("xx", "yy", "xy")

_TILE = {"cpu": 768, "other": 8192}
"""Rows of a tile: on a CPU a float32 tile of 768² stays near the cache (2,048 rows cost a fifth
more time); on an accelerator big tiles amortise launches."""
_ALIGN = 64


@dataclass(frozen=True)
class Tile:
    """One block of a Gram matrix.

    Attributes:
        kind: which matrix it is a block of.
        row, col: numbers of its row and column block.
        gram: inner products, shape ``(r, c)``; not to be changed, and gone when parts are added.
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
    results in the order of the walk. Diagonal tiles come first; then ``share`` lets the ranks of a
    team tell each other what those held, and at the end ``finish`` makes the result whole on each.
    """

    kinds: frozenset[Kind]

    def start(self, pairs: Pairs) -> None: ...

    def tile(self, tile: Tile) -> Any: ...

    def add(self, tile: Tile, part: Any) -> None: ...

    def share(self, team: Team) -> None: ...

    def finish(self, team: Team) -> None: ...


class Pairs:
    """Images and texts cut into aligned blocks.

    Args:
        x: images, ``(n, d)`` unit rows: an array, a tensor or
            :class:`geomkit.embeddings.rows.Rows`.
        y: texts, ``(m, e)`` unit rows.
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
        self._owner = image_index[self._others]
        self._starts = np.searchsorted(self._owner, np.arange(self.blocks + 1) * self.block)
        self._local = threading.local()
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

    def tile(self, kind: Kind, i: int, j: int) -> Tile:
        """One tile, its matrix product done now."""
        left = self._texts(i, paired=True) if kind == "yy" else self._images(i)
        right = self._images(j) if kind == "xx" else self._texts(j, paired=kind == "yy")
        return Tile(kind, i, j, self._product(left, right), self.rows(i), self.rows(j))

    def _product(self, left: Array, right: Array) -> Array:
        """``left @ right.T``; with numpy in memory that this thread's next tile takes over."""
        if self.on_torch:
            return left @ right.T
        shape = (left.shape[0], right.shape[0])
        dtype = np.result_type(left, right)
        held = getattr(self._local, "gram", None)
        if held is None or held.shape != shape or held.dtype != dtype:
            held = self._local.gram = np.empty(shape, dtype)
        return np.matmul(left, right.T, out=held)

    def _images(self, block: int) -> Array:
        rows = self.rows(block)
        return self.x[rows.start : rows.stop]

    def _texts(self, block: int, *, paired: bool) -> Array:
        rows = self.rows(block)
        if self._identity:
            return self.y[rows.start : rows.stop]
        chosen = self.first[rows.start : rows.stop] if paired else self.texts(block)
        return self.y[like(chosen, self.y)]


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def walk(
    pairs: Pairs, reducers: Iterable[Reducer], *, threads: int | None = None, team: Team = SOLO
) -> None:
    """Visit every tile that a reducer wants, once; diagonal tiles first.

    Args:
        pairs: the rows.
        reducers: fed in place.
        threads: tiles in work at once (numpy); all cores if not given.
        team: ranks to share the tiles with; each ends with the whole result.
    """
    reducers = list(reducers)
    for reducer in reducers:
        reducer.start(pairs)
    wanted = frozenset().union(*(reducer.kinds for reducer in reducers))
    kinds = [kind for kind in KINDS if kind in wanted]
    blocks = range(pairs.blocks)
    diagonal = [(kind, i, i) for i in blocks for kind in kinds]
    rest = [
        (kind, i, j)
        for i in blocks
        for j in blocks
        for kind in kinds
        if i < j or (kind == "xy" and i > j)
    ]

    def work(place: tuple[Kind, int, int]) -> tuple[Tile, list[Any]]:
        tile = pairs.tile(*place)
        parts = [r.tile(tile) if tile.kind in r.kinds else None for r in reducers]
        # The products stay behind: the next tile of this thread is written over them.
        return replace(tile, gram=None), parts

    count = 1 if pairs.on_torch or pairs.blocks == 1 else threads or cores()
    for places in (diagonal, rest):
        for tile, parts in in_order(work, team.share(places), threads=count):
            for reducer, part in zip(reducers, parts, strict=True):
                if tile.kind in reducer.kinds:
                    reducer.add(tile, part)
        for reducer in reducers:
            reducer.share(team) if places is diagonal else reducer.finish(team)
