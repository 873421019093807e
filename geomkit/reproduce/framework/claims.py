"""Claims of the paper as data: what is compared, in which direction, and the verdict."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np

from geomkit.reproduce.framework.numbers import number, one_minus
from geomkit.reproduce.framework.results import Row, Rows

__all__ = [
    "NOT_REPRODUCED", "NO_DIFFERENCE", "REPRODUCED", "STATUSES", "UNDECIDED", "Claim",
    "Comparison", "Interval", "MissingRows", "Number", "Test", "Verdict", "above", "average",
    "below", "contrast", "difference", "equivalent", "holm", "judge", "looking", "mean_interval",
    "mean_of", "rank_correlation", "together",
]  # fmt: skip

REPRODUCED, NOT_REPRODUCED, UNDECIDED = "reproduced", "not reproduced", "undecided"
NO_DIFFERENCE = "no difference that matters"
STATUSES = (REPRODUCED, NO_DIFFERENCE, UNDECIDED, NOT_REPRODUCED)
"""Every status of a verdict, in the order of reports."""
LEVEL = 0.95
_share: ContextVar[float] = ContextVar("share", default=1.0)


@contextmanager
def looking(share: float) -> Iterator[None]:
    """Widen intervals over seeds for one of several looks at the growing number of seeds.

    Each look has its share of the error of 5%, so that the intervals of all looks hold together at
    95% (Bonferroni), whatever decides when to stop: repeated confidence intervals (Jennison and
    Turnbull, JRSS B 51, 1989).

    Args:
        share: Share of this look; those of all looks sum to 1.
    """
    token = _share.set(share)
    try:
        yield
    finally:
        _share.reset(token)


class MissingRows(ValueError):
    """The results lack rows, or finite numbers, that a comparison needs."""


@dataclass(frozen=True)
class Interval:
    """An estimate with a two-sided interval at 95%.

    Attributes:
        value: Estimate.
        low: Lower bound.
        high: Upper bound.
        how: What the interval is over: seeds, settings, or pairs.
        count: Number of them; 1 for the pairs of one seed.
        error: Standard error of the estimate (of a rank correlation, of its inverse hyperbolic
            tangent).
        freedom: Degrees of freedom of t; infinite for the normal distribution.
        share: Share of the error of 5% that it may have: the rest is that of other looks.
        scale: Function after which the estimate is compared with a limit.
    """

    value: float
    low: float
    high: float
    how: str
    count: int
    error: float = math.nan
    freedom: float = math.inf
    share: float = 1.0
    scale: Callable[[float], float] = float

    def p_value(self, limit: float, sign: str) -> float:
        """One-sided p value against the estimate being on the other side of a limit, doubled.

        It is at most 0.05 where the interval lies on that side of the limit.

        Args:
            limit: Limit.
            sign: ``<`` if the estimate is to lie below the limit, ``>`` if above.
        """
        from scipy import stats

        distance = self.scale(self.value) - self.scale(limit)
        distance = -distance if sign == "<" else distance
        if self.error == 0:  # all seeds agree: a sign test
            return min(1.0, 2.0 * 0.5**self.count / self.share) if distance > 0 else 1.0
        t = distance / self.error
        tail = stats.norm.sf(t) if math.isinf(self.freedom) else stats.t.sf(t, self.freedom)
        return min(1.0, 2.0 * float(tail) / self.share)

    def __str__(self) -> str:
        """Estimate and bounds with three digits."""
        numbers = (self.value, self.low, self.high)
        value, low, high = (number(one, *numbers) for one in numbers)
        return f"{value} [{low}, {high}] over {self.how}"


@dataclass(frozen=True)
class Verdict:
    """The result of testing a claim.

    Attributes:
        status: One of :data:`STATUSES`.
        why: Numbers and intervals, in one sentence.
        p: p value of the verdict: of the part that decides it, or the largest of all parts where
            all must hold; NaN for an undecided claim.
    """

    status: str
    why: str
    p: float = math.nan


Number = Callable[[Rows], Interval]
"""From an experiment's rows to one number with its interval; raises :class:`MissingRows`."""

