"""Group ``pairs``: how far apart an image and its own text are, and what makes up that distance."""

from __future__ import annotations

import numpy as np

from geomkit.engine.moments import Moments
from geomkit.metrics.definitions.gap import centroid_distance
from geomkit.metrics.metric import Metric, of_moments
from geomkit.metrics.number import NAN, Number, root
from geomkit.metrics.permutation import shuffle_p_value

__all__ = [
    "METRICS",
    "alignment",
    "centroid_gap",
    "distribution_gap",
    "gap_dimensions",
    "paired_cosine",
]


def paired_cosine(m: Moments) -> Number:
    """Mean cosine of the pairs, x_i · y_i; its null is the mean over shuffled pairs. −1 to 1."""
    return Number(m.paired, root(m.paired_variance / m.n), m.cross_cosine)


def alignment(m: Moments) -> Number:
    """Mean squared distance of the pairs (Wang and Isola, arXiv 2005.10242). 0 to 4.

    On unit rows it is 2 − 2 × paired cosine, and so are its error and null.
    """
    value = float(m.squared_distance) / m.n
    return Number(value, 2 * root(m.paired_variance / m.n), 2 - 2 * m.cross_cosine)


def centroid_gap(m: Moments) -> Number:
    """Part of the alignment that is due to the means, ‖x̄ − ȳ‖². 0 to 4."""
    distance, error, *_ = centroid_distance(m)
    return Number(distance**2, 2 * distance * error)


def distribution_gap(m: Moments) -> Number:
    """Rest of the alignment, mean ‖(x_i − x̄) − (y_i − ȳ)‖². 0 to 4.

    The alignment is the sum of it and the centroid gap; translating one modality onto the other
    removes the centroid gap and leaves this.
    """
    mean, covariance = m.difference
    value = max(0.0, float(m.squared_distance) / m.n - float(mean @ mean))
    shared = mean @ ((m.paired_x - m.paired_y) / m.n - m.paired * mean)
    variance = 4 * (m.paired_variance + mean @ covariance @ mean + 2 * shared)
    return Number(value, root(variance / m.n))


def gap_dimensions(m: Moments, share: float = 0.9) -> Number:
    """Smallest number of coordinates that hold 90% of ‖x̄ − ȳ‖². 1 to d.

    It depends on the basis: a rotation of the space changes it.
    """
    squares = np.sort((m.mean_x - m.mean_y) ** 2)[::-1]
    total = squares.sum()
    if total <= 0:
        return Number(NAN)
    return Number(float(np.argmax(np.cumsum(squares) >= share * total * (1 - 1e-12)) + 1))


METRICS = [
    Metric(
        "paired_cosine", "pairs", of_moments(paired_cosine, p_value=shuffle_p_value),
        "−1 = opposite … 1 = pairs coincide", low=-1, high=1, ideal=1,
    ),
    Metric(
        "alignment", "pairs", of_moments(alignment),
        "0 = pairs coincide … 4 = opposite", low=0, high=4, ideal=0,
    ),
    Metric(
        "centroid_gap", "pairs", of_moments(centroid_gap),
        "0 … alignment: the part due to the means", low=0, high=4, ideal=0,
    ),
    Metric(
        "distribution_gap", "pairs", of_moments(distribution_gap),
        "0 … alignment: the part that is left", low=0, high=4, ideal=0,
    ),
    Metric(
        "gap_dimensions_90", "pairs", of_moments(gap_dimensions),
        "1 … d: coordinates holding 90% of the centroid gap", low=1,
        undefined="the two means coincide",
    ),
]  # fmt: skip
