"""Group ``gap``: how far apart the two modalities are."""

from __future__ import annotations

import math
from functools import wraps

import numpy as np

from geomkit._core.array import like
from geomkit.engine.moments import Moments
from geomkit.metrics.definitions.spectrum import leading_components
from geomkit.metrics.metric import Metric, of_moments, of_statistics
from geomkit.metrics.number import NAN, Number, norm_errors, root
from geomkit.metrics.permutation import swap_p_value, swap_p_value_of_many
from geomkit.metrics.separability import Separability, linear_separability
from geomkit.metrics.statistics import Statistics

__all__ = ["METRICS", "centroid_distance", "centroid_distance_unbiased", "relative_gap"]

_SWAPPED = 32_768
"""Pairs up to which the exchanges of the swap test are drawn one by one."""
_LEADING = 0.5
"""Share of the variance that the leading components of ``gap_alignment`` hold."""


def centroid_distance(m: Moments) -> Number:
    r"""Distance of the two means, ‖x̄ − ȳ‖. 0 to 2.

    .. math:: \lVert \bar x - \bar y \rVert, \quad \bar x = \frac1n \sum_i x_i

    Liang et al., "Mind the Gap" (arXiv 2203.02053). Two halves of one cloud are not 0
    apart but about √(alignment/n): that is the null, the root mean square under exchange of image
    and text within pairs.
    """
    mean, covariance = m.difference
    _, error = norm_errors(mean, covariance, m.n)
    return Number(float(np.linalg.norm(mean)), error, math.sqrt(m.alignment / m.n))


@wraps(centroid_distance)
def _centroid_distance(s: Statistics) -> Number:
    if not s.errors:
        return centroid_distance(s.moments)
    if s.n > _SWAPPED:
        p_value = swap_p_value_of_many(s.moments, seed=s.seed)
    else:
        p_value = swap_p_value(*s.pairs, seed=s.seed)
    return centroid_distance(s.moments)._replace(p_value=p_value)


def centroid_distance_unbiased(m: Moments) -> Number:
    r"""Distance of the two means without the part due to few pairs. 0 to 2.

    .. math:: \sqrt{\max(0, \lVert\bar x-\bar y\rVert^2 - \mathrm{tr}(\hat\Sigma)/n)}

    The square of the centroid distance exceeds that of the population by tr(Σ)/n on average, Σ
    being the covariance of x − y, estimated with ddof 1. geomkit's own. 0 where the difference is
    negative: about half of the time if there is no gap. The error is v/(2√max(D², v)) with v that
    of D², which is finite there.
    """
    if m.n < 2:
        return Number(NAN)
    mean, covariance = m.difference
    squared = max(0.0, float(mean @ mean) - float(covariance.trace()) / (m.n - 1))
    error, _ = norm_errors(mean, covariance, m.n)
    return Number(math.sqrt(squared), error / (2 * math.sqrt(max(squared, error)) or NAN), 0.0)


def relative_gap(m: Moments) -> Number:
    r"""Distance p within pairs relative to q between rows of a modality, p/(p + q). 0 to 1.

    .. math:: \frac{p}{p+q}, \quad p = \frac{1}{4n} \sum_i \lVert x_i-y_i \rVert^2, \quad
              q = \frac{1}{8n(n-1)} \sum_{i \ne j}
              (\lVert x_i-x_j \rVert^2 + \lVert y_i-y_j \rVert^2)

    See :func:`geomkit.functional.relative_modality_gap` (Role et al., arXiv
    2505.03703); p and q are computed from squared distances, which keep the digits of narrow
    clouds.
    """
    p, q = _within_and_between(m)
    if not p + q > m.ROUNDING:
        return Number(NAN)
    a, b = _slopes(m)
    x, y = m.mean_x, m.mean_y
    spread = x @ m.covariance("xx") @ x + y @ m.covariance("yy") @ y
    spread += 2 * (x @ m.covariance("xy") @ y)
    shared = x @ m.covariance("xd") + y @ m.covariance("yd")
    variance = a * a * m.covariance("dd") + b * b * spread + 2 * a * b * shared
    return Number(p / (p + q), root(variance / (m.n - 1)))


def _within_and_between(m: Moments) -> tuple[float, float]:
    """Distances p within pairs and q between rows of a modality."""
    return m.alignment / 4, (m.intra_distance("image") + m.intra_distance("text")) / 8


def _slopes(m: Moments) -> tuple[float, float]:
    """Factors a and b of the influence of a pair on the relative gap.

    It is a·δ_i + b·(x_i·x̄ + y_i·ȳ), since ‖x_i − x̄‖² = 1 − 2 x_i·x̄ + ‖x̄‖².
    """
    p, q = _within_and_between(m)
    return q / (4 * (p + q) ** 2), p / (2 * (p + q) ** 2)


def gap_alignment(s: Statistics, modality: str) -> Number:
    r"""Cosine of the gap vector with the span of a modality's leading components. 0 to 1.

    .. math:: \frac{\lVert V^⊤ (\bar x-\bar y) \rVert}{\lVert \bar x-\bar y \rVert},
              \quad V \text{ the leading components as columns}

    The leading components are the fewest principal components that hold half of the variance. 0:
    the gap is orthogonal to what varies, as arXiv 2603.29080 says of CLIP (the question is taken
    from there, this number is geomkit's own). The null is √(k/d), that of a random direction for
    k components in d dimensions.
    """
    m = s.moments
    vector = m.mean_x - m.mean_y
    length = float(np.linalg.norm(vector))
    leading = leading_components(s, modality, _LEADING)
    if leading is None or length <= math.sqrt(m.ROUNDING):
        return Number(NAN)
    null = math.sqrt(leading.shape[1] / int(s.pairs[0].shape[1]))
    return Number(min(1.0, float(np.linalg.norm(vector @ leading)) / length), NAN, null)


