"""The tiled Gram engine: one walk over tiles of xxᵀ, yyᵀ and xyᵀ feeds every pairwise statistic.

What is quadratic in n comes from here. The walk visits each symmetric pair once, holds a few tiles
and never n², and hands each tile to every reducer that wants it. Texts are laid out so that the
texts of a block of images form the block of the same number: the tile on the diagonal then holds
every score of an image with its own texts.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, TypeVar

import numpy as np

from geomkit._core.array import Array, is_torch, like
from geomkit._core.parallel import SOLO, Team, cores, in_order
from geomkit.engine.precision import cosines_at, rounding

__all__ = [
    "Kind", "Pairs", "Reducer", "RightAnswers", "Scratch", "Tile", "kinds_of", "walk",
]  # fmt: skip

Kind = Literal["xx", "yy", "xy", "yx", "tt", "tx"]
"""A Gram matrix: x are the images, y the paired texts, t all texts, but ``xy`` has all texts too.

Only sampled queries have ``yx`` and ``tx``; the full walk sees them as the columns of ``xy``. With
one text per image ``tt`` and ``tx`` equal ``yy`` and ``yx``: ask for those, which others use too.
"""
KINDS: tuple[Kind, ...] = ("xx", "yy", "xy", "tt")

_TILE = {"cpu": 768, "other": 8192}
"""Rows of a tile: on a CPU a float32 tile of 768² stays near the cache (2,048 rows cost a fifth
more time); on an accelerator big tiles amortise launches."""
_ALIGN = 64

GONE: Array = np.empty((0, 0))
"""Stands for products that are no longer held."""


@dataclass(frozen=True)
class Tile:
    """One block of a Gram matrix.

    Attributes:
        kind: Matrix that it is a block of.
        row: Number of its row block.
        col: Number of its column block.
        gram: Inner products, ``(r, c)``; gone when parts are added.
        rows: Pair numbers of its rows: images (``xx``, ``xy``) or paired texts (``yy``).
        cols: Pair numbers of its columns; in ``xy`` the columns of the paired texts come first,
            and all other texts of these images after them; so do rows and columns in ``tt``.
        left: Unit rows that ``gram`` is the product of, ``(r, d)``; gone like it.
        right: Unit rows of its columns, ``(c, d)``; gone like it.
        own: Rows and columns of the entries of a text with its image, or of a row with itself.
    """

    kind: Kind
    row: int
    col: int
    gram: Array
    rows: range
    cols: range
    left: Array
    right: Array
    own: tuple[np.ndarray, np.ndarray]

    @property
    def diagonal(self) -> bool:
        """Whether the tile lies on the diagonal of its matrix."""
        return self.row == self.col


Source = TypeVar("Source", contravariant=True)
Block = TypeVar("Block", contravariant=True)


class Reducer(Protocol[Source, Block]):
    """What reduces the tiles of a walk to a statistic.

    The walk over all pairs feeds a ``Reducer[Pairs, Tile]``; the walk over sampled queries a
    ``Reducer[Sample, Strip]``, see :mod:`geomkit.engine.sampled`. Inherit from it explicitly to
    get the empty :meth:`share`.

    Attributes:
        kinds: Gram matrices whose tiles it wants; :meth:`start` may decide.
    """

    kinds: frozenset[Kind]

    def start(self, pairs: Source) -> None:
        """Reset everything; called once before the first tile."""

    def tile(self, tile: Block) -> Any:
        """Return what :meth:`add` needs of one tile.

        Runs in several threads at once: it must not change the reducer, nor ``tile.gram``.
        """

    def add(self, tile: Block, part: Any) -> None:
        """Take the result of one tile; called in the order of the walk, without ``tile.gram``."""

    def share(self, team: Team) -> None:
        """Tell the other ranks what the diagonal tiles held; they come before all others."""

    def finish(self, team: Team) -> None:
        """Make the result complete on every rank."""


class Scratch(threading.local):
    """Memory that each thread reuses from tile to tile: fresh memory costs more than arithmetic."""

    _held: np.ndarray | None = None

    def take(self, shape: tuple[int, ...], dtype: np.dtype, *, columns: bool = False) -> np.ndarray:
        """Return uninitialised memory, in Fortran order if ``columns``; valid until the next call.

        The layout matters: sums over rows round differently in the two.
        """
        held = self._held
        if held is None or (held.shape, held.dtype, held.flags.fnc) != (shape, dtype, columns):
            held = self._held = np.empty(shape, dtype, "F" if columns else "C")
        return held

    def like(self, array: Array) -> np.ndarray | None:
        """Return memory of the shape, dtype and layout of an array; ``None`` for a tensor."""
        if is_torch(array):
            return None
        return self.take(array.shape, array.dtype, columns=np.isfortran(np.asarray(array)))


def kinds_of(x: Array, y: Array) -> frozenset[Kind]:
    """Return the Gram matrices that images and texts have: only equal dimensions have products."""
    alike: tuple[Kind, ...] = ("xx", "yy", "tt")
    return frozenset((*alike, "xy", "yx", "tx") if x.shape[1] == y.shape[1] else alike)


@dataclass(frozen=True)
class RightAnswers:
    """Cosines of images with their own texts, in float64.

    Attributes:
        own: For each text, the cosine with its image, ``(t,)``.
        best: For each image, the largest of them, ``(r,)``.
        tied: For each image, the number of its texts that reach it, ``(r,)``.
    """

    own: np.ndarray
    best: np.ndarray
    tied: np.ndarray

    @classmethod
    def of(cls, images: Array, texts: Array, owners: np.ndarray) -> RightAnswers:
        """Compute them.

        Args:
            images: Unit rows ``(r, d)``.
            texts: Unit rows ``(t, d)``; each image has one or more.
            owners: For each text, the row of its image, ``(t,)``.
        """
        own = cosines_at(images, texts, owners, np.arange(len(owners)))
        best = np.full(images.shape[0], -np.inf)
        np.maximum.at(best, owners, own)
        level = own >= best[owners] - rounding(images.shape[1])
        return cls(own, best, np.bincount(owners[level], minlength=len(best)))


class Pairs:
    """Images and texts cut into aligned blocks.

    Args:
        x: Images, unit rows ``(n, d)``: an array, a tensor or
            :class:`geomkit.embeddings.rows.Rows`.
        y: Texts, unit rows ``(m, e)``.
        image_index: For each text, the index of its image, ``(m,)``; every image has a text.
        first: For each image, the text that every statistic but recall and ranks uses, ``(n,)``.
        tile: Rows of a block; default: chosen for the device.
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
        """Cut the rows into blocks."""
        self.x, self.y = x, y
        self.n, self.m = int(x.shape[0]), int(y.shape[0])
        self.kinds = kinds_of(x, y)
        self.on_torch = is_torch(x)
        on_cpu = not is_torch(x) or x.device.type == "cpu"
        wanted = tile or _TILE["cpu" if on_cpu else "other"]
        # Several texts per image make the text blocks wider, so the image blocks are smaller.
        wanted = max(_ALIGN, wanted * self.n // self.m)
        blocks = max(1, -(-self.n // wanted))
        self.block = _round_up(-(-self.n // blocks), _ALIGN)
        self.blocks = -(-self.n // self.block)
        self.first, self.image_index = first, image_index
        others = np.ones(self.m, bool)
        others[first] = False
        self._others = np.flatnonzero(others)
        self._others = self._others[np.argsort(image_index[self._others], kind="stable")]
        self._owner = image_index[self._others]
        self._starts = np.searchsorted(self._owner, np.arange(self.blocks + 1) * self.block)
        self._scratch = Scratch()
        self._right: dict[int, RightAnswers] = {}
        self._there: dict[tuple[int, str], Any] = {}
        self._identity = self.m == self.n and bool(np.array_equal(first, np.arange(self.n)))

    def rows(self, block: int) -> range:
        """Return the images of a block."""
        return range(block * self.block, min((block + 1) * self.block, self.n))

    def texts(self, block: int) -> np.ndarray:
        """Return the texts of a block: the paired text of each image in order, then the others."""
        rows = self.rows(block)
        others = self._others[self._starts[block] : self._starts[block + 1]]
        return np.concatenate([self.first[rows.start : rows.stop], others])

    def owners(self, block: int) -> np.ndarray:
        """Return for each text of a block the row of its image within the block."""
        rows = self.rows(block)
        others = self._owner[self._starts[block] : self._starts[block + 1]]
        return np.concatenate([np.arange(len(rows)), others - rows.start])

    def tile(self, kind: Kind, i: int, j: int) -> Tile:
        """Return one tile, its matrix product computed now."""
        left = self._images(i) if kind[0] == "x" else self._texts(i, paired=kind == "yy")
        right = self._images(j) if kind == "xx" else self._texts(j, paired=kind == "yy")
        cols = np.arange(len(right) if i == j else 0)
        own = (self.owners(j) if kind == "xy" and i == j else cols, cols)
        gram = self._product(left, right)
        return Tile(kind, i, j, gram, self.rows(i), self.rows(j), left, right, own)

    def right_answers(self, block: int) -> RightAnswers:
        """Return the cosines of a block's images with their own texts; computed once."""
        if block not in self._right:
            texts = self._texts(block, paired=False)
            self._right[block] = RightAnswers.of(self._images(block), texts, self.owners(block))
        return self._right[block]

    @property
    def near(self) -> Array:
        """Rows that the products are computed beside."""
        return self.x[:1]

    def reference(self, block: int, of: str) -> Array:
        """Return ``best`` or ``own`` of :meth:`right_answers` beside the rows; moved once."""
        return self._once(block, of, lambda: getattr(self.right_answers(block), of))

    def text_index(self, block: int) -> Any:
        """Return the index of a block's texts, a slice where there is one, beside the rows."""
        rows = self.rows(block)
        if self._identity:
            return slice(rows.start, rows.stop)
        return self._once(block, "texts", lambda: self.texts(block))

    def _once(self, block: int, of: str, make: Callable[[], np.ndarray]) -> Array:
        if not is_torch(self.x) or self.x.device.type == "mps":
            return make()
        if (block, of) not in self._there:
            self._there[block, of] = like(make(), self.x)
        return self._there[block, of]

    def all_right_answers(self) -> RightAnswers:
        """Return the cosines of all images with their own texts, in the order of their rows."""
        blocks = [self.right_answers(block) for block in range(self.blocks)]
        own = np.empty(self.m)
        for block, answers in enumerate(blocks):
            own[self.texts(block)] = answers.own
        best, tied = (np.concatenate([getattr(b, of) for b in blocks]) for of in ("best", "tied"))
        return RightAnswers(own, best, tied)

    def _product(self, left: Array, right: Array) -> Array:
        """``left @ right.T``; with numpy in memory that this thread's next tile reuses."""
        if self.on_torch:
            return left @ right.T
        shape = (left.shape[0], right.shape[0])
        out = self._scratch.take(shape, np.result_type(left, right))
        return np.matmul(left, right.T, out=out)

    def _images(self, block: int) -> Array:
        rows = self.rows(block)
        return self.x[rows.start : rows.stop]

    def _texts(self, block: int, *, paired: bool) -> Array:
        rows = self.rows(block)
        if self._identity:
            return self.y[rows.start : rows.stop]
        if not paired:
            return self.y[self.text_index(block)]
        chosen = self._once(block, "paired", lambda: self.first[rows.start : rows.stop])
        return self.y[chosen]


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def walk(
    pairs: Pairs,
    reducers: Iterable[Reducer[Pairs, Tile]],
    *,
    threads: int | None = None,
    team: Team = SOLO,
) -> None:
    """Visit every tile that a reducer wants, once; diagonal tiles first.

    Args:
        pairs: Rows to compare.
        reducers: Reducers to feed, in place.
        threads: Tiles computed at once (numpy); default: one per core.
        team: Ranks to share the tiles with; each ends with the whole result.
    """
    reducers = list(reducers)
    for reducer in reducers:
        reducer.start(pairs)
    wanted = pairs.kinds & frozenset().union(*(reducer.kinds for reducer in reducers))
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
        # The products are not passed on: the next tile of this thread overwrites them.
        return replace(tile, gram=GONE, left=GONE, right=GONE), parts

    count = 1 if pairs.on_torch or pairs.blocks == 1 else threads or cores()
    for places in (diagonal, rest):
        for tile, parts in in_order(work, team.share(places), threads=count):
            for reducer, part in zip(reducers, parts, strict=True):
                if tile.kind in reducer.kinds:
                    reducer.add(tile, part)
        for reducer in reducers:
            reducer.share(team) if places is diagonal else reducer.finish(team)
