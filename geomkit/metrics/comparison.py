"""compare(): the differences of two results on the same pairs, with paired errors."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from geomkit.errors import GeomkitError
from geomkit.metrics.number import NAN
from geomkit.metrics.registry import METRICS
from geomkit.metrics.result import GapResult

__all__ = ["Difference", "compare", "difference"]


class Difference(NamedTuple):
    """Difference of a metric between two results.

    Attributes:
        value: After − before.
        stderr: Its standard error over the draw of the pairs; NaN where it is not known.
        p_value: Two-sided p-value of no difference, from the normal distribution; NaN without an
            error.
    """

    value: float
    stderr: float = NAN
    p_value: float = NAN


def compare(before: GapResult, after: GapResult) -> dict[str, Difference]:
    r"""Return the difference of each metric between two results on the same pairs.

    The error is paired: with :math:`φ_i` what pair i adds to the metric after less what it adds
    before, it is :math:`\operatorname{sd}(φ)/\sqrt n`. What both results have in common cancels, so
    it is far below the errors of the two numbers where they agree on most pairs. The gallery of a
    retrieval is taken as given, as are the neighbours of other rows. Of shares of queries the
    variance is that of two more draws, of which half a draw each gains and loses, as Agresti and
    Min take it (Statistics in Medicine, 2005): it is not 0 where no query changes.

    Simulated with 250 pairs (reports/simulations/differences.md), errors are 0.9 to 1.6 times the
    spread of the differences, and up to 3 times where hardly a query changes. Where a few rows are
    near most queries, as with a gap far wider than the clouds, those of retrieval are too small:
    down to 0.4 of the spread.

    Args:
        before: Result of :func:`geomkit.gap` with ``parts=True``.
        after: Another one of the same pairs in the same order.

    Raises:
        GeomkitError: If the results differ in their number of pairs.

    Example:
        >>> from geomkit import gap
        >>> rng = np.random.default_rng(0)
        >>> x, y = rng.standard_normal((2, 50, 4))
        >>> before, after = (gap(x, rows, metrics="alignment", parts=True) for rows in (y, x + y))
        >>> found = compare(before, after)["alignment"]
        >>> found.value < 0 < found.stderr, found.p_value < 0.001
        (True, True)
    """
    if before.n != after.n:
        raise GeomkitError(
            f"compare: expected results on the same pairs, got n = {before.n:,} and {after.n:,}"
        )
    return {
        name: difference([name], before, after) for name in before.metrics if name in after.metrics
    }


def difference(names: list[str], before: GapResult, after: GapResult) -> Difference:
    """Return the difference of the mean of some metrics, as :func:`compare` that of one.

    Args:
        names: Metrics with one scale.
        before: Result on some pairs.
        after: Result on the same pairs.
    """
    value = float(np.mean([after.metrics[name] - before.metrics[name] for name in names]))
    both = [(before.parts.get(name), after.parts.get(name)) for name in names]
    own = [b - a for a, b in both if a is not None and b is not None and len(a) == len(b)]
    if math.isnan(value) or len(own) < len(names) or len(own[0]) < 2:
        return Difference(value)
    changes, count = np.mean(own, axis=0), len(own[0])
    squares = float(np.square(changes - changes.mean()).sum())
    if all(_is_share(name) for name in names):
        squares, count = squares + 1.0, count + 2
    error = math.sqrt(squares / (count - 1) / count)
    p = math.erfc(abs(value) / error / math.sqrt(2)) if error > 0 else 1.0 * (value == 0)
    return Difference(value, error, p)


def _is_share(name: str) -> bool:
    """Whether a metric is a mean over queries, or over rows to classify, of numbers from 0 to 1."""
    metric = METRICS.get(name)
    if metric is None:  # a score of a model
        return True
    return bool(metric.reduction or metric.rows) and (metric.low, metric.high) == (0, 1)
