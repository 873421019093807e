"""Past the row budget: seeded queries against the **full** gallery, in one pass over the rows.

A smaller gallery would inflate recall and a smaller sample of both sides would double the error;
so the sample is of rows only, and everything is scanned for each of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from geomkit._core.array import Array, is_torch, like, namespace, to_numpy
from geomkit._core.parallel import SOLO, Team, cores, in_order
from geomkit.engine.neighbours import TopK
from geomkit.engine.ranks import Ranks, count_above, tie_width
from geomkit.engine.reducers import row_sums
from geomkit.functional import gaussian_potential

__all__ = ["SampledPairs", "sample_pairs"]

_GALLERY = 2048


@dataclass(frozen=True)
class SampledPairs:
    """What the sampled queries found; the fields are those of the full walk, for a few rows.

    Attributes:
        rows: ``(q,)``, the sampled pairs.
        potential_rows: by kind (``xx``, ``yy``, ``xy``), each query's mean potential with all
            others, ``xy`` the mean of both directions.
        text_retrieval, image_retrieval: ranks of ``q`` images among all texts and of their paired
            texts among all images.
        overlap: ``(q,)``, shared nearest neighbours of image and text, as a fraction.
    """

    rows: np.ndarray
    potential_rows: dict[str, np.ndarray]
    text_retrieval: Ranks | None
    image_retrieval: Ranks | None
    overlap: np.ndarray | None


def sample_pairs(
    x: Array,
    y: Array,
    image_index: np.ndarray,
    first: np.ndarray,
    *,
    queries: int,
    neighbours: int = 10,
    seed: int = 0,
    t: float = 2.0,
    threads: int | None = None,
    team: Team = SOLO,
) -> SampledPairs:
    """Scan all rows for a seeded sample of pairs.

    Args:
        x, y: unit rows ``(n, d)`` and ``(m, e)``; what compares across needs d = e.
        image_index: ``(m,)``, whose each text is.
        first: ``(n,)``, each image's paired text.
        queries: how many pairs to sample.
        neighbours: k of the neighbour overlap.
        seed: of the sample.
        t: inverse temperature of the potential.
        threads: blocks of the gallery in work at once (numpy).
        team: ranks to share the gallery with.
    """
    n, m = int(x.shape[0]), int(y.shape[0])
    rows = np.sort(np.random.default_rng(seed).permutation(n)[: min(queries, n)])
    q = len(rows)
    across = x.shape[1] == y.shape[1]
    xq, yq = x[like(rows, x)], y[like(first[rows], y)]
    is_first = np.zeros(m, bool)
    is_first[first] = True
    own = xp_sum(xq * yq) if across else None
    best, positives = _best_own(x, y, image_index, first, rows, xq, own)
    sums = {name: np.zeros(q) for name in ("xx", "yy", "xy", "yx")}
    counts = np.zeros((2, 2, q), np.int64)
    top = {name: TopK(q, neighbours) for name in ("xx", "yy")}

    def images(start: int) -> list[Any]:
        block = x[start : start + _GALLERY]
        cols = range(start, start + len(block))
        gram = xq @ block.T
        near = top["xx"].candidates(gram, range(q), cols, skip=rows)
        out: list[Any] = [_consumed(gram, t), near]
        if own is not None:
            back = yq @ block.T
            counted = count_above(back, own[:, None], axis=1)
            out += [_consumed(back, t), counted]
        return out

    def texts(start: int) -> list[Any]:
        block = y[start : start + _GALLERY]
        chosen = np.flatnonzero(is_first[start : start + len(block)])
        paired = block if len(chosen) == len(block) else block[like(chosen, block)]
        gram = yq @ paired.T
        numbers = image_index[start + chosen]
        near = top["yy"].candidates(gram, range(q), numbers, skip=rows)
        out: list[Any] = [_consumed(gram, t), near]
        if best is not None:
            forward = xq @ block.T
            counted = count_above(forward, best[:, None], axis=1)
            mine = forward if len(chosen) == len(block) else forward[:, like(chosen, forward)]
            out += [_consumed(mine, t), counted]
        return out

    count = 1 if is_torch(x) else threads or cores()
    for work, size, within, cross, direction in (
        (images, n, "xx", "yx", 1),
        (texts, m, "yy", "xy", 0),
    ):
        starts = team.share(list(range(0, size, _GALLERY)))
        for part in in_order(work, starts, threads=count):
            sums[within] += part[0]
            top[within].keep(*part[1])
            if across:
                sums[cross] += part[2]
                counts[direction] += part[3]
    for name in sums:
        sums[name] = team.sum(sums[name])
    counts = team.sum(counts)
    near = {name: top[name].finish(team) for name in top}
    # What a row shares with itself or its partner is no pair of two rows.
    potential = {name: (sums[name] - 1.0) / (n - 1) for name in ("xx", "yy")}
    text_retrieval = image_retrieval = None
    if across:
        self_potential = to_numpy(gaussian_potential(own, t)).astype(np.float64)
        potential["xy"] = ((sums["xy"] + sums["yx"]) / 2 - self_potential) / (n - 1)
        several = m > n
        text_retrieval = Ranks(
            counts[0, 0], counts[0, 1] - positives, positives if several else None
        )
        image_retrieval = Ranks(counts[1, 0], counts[1, 1] - 1)
    overlap = None
    if n > neighbours:
        shared = [len(np.intersect1d(a, b)) for a, b in zip(near["xx"], near["yy"], strict=True)]
        overlap = np.array(shared) / neighbours
    return SampledPairs(rows, potential, text_retrieval, image_retrieval, overlap)


def _consumed(gram: Array, t: float) -> np.ndarray:
    """Row sums of the potential of a matrix that nobody needs any more."""
    return row_sums(gaussian_potential(gram, t, out=None if is_torch(gram) else gram))


def xp_sum(products: Array) -> Array:
    """Row sums in the arrays' own namespace."""
    return namespace(products).sum(products, axis=1)


def _best_own(
    x: Array,
    y: Array,
    image_index: np.ndarray,
    first: np.ndarray,
    rows: np.ndarray,
    xq: Array,
    own: Array | None,
) -> tuple[Array | None, np.ndarray]:
    """Each query's best score with a text of its own, and how many of its texts are level."""
    if own is None or y.shape[0] == x.shape[0]:
        return own, np.ones(len(rows), np.int64)
    position = np.full(x.shape[0], -1)
    position[rows] = np.arange(len(rows))
    mine = np.flatnonzero(position[image_index] >= 0)
    owner = position[image_index[mine]]
    scores = xp_sum(xq[like(owner, xq)] * y[like(mine, y)])
    values = to_numpy(scores)
    best = np.full(len(rows), -np.inf, values.dtype)
    np.maximum.at(best, owner, values)
    level = np.bincount(owner, weights=values >= best[owner] - tie_width(scores))
    return like(best, scores), level.astype(np.int64)
