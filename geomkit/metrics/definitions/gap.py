"""Group ``gap``: how far apart the two modalities are."""

from __future__ import annotations

import math

import numpy as np

from geomkit._core.array import like
from geomkit.engine.moments import Moments
from geomkit.functional import relative_modality_gap
from geomkit.metrics.metric import Metric, of_moments
from geomkit.metrics.number import NAN, Number, root
from geomkit.metrics.permutation import swap_p_value
from geomkit.metrics.separability import Separability, linear_separability
from geomkit.metrics.statistics import Statistics

__all__ = ["METRICS", "centroid_distance", "relative_gap"]

_CLASSIFIED = 20_000
"""Pairs that the classifier is fitted on past the row budget."""


def centroid_distance(m: Moments) -> Number:
    """Distance of the two means, ‖x̄ − ȳ‖. 0 to 2.

    Liang et al., "Mind the Gap" (arXiv 2203.02053). Two halves of one cloud are not 0
    apart but about √(alignment/n): that is the null, the root mean square under exchange of image
    and text within pairs.
    """
    mean, covariance = m.difference
    distance = float(np.linalg.norm(mean))
    null = math.sqrt(float(m.squared_distance)) / m.n
    if distance == 0:
        return Number(0.0, NAN, null)
    direction = mean / distance
    return Number(distance, root(direction @ covariance @ direction / m.n), null)


def relative_gap(m: Moments) -> Number:
    """Distance p within pairs relative to q between rows of a modality, p/(p + q). 0 to 1.

    See :func:`geomkit.functional.relative_modality_gap` (Role et al., arXiv
    2505.03703).
    """
    paired, image, text = m.paired, m.intra_cosine("image"), m.intra_cosine("text")
    p = (1 - paired) / 2
    q = ((1 - image) + (1 - text)) / 4
    if p + q < 1e-12:
        return Number(NAN)
    # influence of a pair: a·p_i + 2b·(x_i·x̄ + y_i·ȳ)
    a = -0.5 * q / (p + q) ** 2
    b = 0.25 * p / (p + q) ** 2
    x, y = m.mean_x, m.mean_y
    spread = x @ m.covariance("xx") @ x + y @ m.covariance("yy") @ y
    spread += 2 * (x @ m.covariance("xy") @ y)
    shared = x @ (m.paired_x / m.n - paired * x) + y @ (m.paired_y / m.n - paired * y)
    variance = a * a * m.paired_variance + 4 * b * b * spread + 4 * a * b * shared
    return Number(relative_modality_gap(paired, image, text), root(variance / m.n))


def _classified(s: Statistics) -> Separability:
    """Held-out scores of the linear classifier; past the row budget of sampled pairs."""
    x, y = s.pairs
    moments: Moments | None = s.moments
    if not s.exact and s.n > _CLASSIFIED:
        moments = None
        rng = np.random.default_rng(s.seed)
        chosen = np.sort(rng.permutation(s.n)[:_CLASSIFIED])
        x, y = x[like(chosen, x)], y[like(chosen, y)]
    folds = min(s.folds, len(x)) if isinstance(s.folds, int) else s.folds
    return linear_separability(x[:], y[:], folds=folds, seed=s.seed, moments=moments)


def _accuracy(s: Statistics) -> Number:
    """Held-out accuracy of a logistic regression that tells images from texts. 0.5 to 1."""
    found = s.once(_classified)
    return Number(found.accuracy, found.accuracy_error, 0.5)


def _auc(s: Statistics) -> Number:
    """Held-out area under the ROC curve of the same classifier. 0.5 to 1."""
    found = s.once(_classified)
    return Number(found.auc, found.auc_error, 0.5)


METRICS = [
    Metric(
        "centroid_distance", "gap", of_moments(centroid_distance, p_value=swap_p_value),
        "0 = centres coincide … 2 = opposite poles", low=0, high=2, ideal=0,
    ),
    *(
        Metric(
            name, "gap", number, "0.5 = inseparable … 1 = disjoint", low=0, high=1,
            hint="0.5 mixed, 1 disjoint", ideal=0.5, rows="sampled",
        )
        for name, number in (("linear_separability", _accuracy), ("linear_separability_auc", _auc))
    ),
    Metric(
        "relative_modality_gap", "gap", of_moments(relative_gap),
        "0 = pairs coincide … 0.5 = pairs as far as unpaired rows … 1", low=0, high=1, ideal=0,
        undefined="all rows are equal, so there is no distance to compare with",
    ),
]  # fmt: skip
