"""Seeds added until claims are decided: the error over all looks, the verdicts, and the runner."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from geomkit.errors import GeomkitError
from geomkit.reproduce.framework import catalogue, planning, runner
from geomkit.reproduce.framework.cells import main_grid, start_of
from geomkit.reproduce.framework.claims import (
    NO_DIFFERENCE,
    NOT_REPRODUCED,
    REPRODUCED,
    UNDECIDED,
    Claim,
    Interval,
    above,
    average,
    equivalent,
    holm,
    judge,
    looking,
    mean_interval,
    together,
)
from geomkit.reproduce.framework.commands import train_command
from geomkit.reproduce.framework.experiment import SHARES, Cell, Context, Experiment, Options
from geomkit.reproduce.framework.grid import train_cells
from geomkit.reproduce.framework.progress import Progress
from geomkit.reproduce.framework.record import read_record
from geomkit.reproduce.framework.report import _multiplicity
from geomkit.reproduce.framework.results import Row, Rows, read_rows
from geomkit.reproduce.framework.verify import check_report
from geomkit.training.config import configure

LOOKS = Options().looks


def test_looks_follow_from_the_seeds() -> None:
    assert LOOKS == (6, 12) and sum(SHARES) == 1.0
    assert Options(seeds=(24, 42, 44)).looks == (3,)
    assert Options(seeds=tuple(range(6))).looks == (6,)
    assert Options(seeds=tuple(range(8))).looks == (6, 8)
    assert Options(quick=True).looks == (1,)


def test_intervals_of_all_looks_cover_together() -> None:
    """Of 2,000 runs whose true mean is 0, at most 5% exclude it at any look."""
    rng = np.random.default_rng(0)
    missed = 0
    for values in rng.normal(size=(2000, LOOKS[-1])):
        outside = False
        for n, share in zip(LOOKS, SHARES, strict=True):
            with looking(share):
                found = mean_interval(values[:n].tolist(), [np.nan] * n)
            outside |= not found.low <= 0 <= found.high
        missed += outside
    # Looks share their first seeds, so that the bound is not quite reached; two looks at 95% each
    # would miss in some 8%.
    assert 0.03 < missed / 2000 < 0.05


def test_the_interval_of_a_look_is_that_of_scipy() -> None:
    values = [0.1, 0.3, 0.2, 0.25]
    with looking(0.25):
        found = mean_interval(values, [0.0] * 4)
    low, high = stats.t.interval(1 - 0.05 / 4, 3, np.mean(values), stats.sem(values))
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-12)
    # A limit at an end of the interval has p = 5% over all looks.
    assert found.p_value(low, ">") == pytest.approx(0.05, rel=1e-9)
    assert found.p_value(high, "<") == pytest.approx(0.05, rel=1e-9)
    plain = mean_interval(values, [0.0] * 4)
    assert plain.p_value(0.0, ">") == pytest.approx(stats.ttest_1samp(values, 0.0).pvalue, rel=1e-9)


@pytest.mark.parametrize(
    ("low", "high", "status"),
    [
        (0.001, 0.4, REPRODUCED),
        (0.001, 0.005, REPRODUCED),  # it holds, if by little
        (-0.01, 0.01, NO_DIFFERENCE),
        (-0.01, -0.001, NO_DIFFERENCE),
        (-0.3, -0.1, NOT_REPRODUCED),
        (-0.03, 0.01, UNDECIDED),
        (-0.01, 0.03, UNDECIDED),
    ],
)
def test_verdicts_on_a_difference(low: float, high: float, status: str) -> None:
    error = (high - low) / 2 / stats.norm.isf(0.025)
    found = Interval((low + high) / 2, low, high, "4 seeds", 4, error)
    verdict = judge(found, ">", 0.0, "it", matters=0.02)
    assert verdict.status == status
    assert np.isnan(verdict.p) if status == UNDECIDED else verdict.p <= 0.05
    assert ("0.02 would matter" in verdict.why) == (status == NO_DIFFERENCE)
    mirrored = Interval(-found.value, -high, -low, "4 seeds", 4, error)
    assert judge(mirrored, "<", 0.0, "it", matters=0.02).status == status


def test_one_part_without_a_difference_decides_a_claim() -> None:
    def part(low: float, high: float) -> Any:
        error = (high - low) / 2 / stats.norm.isf(0.025)
        found = Interval((low + high) / 2, low, high, "4 seeds", 4, error)
        return judge(found, ">", 0.0, "it", matters=0.02)

    good, same, open_ = part(0.1, 0.2), part(-0.01, 0.01), part(-0.1, 0.1)
    assert together([good, same, open_]).status == NO_DIFFERENCE
    assert together([good, open_]).status == UNDECIDED
    assert together([good, good]).p == good.p
    assert together([good, same]).p == pytest.approx(min(1.0, 2 * same.p))


def test_one_of_many_parts_denies_only_beyond_chance() -> None:
    """At the boundary of six parts that all hold, 5% of claims at most are denied."""
    rng = np.random.default_rng(1)
    denied = 0
    for values in rng.normal(size=(300, 6, 4)):
        parts = [judge(mean_interval(v, [np.nan] * 4), ">", 0.0, "it") for v in values]
        denied += together(parts).status == NOT_REPRODUCED
    assert denied / 300 < 0.05


def test_seeds_that_all_agree_are_as_sure_as_a_sign_test() -> None:
    same = mean_interval([0.2] * 5, [np.nan] * 5)
    assert same.p_value(0.0, ">") == 2 * 0.5**5 and same.p_value(0.3, ">") == 1.0
    # Five of one sign happen by chance in 1 of 16: they decide nothing, six do.
    few = judge(same, ">", 0.0, "it", matters=0.5)
    assert few.status == UNDECIDED and "too few to tell" in few.why and np.isnan(few.p)
    enough = judge(mean_interval([0.2] * 6, [np.nan] * 6), ">", 0.0, "it")
    assert enough.status == REPRODUCED and enough.p == 2 * 0.5**6
    with looking(SHARES[0]):  # at the first of two looks six are too few
        assert judge(mean_interval([0.2] * 6, [0.0] * 6), ">", 0.0, "it").status == UNDECIDED


def test_seeds_that_all_agree_have_the_error_over_their_pairs() -> None:
    """Three separabilities of 1: their spread is 0, their error over pairs is not."""
    found = mean_interval([1.0] * 3, [0.001, 0.002, 0.003])
    low, high = stats.norm.interval(0.95, 1.0, 0.002)
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-12)
    assert found.how == "the pairs of 3 seeds"
    assert judge(found, ">", 0.95, "it").status == REPRODUCED
    assert judge(found, ">", 0.999, "it").status == UNDECIDED


def test_holm_rejects_what_statsmodels_does() -> None:
    p = [0.01, 0.04, 0.03, 0.005]  # by hand: 0.005·4 and 0.01·3 are below 5%, 0.03·2 is not
    assert holm(p) == 2 and holm([0.2, 0.3]) == 0 and holm([]) == 0


CELL = configure(
    loss="clip", dim=4, model="nano", data="openmoji,n=12", batch_size=6, steps=2, eval_every=2,
    warmup=1, seed=0,
)  # fmt: skip
START = Cell(replace(CELL, dim=8))
SEEDS = (1, 2, 3, 4, 5, 6, 7, 8, 9)


def staged(values: Callable[[int], float]) -> Experiment:
    """An experiment whose number is a function of the seed; its cells start from one model."""

    def cells(options: Options) -> list[Cell]:
        if options.protocol == "scratch":
            return [Cell(replace(CELL, seed=options.seeds[0]))]
        start = {"pretrained": f"{START.key}.pt", "model": ""}
        return [Cell(replace(CELL, **start, seed=s), START) for s in options.seeds[-1:]]

    def measure(context: Context) -> Rows:
        scratch = 1.0 if context.options.protocol == "scratch" else 0.0
        return Rows(
            Row("one", "openmoji val", 4, "clip", s, "gain", scratch + values(s), 0.01)
            for s in context.options.used_seeds
        )

    claims = (
        Claim("It gains", "0.1", above(average(metric="gain"), 0.0, "gain", 0.02)),
        Claim("It stays", "0.0", equivalent(average(metric="gain"), 0.01, "gain")),
    )
    return Experiment("one", "One", "Does it?", cells, measure, lambda rows, context: {},
                      claims=claims, sequential=True, beside=True)  # fmt: skip


def go(
    out: Path, *experiments: Experiment, monkeypatch: pytest.MonkeyPatch, **how: Any
) -> list[str]:
    monkeypatch.setattr(catalogue, "all_experiments", lambda: {e.name: e for e in experiments})
    options = Options(data="openmoji,n=12", seeds=SEEDS, threads=1)
    said: list[str] = []
    plan = planning.plan(["all"], options, out)
    runner.run(
        plan, options, out, command="geomkit reproduce one", watch=lambda e: said.append(e.text),
        **how,
    )  # fmt: skip
    return said


def test_seeds_are_added_until_claims_are_decided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noisy = staged(lambda seed: 0.07 + 0.2 * (seed % 2))
    said = go(tmp_path / "a", noisy, monkeypatch=monkeypatch)
    told = [text for text in said if text.startswith("one: ")]
    assert told == ["one: 2 of 2 claims are undecided after 6 seeds", "one: adding seeds"]
    record = read_record(tmp_path / "a" / "one")
    assert record is not None and record.seeds == 9
    assert [v.status for v in record.verdicts] == [REPRODUCED, NOT_REPRODUCED]
    # What cells start from is trained before them, and is part of the record.
    assert [c["key"] for c in record.cells][:1] == [START.key] and len(record.cells) == 3
    # From scratch: three seeds, whose numbers lie in a file of their own.
    assert len(read_rows(tmp_path / "a" / "one" / "results-scratch.csv")) == 3
    assert [v.status for v in record.beside] == [REPRODUCED, NOT_REPRODUCED]
    text = (tmp_path / "a" / "one" / "report.md").read_text()
    assert "| from scratch |" in text and "looks at 6 and 9 seeds" in text and "9 were used" in text
    assert "1% and 4% of error" in text
    # A second run knows it as finished, and one with other numbers of seeds does not.
    assert go(tmp_path / "a", noisy, monkeypatch=monkeypatch, resume=True)[0] == "one"
    clear = staged(lambda seed: 0.1 + 0.0001 * seed)
    go(tmp_path / "b", clear, monkeypatch=monkeypatch)
    record = read_record(tmp_path / "b" / "one")
    assert record is not None and record.seeds == 6


def test_no_seeds_are_added_when_the_time_is_spent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noisy = staged(lambda seed: 0.07 + 0.2 * (seed % 2))
    said = go(tmp_path, noisy, monkeypatch=monkeypatch, minutes=1e-6)
    assert [text for text in said if "no time" in text] == [
        "one: no time is left for more seeds", "one: no time is left for the verdicts from scratch",
    ]  # fmt: skip
    record = read_record(tmp_path / "one")
    assert record is not None and record.seeds == 6 and record.beside == ()
    assert not (tmp_path / "one" / "results-scratch.csv").exists()
    assert "from scratch" not in (tmp_path / "one" / "report.md").read_text()
    assert not check_report(tmp_path).failures
    assert json.loads((tmp_path / "one" / "run.json").read_text())["verdicts"][0]["status"] == (
        UNDECIDED
    )


def test_a_failure_while_seeds_are_added_keeps_the_first_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noisy = staged(lambda seed: 0.07 + 0.2 * (seed % 2))

    def measure(context: Context) -> Rows:
        if len(context.options.seeds) == len(SEEDS):
            raise GeomkitError("a model diverged")
        return noisy.measure(context)

    with pytest.raises(GeomkitError, match="a model diverged"):
        go(tmp_path, replace(noisy, measure=measure), monkeypatch=monkeypatch)
    record = read_record(tmp_path / "one")
    assert record is not None and record.seeds == 6 and not check_report(tmp_path).failures


def test_first_looks_come_before_more_seeds_where_most_claims_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noisy = staged(lambda seed: 0.07 + 0.2 * (seed % 2))
    half = replace(noisy, name="half", claims=noisy.claims[:1], beside=False)
    other = replace(noisy, name="other", beside=False)
    clear = replace(staged(lambda seed: 0.1 + 0.0001 * seed), name="clear", beside=False)
    said = go(tmp_path, half, other, clear, monkeypatch=monkeypatch)
    told = [text for text in said if "seeds" in text or text in ("half", "other", "clear")]
    assert [text.partition(" after")[0] for text in told if text != "clear"] == [
        "half", "half: 1 of 1 claims are undecided", "other", "other: 2 of 2 claims are undecided",
        "other: adding seeds", "other", "other", "half: adding seeds", "half", "half",
    ]  # fmt: skip
    assert told.index("clear") < told.index("other: adding seeds")


def test_the_time_left_knows_the_limit() -> None:
    cells = [Cell(replace(CELL, seed=seed)) for seed in range(4)]
    first = {cells[0]: 1.0, cells[1]: 1.0, "one": 0.5}
    work = (*((cell, 100.0) for cell in cells), ("one", 60.0))
    plan = planning.Plan((), tuple(cells), tuple(cells), 0, (), work, True, first)
    assert plan.seconds() == 460.0 and plan.seconds(300.0) == 300.0 and plan.seconds(9.0) == 230.0
    for limit, left in ((9.0, 230.0), (300.0, 300.0), (9000.0, 460.0)):
        assert Progress(plan, lambda event: None, limit).left == pytest.approx(left, abs=0.1)


def test_cells_are_fine_tuned_from_one_model(tmp_path: Path) -> None:
    import torch

    from geomkit.models.checkpoints import load_run

    start = {"pretrained": f"{START.key}.pt", "model": ""}
    cells = [Cell(replace(CELL, **start, seed=s, lr=1e-9, weight_decay=0.0), START) for s in (1, 2)]
    train_cells(cells, tmp_path, Options(threads=1))
    first, *others = (load_run(tmp_path / f"{c.key}.pt").state_dict for c in (START, *cells))
    name = "visual.transformer.resblocks.0.mlp.c_fc.weight"
    assert all(torch.allclose(first[name], other[name], atol=1e-6) for other in others)
    assert others[0]["text_projection"].shape[-1] == 4  # fresh, of its own dimension
    command = train_command(cells[0], f"cells/{cells[0].key}.pt")
    assert f"--pretrained cells/{START.key}.pt" in command


def test_the_main_grid_starts_from_one_model() -> None:
    grid = main_grid(Options())
    starts = {cell.start for cell in grid}
    assert starts == {start_of(Options().first(1), "openmoji,skin_tones=true")}
    (start,) = starts
    assert start is not None and start.config.loss == "clip" and start.start is None
    assert {cell.config.pretrained for cell in grid} == {f"{start.key}.pt"}
    scratch = main_grid(Options(protocol="scratch"))
    assert {cell.start for cell in scratch} == {None} and {c.config.steps for c in scratch} == {600}


def test_multiplicity_is_said() -> None:
    from geomkit.reproduce.framework.record import JudgedClaim

    def one(status: str, p: float | None) -> JudgedClaim:
        return JudgedClaim("a", "b", "", status, "c", p)

    text = _multiplicity([one(REPRODUCED, 0.001), one(REPRODUCED, 0.04), one(UNDECIDED, None)])
    assert "of 3 claims" in text and "1 of the 2 verdicts" in text
