"""Queries of multimodal arithmetic and their answers, on unit rows alone.

A query starts from a picture and asks for another by what words add to it. Pictures that are level
share the answer, so that a collapsed model is at chance.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from geomkit.data.labelled.attributes import ATTRIBUTES
from geomkit.engine.ranks import tie_width

__all__ = ["Answers", "Task", "answer", "moved", "nearest", "tasks_of"]

_BLOCK = 1024


@dataclass(frozen=True)
class Task:
    """The queries of one attribute.

    Attributes:
        attribute: its name.
        values: what its values are called: the words.
        context: ``(n,)``, which emoji a picture shows but for the attribute; −1 without it.
        value: ``(n,)``, which value it has; −1 without it.
        source, target: ``(q,)``, rows of the pictures a query starts from and should find.
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
        credit: ``(q,)``, 1 for the right picture, its share of a tie.
        found: ``(q, V + 1)``, share of the answer that is the same emoji with each value; last,
            any other picture.
        retrieved: ``(q,)``, the nearest picture (the first of several).
        margin: ``(q,)``, cosine with the target minus that with the nearest other picture.
    """

    credit: np.ndarray
    found: np.ndarray
    retrieved: np.ndarray
    margin: np.ndarray


def tasks_of(
    ids: Sequence[str], *, sources: np.ndarray | None = None, targets: np.ndarray | None = None
) -> list[Task]:
    """Skin tone and gender queries among OpenMoji's pictures.

    Every ordered pair of pictures that differ in the attribute and in nothing else is a query.

    Args:
        ids: ``n`` codes.
        sources, targets: ``(n,)`` masks of the pictures that queries may start from and ask for.

    Returns:
        The tasks that have a query.

    >>> [len(task) for task in tasks_of(["1F44B-1F3FB", "1F44B-1F3FC", "1F44B"])]
    [2]
    """
    every = np.ones(len(ids), bool)
    sources = every if sources is None else sources
    targets = every if targets is None else targets
    found = []
    for name, attribute in ATTRIBUTES.items():
        if attribute.context is None:
            continue
        context, value = np.full((2, len(ids)), -1)
        members: dict[str, list[int]] = {}
        for row, code in enumerate(ids):
            codes = code.split("-")
            label = attribute.label(codes)
            if label is not None:
                value[row] = label
                members.setdefault(attribute.context(codes), []).append(row)
        pairs = []
        for number, rows in enumerate(members.values()):
            context[rows] = number
            pairs += [(s, t) for s, t in product(rows, rows) if value[s] != value[t]]
        pairs = [(s, t) for s, t in pairs if sources[s] and targets[t]]
        if pairs:
            source, target = np.array(pairs).T
            found.append(Task(name, attribute.class_names, context, value, source, target))
    return found


def moved(
    image: np.ndarray, source: np.ndarray, difference: np.ndarray, strength: float
) -> np.ndarray:
    """Queries ``(q, d)``: unit rows of the sources moved by λ times the difference of the texts."""
    rows = image[source] + strength * difference
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norms > 0, norms, 1.0)


def nearest(
    query: np.ndarray, gallery: np.ndarray, source: np.ndarray
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Which pictures of a gallery lie nearest to queries, the query's own source left out.

    Args:
        query: ``(q, d)`` unit rows.
        gallery: ``(n, d)`` unit rows, two or more.
        source: ``(q,)``, the row of the gallery that each query may not find.

    Yields:
        Some queries at a time: which; their cosines ``(k, n)``, −∞ with the source; and the shares
        ``(k, n)`` that the nearest pictures have of the answer, adding up to 1.
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
        image: ``(n, d)`` unit rows of all pictures: the gallery.
        task: its rows are theirs.
        difference: ``(q, d)``, target's text minus source's.
        strength: λ.
    """
    query = moved(image, task.source, difference, strength)
    found = np.zeros((len(task), len(task.values) + 1))
    credit, margin = np.zeros((2, len(task)))
    retrieved = np.zeros(len(task), int)
    for part, scores, shares in nearest(query, image, task.source):
        rows, target = np.arange(len(scores)), task.target[part]
        credit[part] = shares[rows, target]
        # Hardly ever more than one picture a query: the few there are, not a sum over all.
        query_row, picture = shares.nonzero()
        kin = task.context[picture] == task.context[target][query_row]
        column = np.where(kin, task.value[picture], len(task.values))
        np.add.at(found[part], (query_row, column), shares[query_row, picture])
        retrieved[part] = scores.argmax(axis=1)
        own = scores[rows, target]
        scores[rows, target] = -np.inf
        margin[part] = own - scores.max(axis=1)
    return Answers(credit, found, retrieved, margin)