Test = Callable[[Rows], Verdict]
"""From an experiment's rows to a verdict; raises :class:`MissingRows`."""


Comparison = Callable[..., Test]
"""From a number, a limit and the number's name to a test, as :func:`below` is."""


def judge(
    found: Interval, sign: str, limit: float, what: str, matters: float | None = None
) -> Verdict:
    """Verdict on one number: decided if its whole interval lies on one side of the limit.

    Args:
        found: Number with its interval.
        sign: ``<``, ``>``, or ``within ±``.
        limit: Limit, or margin on both sides of 0.
        what: Name of the number.
        matters: Smallest distance from the limit that would matter, stated before the run. If the
            whole interval is closer, on both sides of the limit, there is no difference that
            matters.

    Numbers that are all the same, without an error over pairs, decide nothing while a sign test
    would not: with three seeds, two runs in eight agree in their sign by chance.
    """
    apart = {"<": ">", ">": "<"}
    if sign in apart:
        yes = found.high < limit if sign == "<" else found.low > limit
        no = found.low > limit if sign == "<" else found.high < limit
        p_yes, p_no = (found.p_value(limit, side) for side in (sign, apart[sign]))
    else:
        yes = -limit < found.low and found.high < limit
        no = found.low > limit or found.high < -limit
        p_yes = max(found.p_value(limit, "<"), found.p_value(-limit, ">"))
        p_no = min(found.p_value(limit, ">"), found.p_value(-limit, "<"))
    why = f"{what}: {found}, claimed {sign} {one_minus(f'{limit:.3g}')}"
    if found.error == 0 and found.p_value(-math.inf, ">") > 1 - LEVEL:
        return Verdict(UNDECIDED, f"{why}; too few to tell, although all agree")
    if yes:
        return Verdict(REPRODUCED, why, p_yes)
    if matters is not None and limit - matters < found.low and found.high < limit + matters:
        p = max(found.p_value(limit + matters, "<"), found.p_value(limit - matters, ">"))
        return Verdict(NO_DIFFERENCE, f"{why}; {matters:g} would matter", p)
    return Verdict(NOT_REPRODUCED, why, p_no) if no else Verdict(UNDECIDED, why)


def below(number: Number, limit: float, what: str, matters: float | None = None) -> Test:
    """Test that a number lies below a limit; ``matters`` as in :func:`judge`."""
    return lambda rows: judge(number(rows), "<", limit, what, matters)


def above(number: Number, limit: float, what: str, matters: float | None = None) -> Test:
    """Test that a number lies above a limit; ``matters`` as in :func:`judge`."""
    return lambda rows: judge(number(rows), ">", limit, what, matters)


def equivalent(number: Number, margin: float, what: str) -> Test:
    """Test that a difference is smaller than a margin in both directions."""
    return lambda rows: judge(number(rows), "within ±", margin, what)


@dataclass(frozen=True)
class Claim:
    """A claim of the paper and its tests.

    Attributes:
        text: The claim.
        published: The paper's numbers for it, in words.
        tests: One or several tests; all must hold.
        otherwise: Likely reason if the claim does not hold, for the report.
        persists: Whether the claim says that training leaves something unchanged. A model that
            has learnt little satisfies such a claim under any loss.
    """

    text: str
    published: str
    tests: Test | Sequence[Test]
    otherwise: str = ""
    persists: bool = False

    def verdict(self, rows: Rows, *, quick: bool = False, share: float = 1.0) -> Verdict:
        """Verdict on these rows; *undecided* where rows are missing or numbers are undefined.

        Args:
            rows: Results of the experiment.
            quick: Whether they come from a quick run. Such a run never denies a claim, and never
                confirms one that only a long training could contradict.
            share: Share of the error that this look at the seeds has, see :func:`looking`.
        """
        tests = [self.tests] if callable(self.tests) else self.tests
        try:
            with looking(share):
                found = together([test(rows) for test in tests])
        except MissingRows as error:
            return Verdict(UNDECIDED, f"cannot be tested on these results ({error})")
        denied = found.status in (NOT_REPRODUCED, NO_DIFFERENCE)
        if quick and (denied or (found.status == REPRODUCED and self.persists)):
            what = "deny" if denied else "confirm"
            return Verdict(UNDECIDED, f"{found.why}; too short a run to {what} it")
        return found


