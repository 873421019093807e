"""METRICS: every number geomkit reports, by name, with what its ends mean and how to get it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from geomkit._array import to_numpy
from geomkit.functional import relative_modality_gap
from geomkit.metrics.spectrum import (
    components_to,
    effective_rank,
    explained_variance_auc,
    participation_ratio,
)
from geomkit.metrics.statistics import Statistics

__all__ = ["METRICS", "RECALL_AT", "Metric"]

RECALL_AT = (1, 3, 5, 10)

Cost = Literal["n·d²", "n²·d", "rows"]


@dataclass(frozen=True)
class Metric:
    """One number: how to compute it, and how to read it.

    Attributes:
        name: its key everywhere.
        group: the heading it stands under.
        ends: what its extremes mean, for the table.
        cost: what it is computed from and grows with.
        value: from :class:`Statistics` to the number; NaN where it is undefined.
        undefined: why it can be NaN.
    """

    name: str
    group: str
    ends: str
    cost: Cost
    value: Callable[[Statistics], float]
    undefined: str = ""


def centroid_distance(s: Statistics) -> float:
    """Distance of the two means, ‖x̄ − ȳ‖ (Liang et al., "Mind the Gap", arXiv 2203.02053)."""
    return float(np.linalg.norm(to_numpy(s.moments.mean_x - s.moments.mean_y)))


def paired_cosine(s: Statistics) -> float:
    """Mean cosine of the pairs, x_i · y_i: the trace of Σxyᵀ over n."""
    return float(np.trace(to_numpy(s.moments.xy)) / s.moments.n)


def alignment(s: Statistics) -> float:
    """Mean squared distance of the pairs (Wang and Isola, arXiv 2005.10242)."""
    return float(s.moments.squared_distance) / s.moments.n


def intra_cosine_image(s: Statistics) -> float:
    """Mean cosine of two different images: the cone effect."""
    return _intra_cosine(to_numpy(s.moments.sum_x), to_numpy(s.moments.xx), s.moments.n)


def intra_cosine_text(s: Statistics) -> float:
    """Mean cosine of two different texts."""
    return _intra_cosine(to_numpy(s.moments.sum_y), to_numpy(s.moments.yy), s.moments.n)


def _intra_cosine(total: np.ndarray, second: np.ndarray, n: int) -> float:
    # Σ_{i≠j} x_i·x_j = ‖Σx‖² − Σ‖x‖²
    return float((total @ total - np.trace(second)) / (n * (n - 1)))


def relative_gap(s: Statistics) -> float:
    """Relative modality gap, see :func:`geomkit.functional.relative_modality_gap`."""
    p, a, b = paired_cosine(s), intra_cosine_image(s), intra_cosine_text(s)
    return relative_modality_gap(p, a, b) if (1 - p) + (2 - a - b) > 1e-12 else float("nan")


def uniformity(s: Statistics) -> float:
    """Mean of the two uniformities: the paper's U."""
    return (s.potentials.log_mean("xx") + s.potentials.log_mean("yy")) / 2


_UNIFORM = "0 = collapsed … {limit} = spread over the whole sphere"
_SPECTRUM_UNDEFINED = "all rows of this modality are equal, so there is no variance"


def _spectrum(modality: str) -> list[Metric]:
    def centred(s: Statistics) -> np.ndarray:
        return s.spectra[modality][True]

    return [
        Metric(
            f"explained_variance_auc_{modality}",
            "spectrum",
            "~0.5 = all directions equal … 1 = one direction",
            "n·d²",
            lambda s: explained_variance_auc(centred(s)),
            _SPECTRUM_UNDEFINED,
        ),
        *(
            Metric(
                f"components_to_{share}_{modality}",
                "spectrum",
                f"1 … min(n, d): directions holding {share}% of the variance",
                "n·d²",
                lambda s, share=share: components_to(centred(s), share / 100),  # type: ignore[misc]
                _SPECTRUM_UNDEFINED,
            )
            for share in (80, 90)
        ),
        Metric(
            f"effective_rank_{modality}",
            "spectrum",
            "1 = one direction … min(n, d) = all equal",
            "n·d²",
            lambda s: effective_rank(s.spectra[modality][False]),
        ),
        Metric(
            f"participation_ratio_{modality}",
            "spectrum",
            "1 = one direction … d = all equal",
            "n·d²",
            lambda s: participation_ratio(centred(s)),
            _SPECTRUM_UNDEFINED,
        ),
    ]


def _recall(direction: Literal["text", "image"], k: int) -> Metric:
    ends = {"text": "image → text", "image": "text → image"}[direction]
    return Metric(
        f"{direction}_retrieval_recall@{k}",
        "retrieval",
        f"{ends}, K/n = chance … 1 = all found",
        "n²·d",
        lambda s: getattr(s.ranks, f"{direction}_retrieval").recall(k),
    )


_ALL = [
    Metric(
        "centroid_distance",
        "gap",
        "0 = centres coincide … 2 = opposite poles",
        "n·d²",
        centroid_distance,
    ),
    Metric(
        "linear_separability",
        "gap",
        "0.5 = inseparable … 1 = disjoint",
        "rows",
        lambda s: s.separability.accuracy,
    ),
    Metric(
        "linear_separability_auc",
        "gap",
        "0.5 = inseparable … 1 = disjoint",
        "rows",
        lambda s: s.separability.auc,
    ),
    Metric(
        "relative_modality_gap",
        "gap",
        "0 = pairs coincide … 0.5 = pairs as far as strangers … 1",
        "n·d²",
        relative_gap,
        "all rows are equal, so there is no distance to compare with",
    ),
    Metric(
        "paired_cosine",
        "alignment",
        "−1 = opposite … 1 = pairs coincide",
        "n·d²",
        paired_cosine,
    ),
    Metric("alignment", "alignment", "0 = pairs coincide … 4 = opposite", "n·d²", alignment),
    Metric(
        "uniformity_image",
        "uniformity",
        _UNIFORM,
        "n²·d",
        lambda s: s.potentials.log_mean("xx"),
    ),
    Metric(
        "uniformity_text",
        "uniformity",
        _UNIFORM,
        "n²·d",
        lambda s: s.potentials.log_mean("yy"),
    ),
    Metric("uniformity", "uniformity", _UNIFORM, "n²·d", uniformity),
    Metric(
        "cross_uniformity",
        "uniformity",
        _UNIFORM,
        "n²·d",
        lambda s: s.potentials.log_mean("xy"),
    ),
    Metric(
        "intra_cosine_image",
        "uniformity",
        "0 = centred … 1 = all in one cone",
        "n·d²",
        intra_cosine_image,
    ),
    Metric(
        "intra_cosine_text",
        "uniformity",
        "0 = centred … 1 = all in one cone",
        "n·d²",
        intra_cosine_text,
    ),
    *_spectrum("image"),
    *_spectrum("text"),
    *(_recall("text", k) for k in RECALL_AT),
    *(_recall("image", k) for k in RECALL_AT),
]

METRICS: dict[str, Metric] = {metric.name: metric for metric in _ALL}
"""Every metric by name, in the order in which tables show them."""
