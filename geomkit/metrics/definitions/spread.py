"""Group ``spread``: how evenly the rows cover the sphere."""

from __future__ import annotations

import math
from typing import Protocol, cast

import numpy as np

from geomkit._core.array import like, to_numpy
from geomkit.engine.moments import Moments
from geomkit.engine.pairwise import Kind
from geomkit.engine.reducers import PotentialSums, SampledPotentials
from geomkit.functional import gaussian_potential, uniform_sphere_limit
from geomkit.metrics.metric import Metric, of_moments, of_statistics
from geomkit.metrics.number import NAN, Number, norm_errors, u_statistic_error
from geomkit.metrics.statistics import Reduction, Statistics

__all__ = [
    "METRICS",
    "POTENTIALS",
    "intra_cosine",
    "kernel_variance",
    "uniformity",
    "uniformity_mean",
]

_PAIRED = 256
"""Rows whose pairs give the variance of the kernel. It matters where the row means are all alike,
and there the 32,640 pairs give it to some percent."""


class Potentials(Protocol):
    """Gaussian potentials of rows with all other rows."""

    def row_means(self, kind: Kind) -> np.ndarray:
        """Return each row's mean potential with all others, of all or of the sampled rows."""


POTENTIALS: Reduction[Potentials] = Reduction(PotentialSums, SampledPotentials)


def _swap_null(s: Statistics) -> float:
    """Each uniformity if image and text were exchanged at random within pairs."""
    if not s.equal_dims:
        return NAN
    rows = s.reduced(POTENTIALS).row_means
    image, text, cross = (float(rows(kind).mean()) for kind in ("xx", "yy", "xy"))
    return math.log((image + text + 2 * cross) / 4)


def _kernels(s: Statistics) -> dict[Kind, np.ndarray]:
    """Potentials of some rows with each other, ``(k, k)``, for the variance of the kernel."""
    if s.exact:  # spread evenly over the row means, whatever the order of the rows
        order = np.argsort(s.reduced(POTENTIALS).row_means("xx"), kind="stable")
        chosen = order[np.linspace(0, s.n - 1, min(s.n, _PAIRED)).astype(int)]
    else:
        chosen = np.sort(np.random.default_rng(s.seed).permutation(s.n)[:_PAIRED])
    x, y = (to_numpy(rows[like(chosen, rows)]).astype(np.float64) for rows in s.pairs)
    kernels: dict[Kind, np.ndarray] = {
        "xx": gaussian_potential(x @ x.T),
        "yy": gaussian_potential(y @ y.T),
    }
    if s.equal_dims:
        cross = gaussian_potential(x @ y.T)
        kernels["xy"] = (cross + cross.T) / 2
    return kernels


def kernel_variance(s: Statistics, **weights: float) -> float:
    """Return the variance over pairs of rows of a weighted sum of the potentials.

    Args:
        s: Statistics of the rows.
        weights: Weight of the potential of each kind: ``xx``, ``yy``, ``xy``.
    """
    kernels = s.once(_kernels)
    total = sum(weight * kernels[cast(Kind, kind)] for kind, weight in weights.items())
    return float(np.var(np.asarray(total)[np.triu_indices(len(kernels["xx"]), 1)]))


def uniformity(s: Statistics, kind: Kind) -> Number:
    r"""Log of the mean Gaussian potential of two rows, within a modality or across (t = 2).

    .. math:: \log \frac{1}{n(n-1)} \sum_{i \ne j} e^{-2\lVert x_i - x_j \rVert^2}

    Wang and Isola (arXiv 2005.10242); across, with y_j in place of x_j, the XU of Fahim, Murphy and
    Fyshe (arXiv 2405.18570). 0 for one spot, down to the sphere's limit; a finite
    cloud can lie below the limit, since no row is compared with itself.
    """
    rows = s.reduced(POTENTIALS).row_means(kind)
    mean = float(rows.mean())
    error = u_statistic_error(rows, s.n, kernel_variance(s, **{kind: 1.0}))
    return Number(math.log(mean), error / mean, _swap_null(s))


def uniformity_mean(s: Statistics) -> Number:
    r"""Mean of the two modalities' uniformities: the paper's U.

    .. math:: \frac12 (U_\mathrm{image} + U_\mathrm{text})

    Fahim, Murphy and Fyshe (arXiv 2405.18570); each is Wang and Isola's (arXiv 2005.10242).
    """
    x, y = (s.reduced(POTENTIALS).row_means(kind) for kind in ("xx", "yy"))
    value = (math.log(x.mean()) + math.log(y.mean())) / 2
    of_x, of_y = 1 / (2 * x.mean()), 1 / (2 * y.mean())
    variance = kernel_variance(s, xx=of_x, yy=of_y)
    return Number(value, u_statistic_error(x * of_x + y * of_y, s.n, variance), _swap_null(s))


def intra_cosine(m: Moments, modality: str) -> Number:
    r"""Mean cosine of two different rows of a modality: the cone effect. −1/(n−1) to 1.

    .. math:: \frac{1}{n(n-1)} \sum_{i \ne j} x_i·x_j

    Liang et al., "Mind the Gap" (arXiv 2203.02053). The null is that of exchanging image and text
    within pairs: the mean over both modalities and across.
    """
    image, text = m.intra_cosine("image"), m.intra_cosine("text")
    # It is ‖x̄‖² without the share of each row with itself.
    error, _ = norm_errors(*m.of_modality(modality), m.n)
    null = (image + text + 2 * m.cross_cosine) / 4  # NaN where the dimensions differ
    return Number(image if modality == "image" else text, error, null)


_PITFALLS = (
    "Its scale depends on the dimension: compare with the ideal, at one d. Equal rows, such as one "
    "caption of several images, raise it strongly."
)


def _uniformity(
    name: str, *kind: str, hint: str = "lower: more uniform", pitfalls: str = _PITFALLS
) -> Metric:
    formula = uniformity if kind else uniformity_mean
    ends = "0 = collapsed … {limit} = spread over the whole sphere"
    if "xy" in kind:  # beyond the limit: clouds on opposite sides
        ends = "0 = coincide … {limit} = unrelated, over the sphere … −8 = opposite poles"
    return Metric(
        name, "spread", of_statistics(formula, *kind), ends, low=-8, high=0, hint=hint,
        ideal=uniform_sphere_limit, across="xy" in kind, reduction=POTENTIALS, pitfalls=pitfalls,
    )  # fmt: skip


METRICS = [
    _uniformity("uniformity_image", "xx"),
    _uniformity("uniformity_text", "yy"),
    _uniformity(
        "uniformity",
        pitfalls="A collapsed modality can hide behind a spread one: look at both. Its scale "
        "depends on the dimension: compare with the ideal, at one d.",
    ),
    _uniformity(
        "cross_uniformity", "xy", hint="lower: farther apart",
        pitfalls="A wide gap lowers it as well as spread clouds do, below the limit of the sphere: "
        "low is not good by itself. Compare with the uniformity of each modality.",
    ),
    *(
        Metric(
            f"intra_cosine_{modality}", "spread", of_moments(intra_cosine, modality),
            "0 = centred … 1 = all in one cone", low=-1, high=1, ideal=0, across=False,
            pitfalls="It is the squared length of the mean, without each row with itself: centring "
            "brings it to about 0, and so do two opposite clusters. It says nothing of the shape.",
        )
        for modality in ("image", "text")
    ),
]  # fmt: skip