def together(verdicts: Sequence[Verdict]) -> Verdict:
    """Verdict of a claim with several parts: reproduced if all are, not reproduced if one is not.

    A part without a difference that matters decides the claim as well: not all of it holds. One of
    several parts denies a claim only if its p value holds for all of them (Bonferroni).

    Raises:
        ValueError: Without any verdict.
    """
    if not verdicts:
        raise ValueError("together: expected at least one verdict")
    order = (NOT_REPRODUCED, NO_DIFFERENCE, UNDECIDED, REPRODUCED)
    status = min((verdict.status for verdict in verdicts), key=order.index)
    deciding = [v.p for v in verdicts if v.status == status and not math.isnan(v.p)]
    if not deciding:
        return Verdict(status, "; ".join(verdict.why for verdict in verdicts))
    # One part is enough to deny a claim, but it was picked among all of them.
    p = max(deciding) if status == REPRODUCED else min(1.0, min(deciding) * len(verdicts))
    if status != REPRODUCED and len(verdicts) > 1 and p > 1 - LEVEL:
        status, p = UNDECIDED, math.nan
    return Verdict(status, "; ".join(verdict.why for verdict in verdicts), p)


def holm(p_values: Sequence[float], level: float = 1 - LEVEL) -> int:
    """How many hypotheses are rejected with a family-wise error of at most ``level``.

    Holm's step-down procedure (Scand. J. Statist. 6, 1979).

    >>> holm([0.001, 0.02, 0.04, float("nan")], 0.05)
    1
    """
    count = 0
    for p in sorted(1.0 if math.isnan(p) else p for p in p_values):
        if p > level / (len(p_values) - count):
            break
        count += 1
    return count


def average(*, over: str = "seeds", **chosen: Any) -> Number:
    """Mean of the chosen rows, with the interval of :func:`mean_interval`."""
    return lambda rows: mean_of(rows.where(**chosen), over=over)


def contrast(a: str | dict[str, Any], b: str | dict[str, Any], **options: Any) -> Number:
    """Mean difference a − b, as :func:`difference` computes it; a text names a loss."""
    sides = [{"loss": side} if isinstance(side, str) else side for side in (a, b)]
    return lambda rows: difference(rows, *sides, **options)


def mean_of(rows: Sequence[Row], *, over: str = "seeds") -> Interval:
    """Mean of the rows' values, with the interval of :func:`mean_interval`."""
    return mean_interval([row.value for row in rows], [row.stderr for row in rows], over=over)


