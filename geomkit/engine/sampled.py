"""Past the row budget: a seeded sample of pairs against **all** rows, in one pass over the rows.

A smaller gallery would inflate recall, and a sample of both sides would double the error; so the
queries are a sample, and each of them is compared with every row.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from geomkit._core.array import Array, is_torch, like, namespace
from geomkit._core.memory import device_memory
from geomkit._core.parallel import SOLO, Team, cores, in_order
from geomkit.engine.pairwise import GONE, Kind, Reducer, RightAnswers, kinds_of
from geomkit.engine.precision import unit64

__all__ = ["Sample", "Strip", "row_products", "scan"]

_GALLERY = 2048
"""Rows of the gallery in one strip on a CPU."""


@dataclass(frozen=True)
class Strip:
    """Inner products of all sampled queries with one block of a gallery.

    Attributes:
        kind: Queries, then gallery: ``yx`` is paired texts against images. With several texts per
            image, the queries of ``tx`` and ``tt`` are all texts of the sampled images, in the
            order of :attr:`Sample.captions`, and the gallery of ``tt`` is all texts.
        gram: Inner products, ``(q, c)``; in ``xy`` with every text of the block; gone when
            parts are added.
        cols: Pair numbers of the columns of :attr:`paired`; in ``tt`` of all columns.
        chosen: Columns of ``gram`` that are paired texts; ``None``: all of them.
        left: Unit rows of the queries, ``(q, d)``; gone like the products.
        right: Unit rows of the gallery, ``(c, d)``; gone like the products.
        own: Rows and columns of the entries of a text with its image, or of a row with itself.
    """

    kind: Kind
    gram: Array
    cols: np.ndarray
    chosen: np.ndarray | None
    left: Array
    right: Array
    own: tuple[np.ndarray, np.ndarray]

    @cached_property
    def paired(self) -> Array:
        """Inner products with images or paired texts alone."""
        return self.gram if self.chosen is None else self.gram[:, like(self.chosen, self.gram)]


class Sample:
    """A seeded sample of pairs as queries, and all rows as galleries.

    Args:
        x: Images, unit rows ``(n, d)``.
        y: Texts, unit rows ``(m, e)``.
        image_index: For each text, the index of its image, ``(m,)``.
        first: For each image, its paired text, ``(n,)``.
        queries: Number of pairs to sample; all pairs if there are fewer.
        seed: Random seed of the sample.
        wide: Whether to compare in float64, block by block.

    Attributes:
        rows: Numbers of the sampled pairs, ``(q,)``, ascending.
        captions: Numbers of all texts of the sampled images, ``(k,)``, the paired texts first.
        owners: For each of them, its image's place among the sampled, ``(k,)``.
        images: Images of the sampled pairs, ``(q, d)``.
        texts: Paired texts of the sampled pairs, ``(q, e)``.
    """

    def __init__(
        self,
        x: Array,
        y: Array,
        image_index: np.ndarray,
        first: np.ndarray,
        *,
        queries: int,
        seed: int = 0,
        wide: bool = False,
    ) -> None:
        """Draw the sample."""
        self.read = unit64 if wide else _as_it_is
        self.x, self.y, self.image_index = x, y, image_index
        self.n, self.m = int(x.shape[0]), int(y.shape[0])
        self.kinds = kinds_of(x, y)
        self.rows = np.sort(np.random.default_rng(seed).permutation(self.n)[: min(queries, self.n)])
        self.first = first
        self.images = self.read(x[like(self.rows, x)])
        self.texts = self.read(y[like(first[self.rows], y)])
        self._is_first = np.zeros(self.m, bool)
        self._is_first[first] = True
        self._place = np.full(self.n, -1)
        self._place[self.rows] = np.arange(len(self.rows))
        place = self._place[image_index]
        others = np.flatnonzero((place >= 0) & ~self._is_first)
        self.captions = np.concatenate([first[self.rows], others])
        self.owners = place[self.captions]

    @cached_property
    def all_texts(self) -> Array:
        """All texts of the sampled images, in the order of :attr:`captions`."""
        if self.m == self.n:
            return self.texts
        return self.read(self.y[like(self.captions, self.y)])

    @cached_property
    def right_answers(self) -> RightAnswers:
        """Cosines of the sampled images with all their texts; only for equal dimensions."""
        return RightAnswers.of(self.images, self.all_texts, self.owners)

    def reference(self, of: str) -> Array:
        """Return ``best`` or ``own`` of :attr:`right_answers` beside the rows; moved once."""
        return self._references[of]

    @cached_property
    def _references(self) -> dict[str, Array]:
        there = is_torch(self.images) and self.images.device.type != "mps"
        answers = {of: getattr(self.right_answers, of) for of in ("best", "own")}
        return {of: like(v, self.images) if there else v for of, v in answers.items()}

    @cached_property
    def own(self) -> Array:
        """Product of each sampled pair, ``(q,)``; only for equal dimensions."""
        return row_products(self.images, self.texts)

    def strip(self, kind: Kind, block: Array, start: int) -> Strip:
        """Return one strip, its matrix product computed now.

        Args:
            kind: Modality of the queries, then of the gallery.
            block: Rows of the gallery.
            start: Number of the first of them.
        """
        queries = getattr(self, {"x": "images", "y": "texts", "t": "all_texts"}[kind[0]])
        stop = start + len(block)
        cols, chosen = np.arange(start, stop), None
        if kind[1] != "x":
            found = np.flatnonzero(self._is_first[start:stop])
            cols = self.image_index[start:stop]
            if len(found) < len(block) and kind != "tt":
                chosen, cols = found, cols[found]
                if kind == "yy":
                    block, chosen = block[like(found, block)], None
        own = self._own_entries(kind, start, stop, cols)
        return Strip(kind, queries @ block.T, cols, chosen, queries, block, own)

    def _own_entries(
        self, kind: Kind, start: int, stop: int, cols: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns of the entries of a text with its image, or of a row with itself."""
        if kind in ("tx", "tt"):
            number = self.rows[self.owners] if kind == "tx" else self.captions
            inside = np.flatnonzero((number >= start) & (number < stop))
            return inside, number[inside] - start
        place = self._place[self.image_index[start:stop] if kind == "xy" else cols]
        inside = np.flatnonzero(place >= 0)
        return place[inside], inside


