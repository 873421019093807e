"""Group ``retrieval``: whether each row finds its partner in the other modality."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from operator import attrgetter, methodcaller
from typing import Any, Protocol

import numpy as np

from geomkit._core.array import like
from geomkit.engine.beaten import beaten
from geomkit.engine.pairwise import RightAnswers
from geomkit.engine.ranks import Ranks
from geomkit.engine.reducers import RankCounts, SampledRanks
from geomkit.metrics.metric import Metric, of_statistics
from geomkit.metrics.number import Number, mean_with_error, share_with_error
from geomkit.metrics.permutation import binomial_tail, regrouped_recall
from geomkit.metrics.statistics import Reduction, Statistics

__all__ = ["METRICS", "RECALL_AT", "mean_rank", "median_rank", "mrr", "parts", "recall"]

RECALL_AT = (1, 3, 5, 10)
"""Ranks K of the recalls."""
_SCORES = 1 << 23
"""Scores of sampled queries with the whole gallery from which null and p-value are drawn."""
_FEWEST = 16
"""Images that are sampled at least, however many texts there are."""
_INFLUENCES = 512
"""Images whose influence on the queries is computed: their variance is then known to a tenth."""
_RECIPROCAL, _RANK, _MEDIAN = (len(RECALL_AT) + k for k in range(3))
"""Columns of the influence."""


class Retrieval(Protocol):
    """Ranks of the right answers in both directions, of all or of the sampled queries."""

    @property
    def groups(self) -> np.ndarray | None:
        """Image of each query of ``image_retrieval``; ``None`` if they are in the images' order."""

    @property
    def right_answers(self) -> RightAnswers:
        """Cosines of the images with their own texts."""

    @property
    def text_retrieval(self) -> Ranks:
        """Ranks of each image's best own text among all texts."""

    @property
    def image_retrieval(self) -> Ranks:
        """Ranks of each text's image among all images."""


RANKS: Reduction[Retrieval] = Reduction(RankCounts, SampledRanks)


@dataclass(frozen=True)
class Influence:
    """What images add to sums over the queries of others, which find more without them.

    The columns are the hits at each of RECALL_AT, the reciprocal ranks, the ranks, and the ranks up
    to the median.

    Attributes:
        images: Images whose influence is known, ``(l,)``.
        sums: Influence of each on all queries of other images, ``(l, w)``.
        squares: Mean over images of the sum of squares of the influences on one query, ``(w,)``.
    """

    images: np.ndarray
    sums: np.ndarray
    squares: np.ndarray


@dataclass(frozen=True)
class Found:
    """What the numbers of one direction are made of.

    Attributes:
        ranks: Rank of each query's right answer.
        groups: For each query, the number of its image; ``None`` if they are in the images' order.
        influence: Influence of images on the queries; ``None`` in estimates, or without errors.
    """

    ranks: Ranks
    groups: np.ndarray | None
    influence: Influence | None

    def error(self, values: np.ndarray, error: float, column: int) -> float:
        """Return the standard error of a mean over the queries with the draw of the gallery in it.

        By the jackknife over images the variance is that of h + c, with h what an image's own
        queries add to the mean and c its influence on the others. The variance of h is known; what
        is added to it is Var(c) + 2 Cov(h, c), less the sum of squares in Var(c), which Var(h)
        holds already: how one query's value varies with the gallery.

        Args:
            values: Value of each query, ``(q,)``.
            error: Standard error with the gallery as given.
            column: Column of the influence.
        """
        if self.influence is None:
            return error
        centred = values - values.mean()
        if self.groups is not None:
            centred = np.bincount(self.groups, weights=centred)
        both = np.cov(centred[self.influence.images], self.influence.sums[:, column])
        more = float(both[1, 1] + 2 * both[0, 1] - self.influence.squares[column])
        return math.sqrt(max(error**2 + more * len(centred) / len(values) ** 2, error**2 / 4))


