"""METRICS: every number geomkit reports, by name, with what its ends mean and how to get it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from geomkit.metrics import linear, pairs, spectrum
from geomkit.metrics.number import Number
from geomkit.metrics.permutation import shuffle_p_value, swap_p_value
from geomkit.metrics.sphere import uniform_sphere_limit
from geomkit.metrics.statistics import Statistics
from geomkit.metrics.transport import sliced_wasserstein

__all__ = ["METRICS", "RECALL_AT", "Metric"]

RECALL_AT = (1, 3, 5, 10)

Cost = Literal["n·d²", "n²·d", "rows"]
Ideal = Callable[[int], float] | None


@dataclass(frozen=True)
class Metric:
    """One number: how to compute it, and how to read it.

    Attributes:
        name: its key everywhere.
        group: the heading it stands under.
        ends: what its extremes mean, for the table; ``{limit}`` is the sphere's uniformity.
        cost: what it is computed from and grows with.
        number: from :class:`Statistics` to the number with its error and null.
        ideal: from the dimension to its value for coinciding pairs spread over the whole sphere as
            n → ∞; ``None`` where there is none.
        across: whether it compares images with texts, and so needs them in one space.
        part: which part of the pairwise walk it needs.
        estimated: whether it is an estimate past the row budget.
        undefined: why it can be NaN.
    """

    name: str
    group: str
    ends: str
    cost: Cost
    number: Callable[[Statistics], Number]
    ideal: Ideal = None
    across: bool = True
    part: Literal["potentials", "ranks", "neighbours"] | None = None
    estimated: bool = False
    undefined: str = ""

    @property
    def summary(self) -> str:
        """The first line of what its function says about itself."""
        lines = (self.number.__doc__ or "").strip().splitlines()
        return lines[0] if lines else ""


def _with_doc(function: Callable[[Statistics], Number], source: Any) -> Callable[..., Number]:
    function.__doc__ = source.__doc__
    return function


def _moment(function: Callable[..., Number], *args: Any) -> Callable[[Statistics], Number]:
    return _with_doc(lambda s: function(s.moments, *args), function)


def _pair(function: Callable[..., Number], *args: Any) -> Callable[[Statistics], Number]:
    return _with_doc(lambda s: function(s, *args), function)


def _centroid(s: Statistics) -> Number:
    number = linear.centroid_distance(s.moments)
    return number._replace(p_value=swap_p_value(*s.pairs, seed=s.seed))


def _paired(s: Statistics) -> Number:
    number = linear.paired_cosine(s.moments)
    return number._replace(p_value=shuffle_p_value(*s.pairs, seed=s.seed))


def _separability(s: Statistics) -> Number:
    """Held-out accuracy of a logistic regression that tells images from texts. 0.5 to 1."""
    found = s.separability
    return Number(found.accuracy, found.accuracy_error, 0.5)


def _separability_auc(s: Statistics) -> Number:
    """Held-out area under the ROC curve of the same classifier. 0.5 to 1."""
    found = s.separability
    return Number(found.auc, found.auc_error, 0.5)


def _sliced(s: Statistics) -> Number:
    return sliced_wasserstein(*s.pairs, seed=s.seed)


_UNIFORM = "0 = collapsed … {limit} = spread over the whole sphere"
_APART = "0.5 = inseparable … 1 = disjoint"
_NO_VARIANCE = "all rows of this modality are equal, so there is no variance"
_FEW = "it needs more than 10 pairs"
_NO_HUBS = "it needs more than 10 pairs, and all of them: it is left out past the row budget"


def _zero(dim: int) -> float:
    return 0.0


def _one(dim: int) -> float:
    return 1.0


def _half(dim: int) -> float:
    return 0.5


def _dim(dim: int) -> float:
    return float(dim)


def _spectrum(modality: str) -> list[Metric]:
    def metric(
        name: str,
        function: Callable[..., float],
        ends: str,
        ideal: Ideal,
        *args: Any,
        centred: bool = True,
        with_dim: bool = False,
    ) -> Metric:
        def number(s: Statistics) -> Number:
            extra = (len(s.moments.sum_x if modality == "image" else s.moments.sum_y),)
            values = s.spectrum(modality, centred=centred)
            return Number(function(values, *args, *(extra if with_dim else ())))

        return Metric(
            f"{name}_{modality}",
            "spectrum",
            ends,
            "n·d²",
            _with_doc(number, function),
            ideal,
            across=False,
            undefined=_NO_VARIANCE,
        )

    return [
        metric(
            "explained_variance_auc",
            spectrum.explained_variance_auc,
            "0.5 = all directions equal … 1 = one direction",
            lambda d: (d + 1) / (2 * d),
        ),
        *(
            metric(
                f"components_to_{share}",
                spectrum.components_to,
                f"1 … min(n, d): directions holding {share}% of the variance",
                lambda d, share=share: float(math.ceil(share * d / 100)),  # type: ignore[misc]
                share / 100,
            )
            for share in (80, 90)
        ),
        metric(
            "effective_rank",
            spectrum.effective_rank,
            "1 = one direction … min(n, d) = all equal",
            _dim,
            centred=False,
        ),
        metric(
            "participation_ratio",
            spectrum.participation_ratio,
            "1 = one direction … d = all equal",
            _dim,
        ),
        metric(
            "isoscore",
            spectrum.isoscore,
            "0 = one direction … 1 = all equal",
            _one,
            with_dim=True,
        ),
        metric(
            "spectral_decay", spectrum.spectral_decay, "0 = flat … large = few directions", _zero
        ),
        Metric(
            f"conformity_{modality}",
            "spectrum",
            "0 = centred … 1 = all in one cone",
            "n·d²",
            _moment(linear.conformity, modality),
            _zero,
            across=False,
        ),
    ]


def _retrieval(direction: str) -> list[Metric]:
    way = {"text": "image → text", "image": "text → image"}[direction]

    def metric(name: str, function: Callable[..., Number], ends: str, *args: Any) -> Metric:
        return Metric(
            f"{direction}_retrieval_{name}",
            "retrieval",
            f"{way}, {ends}",
            "n²·d",
            _pair(function, direction, *args),
            _one,
            part="ranks",
            estimated=True,
        )

    return [
        *(
            metric(f"recall@{k}", pairs.recall, "K/n = chance … 1 = all found", k)
            for k in RECALL_AT
        ),
        metric("mean_rank", pairs.mean_rank, "1 = all first … n"),
        metric("median_rank", pairs.median_rank, "1 = most first … n"),
        metric("mrr", pairs.mrr, "0 … 1 = all first"),
    ]


def _uniformity(name: str, function: Callable[..., Number], *args: Any, **kwargs: Any) -> Metric:
    return Metric(
        name,
        "spread",
        _UNIFORM,
        "n²·d",
        _pair(function, *args),
        uniform_sphere_limit,
        part="potentials",
        estimated=True,
        **kwargs,
    )


def _linear(
    name: str, group: str, ends: str, function: Callable[..., Number], ideal: Ideal, **kwargs: Any
) -> Metric:
    return Metric(name, group, ends, "n·d²", _moment(function), ideal, **kwargs)


def _intra(modality: str) -> Metric:
    return Metric(
        f"intra_cosine_{modality}",
        "spread",
        "0 = centred … 1 = all in one cone",
        "n·d²",
        _moment(linear.intra_cosine, modality),
        _zero,
        across=False,
    )


def _hubness(modality: str) -> Metric:
    return Metric(
        f"hubness_{modality}",
        "neighbours",
        "0 = no hubs … large = a few rows are everyone's neighbours",
        "n²·d",
        _pair(pairs.hubness, modality),
        part="neighbours",
        undefined=_NO_HUBS,
    )


_CENTRES = "0 = centres coincide … 2 = opposite poles"
_RELATIVE = "0 = pairs coincide … 0.5 = pairs as far as strangers … 1"
_ALL = [
    Metric(
        "centroid_distance",
        "gap",
        _CENTRES,
        "n·d²",
        _with_doc(_centroid, linear.centroid_distance),
        _zero,
    ),
    Metric("linear_separability", "gap", _APART, "rows", _separability, _half, estimated=True),
    Metric(
        "linear_separability_auc", "gap", _APART, "rows", _separability_auc, _half, estimated=True
    ),
    _linear(
        "relative_modality_gap",
        "gap",
        _RELATIVE,
        linear.relative_gap,
        _zero,
        undefined="all rows are equal, so there is no distance to compare with",
    ),
    Metric(
        "paired_cosine",
        "pairs",
        "−1 = opposite … 1 = pairs coincide",
        "n·d²",
        _with_doc(_paired, linear.paired_cosine),
        _one,
    ),
    _linear("alignment", "pairs", "0 = pairs coincide … 4 = opposite", linear.alignment, _zero),
    _linear(
        "centroid_gap",
        "pairs",
        "0 … alignment: the part that the means make",
        linear.centroid_gap,
        _zero,
    ),
    _linear(
        "distribution_gap",
        "pairs",
        "0 … alignment: the part that is left",
        linear.distribution_gap,
        _zero,
    ),
    _linear(
        "gap_dimensions_90",
        "pairs",
        "1 … d: coordinates holding 90% of the centroid gap",
        linear.gap_dimensions,
        None,
        undefined="the two means coincide",
    ),
    _uniformity("uniformity_image", pairs.uniformity, "xx", across=False),
    _uniformity("uniformity_text", pairs.uniformity, "yy", across=False),
    _uniformity("uniformity", pairs.uniformity_mean, across=False),
    _uniformity("cross_uniformity", pairs.uniformity, "xy"),
    _intra("image"),
    _intra("text"),
    Metric(
        "mmd",
        "distribution",
        "0 = one distribution … 2",
        "n²·d",
        _pair(pairs.mmd),
        _zero,
        part="potentials",
        estimated=True,
    ),
    _linear(
        "frechet_distance",
        "distribution",
        "0 = equal means and covariances …",
        linear.frechet_distance,
        _zero,
    ),
    Metric(
        "sliced_wasserstein",
        "distribution",
        "0 = one distribution … 2",
        "rows",
        _with_doc(_sliced, sliced_wasserstein),
        _zero,
    ),
    *_spectrum("image"),
    *_spectrum("text"),
    _linear(
        "cka",
        "neighbours",
        "0 = unrelated … 1 = same arrangement",
        linear.cka,
        _one,
        across=False,
        undefined="it needs 4 pairs that are not all alike",
    ),
    Metric(
        "mutual_knn",
        "neighbours",
        "10/(n−1) = chance … 1 = same neighbours",
        "n²·d",
        _pair(pairs.mutual_knn),
        _one,
        across=False,
        part="neighbours",
        estimated=True,
        undefined=_FEW,
    ),
    _hubness("image"),
    _hubness("text"),
    *_retrieval("text"),
    *_retrieval("image"),
]

METRICS: dict[str, Metric] = {metric.name: metric for metric in _ALL}
"""Every metric by name, in the order in which tables show them."""
