"""Queries of multimodal arithmetic and their answers, computed from unit rows.

A query is an image embedding plus a difference of text embeddings; its answer is the nearest image.
Images that tie share the answer, so that a collapsed model scores at chance.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from geomkit.data.relations import RELATIONS
from geomkit.engine.ranks import tie_width

__all__ = ["Answers", "Task", "answer", "moved", "nearest", "tasks_of"]

_BLOCK = 1024


@dataclass(frozen=True)
class Task:
    """The queries of one attribute.

    Attributes:
        attribute: Name of the attribute.
        values: Names of its values: the words.
        context: Emoji that each image shows, regardless of the attribute, ``(n,)``; −1 for an
            image without the attribute.
        value: Index of the value of each image, ``(n,)``; −1 for an image without the attribute.
        source, target: Rows of the images that each query starts from and should find, ``(q,)``.
    """

    attribute: str
    values: tuple[str, ...]
    context: np.ndarray
    value: np.ndarray
    source: np.ndarray
    target: np.ndarray

    def __len__(self) -> int:
        return len(self.source)


@dataclass(frozen=True)
class Answers:
    """What the queries of a task found.

    Attributes:
        credit: Credit of each query, ``(q,)``: 1 for the right image, its share in a tie.
        found: Share of the answer that is the same emoji with each value, and last any other
            image, ``(q, V + 1)``.
        retrieved: Nearest image of each query, ``(q,)``; the first in a tie.
        margin: Cosine with the target minus the cosine with the nearest other image, ``(q,)``.
    """

    credit: np.ndarray
    found: np.ndarray
    retrieved: np.ndarray
    margin: np.ndarray


def tasks_of(
    ids: Sequence[str], *, sources: np.ndarray | None = None, targets: np.ndarray | None = None
) -> list[Task]:
    """Return the queries among OpenMoji's images, by :data:`~geomkit.data.relations.RELATIONS`.

    Every ordered pair of images that differ in the attribute alone is a query.

    Args:
        ids: Codes of ``n`` emoji.
        sources: Mask of the images that a query may start from, ``(n,)``; default: all.
        targets: Mask of the images that may be the answer, ``(n,)``; default: all.

    Returns:
        The tasks that have at least one query.

    >>> [len(task) for task in tasks_of(["1F44B-1F3FB", "1F44B-1F3FC", "1F44B"])]
    [2]
    """
    every = np.ones(len(ids), bool)
    sources = every if sources is None else sources
    targets = every if targets is None else targets
    found = []
    for name, relation in RELATIONS.items():
        context, value = relation.places(ids)
        starts, asked = ((context >= 0) & some for some in (sources, targets))
        one, other = (np.flatnonzero(some) for some in (starts, asked))
        pairs = (context[one][:, None] == context[other]) & (value[one][:, None] != value[other])
        source, target = np.nonzero(pairs)
        if len(source):
            found.append(Task(name, relation.values, context, value, one[source], other[target]))
    return found


def moved(
    image: np.ndarray, source: np.ndarray, difference: np.ndarray, strength: float
) -> np.ndarray:
    """Return unit rows of the sources plus λ times the difference of the texts, ``(q, d)``."""
    rows = image[source] + strength * difference
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norms > 0, norms, 1.0)


def nearest(
    query: np.ndarray, gallery: np.ndarray, source: np.ndarray
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Yield the nearest images of blocks of queries; a query's source is left out.

    Args:
        query: Unit rows ``(q, d)``.
        gallery: Unit rows ``(n, d)``, n ≥ 2.
        source: Row of the gallery that each query may not find, ``(q,)``.

    Yields:
        The slice of the queries; their cosines ``(k, n)``, −∞ with the source; and the share of
        each image in the answer ``(k, n)``, with sum 1.
    """
    for start in range(0, len(query), _BLOCK):
        part = slice(start, start + _BLOCK)
        scores = query[part] @ gallery.T
        scores[np.arange(len(scores)), source[part]] = -np.inf
        top = scores >= scores.max(axis=1, keepdims=True) - tie_width(scores)
        yield part, scores, top / top.sum(axis=1, keepdims=True)


def answer(
    image: np.ndarray, task: Task, difference: np.ndarray, *, strength: float = 1.0
) -> Answers:
    """Answer the queries of a task.

    Args:
        image: Unit rows of all images, ``(n, d)``: the gallery.
        task: Queries; their rows are those of ``image``.
        difference: Text of the target minus text of the source, ``(q, d)``.
        strength: λ, the factor of the difference.
    """
    query = moved(image, task.source, difference, strength)
    found = np.zeros((len(task), len(task.values) + 1))
    credit, margin = np.zeros((2, len(task)))
    retrieved = np.zeros(len(task), int)
    for part, scores, shares in nearest(query, image, task.source):
        rows, target = np.arange(len(scores)), task.target[part]
        credit[part] = shares[rows, target]
        # Few entries are not zero: without ties one image per query.
        query_row, hit = shares.nonzero()
        same_emoji = task.context[hit] == task.context[target][query_row]
        column = np.where(same_emoji, task.value[hit], len(task.values))
        np.add.at(found[part], (query_row, column), shares[query_row, hit])
        retrieved[part] = scores.argmax(axis=1)
        own = scores[rows, target]
        scores[rows, target] = -np.inf
        margin[part] = own - scores.max(axis=1)
    return Answers(credit, found, retrieved, margin)
