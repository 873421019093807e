"""Group ``retrieval``: whether each row finds its partner in the other modality."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from geomkit.engine.ranks import Ranks
from geomkit.engine.reducers import RankCounts, SampledRanks
from geomkit.metrics.metric import Metric, of_statistics
from geomkit.metrics.number import Number, mean_with_error
from geomkit.metrics.permutation import binomial_tail
from geomkit.metrics.statistics import Reduction, Statistics

__all__ = ["METRICS", "RECALL_AT", "mean_rank", "median_rank", "mrr", "recall"]

RECALL_AT = (1, 3, 5, 10)


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
    """
    ranks, groups = _ranks(s, direction)
    hits = ranks.hits(k)
    value, error = mean_with_error(hits, groups)
    chance = _chance(s, direction, k)
    # The captions of one image are not independent trials: each image is one, by its mean.
    if groups is not None:
        hits = np.bincount(groups, weights=hits) / np.bincount(groups)
    return Number(value, error, chance, binomial_tail(float(hits.sum()), len(hits), chance))


def _chance(s: Statistics, direction: str, k: int) -> float:
    """Recall of shuffled pairs: k/n, or more for an image with several texts."""
    n, m = s.n, s.embeddings.m
    if direction == "image" or m == n:
        return min(1.0, k / n)
    texts = np.bincount(s.embeddings.image_index, minlength=n)
    drawn = np.arange(min(k, m))
    missed = np.clip((m - texts[:, None] - drawn) / (m - drawn), 0.0, 1.0).prod(axis=1)
    return float(1.0 - missed.mean())


def mean_rank(s: Statistics, direction: str) -> Number:
    """Mean rank of the right answer, from 1. Dominated by the worst queries."""
    ranks, groups = _ranks(s, direction)
    return Number(*mean_with_error(ranks.ranks, groups))


def median_rank(s: Statistics, direction: str) -> Number:
    """Median rank of the right answer, from 1.

    Its error is half the way between the quantiles half a standard deviation of the count below
    and above: Woodruff's interval, which assumes nothing of the distribution. The captions of one
    image count as one draw.
    """
    found, groups = _ranks(s, direction)
    ranks = found.ranks
    reach = 0.5 / math.sqrt(len(ranks) if groups is None else groups.max() + 1)
    low, high = np.quantile(ranks, [max(0.0, 0.5 - reach), min(1.0, 0.5 + reach)])
    return Number(float(np.median(ranks)), float(high - low) / 2)


def mrr(s: Statistics, direction: str) -> Number:
    """Mean reciprocal rank of the right answer. 0 to 1."""
    ranks, groups = _ranks(s, direction)
    return Number(*mean_with_error(ranks.reciprocal, groups))


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
