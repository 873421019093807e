"""Group ``distribution``: how far the two clouds differ as distributions."""

from __future__ import annotations

from functools import wraps

import numpy as np

from geomkit.metrics.definitions.spectrum import principal_components
from geomkit.metrics.definitions.spread import POTENTIALS, kernel_variance
from geomkit.metrics.metric import Metric
from geomkit.metrics.number import NAN, Number, u_statistic_error
from geomkit.metrics.statistics import Statistics
from geomkit.metrics.transport import sliced_wasserstein

__all__ = ["METRICS", "frechet_distance", "mmd"]


def mmd(s: Statistics) -> Number:
    r"""Unbiased MMD² of the two clouds, kernel exp(−2‖·‖²). Can be below 0.

    .. math:: e^{U_\mathrm{image}} + e^{U_\mathrm{text}} - 2e^{XU}, \quad
              U \text{ the uniformities, } XU \text{ the cross-uniformity}

    Gretton et al. (JMLR 2012), pairs of one index left out across too, since image i and text i
    are not independent.
    """
    x, y, cross = (s.reduced(POTENTIALS).row_means(kind) for kind in ("xx", "yy", "xy"))
    rows = x + y - 2 * cross
    error = u_statistic_error(rows, s.n, kernel_variance(s, xx=1.0, yy=1.0, xy=-2.0))
    return Number(float(rows.mean()), error, 0.0)


def frechet_distance(s: Statistics) -> Number:
    r"""Squared Fréchet distance of two Gaussians with the clouds' means and covariances (ddof 1).

    .. math:: \lVert\bar x-\bar y\rVert^2 + \mathrm{tr}(A + B - 2(A^{1/2} B A^{1/2})^{1/2})

    Heusel et al. (arXiv 1706.08500); A and B are the covariances. 0 upwards; biased upwards for n
    of the order of d.
    """
    m = s.moments
    if m.n < 2:
        return Number(NAN)
    # The last trace is the sum of the singular values of A^{1/2} B^{1/2}.
    (of_x, x), (of_y, y) = (s.once(principal_components, side) for side in ("image", "text"))
    product = np.sqrt(of_x)[:, None] * (x.T @ y) * np.sqrt(of_y)
    cross = float(np.linalg.svd(product, compute_uv=False).sum())
    mean = m.mean_x - m.mean_y
    rest = float(of_x.sum() + of_y.sum() - 2 * cross) / (m.n - 1)
    return Number(max(0.0, float(mean @ mean) + rest))


@wraps(sliced_wasserstein)
def _sliced(s: Statistics) -> Number:
    return sliced_wasserstein(*s.pairs, seed=s.seed)


METRICS = [
    Metric(
        "mmd", "distribution", mmd, "0 = one distribution … 2",
        high=2, ideal=0, reduction=POTENTIALS,
        pitfalls="The width of its kernel is fixed: in many dimensions all potentials of spread "
        "clouds are near e⁻⁴ and it is small, and finer differences hardly show. It is unbiased, "
        "so without a difference it is as often below 0 as above.",
    ),
    Metric(
        "frechet_distance", "distribution", frechet_distance,
        "0 = equal means and covariances …", low=0, ideal=0,
        pitfalls="Biased upwards for n of the order of d: compare at one n, with several times "
        "more pairs than dimensions. It has no null and no error. It sees means and covariances "
        "alone.",
    ),
    Metric(
        "sliced_wasserstein", "distribution", _sliced, "0 = one distribution … 2",
        low=0, high=2, ideal=0, rows="all",
        pitfalls="It falls as the dimension grows, since a shift by s gives s/√d: compare at one "
        "d. Two samples of one cloud are above 0, the more the fewer rows, and it has no null.",
    ),
]  # fmt: skip