def influence(
    s: Statistics, direction: str, ranks: Ranks, *, mixed: bool = False
) -> Influence | None:
    """Return the influence of images on the queries, in exact results.

    Args:
        s: Statistics.
        direction: ``text`` or ``image``.
        ranks: Ranks of the queries.
        mixed: Whether the gallery holds the rows of the queries' own modality too.
    """
    if not (s.exact and s.errors):
        return None
    e, answers = s.embeddings, s.reduced(RANKS).right_answers
    weights = _without_one(ranks)
    count = min(s.n, _INFLUENCES)
    # Evenly over the cosines with the own text: the order of the rows has no part in the choice.
    images = np.sort(np.argsort(answers.best, kind="stable")[np.arange(count) * s.n // count])
    texts = np.flatnonzero(np.isin(e.image_index, images))
    queries, reference, owner = e.image, answers.best, np.arange(s.n)
    if direction == "image":
        queries, reference, owner = e.text, answers.own, e.image_index
    both = np.hstack([weights, weights**2])
    total = np.zeros((count, both.shape[1]))
    if mixed or direction == "text":
        rows, label = e.text[like(texts, e.text)], e.image_index[texts]
        place = np.searchsorted(images, label)
        np.add.at(total, place, beaten(queries, rows, reference, both, owner, label))
    if mixed or direction == "image":
        rows = e.image[like(images, e.image)]
        total += beaten(queries, rows, reference, both, owner, images)
    sums, squares = np.hsplit(total, 2)
    return Influence(images, -sums, squares.mean(axis=0))


def _without_one(ranks: Ranks) -> np.ndarray:
    """What each query would gain if one candidate above its answer were not there, ``(q, w)``.

    Few answers are just below the top K, so the gain is the mean of those at K ± √(K − 1).
    """
    fewer = Ranks(np.maximum(ranks.greater - 1, 0), ranks.tied, ranks.own)
    gains = []
    for k in RECALL_AT:
        reach = math.isqrt(k - 1)
        near = range(k - reach, k + reach + 1)
        gains.append(np.mean([fewer.hits(j) - ranks.hits(j) for j in near], axis=0))
    gains += [fewer.reciprocal - ranks.reciprocal, fewer.ranks - ranks.ranks]
    # Likewise for the median, which can be large: each answer counts with the chance that a Poisson
    # variable of its mean is there.
    median = max(1, math.floor(np.median(ranks.ranks)))
    mean = np.maximum(ranks.greater + ranks.tied / 2 - 0.5, 0.5)
    gains.append(np.exp((median - 1) * np.log(mean) - mean - math.lgamma(median)))
    return np.stack(gains, axis=1)


def found(s: Statistics, direction: str) -> Found:
    """Return what the numbers of one direction are made of."""
    held = s.reduced(RANKS)
    ranks = held.text_retrieval if direction == "text" else held.image_retrieval
    groups = None if direction == "text" else held.groups
    return Found(ranks, groups, influence(s, direction, ranks))


def parts(
    s: Statistics, direction: str, values: Callable[[Ranks], np.ndarray], of: Any = found
) -> np.ndarray:
    """What each image adds to a mean over the queries of one direction, the gallery as given.

    Args:
        s: Statistics.
        direction: ``text`` or ``image``.
        values: Function from ranks to the value of each query.
        of: Function from statistics and direction to :class:`Found`.
    """
    f = s.once(of, direction)
    numbers = values(f.ranks)
    if f.groups is None:
        return numbers
    sums = np.bincount(f.groups, weights=numbers)
    return np.asarray(sums * (len(sums) / len(numbers)))


def recall(s: Statistics, direction: str, k: int) -> Number:
    r"""Recall@K: share of queries with a right answer in the top K. 0 to 1.

    .. math:: \frac1n \sum_i 1[r_i \le K], \quad r_i \text{ the rank of the best right answer}

    The usual recall of Karpathy and Fei-Fei (arXiv 1412.2306).
    ``text``: image → text, a hit when any of the image's texts is there; ``image``: text → image,
    over all texts (as CLIP_benchmark has both). Ties count by expectation. It falls as the gallery
    grows: compare only at one n.

    ``stderr`` is not 0 for a recall of 0 or 1 (:func:`~geomkit.metrics.number.share_with_error`).
    The captions of one image are one draw. In exact results the gallery is drawn with the queries
    (:meth:`Found.error`); in estimates it is taken as given. The null is the
    recall of shuffled pairs: K/n, but for image → text with several captions, where the captions
    of one image can fill several places, see :func:`regrouped`. So is then the p-value; with one
    caption it is the tail of a binomial distribution.
    """
    f = s.once(found, direction)
    hits, place = f.ranks.hits(k), RECALL_AT.index(k)
    value, error = share_with_error(hits, f.groups)
    error = f.error(hits, error, place)
    if k >= (s.embeddings.m if direction == "text" else s.n):
        error = 0.0  # all candidates are in the top K of every draw
    if not s.errors:
        return Number(value)
    chance = min(1.0, k / s.n)
    if s.embeddings.m == s.n:
        return Number(value, error, chance, binomial_tail(float(hits.sum()), len(hits), chance))
    means, p_values = s.once(regrouped, direction)
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
    r"""Mean rank of the right answer, from 1. Dominated by the worst queries.

    .. math:: \frac1n \sum_i r_i

    Reported by open_clip during training.
    """
    f = s.once(found, direction)
    value, error = mean_with_error(f.ranks.ranks, f.groups)
    return Number(value, f.error(f.ranks.ranks, error, _RANK))


def median_rank(s: Statistics, direction: str) -> Number:
    r"""Median rank of the right answer, from 1.

    .. math:: \mathrm{median}_i \, r_i

    Karpathy and Fei-Fei (arXiv 1412.2306).
    ``stderr`` is the half width of a 95% interval over 1.96, see :func:`median_with_error`.
    """
    f = s.once(found, direction)
    ranks = f.ranks.ranks
    below = ranks <= np.median(ranks)
    _, error = mean_with_error(below, f.groups)
    return Number(*median_with_error(ranks, f.groups, share=f.error(below, error, _MEDIAN)))


def median_with_error(
    ranks: np.ndarray, groups: np.ndarray | None = None, *, share: float = 0.0
) -> tuple[float, float]:
    """Return the median of ranks and the half width of its 95% interval over 1.96.

    The interval is Woodruff's (JASA 1952): the share of ranks below the median has an error, and
    its ends are the ranks at the shares 1.96 errors below and above one half. That assumes nothing
    of the distribution. Ranks are whole numbers, and many draws can share one median: an interval
    of at most two ranks counts with the way from the median to its farther end, so that it is
    covered. The error is 0 where all ranks nearby are equal.

    Args:
        ranks: Numbers, ``(n,)``.
        groups: As for :func:`~geomkit.metrics.number.mean_with_error`; a group is one draw.
        share: Standard error of the share of ranks up to the median, if it is known to be larger.

    >>> median, error = median_with_error(np.arange(1, 101))
    >>> median, round(error, 3)
    (50.5, 5.102)
    """
    median, count = float(np.median(ranks)), len(ranks)
    errors = [mean_with_error(side, groups)[1] for side in (ranks < median, ranks <= median)]
    reach = 1.96 * max(0.5 / math.sqrt(count), share, *errors) * count
    ordered = np.sort(ranks)
    low = ordered[max(0, math.floor(count / 2 - reach))]
    high = ordered[min(count - 1, math.ceil(count / 2 + reach))]
    farther = max(high - median, median - low)
    return median, float(farther if high - low <= 2 else (high - low) / 2) / 1.96


def mrr(s: Statistics, direction: str) -> Number:
    r"""Mean reciprocal rank of the right answer. 0 to 1.

    .. math:: \frac1n \sum_i \frac{1}{r_i}

    Voorhees (TREC-8, 1999).
    """
    f = s.once(found, direction)
    value, error = share_with_error(f.ranks.reciprocal, f.groups)
    return Number(value, f.error(f.ranks.reciprocal, error, _RECIPROCAL))


def _retrieval(direction: str) -> list[Metric]:
    way = {"text": "image → text", "image": "text → image"}[direction]

    def metric(
        name: str,
        formula: Callable[..., Number],
        ends: str,
        values: Callable[[Ranks], np.ndarray] | None,
        *args: Any,
        **of: Any,
    ) -> Metric:
        own = values and partial(parts, direction=direction, values=values)
        return Metric(
            f"{direction}_retrieval_{name}", "retrieval", of_statistics(formula, direction, *args),
            f"{way}, {ends}", ideal=1, reduction=RANKS, parts=own, **of,
        )  # fmt: skip

    return [
        *(
            metric(
                f"recall@{k}", recall, "K/n = chance … 1 = all found",
                methodcaller("hits", k), k, low=0, high=1,
                pitfalls="It falls as the gallery grows: compare at one n. A gap does not show: "
                "the order within the other modality counts alone, and a model with disjoint "
                "clouds can reach 1. An equally fitting caption of another image counts as a miss.",
            )
            for k in RECALL_AT
        ),
        metric(
            "mean_rank", mean_rank, "1 = all first … n", attrgetter("ranks"), low=1,
            pitfalls="The worst queries dominate: a few wrong captions move it more than the model "
            "does. It grows with n.",
        ),
        metric(
            "median_rank", median_rank, "1 = most first … n", None, low=1,
            pitfalls="Most good models share a median of 1 or 2, so it cannot tell them apart. It "
            "grows with n.",
        ),
        metric(
            "mrr", mrr, "0 … 1 = all first", attrgetter("reciprocal"), low=0, high=1,
            pitfalls="The first ranks weigh most: from rank 1 to 2 it loses as much as from 2 to "
            "the end. It falls as the gallery grows: compare at one n.",
        ),
    ]  # fmt: skip


METRICS = [*_retrieval("text"), *_retrieval("image")]
