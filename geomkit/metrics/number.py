"""A number with what makes it meaningful: its standard error, null and p-value."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from geomkit._core.array import Array

__all__ = [
    "NAN",
    "Number",
    "mean_with_error",
    "norm_errors",
    "root",
    "share_with_error",
    "u_statistic_error",
]

NAN = float("nan")


class Number(NamedTuple):
    """Value of a metric and numbers about it; NaN where there is none.

    Attributes:
        value: The value.
        stderr: Its standard error over the draw of the pairs.
        null: Its value without a gap (or without pairing) on these very rows.
        p_value: One-sided p-value against that null.
    """

    value: float
    stderr: float = NAN
    null: float = NAN
    p_value: float = NAN


def mean_with_error(values: np.ndarray, groups: np.ndarray | None = None) -> tuple[float, float]:
    """Return the mean of values and its standard error.

    Args:
        values: Numbers, ``(n,)``.
        groups: For each value, the number of its group; values of one group may depend on each
            other. Default: all are independent.

    >>> mean, error = mean_with_error(np.array([0.0, 1.0, 0.0, 1.0]))
    >>> mean, round(error, 6)
    (0.5, 0.288675)
    """
    mean = float(values.mean())
    centred: np.ndarray = values - mean
    if groups is not None:
        centred = np.asarray(np.bincount(groups, weights=centred))
    count = len(centred)
    if count < 2:
        return mean, NAN
    return mean, math.sqrt(float((centred**2).sum()) * count / (count - 1)) / len(values)


def share_with_error(hits: np.ndarray, groups: np.ndarray | None = None) -> tuple[float, float]:
    """Return the mean of hits and its standard error, which is not 0 where all or none hit.

    The variance of one draw is that of the draws and of four more, two with all hits and two with
    none, as Agresti and Coull approximate Wilson's interval (The American Statistician 1998): of
    n draws without a hit the error is about 1.4/n.

    Args:
        hits: Numbers from 0 to 1, ``(n,)``.
        groups: For each hit, the number of its group, all numbers from 0 used; a group is one
            draw. Default: each hit is.

    >>> mean, error = share_with_error(np.ones(98))
    >>> mean, round(error, 4)
    (1.0, 0.0141)
    """
    sums, sizes = np.asarray(hits, float), np.ones(len(hits))
    if groups is not None:
        sums, sizes = np.bincount(groups, weights=hits), np.bincount(groups).astype(float)
    count, size = len(sums), sizes.mean()
    sums = np.concatenate([sums, [0.0, 0.0, size, size]])
    sizes = np.concatenate([sizes, [size] * 4])
    centred = sums - sizes * (sums.sum() / sizes.sum())
    variance = float((centred**2).sum()) / (count + 3)
    return float(hits.mean()), math.sqrt(variance / count) / float(size)


def norm_errors(mean: Array, covariance: Array, n: int) -> tuple[float, float]:
    r"""Return the standard errors of ‖z̄‖² and of ‖z̄‖, z̄ being the mean of n independent rows.

    The variance of :math:`\lVert\bar z\rVert^2` is
    :math:`4μ^⊤Σμ/n + 2\mathrm{tr}(Σ^2)/n^2`. The plug-in value of its first term is too large by
    twice the second term on average, so the second is subtracted from it; within one standard
    error of μ = 0 the second term alone is taken. tr(Σ²) is the unbiased estimate of Bai and
    Saranadasa (Statistica Sinica, 1996). The error of the norm is that of its square over twice
    the norm, which is taken as no less than its expectation √(tr(Σ)/n) at μ = 0.

    Args:
        mean: Mean of the rows, ``(d,)``.
        covariance: Covariance of the rows (ddof 0), ``(d, d)``.
        n: Number of rows.

    Returns:
        Errors of the square and of the norm; NaN for n < 3 or without any spread.

    >>> square, _ = norm_errors(np.zeros(2), np.eye(2), 1000)
    >>> round(square * 1000, 2)
    2.0
    """
    if n < 3:
        return NAN, NAN
    covariance = covariance * (n / (n - 1))
    noise, squared = float(covariance.trace()) / n, float(mean @ mean)
    trace = float((covariance * covariance).sum()) - (noise * n) ** 2 / (n - 1)
    least = 2 * max(0.0, trace) * (n - 1) ** 2 / ((n + 1) * (n - 2)) / n**2
    variance = least
    if squared - noise > math.sqrt(least):
        variance = max(4 * float(mean @ covariance @ mean) / n - least, least)
    error = math.sqrt(variance)
    return error, error / (2 * math.sqrt(max(squared, noise)) or NAN)


def u_statistic_error(rows: np.ndarray, n: int, kernel_variance: float) -> float:
    """Return the standard error of a mean of a kernel over pairs of different rows.

    The variance is 4ζ₁/n + 2(ζ₂ − 2ζ₁)/(n(n − 1)), with ζ₂ the variance of the kernel over pairs
    and ζ₁ that of its mean over one row (Hoeffding, 1948). The spread of the given row means holds
    some of ζ₂ too, which is taken out. A random choice of q of the n rows adds (1 − q/n) Var(r)/q.

    Args:
        rows: For each row, or each of the chosen ones, the mean r of the kernel over all others,
            ``(q,)``.
        n: Number of all rows.
        kernel_variance: Variance ζ₂ of the kernel.

    Returns:
        Standard error; NaN for fewer than five rows.
    """
    q = len(rows)
    if q < 5:
        return NAN
    spread = float(rows.var(ddof=1))
    share, rest = ((n - 2) / (n - 1)) ** 2, (n - 2) / (n - 1) ** 2
    first = max(0.0, (spread - rest * kernel_variance) / (share - 2 * rest))
    second = max(0.0, kernel_variance - 2 * first)
    variance = 4 * first / n + 2 * second / (n * (n - 1)) + (1 - q / n) * spread / q
    return math.sqrt(variance)


def root(variance: float) -> float:
    """Return the square root of a variance, 0 if rounding has made it negative."""
    return math.sqrt(max(0.0, variance))
