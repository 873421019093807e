"""Group ``pairs``: how far apart an image and its own text are, and what makes up that distance."""

from __future__ import annotations

import numpy as np

from geomkit.engine.moments import Moments
from geomkit.metrics.metric import Metric, of_moments
from geomkit.metrics.number import NAN, Number, norm_errors, root
from geomkit.metrics.permutation import shuffle_p_value
from geomkit.metrics.statistics import Statistics

__all__ = [
    "METRICS",
    "alignment",
    "centroid_gap",
    "distribution_gap",
    "gap_dimensions",
    "paired_cosine",
]


def paired_cosine(m: Moments) -> Number:
    r"""Mean cosine of the pairs, x_i · y_i; its null is the mean over shuffled pairs. −1 to 1.

    .. math:: \frac1n \sum_i x_i·y_i

    Reported by Fahim, Murphy and Fyshe (arXiv 2405.18570), among others.
    """
    return Number(m.paired, root(m.distance_variance / m.n) / 2, m.cross_cosine)


def alignment(m: Moments) -> Number:
    r"""Mean squared distance of the pairs (Wang and Isola, arXiv 2005.10242). 0 to 4.

    .. math:: \frac1n \sum_i \lVert x_i - y_i \rVert^2

    On unit rows it is 2 − 2 × paired cosine, and so are its error and null.
    """
    return Number(m.alignment, root(m.distance_variance / m.n), m.cross_distance)


def centroid_gap(m: Moments) -> Number:
    r"""Part of the alignment that is due to the means, ‖x̄ − ȳ‖². 0 to 4.

    .. math:: \lVert \bar x - \bar y \rVert^2

    One of the two parts of the gap in arXiv 2604.00279. Few pairs enlarge it by tr(Σ)/n on average,
    see :func:`~geomkit.metrics.definitions.gap.centroid_distance_unbiased`. The null, alignment/n,
    is its mean under exchange of image and text within pairs.
    """
    mean, covariance = m.difference
    error, _ = norm_errors(mean, covariance, m.n)
    return Number(float(mean @ mean), error, m.alignment / m.n)


def distribution_gap(m: Moments) -> Number:
    r"""Rest of the alignment, mean ‖(x_i − x̄) − (y_i − ȳ)‖². 0 to 4.

    .. math:: \frac1n \sum_i \lVert (x_i-\bar x) - (y_i-\bar y) \rVert^2

    The other part of the gap in arXiv 2604.00279. The alignment is the sum of it and the centroid
    gap; translating one modality onto the other removes the centroid gap and leaves this.
    """
    mean, covariance = m.difference
    value = max(0.0, float(covariance.trace()))
    # Influence of a pair: δ_i − 2 (x̄ − ȳ)·(x_i − y_i)
    shared = mean @ (m.covariance("xd") - m.covariance("yd"))
    variance = m.covariance("dd") + 4 * (mean @ covariance @ mean) - 4 * shared
    return Number(value, root(variance / (m.n - 1)) if m.n > 2 else NAN)


def gap_dimensions(s: Statistics, share: float = 0.9) -> Number:
    r"""Smallest number of coordinates that hold 90% of ‖x̄ − ȳ‖². 1 to d.

    .. math:: \min \{|S| : \sum_{k \in S} g_k^2 \ge 0.9 \lVert g \rVert^2\},
              \quad g = \bar x - \bar y

    After Schrodi et al. (arXiv 2404.07983), who find that few dimensions hold most of the gap. It
    depends on the basis: a rotation of the space changes it.
    """
    squares = np.sort(s.gap_vector**2)[::-1]
    total = squares.sum()
    if total <= s.moments.ROUNDING:
        return Number(NAN)
    return Number(float(np.argmax(np.cumsum(squares) >= share * total * (1 - 1e-12)) + 1))


def distances(s: Statistics) -> np.ndarray:
    """Squared distances of the pairs, ``(n,)``."""
    return s.over_pairs(lambda x, y: np.square(x - y).sum(axis=1))


METRICS = [
    Metric(
        "paired_cosine", "pairs", of_moments(paired_cosine, p_value=shuffle_p_value),
        "−1 = opposite … 1 = pairs coincide", low=-1, high=1, ideal=1,
        parts=lambda s: 1.0 - s.once(distances) / 2,
        pitfalls="In a narrow cone unpaired rows have a high cosine too: compare with the null. "
        "Moving the centres together raises it without any better match of the pairs.",
    ),
    Metric(
        "alignment", "pairs", of_moments(alignment),
        "0 = pairs coincide … 4 = opposite", low=0, high=4, ideal=0,
        parts=lambda s: s.once(distances),
        pitfalls="Narrow clouds have a small one whether or not the pairs match: compare with the "
        "null. It holds both the distance of the centres and the scatter of the pairs, which "
        "centroid_gap and distribution_gap tell apart.",
    ),
    Metric(
        "centroid_gap", "pairs", of_moments(centroid_gap),
        "0 … alignment: the part due to the means", low=0, high=4, ideal=0,
        pitfalls="Few pairs enlarge it: without a gap it is alignment/n on average, its null. "
        "Centring removes it wholly, whatever else tells the clouds apart.",
    ),
    Metric(
        "distribution_gap", "pairs", of_moments(distribution_gap),
        "0 … alignment: the part that is left", low=0, high=4, ideal=0,
        pitfalls="Narrow clouds have a small one whether or not the pairs match. Wrong captions "
        "raise it, and so do clouds of different shape.",
    ),
    Metric(
        "gap_dimensions_90", "pairs", gap_dimensions,
        "1 … d: coordinates holding 90% of the centroid gap", low=1,
        undefined="the two means coincide",
        pitfalls="It depends on the basis: a rotation, which keeps all distances, changes it. "
        "Where the centroid distance is near its null, it counts the dimensions of noise.",
    ),
]  # fmt: skip
