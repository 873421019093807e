"""p-values by permutation, and the tail of a binomial distribution.

The draws are numpy's, on the CPU, so that a p-value is the same on every device. What they need is
computed on the device of the rows and read from it in blocks: the differences of at most 32,768
pairs (64 MB for rows of 512 float32 numbers), and the cosines within blocks of 512 of at most
65,536 pairs (128 MB). Both tests of 20,000 such pairs take 0.7 s of one core.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence

import numpy as np

from geomkit._core.array import Array, to_numpy
from geomkit._core.parallel import cores, in_order
from geomkit.engine.moments import Moments
from geomkit.engine.precision import rounding, unit64

__all__ = [
    "binomial_tail",
    "regrouped_recall",
    "shuffle_p_value",
    "swap_p_value",
    "swap_p_value_of_many",
]

DRAWS = 999
_BLOCK = 4096
_TILE = 512
_SHUFFLED = 65_536
"""Largest number of pairs in the shuffle test; more would add no power that matters."""


def swap_p_value(x: Array, y: Array, *, seed: int, draws: int = DRAWS) -> float:
    """Return the p-value of the centroid distance against exchange of image and text within pairs.

    An exchange flips the sign of x_i − y_i, so one draw is the norm of Σ ±(x_i − y_i).

    Args:
        x: Images, unit rows ``(n, d)``.
        y: Paired texts, unit rows ``(n, d)``.
        seed: Random seed of the exchanges.
        draws: Number of draws.

    Returns:
        (1 + draws with at least the observed distance) / (1 + draws).
    """
    n = int(x.shape[0])

    def work(start: int) -> tuple[np.ndarray, np.ndarray]:
        z = to_numpy(x[start : start + _BLOCK] - y[start : start + _BLOCK])
        if n <= _BLOCK:  # draws equal to the observed one are likely, and must compare as equal
            z = z.astype(np.float64)
        rng = np.random.default_rng([seed, start])
        bits = np.frombuffer(rng.bytes(draws * _BLOCK // 8), np.uint8).reshape(draws, -1)
        signs = np.unpackbits(bits, axis=1, count=len(z)).astype(z.dtype)
        signs *= 2
        signs -= 1
        return z.sum(axis=0, dtype=np.float64), (signs @ z).astype(np.float64)

    starts = range(0, n, _BLOCK)
    observed, drawn = np.zeros(x.shape[1]), np.zeros((draws, x.shape[1]))
    for a, b in in_order(work, starts, threads=min(cores(), len(starts))):
        observed, drawn = observed + a, drawn + b
    slack = 1e-9 if n <= _BLOCK else 1e-6
    far = np.linalg.norm(drawn, axis=1) >= np.linalg.norm(observed) * (1 - slack)
    return float(1 + far.sum()) / (1 + draws)


def swap_p_value_of_many(m: Moments, *, seed: int, draws: int = DRAWS) -> float:
    """Return the p-value of :func:`swap_p_value` by the central limit theorem, from the moments.

    Σ ±(x_i − y_i) of many pairs is normal with covariance Σ(x_i − y_i)(x_i − y_i)ᵀ, so its squared
    norm is a sum of squares of normal numbers weighted by the eigenvalues of that matrix.

    Args:
        m: Moments of the pairs.
        seed: Random seed of the draws.
        draws: Number of draws.
    """
    mean, covariance = m.difference
    weights = np.linalg.eigvalsh(m.n * (covariance + mean[:, None] * mean[None, :]))
    rng = np.random.default_rng(seed)
    drawn = np.square(rng.standard_normal((draws, len(weights)))) @ np.maximum(weights, 0.0)
    return float(1 + (drawn >= m.n**2 * float(mean @ mean)).sum()) / (1 + draws)


def shuffle_p_value(x: Array, y: Array, *, seed: int, draws: int = DRAWS) -> float:
    """Return the p-value of the paired cosine against shuffled pairs.

    Pairs are shuffled within blocks of 512: under the null a block's pairs can be exchanged like
    any others, and the cosines of a block are one small matrix product. Of more than 65,536 pairs,
    that many in randomly chosen blocks are used.

    Args:
        x: Images, unit rows ``(n, d)``.
        y: Paired texts, unit rows ``(n, d)``.
        seed: Random seed of the shuffles.
        draws: Number of draws.

    Returns:
        (1 + draws with at least the observed cosine) / (1 + draws).
    """
    n = int(x.shape[0])
    edges = np.linspace(0, n, -(-n // _TILE) + 1).astype(int)
    blocks = np.random.default_rng(seed).permutation(len(edges) - 1)[: _SHUFFLED // _TILE]

    def work(block: int) -> tuple[float, np.ndarray]:
        rows = slice(int(edges[block]), int(edges[block + 1]))
        # On the CPU: a thread that is new to CUDA has no context for the product.
        gram = to_numpy(x[rows]) @ to_numpy(y[rows]).T
        size = len(gram)
        rng = np.random.default_rng([seed, int(block)])
        order = rng.permuted(np.tile(np.arange(size), (draws, 1)), axis=1)
        picked = gram.ravel()[order + size * np.arange(size)]
        return float(gram.trace(dtype=np.float64)), picked.sum(axis=1, dtype=np.float64)

    observed, drawn = 0.0, np.zeros(draws)
    for a, b in in_order(work, list(blocks), threads=min(cores(), len(blocks))):
        observed, drawn = observed + a, drawn + b
    near = drawn >= observed - 1e-9 * abs(observed)
    return float(1 + near.sum()) / (1 + draws)


def regrouped_recall(
    queries: Array,
    gallery: Array,
    *,
    owner: np.ndarray,
    label: np.ndarray,
    count: int,
    ks: Sequence[int],
    seed: int,
    draws: int = DRAWS,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean recall over all ways to give the images to groups of captions, and p-values.

    Without a relation between the two, every way is as likely as the one observed, whatever the
    captions of one image have in common and however many there are. A query finds its answer if
    one of its group is in the top K; ties count by their expectation.

    Args:
        queries: Unit rows ``(q, d)``, of which each belongs to an image or to a group.
        gallery: Unit rows ``(m, d)``.
        owner: For each query, the number of its image, ``(q,)``.
        label: For each row of the gallery, the number of its image, ``(m,)``.
        count: Number of images.
        ks: Numbers of places K, ascending.
        seed: Random seed of the draws.
        draws: Number of draws.

    Returns:
        For each K, the mean recall over all ways, and (1 + draws with at least the observed
        recall) / (1 + draws).
    """
    found = _chances(_scores(queries, gallery), label, count, ks, rounding(queries.shape[1]))
    images, place = np.unique(owner, return_inverse=True)
    rng = np.random.default_rng(seed)
    drawn = (rng.choice(count, len(images), replace=False) for _ in range(draws))
    ways = np.stack([owner, *(groups[place] for groups in drawn)])
    means, values = [], []
    for chance in found:
        observed, *others = chance[np.arange(len(owner)), ways].sum(axis=1)
        means.append(chance.mean())
        values.append((1 + (np.array(others) >= observed - 1e-9).sum()) / (1 + draws))
    return np.array(means), np.array(values)


