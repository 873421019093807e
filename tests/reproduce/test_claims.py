"""Claims: intervals against scipy, pairing, single seeds, and verdicts that quick runs may give."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from geomkit.reproduce.framework.claims import (
    NOT_REPRODUCED,
    REPRODUCED,
    UNDECIDED,
    Claim,
    Interval,
    MissingRows,
    Verdict,
    above,
    average,
    below,
    contrast,
    difference,
    equivalent,
    mean_interval,
    together,
)
from geomkit.reproduce.framework.results import Row, Rows


def row(loss: str, seed: int, value: float, stderr: float = math.nan, **more: object) -> Row:
    fields = {"experiment": "e", "data": "d", "dim": 8, "metric": "m", "condition": "", **more}
    return Row(loss=loss, seed=seed, value=value, stderr=stderr, **fields)


def test_interval_is_scipys() -> None:
    values = [0.3, 0.7, 0.4, 0.9]
    found = mean_interval(values, [math.nan] * 4)
    expected = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert (found.low, found.high) == pytest.approx(expected, rel=1e-12)
    assert (found.value, found.count, found.how) == (pytest.approx(0.575), 4, "4 seeds")


def test_interval_of_one_seed_is_over_its_pairs() -> None:
    found = mean_interval([math.nan, 2.0], [9.0, 0.5])
    assert (found.low, found.high) == pytest.approx(stats.norm.interval(0.95, 2.0, 0.5), rel=1e-12)
    assert found.how == "the pairs of one seed"


@pytest.mark.parametrize(
    ("values", "errors", "says"),
    [([], [], "no finite"), ([math.nan], [1.0], "no finite"), ([1.0], [math.nan], "no error")],
)
def test_no_interval_without_a_number(values: list, errors: list, says: str) -> None:
    with pytest.raises(MissingRows, match=says):
        mean_interval(values, errors)


def test_difference_is_paired_by_seed() -> None:
    # The seeds lie far apart, their differences do not: unpaired, the interval would hold 0.
    rows = Rows([row("a", s, 10.0 * s + d) for s, d in ((1, 1.0), (2, 1.1), (3, 0.9))])
    rows += [row("b", s, 10.0 * s) for s in (3, 1, 2, 4)]
    found = difference(rows, {"loss": "a"}, {"loss": "b"}, metric="m")
    expected = stats.t.interval(0.95, 2, loc=1.0, scale=stats.sem([1.0, 1.1, 0.9]))
    assert (found.low, found.high) == pytest.approx(expected, rel=1e-9)


def test_dimensions_of_a_seed_are_one_observation() -> None:
    rows = Rows(
        row(loss, seed, {"a": 1.0, "b": 0.0}[loss] * seed * dim, dim=dim)
        for loss in "ab" for seed in (1, 2) for dim in (2, 4)
    )  # fmt: skip
    found = difference(rows, {"loss": "a"}, {"loss": "b"}, metric="m")
    assert (found.value, found.count) == (pytest.approx(4.5), 2)


def test_settings_are_observations_where_there_is_one_seed() -> None:
    rows = Rows(
        row("clip", 0, value, 0.1, condition=f"batch={batch};tau={tau}")
        for (batch, tau), value in {(1, 1): 3.0, (1, 2): 5.0, (9, 1): 1.0, (9, 2): 2.0}.items()
    )
    found = difference(rows, {"batch": 1}, {"batch": 9}, by="setting", metric="m")
    expected = stats.t.interval(0.95, 1, loc=2.5, scale=0.5)
    assert (found.low, found.high) == pytest.approx(expected)
    assert found.how == "2 settings"


def test_one_seed_adds_the_errors_of_both_sides() -> None:
    rows = Rows([row("a", 1, 3.0, 0.3), row("b", 1, 1.0, 0.4)])
    found = difference(rows, {"loss": "a"}, {"loss": "b"}, metric="m")
    assert (found.low, found.high) == pytest.approx(stats.norm.interval(0.95, 2.0, 0.5))


def test_rows_that_pair_alike_are_not_chosen_from() -> None:
    rows = Rows([row("a", 1, 1.0), row("a", 1, 2.0), row("b", 1, 0.0)])
    with pytest.raises(ValueError, match="pair alike"):
        difference(rows, {"loss": "a"}, {"loss": "b"}, metric="m")
    with pytest.raises(MissingRows, match="loss cua"):
        difference(rows, {"loss": "cua"}, {"loss": "b"}, metric="m")


LOW, HIGH, WIDE = (Interval(0, *b, "3 seeds", 3) for b in ((-2, -1), (1, 2), (-1, 1)))


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([(below, i, 0) for i in (LOW, HIGH, WIDE)], (REPRODUCED, NOT_REPRODUCED, UNDECIDED)),
        ([(above, i, 0) for i in (LOW, HIGH, WIDE)], (NOT_REPRODUCED, REPRODUCED, UNDECIDED)),
        (
            [(equivalent, WIDE, 3), (equivalent, LOW, 0.5), (equivalent, WIDE, 0.5)],
            (REPRODUCED, NOT_REPRODUCED, UNDECIDED),
        ),
    ],
)
def test_verdicts(found: list[tuple], expected: tuple[str, ...]) -> None:
    verdicts = [make(lambda rows, i=i: i, limit, "x")(Rows()) for make, i, limit in found]
    assert tuple(verdict.status for verdict in verdicts) == expected
    assert all(verdict.why.startswith(("x: 0 [", "x: 0.000 [")) for verdict in verdicts)


def test_a_claim_in_parts_is_as_good_as_its_worst() -> None:
    yes, no, unsure = (Verdict(s, s) for s in (REPRODUCED, NOT_REPRODUCED, UNDECIDED))
    assert together([yes, yes]).status == REPRODUCED
    assert together([yes, unsure]).status == UNDECIDED
    assert together([unsure, no, yes]).status == NOT_REPRODUCED
    with pytest.raises(ValueError, match="at least one"):
        together([])


def test_quick_never_denies() -> None:
    for status, expected in (
        (NOT_REPRODUCED, UNDECIDED), (REPRODUCED, REPRODUCED), (UNDECIDED, UNDECIDED),
    ):  # fmt: skip
        claim = Claim("c", "p", lambda rows, status=status: Verdict(status, "because"))
        assert claim.verdict(Rows(), quick=True).status == expected
        assert claim.verdict(Rows()).status == status
    # That nothing changes is what a model that has learnt nothing shows.
    same = Claim("c", "p", lambda rows: Verdict(REPRODUCED, "because"), persists=True)
    assert same.verdict(Rows(), quick=True).status == UNDECIDED
    assert same.verdict(Rows()).status == REPRODUCED


def test_numbers_of_one_seed_share_their_pairs() -> None:
    rows = Rows(
        Row("e", "d", dim, loss, 1, "m", value, 0.3)
        for loss, value in (("clip", 0.0), ("cua", 1.0))
        for dim in (32, 64, 128)
    )
    found = difference(rows, {"loss": "cua"}, {"loss": "clip"}, metric="m")
    # The three differences may go up and down together: no less than the error of one.
    assert found.high - found.value == pytest.approx(1.959964 * math.hypot(0.3, 0.3), rel=1e-6)


def test_rows_that_are_missing_leave_it_undecided() -> None:
    rows = Rows([row("a", 1, 1.0, 0.1)])
    for number in (contrast("a", "b", metric="m"), average(metric="other")):
        found = Claim("c", "p", above(number, 0, "x")).verdict(rows)
        assert found.status == UNDECIDED and "cannot be tested" in found.why
    alone = Claim("c", "p", above(average(metric="m"), 0, "x")).verdict(Rows([row("a", 1, 1.0)]))
    assert alone.status == UNDECIDED and "no error over pairs" in alone.why


@pytest.mark.parametrize("error", [KeyError("loss"), ValueError("two"), ZeroDivisionError()])
def test_errors_of_a_test_are_not_verdicts(error: Exception) -> None:
    def test(rows: Rows) -> Verdict:
        raise error

    with pytest.raises(type(error)):
        Claim("c", "p", test).verdict(Rows())


def test_all_tests_of_a_claim_must_hold() -> None:
    rows = Rows([row("a", 1, 3.0, 0.1), row("b", 1, 1.0, 0.1)])
    less = contrast("b", "a", metric="m")
    assert Claim("c", "p", below(less, 0, "x")).verdict(rows).status == REPRODUCED
    both = Claim("c", "p", [below(less, 0, "x"), above(less, 0, "y")]).verdict(rows)
    assert both.status == NOT_REPRODUCED and "; y: −2.000" in both.why
