"""Metrics over pairs of rows: uniformities, MMD, retrieval, neighbours."""

from __future__ import annotations

import math

import numpy as np

from geomkit.engine.pairwise import Kind
from geomkit.metrics.number import NAN, Number, mean_with_error, u_statistic_error
from geomkit.metrics.permutation import binomial_tail
from geomkit.metrics.statistics import NEIGHBOURS, Statistics

__all__ = [
    "hubness",
    "mean_rank",
    "median_rank",
    "mmd",
    "mrr",
    "mutual_knn",
    "recall",
    "uniformity",
    "uniformity_mean",
]


def _swap_null(s: Statistics) -> float:
    """Any of the uniformities if image and text were exchanged at random within pairs."""
    if not s.equal_dims:
        return NAN
    image, text, cross = (float(s.potential_rows(kind).mean()) for kind in ("xx", "yy", "xy"))
    return math.log((image + text + 2 * cross) / 4)


def uniformity(s: Statistics, kind: Kind) -> Number:
    r"""Log of the mean Gaussian potential of two rows, of one modality or across (t = 2).

    :math:`\log \mathrm{mean}_{i \ne j} e^{-2\lVert x_i - x_j \rVert^2}` (Wang and Isola,
    arXiv 2005.10242; across: the paper's XU). 0 for one spot, down to the sphere's limit; a finite
    cloud can lie below the limit, since no row is compared with itself.
    """
    rows = s.potential_rows(kind)
    mean = float(rows.mean())
    return Number(math.log(mean), u_statistic_error(rows, s.n) / mean, _swap_null(s))


def uniformity_mean(s: Statistics) -> Number:
    """Mean of the two modalities' uniformities: the paper's U."""
    x, y = s.potential_rows("xx"), s.potential_rows("yy")
    value = (math.log(x.mean()) + math.log(y.mean())) / 2
    error = u_statistic_error((x / x.mean() + y / y.mean()) / 2, s.n)
    return Number(value, error, _swap_null(s))


def mmd(s: Statistics) -> Number:
    """Unbiased MMD² of the two clouds, kernel exp(−2‖·‖²). Can be below 0.

    Gretton et al. (JMLR 2012), pairs of one index left out across too, since image i and text i
    are not independent: e^{U_image} + e^{U_text} − 2e^{XU}. Its error is linearised about the value
    found; where there is no gap the statistic degenerates and the error is too small.
    """
    rows = s.potential_rows("xx") + s.potential_rows("yy") - 2 * s.potential_rows("xy")
    return Number(float(rows.mean()), u_statistic_error(rows, s.n), 0.0)


def recall(s: Statistics, direction: str, k: int) -> Number:
    """Recall@K: share of queries with a right answer in the top K. 0 to 1.

    ``text``: image → text, a hit when any of the image's texts is there; ``image``: text → image,
    over all texts (as CLIP_benchmark has both). Ties count by expectation. It falls as the gallery
    grows: compare only at one n.
    """
    ranks, groups = s.ranks(direction)
    hits = ranks.hits(k)
    value, error = mean_with_error(hits, groups)
    chance = _chance(s, direction, k)
    # The captions of one image are no independent trials: an image is one, by its mean.
    trials = len(hits) if groups is None else s.n
    if groups is not None:
        hits = np.bincount(groups, weights=hits) / np.bincount(groups)
    return Number(value, error, chance, binomial_tail(float(hits.sum()), trials, chance))


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
    """Mean rank of the right answer, from 1. Governed by its worst queries."""
    ranks, groups = s.ranks(direction)
    return Number(*mean_with_error(ranks.ranks, groups))


def median_rank(s: Statistics, direction: str) -> Number:
    """Median rank of the right answer, from 1.

    Its error is half the way between the quantiles half a standard deviation of the count below
    and above: Woodruff's interval, which assumes nothing of the distribution. The captions of one
    image count as one draw.
    """
    found, groups = s.ranks(direction)
    ranks = found.ranks
    reach = 0.5 / math.sqrt(len(ranks) if groups is None else s.n)
    low, high = np.quantile(ranks, [max(0.0, 0.5 - reach), min(1.0, 0.5 + reach)])
    return Number(float(np.median(ranks)), float(high - low) / 2)


def mrr(s: Statistics, direction: str) -> Number:
    """Mean reciprocal rank of the right answer. 0 to 1."""
    ranks, groups = s.ranks(direction)
    return Number(*mean_with_error(ranks.reciprocal, groups))


def mutual_knn(s: Statistics) -> Number:
    """Mean overlap of a pair's 10 nearest neighbours among images and among texts. 0 to 1.

    Huh et al., "The Platonic Representation Hypothesis" (arXiv 2405.07987). Shuffled pairs overlap
    by 10/(n − 1). Blind to any gap: it never compares an image with a text.
    """
    overlap = s.overlap
    if overlap is None:
        return Number(NAN)
    return Number(*mean_with_error(overlap), NEIGHBOURS / (s.n - 1))


def hubness(s: Statistics, modality: str) -> Number:
    """Skewness of how often each row is among the 10 nearest of a row of the other modality.

    Radovanović et al. (JMLR 2010): ``image``: how often each image is among the nearest of a text.
    """
    counts = s.occurrences(modality)
    if counts is None:
        return Number(NAN)
    centred = counts - counts.mean()
    variance = float((centred**2).mean())
    return Number(float((centred**3).mean()) / variance**1.5 if variance > 0 else 0.0)
