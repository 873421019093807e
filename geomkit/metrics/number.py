"""A number with what makes it meaningful: its standard error, null and p-value."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

__all__ = ["NAN", "Number", "mean_with_error", "root", "u_statistic_error"]

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


def u_statistic_error(rows: np.ndarray, n: int) -> float:
    """Return the standard error of a mean over pairs of rows, from its Hájek projection.

    With all rows given the variance is 4 Var(r)/n; with a random choice of q rows, the choice adds
    (1 − q/n) Var(r)/q.

    Args:
        rows: For each row, or each of the chosen ones, the mean of the kernel over all others,
            ``(q,)``.
        n: Number of all rows.
    """
    q = len(rows)
    if q < 2:
        return NAN
    return math.sqrt(float(rows.var(ddof=1)) * (4.0 / n + (1.0 - q / n) / q))


def root(variance: float) -> float:
    """Return the square root of a variance, 0 if rounding has made it negative."""
    return math.sqrt(max(0.0, variance))
