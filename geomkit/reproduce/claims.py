"""A claim of the paper, and what our own runs say to it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from geomkit.reproduce.results import Row, Rows

__all__ = [
    "NOT_REPRODUCED", "REPRODUCED", "UNDECIDED", "Claim", "Interval", "Verdict",
    "above", "below", "difference", "equivalent", "mean_interval",
]  # fmt: skip

REPRODUCED, NOT_REPRODUCED, UNDECIDED = "reproduced", "not reproduced", "undecided"
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """An estimate with a two-sided interval at 95%.

    Attributes:
        value, low, high: the estimate and its bounds.
        how: what the interval is over: seeds, or pairs.
        count: how many seeds.
    """

    value: float
    low: float
    high: float
    how: str
    count: int

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}] over {self.how}"


@dataclass(frozen=True)
class Verdict:
    """What a claim came to.

    Attributes:
        status: of :data:`REPRODUCED`, :data:`NOT_REPRODUCED`, :data:`UNDECIDED`.
        why: numbers and intervals, in one sentence.
    """

    status: str
    why: str


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper's and its test.

    Attributes:
        text: the claim.
        published: the paper's numbers for it, in words.
        test: from an experiment's rows to a verdict.
    """

    text: str
    published: str
    test: Callable[[Rows], Verdict]

    def verdict(self, rows: Rows, *, quick: bool = False) -> Verdict:
        """The verdict; a quick run's may be *undecided*, never the opposite of a full one's.

        Rows that are missing, or numbers that are undefined, leave a claim undecided.
        """
        try:
            found = self.test(rows)
        except (LookupError, ValueError) as error:
            return Verdict(UNDECIDED, f"cannot be tested on these results ({error})")
        if quick and found.status == NOT_REPRODUCED:
            return replace(found, status=UNDECIDED, why=f"{found.why}; too short a run to deny it")
        return found


def mean_interval(values: Sequence[float], stderrs: Sequence[float]) -> Interval:
    """A t interval of the mean over seeds; of a single seed, one from its error over pairs.

    Raises:
        ValueError: if there is no value, or the only one has no error.
    """
    from scipy import stats

    found = np.asarray(values, float)
    found = found[np.isfinite(found)]
    if not len(found):
        raise ValueError("no finite value")
    mean = float(found.mean())
    if len(found) > 1:
        error = float(found.std(ddof=1)) / math.sqrt(len(found))
        half = float(stats.t.ppf(0.5 + LEVEL / 2, len(found) - 1)) * error
        return Interval(mean, mean - half, mean + half, f"{len(found)} seeds", len(found))
    error = float(np.asarray(stderrs, float)[0])
    if not math.isfinite(error):
        raise ValueError("one seed, and no error over pairs")
    half = float(stats.norm.ppf(0.5 + LEVEL / 2)) * error
    return Interval(mean, mean - half, mean + half, "the pairs of one seed", 1)


def difference(rows: Rows, a: dict[str, Any], b: dict[str, Any], **common: Any) -> Interval:
    """Mean of a − b, paired by seed (and dimension, where several are compared at once).

    Args:
        rows: to choose from.
        a, b: what each side is, such as ``{"loss": "cua"}``.
        common: what both have, such as the metric.

    Raises:
        ValueError: if a side has no row, or no seed is in both.
    """
    names = ("seed", "dim", "data")

    def keyed(side: dict[str, Any]) -> dict[tuple, Row]:
        chosen = rows.where(**{**common, **side})
        pairing = [name for name in names if name not in side]
        return {tuple(getattr(row, name) for name in pairing): row for row in chosen}

    left, right = keyed(a), keyed(b)
    shared = [key for key in left if key in right]
    if not shared:
        raise ValueError(f"no rows of {a} and {b} with {common} to compare")
    seeds: dict[int, list[tuple[float, float]]] = {}
    for key in shared:
        one, other = left[key], right[key]
        seeds.setdefault(one.seed, []).append(
            (one.value - other.value, math.hypot(one.stderr, other.stderr))
        )
    # Dimensions of one seed are one observation: their mean.
    means = [float(np.mean([d for d, _ in found])) for found in seeds.values()]
    errors = [
        math.sqrt(sum(e * e for _, e in found)) / len(found) for found in seeds.values()
    ]
    return mean_interval(means, errors)


def below(interval: Interval, limit: float, what: str) -> Verdict:
    """Whether a number lies below a limit, its whole interval being on one side."""
    return _judge(interval.high < limit, interval.low > limit, f"{what}: {interval}", limit, "<")


def above(interval: Interval, limit: float, what: str) -> Verdict:
    """Whether a number lies above a limit, its whole interval being on one side."""
    return _judge(interval.low > limit, interval.high < limit, f"{what}: {interval}", limit, ">")


def equivalent(interval: Interval, margin: float, what: str) -> Verdict:
    """Whether a difference is smaller than a margin both ways: its whole interval within it."""
    within = -margin < interval.low and interval.high < margin
    outside = interval.low > margin or interval.high < -margin
    return _judge(within, outside, f"{what}: {interval}", margin, "within ±")


def _judge(yes: bool, no: bool, text: str, limit: float, sign: str) -> Verdict:
    status = REPRODUCED if yes else NOT_REPRODUCED if no else UNDECIDED
    return Verdict(status, f"{text}, claimed {sign} {limit:g}")
