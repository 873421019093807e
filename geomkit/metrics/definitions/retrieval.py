"""Group ``retrieval``: whether each row finds its partner in the other modality."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from geomkit._core.array import like
from geomkit.engine.ranks import Ranks
from geomkit.engine.reducers import RankCounts, SampledRanks
from geomkit.metrics.metric import Metric, of_statistics
from geomkit.metrics.number import Number, mean_with_error, share_with_error
from geomkit.metrics.permutation import binomial_tail, regrouped_recall
from geomkit.metrics.statistics import Reduction, Statistics

__all__ = ["METRICS", "RECALL_AT", "mean_rank", "median_rank", "mrr", "recall"]

RECALL_AT = (1, 3, 5, 10)
_SCORES = 1 << 23
"""Scores of sampled queries with the whole gallery from which null and p-value are drawn."""
_FEWEST = 16
"""Images that are sampled at least, however many texts there are."""


class Retrieval(Protocol):
    """Ranks of the right answers in both directions, of all or of the sampled queries."""

    @property
    def groups(self) -> np.ndarray | None:
        """Image of each query of ``image_retrieval``; ``None`` if each has one of its own."""

    @property
    def text_retrieval(self) -> Ranks:
        """Ranks of each image's best own text among all texts."""

    @property
    def image_retrieval(self) -> Ranks:
        """Ranks of each text's image among all images."""


RANKS: Reduction[Retrieval] = Reduction(RankCounts, SampledRanks)


def _ranks(s: Statistics, direction: str) -> tuple[Ranks, np.ndarray | None]:
    """Ranks, and for each query its image if several queries belong to one image."""
    found = s.reduced(RANKS)
    if direction == "text":
        return found.text_retrieval, None
    return found.image_retrieval, found.groups


def recall(s: Statistics, direction: str, k: int) -> Number:
    """Recall@K: share of queries with a right answer in the top K. 0 to 1.

    ``text``: image → text, a hit when any of the image's texts is there; ``image``: text → image,
    over all texts (as CLIP_benchmark has both). Ties count by expectation. It falls as the gallery
    grows: compare only at one n.

    ``stderr`` takes the gallery as given; the captions of one image are one draw, and it is not 0
    for a recall of 0 or 1 (:func:`~geomkit.metrics.number.share_with_error`). The null is the
    recall of shuffled pairs: K/n, but for image → text with several captions, where the captions
    of one image can fill several places, see :func:`regrouped`. So is then the p-value; with one
    caption it is the tail of a binomial distribution.
    """
    ranks, groups = _ranks(s, direction)
    hits = ranks.hits(k)
    value, error = share_with_error(hits, groups)
    chance = min(1.0, k / s.n)
    if s.embeddings.m == s.n:
        return Number(value, error, chance, binomial_tail(float(hits.sum()), len(hits), chance))
    means, p_values = s.once(regrouped, direction)
    place = RECALL_AT.index(k)
    null = float(means[place]) if direction == "text" else chance
    return Number(value, error, null, float(p_values[place]))


def regrouped(s: Statistics, direction: str) -> tuple[np.ndarray, np.ndarray]:
    """Return null and p-value of the recall at each of RECALL_AT, with several captions an image.

    Images are given at random to the groups of captions, see
    :func:`~geomkit.metrics.permutation.regrouped_recall`. Of large data a random sample of the
    images takes part, with all their captions and against the whole gallery.
    """
    e = s.embeddings
    many = max(_FEWEST, _SCORES // e.m)
    images = np.sort(np.random.default_rng(s.seed).permutation(s.n)[:many])
    owner, label = images, e.image_index
    queries, gallery = e.image[like(images, e.image)], e.text
    if direction == "image":
        captions = np.flatnonzero(np.isin(e.image_index, images))
        queries, gallery = e.text[like(captions, e.text)], e.image
        owner, label = e.image_index[captions], np.arange(s.n)
    return regrouped_recall(
        queries, gallery, owner=owner, label=label, count=s.n, ks=RECALL_AT, seed=s.seed
    )


def mean_rank(s: Statistics, direction: str) -> Number:
    """Mean rank of the right answer, from 1. Dominated by the worst queries."""
    ranks, groups = _ranks(s, direction)
    return Number(*mean_with_error(ranks.ranks, groups))


def median_rank(s: Statistics, direction: str) -> Number:
    """Median rank of the right answer, from 1.

    ``stderr`` is the half width of a 95% interval over 1.96, see :func:`median_with_error`.
    """
    found, groups = _ranks(s, direction)
    return Number(*median_with_error(found.ranks, groups))


def median_with_error(ranks: np.ndarray, groups: np.ndarray | None = None) -> tuple[float, float]:
    """Return the median of ranks and the half width of its 95% interval over 1.96.

    The interval is Woodruff's (JASA 1952): the share of ranks below the median has an error, and
    its ends are the ranks at the shares 1.96 errors below and above one half. That assumes nothing
    of the distribution. Ranks are whole numbers, and many draws can share one median: so the
    interval is made to reach its ends from the median, up to half a rank more than half its width.
    It is 0 where all ranks nearby are equal.

    Args:
        ranks: Numbers, ``(n,)``.
        groups: As for :func:`~geomkit.metrics.number.mean_with_error`; a group is one draw.

    >>> median, error = median_with_error(np.arange(1, 101))
    >>> median, round(error, 3)
    (50.5, 5.357)
    """
    median, count = float(np.median(ranks)), len(ranks)
    errors = [mean_with_error(side, groups)[1] for side in (ranks < median, ranks <= median)]
    reach = 1.96 * max(0.5 / math.sqrt(count), *errors) * count
    ordered = np.sort(ranks)
    low = ordered[max(0, math.floor(count / 2 - reach))]
    high = ordered[min(count - 1, math.ceil(count / 2 + reach))]
    farther = max(high - median, median - low)
    return median, float(min(farther, (high - low + 1) / 2)) / 1.96


def mrr(s: Statistics, direction: str) -> Number:
    """Mean reciprocal rank of the right answer. 0 to 1."""
    ranks, groups = _ranks(s, direction)
    return Number(*share_with_error(ranks.reciprocal, groups))


def _retrieval(direction: str) -> list[Metric]:
    way = {"text": "image → text", "image": "text → image"}[direction]

    def metric(
        name: str, formula: Callable[..., Number], ends: str, *args: Any, **of: Any
    ) -> Metric:
        return Metric(
            f"{direction}_retrieval_{name}", "retrieval", of_statistics(formula, direction, *args),
            f"{way}, {ends}", ideal=1, reduction=RANKS, **of,
        )  # fmt: skip

    return [
        *(
            metric(f"recall@{k}", recall, "K/n = chance … 1 = all found", k, low=0, high=1)
            for k in RECALL_AT
        ),
        metric("mean_rank", mean_rank, "1 = all first … n", low=1),
        metric("median_rank", median_rank, "1 = most first … n", low=1),
        metric("mrr", mrr, "0 … 1 = all first", low=0, high=1),
    ]


METRICS = [*_retrieval("text"), *_retrieval("image")]