def _scores(queries: Array, gallery: Array) -> np.ndarray:
    """Cosines of all queries with all rows of a gallery, in float64, a block of it at a time."""
    wide = unit64(queries)
    parts = [
        to_numpy(wide @ unit64(gallery[start : start + _BLOCK]).T)
        for start in range(0, int(gallery.shape[0]), _BLOCK)
    ]
    return np.concatenate(parts, axis=1)


def _chances(
    scores: np.ndarray, label: np.ndarray, count: int, ks: Sequence[int], width: float
) -> Iterator[np.ndarray]:
    """For each K, each query's chance of a row of each label in its top K, ``(q, count)``.

    Args:
        scores: Scores of the gallery, ``(q, m)``.
        label: For each row of the gallery, its label, ``(m,)``.
        count: Number of labels.
        ks: Numbers of places K, ascending.
        width: Largest difference of tied scores.
    """
    q, m = scores.shape
    most = min(ks[-1], m)
    best = np.sort(np.partition(scores, m - most, axis=1)[:, m - most :], axis=1)
    row, col = np.nonzero(scores >= best[:, :1] - width)
    score, code = scores[row, col], row * count + label[col]

    def per_label(chosen: np.ndarray) -> np.ndarray:
        return np.bincount(code[chosen], minlength=q * count).reshape(q, count)

    for k in ks:
        bar = best[row, most - min(k, m)]
        above, level = score > bar + width, abs(score - bar) <= width
        wins, ties = per_label(above), per_label(level)
        chance = np.minimum(wins + ties, 1.0)
        tied = ties.sum(axis=1)
        left = k - wins.sum(axis=1)
        # Only where more are tied than there are places left does their order matter.
        some = np.flatnonzero(tied > left)
        tied, left, missed = tied[some, None], left[some, None], np.ones((len(some), count))
        for place in range(left.max(initial=0)):
            share = np.clip((tied - ties[some] - place) / np.maximum(tied - place, 1), 0, 1)
            missed = np.where(place < left, missed * share, missed)
        chance[some] = np.where(wins[some] > 0, 1.0, 1.0 - missed)
        yield chance


def binomial_tail(hits: float, n: int, p: float) -> float:
    """Return P(X ≥ hits) for X ~ binomial(n, p); fractions of a hit are dropped.

    It is never 0: the smallest result is the smallest normal number, 2e-308. Computed here and not
    by scipy, whose import would take longer than the measurement.

    >>> round(binomial_tail(2, 2, 0.5), 12), binomial_tail(0, 5, 0.1)
    (0.25, 1.0)
    """
    k = math.floor(hits + 1e-9)
    if k <= 0 or p >= 1:
        return 1.0
    if p <= 0:
        return sys.float_info.min
    log_p, log_q = math.log(p), math.log1p(-p)
    # The smaller of the two tails is summed, outwards from its largest term.
    upper = k > n * p
    j, step, end = (k, 1, n + 1) if upper else (k - 1, -1, -1)
    total = 0.0
    while j != end:
        log_term = math.lgamma(n + 1) - math.lgamma(j + 1) - math.lgamma(n - j + 1)
        term = math.exp(log_term + j * log_p + (n - j) * log_q)
        total += term
        if term < 1e-17 * total:
            break
        j += step
    return min(1.0, max(sys.float_info.min, total if upper else 1.0 - total))