def scan(
    sample: Sample,
    reducers: Iterable[Reducer[Sample, Strip]],
    *,
    threads: int | None = None,
    team: Team = SOLO,
) -> None:
    """Compare the sampled queries with all rows: with all images first, then with all texts.

    Args:
        sample: Queries and galleries.
        reducers: Reducers to feed, in place.
        threads: Blocks of a gallery compared at once (numpy); default: one per core.
        team: Ranks to share the blocks with; each ends with the whole result.
    """
    reducers = list(reducers)
    for reducer in reducers:
        reducer.start(sample)
    wanted = sample.kinds & frozenset().union(*(reducer.kinds for reducer in reducers))
    sides: tuple[tuple[Array, tuple[Kind, ...]], ...] = (
        (sample.x, ("xx", "yx", "tx")),
        (sample.y, ("yy", "xy", "tt")),
    )
    step = _gallery(len(sample.captions), sample.x)
    for gallery, pair in sides:
        kinds = [kind for kind in pair if kind in wanted]
        size = int(gallery.shape[0]) if kinds else 0

        def work(
            start: int, gallery: Array = gallery, kinds: list[Kind] = kinds
        ) -> list[tuple[Strip, list[Any]]]:
            block = sample.read(gallery[start : start + step])
            out = []
            for kind in kinds:
                strip = sample.strip(kind, block, start)
                parts = [r.tile(strip) if kind in r.kinds else None for r in reducers]
                out.append((replace(strip, gram=GONE, left=GONE, right=GONE), parts))
            return out

        count = 1 if is_torch(gallery) else threads or cores()
        for strips in in_order(work, team.share(list(range(0, size, step))), threads=count):
            for strip, parts in strips:
                for reducer, part in zip(reducers, parts, strict=True):
                    if strip.kind in reducer.kinds:
                        reducer.add(strip, part)
    for reducer in reducers:
        reducer.finish(team)


def _gallery(queries: int, gallery: Array) -> int:
    """Rows of the gallery in one strip: on a device as many as its memory has room for."""
    free = device_memory(gallery)
    if free is None:
        return _GALLERY
    # Products, what is made of them and its masks: some eight numbers of eight bytes each.
    return max(_GALLERY, min(2**17, free // 2 // (64 * max(1, queries))))


def _as_it_is(rows: Array) -> Array:
    return rows


def row_products(a: Array, b: Array) -> Array:
    """Return the inner product of each row of one matrix with the same row of another."""
    return namespace(a).sum(a * b, axis=1)
