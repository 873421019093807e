"""Nearest neighbours across modalities: a few rows whose own are found or not, and hubs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from geomkit._core.array import Array, like, to_numpy
from geomkit._core.shown import shown
from geomkit.embeddings.embeddings import Clouds, Embeddings
from geomkit.engine.across import BLOCK, nearest_across
from geomkit.engine.precision import cosines_at, rounding, unit64
from geomkit.extraction.originals import UNKNOWN, Originals

__all__ = ["Candidate", "Direction", "Example", "Hub", "Search", "directions", "search"]

_WORK = 2e11
"""Products of all rows of both modalities, beyond which a sample of the queries is compared."""
_FEWEST = 200


@dataclass(frozen=True)
class Candidate:
    """A row of the other modality.

    Attributes:
        row: Its number.
        cosine: Its cosine with the query.
        own: Whether it belongs to the query.
    """

    row: int
    cosine: float
    own: bool


@dataclass(frozen=True)
class Example:
    """A query with its nearest candidates.

    Attributes:
        row: Number of the query.
        near: The nearest candidates, nearest first.
        rank: Rank of the nearest candidate that belongs to it, from 1.
    """

    row: int
    near: tuple[Candidate, ...]
    rank: int


@dataclass(frozen=True)
class Hub:
    """A row that is near many queries.

    Attributes:
        row: Its number.
        count: Number of queries among whose k nearest it is.
    """

    row: int
    count: int


@dataclass(frozen=True)
class Direction:
    """A search from one modality in the other.

    Attributes:
        query: Position of the modality of the queries: 0 or 1.
        queries: Number of queries.
        of: Number of rows that these are a random sample of, or all.
        found: Number of queries that are nearer to one of their own than to any other candidate.
        missed: Number of queries that are nearer to another candidate.
        good: A few of those found.
        wrong: A few of those missed.
        hubs: Candidates that are most often among the k nearest.
        expected: Mean count of a candidate.
        k: Number of nearest candidates that are counted.

    The queries that are neither found nor missed are as near to another candidate as to their own.
    """

    query: int
    queries: int
    of: int
    found: int
    missed: int
    good: tuple[Example, ...]
    wrong: tuple[Example, ...]
    hubs: tuple[Hub, ...]
    expected: float
    k: int


@dataclass(frozen=True)
class Search:
    """Both directions with what is known of the rows, or why there is no search.

    Attributes:
        directions: From images to captions and back; empty if there is no search.
        note: Why there is none.
        labels: Words for the rows that are shown, by modality and row.
        images: Numbers of the images that are shown.
        owner: For each caption, the number of its image.
        modalities: Names of the two modalities.
        named: Whether rows have captions or ids, so that examples say something.
    """

    directions: tuple[Direction, ...] = ()
    note: str = ""
    labels: Mapping[tuple[int, int], str] = field(default_factory=dict)
    images: frozenset[int] = frozenset()
    owner: Sequence[int] | np.ndarray = ()
    modalities: tuple[str, ...] = ("image", "text")
    named: bool = False

    def image(self, modality: int, row: int) -> int:
        """Return the number of an image, or of the image of a caption."""
        return row if modality == 0 else int(self.owner[row])


def search(
    embeddings: Embeddings | Clouds,
    originals: Originals = UNKNOWN,
    *,
    seed: int = 0,
    caption_index: int = 0,
) -> Search:
    """Return examples of the search across modalities, with the words for their rows.

    Args:
        embeddings: Embeddings; of clouds without pairs, or of different dimensions, there are none.
        originals: Images and captions.
        seed: Random seed, as for :func:`directions`.
        caption_index: Caption that an image is named by, from 0.

    >>> search(Embeddings.of(np.eye(4), np.eye(4), ids=tuple("abcd"))).labels[0, 2]
    'c'
    """
    if isinstance(embeddings, Clouds):
        return Search(note=embeddings.reason)
    if not embeddings.equal_dims:
        return Search(note="the two modalities have different dimensions")
    found = directions(embeddings, seed=seed)
    owner, first = np.asarray(embeddings.image_index), embeddings.first_texts(caption_index)
    counts, captions = np.bincount(owner), originals.captions
    rows = {
        (modality, row)
        for d in found
        for modality, row in (
            *((d.query, e.row) for e in (*d.good, *d.wrong)),
            *((1 - d.query, c.row) for e in (*d.good, *d.wrong) for c in e.near),
            *((1 - d.query, hub.row) for hub in d.hubs),
        )
    }
    images = {at: at[1] if at[0] == 0 else int(owner[at[1]]) for at in rows}

    def label(modality: int, row: int) -> str:
        if captions and modality:
            return shown(captions[row])
        image = images[modality, row]
        if captions:
            more = f" (and {counts[image] - 1} more)" if counts[image] > 1 else ""
            return shown(captions[first[image]]) + more
        return shown(embeddings.ids[image]) if embeddings.ids else f"row {row}"

    return Search(
        found, "", {at: label(*at) for at in rows},
        frozenset(images.values()) if originals.data is not None else frozenset(), owner,
        embeddings.modalities, bool(captions or embeddings.ids),
    )  # fmt: skip


def directions(
    embeddings: Embeddings, *, seed: int = 0, k: int = 10, examples: int = 3
) -> tuple[Direction, Direction]:
    """Search from each modality in the other.

    Args:
        embeddings: Embeddings of one dimension.
        seed: Random seed of the examples, and of the queries where they are a sample.
        k: Number of nearest candidates.
        examples: Largest number of examples of each kind, and of hubs.

    >>> x = np.eye(4)
    >>> image, text = directions(Embeddings.of(x, x[[0, 1, 3, 2]]), k=1)
    >>> image.found, image.missed, sorted(e.row for e in image.wrong)
    (2, 2, [2, 3])
    """
    sides, owner = (embeddings.image, embeddings.text), np.asarray(embeddings.image_index)
    own = cosines_at(*sides, owner, np.arange(len(owner)))
    best = np.full(embeddings.n, -np.inf)
    np.maximum.at(best, owner, own)
    work = float(embeddings.n) * embeddings.m * embeddings.dim
    made = []
    for query, reached in enumerate((best, own)):
        size = len(sides[query])
        some = size if work <= _WORK else max(_FEWEST, int(size * _WORK / work))
        rng = np.random.default_rng([seed, query])
        rows = np.arange(size) if some >= size else np.sort(rng.permutation(size)[:some])
        made.append(_search(sides, owner, query, rows, reached[rows], rng, k, examples))
    return made[0], made[1]


def _search(
    sides: tuple[Array, Array],
    owner: np.ndarray,
    query: int,
    rows: np.ndarray,
    reached: np.ndarray,
    rng: np.random.Generator,
    k: int,
    examples: int,
) -> Direction:
    queries, gallery = sides[query], sides[1 - query]
    asked = queries if len(rows) == len(queries) else queries[like(rows, queries)]
    parts = list(nearest_across(asked, gallery, k))
    number, cosine = (np.concatenate(part) for part in zip(*parts, strict=True))
    mine = (owner[number] if query == 0 else number) == (rows if query == 0 else owner[rows])[
        :, None
    ]
    other = np.where(mine, -np.inf, cosine).max(axis=1)
    width = rounding(int(queries.shape[1]))
    found, missed = reached > other + width, other > reached + width

    def shown(which: np.ndarray, wrong: bool) -> tuple[Example, ...]:
        chosen = rng.permutation(np.flatnonzero(which))[:examples]
        ranks = [1] * len(chosen)
        if wrong and len(chosen):
            level = reached[chosen] + width
            ranks = (_nearer(asked[like(chosen, asked)], gallery, level) + 1).tolist()
        return tuple(
            Example(
                int(rows[at]),
                tuple(
                    Candidate(int(number[at, j]), float(cosine[at, j]), bool(mine[at, j]))
                    for j in range(min(3, number.shape[1]))
                ),
                rank,
            )
            for at, rank in zip(chosen, ranks, strict=True)
        )

    counts = np.bincount(number.ravel(), minlength=len(gallery))
    expected = number.size / len(gallery)
    most = np.argsort(-counts, kind="stable")[:examples]
    hubs = tuple(Hub(int(row), int(counts[row])) for row in most if counts[row] > expected)
    return Direction(
        query=query, queries=len(rows), of=len(queries), found=int(found.sum()),
        missed=int(missed.sum()), good=shown(found, False), wrong=shown(missed, True), hubs=hubs,
        expected=expected, k=number.shape[1],
    )  # fmt: skip


def _nearer(queries: Array, gallery: Array, level: np.ndarray) -> np.ndarray:
    """Number of candidates whose cosine with a query is above its level."""
    left, counts = unit64(queries), np.zeros(len(level), np.int64)
    for start in range(0, len(gallery), BLOCK):
        cosines = to_numpy(left @ unit64(gallery[start : start + BLOCK]).T)
        counts += (cosines > level[:, None]).sum(axis=1)
    return counts