def mean_interval(
    values: Sequence[float], stderrs: Sequence[float], *, over: str = "seeds"
) -> Interval:
    """Mean with a t interval over seeds, or an interval from the error over pairs.

    The latter is for a single seed, and for seeds whose values are all the same (as a separability
    of 1): their spread says nothing, and their error is at most the mean of their errors. Within
    :func:`looking`, intervals over seeds hold for all looks together.

    Args:
        values: One value per seed; non-finite values are ignored.
        stderrs: Standard error of each value over pairs.
        over: What the values belong to, in the plural.

    Raises:
        MissingRows: If no value is finite, or the only finite one has no error.
    """
    from scipy import stats

    found = [(v, e) for v, e in zip(values, stderrs, strict=True) if math.isfinite(v)]
    if not found:
        raise MissingRows("no finite value")
    mean = float(np.mean([v for v, _ in found]))
    count, how = len(found), f"{len(found)} {over}"
    share = _share.get() if over == "seeds" and count > 1 else 1.0
    error, freedom = 0.0, math.inf
    if len({v for v, _ in found}) > 1:
        error = float(np.std([v for v, _ in found], ddof=1)) / math.sqrt(count)
        freedom = count - 1
    elif (pairs := float(np.mean([e for _, e in found]))) > 0 or (count == 1 and pairs == 0):
        error = pairs
        one = "one seed" if over == "seeds" else f"one of {over}"
        how = f"the pairs of {one if count == 1 else how}"
    elif count == 1:
        raise MissingRows(f"one of {over} alone, and no error over pairs")
    half = float(stats.t.isf((1 - LEVEL) / 2 * share, freedom)) * error
    return Interval(mean, mean - half, mean + half, how, count, error, freedom, share)


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> Interval:
    """Spearman's rank correlation with Bonett and Wright's interval (Psychometrika 65, 2000).

    Raises:
        MissingRows: For fewer than five values, or values that are all equal.
    """
    from scipy import stats

    if len(a) < 5 or len(set(a)) == 1 or len(set(b)) == 1:
        raise MissingRows("too few different values to correlate")
    r = float(stats.spearmanr(a, b).statistic)
    r = max(-(1 - len(a) ** -2), min(1 - len(a) ** -2, r))  # keeps the interval finite
    error = math.sqrt((1 + r * r / 2) / (len(a) - 3))
    half = float(stats.norm.ppf(0.5 + LEVEL / 2)) * error
    low, high = (math.tanh(math.atanh(r) + sign * half) for sign in (-1, 1))
    return Interval(r, low, high, f"{len(a)} settings", len(a), error, scale=math.atanh)


def difference(
    rows: Rows, a: dict[str, Any], b: dict[str, Any], *, by: str = "seed", **common: Any
) -> Interval:
    """Mean of a − b, paired by seed, dimension, data and condition.

    Several pairs of one seed (dimensions compared together, for example) are averaged into one
    observation: the interval is over seeds.

    Args:
        rows: Rows to choose from.
        a: Fields of the first side, such as ``{"loss": "cua"}``. Fields that a side names are
            not paired by; a side that names a condition is paired by the other conditions.
        b: Fields of the second side.
        by: ``seed``, or ``setting`` to count each pair as one observation, where there is one
            seed and many settings.
        common: Fields of both sides, such as the metric.

    Raises:
        MissingRows: If a side has no row, or no seed has both sides.
        ValueError: If two rows of one side have the same pairing key.
    """
    apart = set(a) | set(b)
    left, right = (_keyed(rows.where(**{**common, **side}), side, apart) for side in (a, b))
    shared = [key for key in left if key in right]
    if not shared:
        raise MissingRows(
            f"no rows of {_words(a)} and {_words(b)} with {_words(common)} to compare"
        )
    groups: dict[Any, list[tuple[float, float]]] = {}
    for key in shared:
        one, other = left[key], right[key]
        # Both errors are over the same pairs and so correlated; treating them as independent is
        # conservative.
        pair = one.value - other.value, math.hypot(one.stderr, other.stderr)
        groups.setdefault(one.seed if by == "seed" else key, []).append(pair)
    finite = [[p for p in group if math.isfinite(p[0])] for group in groups.values()]
    means = [float(np.mean([d for d, _ in group])) for group in finite if group]
    # Numbers of one seed share their pairs: the error of their mean can be as large as theirs.
    errors = [float(np.mean([e for _, e in group])) for group in finite if group]
    return mean_interval(means, errors, over=f"{by}s")


def _keyed(rows: Rows, side: dict[str, Any], apart: set[str]) -> dict[tuple, Row]:
    """Rows by their pairing key."""
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