def _along_the_gap(s: Statistics) -> np.ndarray:
    """Part of x_i − y_i along the gap, whose mean is the centroid distance, ``(n,)``."""
    gap = s.moments.mean_x - s.moments.mean_y
    return s.over_pairs(lambda x, y: (x - y) @ (gap / (np.linalg.norm(gap) or 1.0)))


def _relative_parts(s: Statistics) -> np.ndarray:
    """Influence of each pair on the relative gap, ``(n,)``."""
    m = s.moments
    a, b = _slopes(m)
    return s.over_pairs(
        lambda x, y: a * np.square(x - y).sum(axis=1) + b * (x @ m.mean_x + y @ m.mean_y)
    )


def _classified(s: Statistics) -> Separability:
    """Held-out scores of the linear classifier; past the row budget of sampled pairs."""
    x, y = s.span
    moments: Moments | None = s.moments
    if s.sample is not None:
        moments = None
        x, y = x[like(s.sample, x)], y[like(s.sample, y)]
    folds = min(s.folds, len(x)) if isinstance(s.folds, int) else s.folds
    return linear_separability(x[:], y[:], folds=folds, seed=s.seed, moments=moments)


def _accuracy(s: Statistics) -> Number:
    r"""Held-out accuracy of a logistic regression that tells images from texts. 0.5 to 1.

    .. math:: \frac{1}{2n} \sum_i (1[w·x_i + b > 0] + 1[w·y_i + b < 0])

    The weights w, b of a pair are fitted on the pairs of the other folds, of five that are disjoint
    by pair, by sklearn's objective :math:`\frac12\lVert w\rVert^2 + \sum_z \log(1 +
    e^{-s_z(w·z+b)})` with the sign s = 1 of images and −1 of texts. Fahim, Murphy and Fyshe (arXiv
    2405.18570) take one split of 80 to 20: ``--folds paper``.
    """
    found = s.once(_classified)
    return Number(found.accuracy, found.accuracy_error, 0.5)


def _auc(s: Statistics) -> Number:
    r"""Held-out area under the ROC curve of the same classifier. 0 to 1; 0.5 is chance.

    .. math:: P(w·x > w·y) + \frac12 P(w·x = w·y)

    for an image x and a text y that were held out, see
    :func:`~geomkit.metrics.separability.linear_separability`.
    """
    found = s.once(_classified)
    return Number(found.auc, found.auc_error, 0.5)


METRICS = [
    Metric(
        "centroid_distance", "gap", _centroid_distance,
        "0 = centres coincide … 2 = opposite poles", low=0, high=2, ideal=0,
        parts=_along_the_gap,
        pitfalls="Few pairs enlarge it: two halves of one cloud are about √(alignment/n) apart, so "
        "compare it with its null. It sees the means alone: clouds that were centred have a "
        "distance near 0 and can still be told apart by their shape.",
    ),
    Metric(
        "centroid_distance_unbiased", "gap", of_moments(centroid_distance_unbiased),
        "0 = centres coincide … 2 = opposite poles", low=0, high=2, ideal=0,
        pitfalls="Without a gap it is exactly 0 about half of the time, so it has no p-value: test "
        "with centroid_distance. It sees the means alone, as that does.",
    ),
    *(
        Metric(
            name, "gap", number, "0.5 = inseparable … 1 = disjoint", low=0, high=1,
            hint="0.5 mixed, 1 disjoint", ideal=0.5, rows="sampled", parts=parts,
            pitfalls=pitfalls,
        )
        for name, number, parts, pitfalls in (
            (
                "linear_separability", _accuracy, lambda s: s.once(_classified).accuracy_parts,
                "It saturates: 1 means that no row is on the wrong side, not that the gap is wide. "
                "With few pairs in many dimensions the classifier misses a small gap; compare at "
                "one n and d. It sees what a plane can separate: a narrow cloud inside a wide one "
                "with the same mean is at 0.5.",
            ),
            (
                "linear_separability_auc", _auc, lambda s: s.once(_classified).auc_parts,
                "It saturates at 1 as the accuracy does. The order of the scores counts alone: it "
                "can be high where the accuracy suffers from a shifted threshold.",
            ),
        )
    ),
    Metric(
        "relative_modality_gap", "gap", of_moments(relative_gap),
        "0 = pairs coincide … 0.5 = pairs as far as unpaired rows … 1", low=0, high=1, ideal=0,
        undefined="all rows are equal, so there is no distance to compare with",
        parts=_relative_parts,
        pitfalls="It is a ratio: narrower clouds raise it at the same distance of the pairs, so a "
        "collapsing model looks as if its gap grew. It depends on the pairs: shuffled captions "
        "give 0.5 without any gap.",
    ),
    *(
        Metric(
            f"gap_alignment_{modality}", "gap", of_statistics(gap_alignment, modality),
            "0 = gap orthogonal to what varies … 1 = along it", low=0, high=1,
            undefined="the two means coincide, or all rows of this modality are equal",
            pitfalls="Where the centroid distance is near its null, the gap vector is noise and so "
            "is this. A random direction is at √(k/d), which is far from 0 in few dimensions: "
            "compare with the null.",
        )
        for modality in ("image", "text")
    ),
]  # fmt: skip
