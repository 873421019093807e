"""A number with what makes it mean something: its error, its null, its p-value."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

__all__ = ["NAN", "Number", "mean_with_error", "u_statistic_error"]

NAN = float("nan")


class Number(NamedTuple):
    """What a metric found; NaN where there is nothing to say.

    Attributes:
        value: the number.
        stderr: its standard error, over the draw of the pairs.
        null: what it would be with no gap (or no pairing) on these very rows.
        p_value: one-sided, against that null.
    """

    value: float
    stderr: float = NAN
    null: float = NAN
    p_value: float = NAN


def mean_with_error(values: np.ndarray, groups: np.ndarray | None = None) -> tuple[float, float]:
    """Mean of values and its standard error; values of one group may depend on each other.

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
    """Standard error of a mean over pairs of rows, from its Hájek projection.

    Args:
        rows: for each row (or for a random choice of rows) the mean of the kernel over all others;
            ``(q,)``.
        n: how many rows there are.

    With all rows given the variance is 4 Var(r)/n; with q of them the choice adds
    (1 − q/n) Var(r)/q.
    """
    q = len(rows)
    if q < 2:
        return NAN
    return math.sqrt(float(rows.var(ddof=1)) * (4.0 / n + (1.0 - q / n) / q))
