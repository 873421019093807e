"""A claim of the paper, and what our own runs say to it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from geomkit.reproduce.framework.results import Row, Rows

__all__ = [
    "NOT_REPRODUCED", "REPRODUCED", "UNDECIDED", "Claim", "Interval", "Verdict",
    "above", "below", "difference", "equivalent", "mean_interval", "together",
]  # fmt: skip

REPRODUCED, NOT_REPRODUCED, UNDECIDED = "reproduced", "not reproduced", "undecided"
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """An estimate with a two-sided interval at 95%.

    Attributes:
        value, low, high: the estimate and its bounds.
        how: what the interval is over: seeds, settings, or pairs.
        count: how many of them; 1 for the pairs of one seed.
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
        otherwise: the likely reason if it does not hold here, for the report.
        persists: whether it says that training leaves something as it is, so that a model that has
            learnt little bears it out whatever the loss.
    """

    text: str
    published: str
    test: Callable[[Rows], Verdict]
    otherwise: str = ""
    persists: bool = False

    def verdict(self, rows: Rows, *, quick: bool = False) -> Verdict:
        """The verdict; a quick run's may be *undecided*, never the opposite of a full one's.

        It denies nothing, and bears out nothing that only a long training could disturb.

        Rows that are missing, or numbers that are undefined, leave a claim undecided.
        """
        try:
            found = self.test(rows)
        except (ArithmeticError, LookupError, ValueError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            return Verdict(UNDECIDED, f"cannot be tested on these results ({reason})")
        if quick and found.status == NOT_REPRODUCED:
            return replace(found, status=UNDECIDED, why=f"{found.why}; too short a run to deny it")
        if quick and found.status == REPRODUCED and self.persists:
            return replace(found, status=UNDECIDED, why=f"{found.why}; too short a run to bear out")
        return found


def mean_interval(
    values: Sequence[float], stderrs: Sequence[float], *, over: str = "seeds"
) -> Interval:
    """A t interval of the mean over seeds; of a single seed, one from its error over pairs.

    Args:
        values: one a seed; those that are not finite are left out.
        stderrs: the error of each over pairs.
        over: what a value is one of.

    Raises:
        ValueError: if there is no finite value, or the only one has no error.
    """
    from scipy import stats

    found = [(v, e) for v, e in zip(values, stderrs, strict=True) if math.isfinite(v)]
    if not found:
        raise ValueError("no finite value")
    mean = float(np.mean([v for v, _ in found]))
    if len(found) > 1:
        error = float(np.std([v for v, _ in found], ddof=1)) / math.sqrt(len(found))
        half = float(stats.t.ppf(0.5 + LEVEL / 2, len(found) - 1)) * error
        return Interval(mean, mean - half, mean + half, f"{len(found)} {over}", len(found))
    error = found[0][1]
    if not math.isfinite(error):
        raise ValueError(f"one of {over} alone, and no error over pairs")
    half = float(stats.norm.ppf(0.5 + LEVEL / 2)) * error
    how = "the pairs of one seed" if over == "seeds" else f"the pairs of one of {over}"
    return Interval(mean, mean - half, mean + half, how, 1)


def difference(
    rows: Rows, a: dict[str, Any], b: dict[str, Any], *, by: str = "seed", **common: Any
) -> Interval:
    """Mean of a − b, paired by seed, dimension, data and condition.

    What pairs leave apart of one seed (dimensions compared at once, say) is one observation of it,
    their mean: the interval is over seeds.

    Args:
        rows: to choose from.
        a, b: what each side is, such as ``{"loss": "cua"}``. What a side names is not paired by;
            one that names a condition is paired by the other conditions.
        by: what the interval is over: ``seed``, or ``setting`` (each pair one observation) where
            there is one seed and many settings.
        common: what both have, such as the metric.

    Raises:
        ValueError: if a side has no row, or two that pair alike, or no seed is in both.
    """
    apart = set(a) | set(b)
    left, right = (_keyed(rows.where(**{**common, **side}), side, apart) for side in (a, b))
    shared = [key for key in left if key in right]
    if not shared:
        raise ValueError(f"no rows of {_words(a)} and {_words(b)} with {_words(common)} to compare")
    groups: dict[Any, list[tuple[float, float]]] = {}
    for key in shared:
        one, other = left[key], right[key]
        # Errors over the same pairs go up and down together: as if independent errs to the safe
        # side.
        pair = one.value - other.value, math.hypot(one.stderr, other.stderr)
        groups.setdefault(one.seed if by == "seed" else key, []).append(pair)
    finite = [[p for p in group if math.isfinite(p[0])] for group in groups.values()]
    means = [float(np.mean([d for d, _ in group])) for group in finite if group]
    # Numbers of one seed are of the same pairs: the error of their mean may be as large as theirs.
    errors = [float(np.mean([e for _, e in group])) for group in finite if group]
    return mean_interval(means, errors, over=f"{by}s")


def _keyed(rows: Rows, side: dict[str, Any], apart: set[str]) -> dict[tuple, Row]:
    """Rows by what they are paired by."""
    pairing = [name for name in ("seed", "dim", "data") if name not in apart]
    found: dict[tuple, Row] = {}
    for row in rows:
        others = {} if "condition" in apart else row.conditions
        rest = tuple(item for item in sorted(others.items()) if item[0] not in apart)
        key = (*(getattr(row, name) for name in pairing), rest)
        if key in found:
            raise ValueError(f"two rows of {_words(side)} pair alike: {found[key]} and {row}")
        found[key] = row
    return found


def _words(chosen: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in chosen.items()) or "anything"


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


def together(verdicts: Sequence[Verdict]) -> Verdict:
    """The verdict of a claim in several parts: reproduced if all are, denied if one is.

    Raises:
        ValueError: if there are none.
    """
    if not verdicts:
        raise ValueError("nothing to judge")
    found = {verdict.status for verdict in verdicts}
    status = next((s for s in (NOT_REPRODUCED, UNDECIDED) if s in found), REPRODUCED)
    return Verdict(status, "; ".join(verdict.why for verdict in verdicts))
