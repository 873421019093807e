"""Group ``mixed``: what rows find in one index of both modalities."""

from __future__ import annotations

from functools import partial
from operator import methodcaller
from typing import Protocol

import numpy as np

from geomkit.engine.nearest import BOTH
from geomkit.engine.ranks import Ranks
from geomkit.engine.reducers import OwnKindCounts, SampledOwnKindCounts
from geomkit.metrics.definitions.neighbours import NEAREST, error_of_neighbours
from geomkit.metrics.definitions.retrieval import (
    RANKS,
    RECALL_AT,
    Found,
    influence,
    parts,
    regrouped,
)
from geomkit.metrics.metric import Metric, of_statistics
from geomkit.metrics.number import NAN, Number, share_with_error
from geomkit.metrics.statistics import Reduction, Statistics

__all__ = ["METRICS", "mixed_recall", "modality_bias"]


class OwnKind(Protocol):
    """Numbers of other rows of a query's own modality above its right answer, and tied with it."""

    image: np.ndarray
    text: np.ndarray


OWN_KIND: Reduction[OwnKind] = Reduction(OwnKindCounts, SampledOwnKindCounts, beside=RANKS)


def mixed_recall(s: Statistics, direction: str, k: int) -> Number:
    r"""Recall@K in one index of all images and all texts, the query left out. 0 to 1.

    .. math:: \frac1n \sum_i 1[r_i \le K], \quad r_i \text{ the rank of the best right answer
              among all rows of both modalities}

    geomkit's own, after the search that a shared space is for.
    ``text``: image → text, a hit when any of the image's texts is in the top K of all texts and
    all other images; ``image``: text → image, a hit when its image is in the top K of all images
    and all other texts. Other texts of the same image compete too, as they would in such an index.
    It is at most the recall of the other modality alone, and far below it where there is a gap: a
    query then finds its own kind.

    The error is that of the recall (:func:`~geomkit.metrics.definitions.retrieval.recall`). The
    null is chance: the recall of shuffled pairs without a gap, when images and texts follow each
    other in random order. With one caption that is K/(2n − 1). With several, the captions of one
    image fill several places, as in the null of the recall.
    """
    f = s.once(_found, direction)
    hits = f.ranks.hits(k)
    value, error = share_with_error(hits, f.groups)
    error = f.error(hits, error, RECALL_AT.index(k))
    if k >= s.n + s.embeddings.m - 1:
        error = 0.0  # all candidates are in the top K of every draw
    return Number(value, error, _chance(s, direction, k)) if s.errors else Number(value)


def _found(s: Statistics, direction: str) -> Found:
    """What the numbers of one direction are made of."""
    across, within = s.reduced(RANKS), s.reduced(OWN_KIND)
    ranks, others, groups = across.text_retrieval, within.image, None
    if direction == "image":
        ranks, others, groups = across.image_retrieval, within.text, across.groups
    greater, tied = others + np.stack([ranks.greater, ranks.tied])
    ranks = Ranks(greater, tied, ranks.own)
    return Found(ranks, groups, influence(s, direction, ranks, mixed=True))


def _chance(s: Statistics, direction: str, k: int) -> float:
    """Recall of shuffled pairs when the index is in random order."""
    n, m = s.n, s.embeddings.m
    size = n + m - 1
    if direction == "image" or m == n:
        return min(1.0, k / size)
    # Chance that t texts are in the top K, times the recall among texts at t.
    texts = np.zeros(min(k, m) + 1)
    texts[0] = 1.0
    for place in range(min(k, size)):
        here = texts * np.clip((m - np.arange(len(texts))) / (size - place), 0.0, 1.0)
        texts = texts - here + np.concatenate([[0.0], here[:-1]])
    means, _ = s.once(regrouped, "text")
    return float(texts @ np.interp(np.arange(len(texts)), [0, *RECALL_AT], [0.0, *means]))


def shares(s: Statistics) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Share of each row's own modality among its 10 nearest; and that of its partner."""
    near = s.reduced(NEAREST).near
    found = {side: near.mixed(side) for side in ("image", "text")}
    return {side: (own / near.k, partner / near.k) for side, (own, partner) in found.items()}


def modality_bias(s: Statistics, modality: str) -> Number:
    r"""Share of a query's own modality among its 10 nearest of all other images and texts. 0 to 1.

    .. math:: \frac{1}{10n} \sum_i |N(x_i) \cap \{x_j\}|,
              \quad N(x_i) \text{ the 10 nearest of } x_i \text{ in one index of both modalities}

    geomkit's own.
    0.5 without a gap, 1 where a query finds only its own kind; every image counts with one text,
    so that both modalities have equal numbers. The partner is one of the texts: where all pairs
    coincide it always takes one of the 10 places, and the share is 0.45. Rows that are tied for
    the last places share them.

    The null is its mean when image and text are exchanged at random within pairs: half of the
    places that partners do not take. The error allows for shared neighbours
    (:func:`~geomkit.metrics.definitions.neighbours.error_of_neighbours`).
    """
    near = s.reduced(NEAREST).near
    if 2 * s.n - 1 <= near.k:
        return Number(NAN)
    found = s.once(shares)
    partner = np.mean([found[side][1].mean() for side in found])
    value = found[modality][0]
    error = error_of_neighbours(near, value, BOTH[modality])
    return Number(float(value.mean()), error, (1.0 - float(partner)) / 2)


def _bias_parts(s: Statistics, modality: str) -> np.ndarray:
    """Share of a modality among the nearest of each of its rows."""
    return s.once(shares)[modality][0]


METRICS = [
    *(
        Metric(
            f"mixed_{direction}_retrieval_recall@{k}", "mixed",
            of_statistics(mixed_recall, direction, k),
            f"{way} among both, chance … 1 = all found", low=0, high=1, ideal=1,
            reduction=OWN_KIND,
            pitfalls="0 does not mean that partners are not found: with a gap the rows of the "
            "query's own modality fill the top K, whatever the recall across. It falls as the "
            "index grows: compare at one n.",
            parts=partial(
                parts, direction=direction, values=methodcaller("hits", k), of=_found
            ),
        )
        for direction, way in (("text", "image → text"), ("image", "text → image"))
        for k in RECALL_AT
    ),
    *(
        Metric(
            f"modality_bias_{modality}", "mixed", of_statistics(modality_bias, modality),
            "0.45 = pairs coincide … 0.5 = kinds mixed at random … 1 = its own kind alone",
            low=0, high=1, ideal=0.45,
            reduction=NEAREST, undefined="it needs more than 5 pairs",
            pitfalls="It saturates: 1 says that the ten nearest are of one kind, not how far the "
            "other kind is. Ideal is 0.45, not 0.5, since the partner of a perfect pair takes one "
            "of the ten places. It grows with n at the same gap, as the ten nearest come closer.",
            parts=partial(_bias_parts, modality=modality),
        )
        for modality in ("image", "text")
    ),
]  # fmt: skip
