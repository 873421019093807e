"""Sweeps and ablation: end to end at toy size, their claims, their figures by their data."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from geomkit.losses import PRESETS
from geomkit.reproduce.experiments import ablation, sweeps
from geomkit.reproduce.framework import catalogue, cells, claims, planning, runner
from geomkit.reproduce.framework.claims import NOT_REPRODUCED, REPRODUCED, UNDECIDED
from geomkit.reproduce.framework.experiment import Cell, Context, Experiment, Options
from geomkit.reproduce.framework.record import Outcome
from geomkit.reproduce.framework.results import Row, Rows, read_rows, rows_of

pytestmark = pytest.mark.usefixtures("trained_once")

COCO = Path(__file__).parents[3] / "shared" / "data" / "coco-mini"
OPTIONS = Options(data="openmoji,n=40", seeds=(1,), threads=1, model="nano")


def run(
    experiment: Experiment, out: Path, options: Options, monkeypatch: pytest.MonkeyPatch
) -> tuple[Outcome, list[str]]:
    monkeypatch.setattr(catalogue, "all_experiments", lambda: {experiment.name: experiment})
    said: list[str] = []
    planned = planning.plan([experiment.name], options, out)
    outcomes = runner.run(
        planned, options, out, command="c",
        watch=lambda event: said.append(event.text) if event.kind == "line" else None,
    )  # fmt: skip
    return outcomes[0], said


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A grid of eight, forty pairs each."""
    monkeypatch.setattr(sweeps, "BATCHES", (8, 20))
    monkeypatch.setattr(sweeps, "DIMS", (4, 8))
    monkeypatch.setattr(sweeps, "TAUS", (0.2,))
    monkeypatch.setattr(sweeps, "PAIRS_SEEN", 40)


def test_sweeps_end_to_end(small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome, said = run(sweeps.EXPERIMENT, tmp_path, OPTIONS, monkeypatch)
    rows = read_rows(outcome.folder / "results.csv")
    assert rows.values("batch") == ["8", "20"] and rows.values("dim") == [4, 8]
    assert len(rows) == 8 * len(sweeps.METRICS) + 4  # and where each learned τ ended
    assert all(0.01 <= row.value <= 1 for row in rows.where(metric="temperature"))
    assert not said and len(outcome.verdicts) == len(sweeps.EXPERIMENT.claims)
    assert (outcome.folder / "sweeps.png").exists()


def test_every_cell_sees_as_many_pairs() -> None:
    for options in (Options(), Options(quick=True)):
        cells = sweeps.EXPERIMENT.cells(options)
        seen = {cell.config.steps * cell.config.batch_size for cell in cells}
        assert max(seen) < 1.02 * min(seen)
        assert {cell.config.model for cell in cells} == {"nano"}
        assert len(set(cells)) == len(cells) == (12 if options.quick else 36 + 11 * 4)
        for cell in cells:
            c = cell.config
            assert c.lr == pytest.approx(5e-4 * math.sqrt(c.batch_size / 64))
            assert c.eval_every == c.steps and 0 < c.warmup <= c.steps / 4


def test_batches_that_the_data_cannot_fill_are_left_out(
    small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeps, "BATCHES", (8, 400))
    monkeypatch.setattr(sweeps, "DIMS", (4,))
    outcome, said = run(sweeps.EXPERIMENT, tmp_path, OPTIONS, monkeypatch)
    assert outcome.rows.values("batch") == ["8"]
    assert "batches up to 400" in said[0] and "openmoji,n=40" in said[0]
    by_text = dict(zip(sweeps.EXPERIMENT.claims, outcome.verdicts, strict=True))
    found = next(v for c, v in by_text.items() if "smallest batch" in c.text)
    assert found.status == UNDECIDED and "one batch alone: 8" in found.why


@pytest.mark.skipif(not COCO.exists(), reason="no COCO folder here")
def test_coco_carries_what_it_can(
    small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeps, "BATCHES", (8, 256))
    monkeypatch.setattr(sweeps, "DIMS", (4,))
    options = Options(data=f"coco:{COCO}", seeds=(1,), threads=1, model="tiny", workers=0)
    outcome, said = run(sweeps.EXPERIMENT, tmp_path, options, monkeypatch)
    assert outcome.rows.values("batch") == ["8"] and len(said) == 1


def grid(dim: float = 0.1, batch: float = 0.05, tau: float = 0.1, noise: float = 0.0) -> Rows:
    """Rows of a full grid, and of its corners with more seeds, with these slopes of the gap."""
    rng, rows = np.random.default_rng(0), Rows()
    for cell in sweeps.EXPERIMENT.cells(Options().first(6)):
        c = cell.config
        b, d, t, learned, seed = c.batch_size, c.dim, c.temperature, c.learn_temperature, c.seed
        condition = f"batch={b};learned={int(learned)};tau={t:g}"
        gap = 1 + dim * math.log2(d / 32) - batch * math.log2(b / 64) - tau * math.log10(t / 0.05)
        gap += noise * rng.standard_normal()
        for metric, value in (
            ("centroid_distance", gap), ("linear_separability", 0.5 + gap / 2),
            ("uniformity", gap - 4), ("text_retrieval_recall@1", 0.1),
        ):  # fmt: skip
            rows.append(
                Row("sweeps", "openmoji val", d, "clip", seed, metric, value, 0.01, condition)
            )
    return rows


def statuses(experiment: Experiment, rows: Rows) -> list[str]:
    return [claim.verdict(rows).status for claim in experiment.claims]


def test_claims_of_sweeps() -> None:
    assert statuses(sweeps.EXPERIMENT, grid()) == [REPRODUCED] * 5
    against = Rows(
        replace(r, value=-r.value)
        if r.metric == "uniformity" else r
        for r in grid(dim=-0.1, batch=-0.05, tau=-0.1)
    )  # fmt: skip
    found = statuses(sweeps.EXPERIMENT, against)
    assert found[:3] == [NOT_REPRODUCED] * 3 and found[4] == NOT_REPRODUCED
    unsure = grid(dim=0.001, batch=0.001, tau=0.001, noise=0.3)
    assert statuses(sweeps.EXPERIMENT, unsure)[:3] == [UNDECIDED] * 3
    assert set(statuses(sweeps.EXPERIMENT, Rows())) == {UNDECIDED}


def test_rank_correlation_is_scipys() -> None:
    rng = np.random.default_rng(0)
    a = rng.standard_normal(30)
    b = a + rng.standard_normal(30)
    found = claims.rank_correlation(a.tolist(), b.tolist())
    assert found.value == pytest.approx(stats.spearmanr(a, b).statistic)
    assert -1 < found.low < found.value < found.high < 1
    assert claims.rank_correlation([*range(9)], [*range(9)]).low < 1
    with pytest.raises(ValueError, match="too few"):
        claims.rank_correlation([1.0] * 9, [*range(9)])


def test_heat_maps_show_every_value() -> None:
    figures = sweeps.EXPERIMENT.draw(grid(), None)
    maps = [axes for axes in figures["sweeps"].axes if axes.images]
    assert len(maps) == 3 * 4
    assert [axes.get_title() for axes in maps[:4]] == [
        "τ = 0.01", "τ = 0.05", "τ = 0.2", "τ learned from 0.07",
    ]  # fmt: skip
    chosen = grid().where(metric="centroid_distance", learned=0, tau=0.01, seed=24)
    values = np.asarray(maps[0].images[0].get_array())
    for row in chosen:
        i, j = ("16", "64", "256").index(row.conditions["batch"]), (8, 32, 128).index(row.dim)
        assert values[i, j] == row.value
    lines = figures["sweeps-effects"].axes[0].lines
    mean = np.mean([r.value for r in grid().where(metric="centroid_distance", dim=8, seed=24)])
    assert lines[12].get_ydata()[0] == pytest.approx(mean)  # after a faint line a setting
    for figure in figures.values():
        figure.savefig(io.BytesIO(), format="png", dpi=50)


def test_ablation_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configure = cells.configure

    def short(**fields: object) -> object:
        more = {"batch_size": 20, "steps": 2, "warmup": 1, "eval_every": 2}
        return configure(**{**fields, **more})

    monkeypatch.setattr(cells, "configure", short)
    monkeypatch.setattr(ablation, "DIM", 8)
    assert set(ablation.PRESETS) == set(PRESETS)
    some = ("clip", "cu", "ca", "m2mix", "cua", "cuaxu", "siglip", "uaxu")
    assert [name for name in ablation.PRESETS if name in some] == list(some)
    monkeypatch.setattr(ablation, "PRESETS", ("clip", "cu", "cua"))
    monkeypatch.setattr(ablation, "WEIGHTS", (0.1, 1.0, 10.0))
    outcome, _ = run(ablation.EXPERIMENT, tmp_path, OPTIONS, monkeypatch)
    rows = outcome.rows
    assert rows.where(condition="").values("loss") == list(ablation.PRESETS)
    assert rows.where(metric=ablation.RETRIEVAL).values("weight") == [
        None, "0.1", "1", "10",
    ]  # fmt: skip
    one = rows.where(loss="cu")
    both = [one.one(metric=f"{way}_{ablation.RETRIEVAL}").value for way in ("text", "image")]
    assert one.one(metric=ablation.RETRIEVAL).value == pytest.approx(np.mean(both))
    assert len(ablation.EXPERIMENT.cells(OPTIONS)) == 6
    assert len(set(ablation.EXPERIMENT.cells(OPTIONS))) == 5  # weight 1 is cua
    assert len(list((tmp_path / "cells").glob("*.pt"))) == 6  # and what they start from


def test_ablation_shares_the_main_grid() -> None:
    options = Options()
    shared = set(cells.main_grid(options, dims=(128,)))
    own = set(ablation.EXPERIMENT.cells(options)) - shared
    assert shared <= set(ablation.EXPERIMENT.cells(options))
    assert len(own) == (len(PRESETS) - 3) * len(options.seeds) + 4


NUMBERS = {
    "clip": (0.75, 1.0, -2.0, -2.7, 0.8, 0.11),
    "cu": (0.4, 0.95, -3.4, -3.4, 1.2, 0.11),
    "ca": (0.5, 0.99, -1.5, -2.0, 0.4, 0.09),
    "cxu": (0.8, 1.0, -2.1, -3.0, 1.0, 0.10),
    "cua": (0.17, 0.77, -3.4, -3.4, 0.7, 0.12),
    "cuaxu": (0.25, 0.88, -3.5, -3.6, 0.8, 0.10),
    "uaxu": (0.10, 0.6, -3.7, -3.8, 0.7, 0.05),
}
KEYS = (*ablation.METRICS[:5], ablation.RETRIEVAL)


def presets(*, sign: float = 1.0, noise: float = 0.002) -> Rows:
    """Rows as expected; with another sign every difference from clip is turned round."""
    rng, rows = np.random.default_rng(0), Rows()
    for loss, numbers in NUMBERS.items():
        for seed in (24, 42, 44):
            for key, clip, value in zip(KEYS, NUMBERS["clip"], numbers, strict=True):
                number = clip + sign * (value - clip) + noise * rng.standard_normal()
                rows.append(Row("ablation", "o val", 128, loss, seed, key, number, 0.01))
    for weight in ablation.WEIGHTS:
        for key in KEYS:
            value = 0.5 - sign * 0.2 * math.log10(weight)
            rows.append(
                Row("ablation", "o val", 128, ablation.weighted(weight), 24, key, value, 0.01,
                    f"weight={weight:g}")
            )  # fmt: skip
    return rows


def test_claims_of_the_ablation() -> None:
    assert statuses(ablation.EXPERIMENT, presets()) == [REPRODUCED] * 9
    turned = statuses(ablation.EXPERIMENT, presets(sign=-1.0))
    assert [turned[k] for k in (0, 1, 2, 3, 4, 5, 7, 8)] == [NOT_REPRODUCED] * 8
    unsure = statuses(ablation.EXPERIMENT, presets(sign=0.001, noise=0.3))
    assert unsure[1:3] == [UNDECIDED] * 2
    assert statuses(ablation.EXPERIMENT, presets(sign=0.0, noise=0.02))[6] == UNDECIDED
    lost = Rows(
        replace(r, value=r.value / 2)
        if r.metric == ablation.RETRIEVAL and r.loss in ("cua", "cuaxu") else r
        for r in presets()
    )  # fmt: skip
    assert statuses(ablation.EXPERIMENT, lost)[6] == NOT_REPRODUCED
    assert set(statuses(ablation.EXPERIMENT, Rows())) == {UNDECIDED}


@pytest.mark.parametrize("module", [ablation, sweeps])
def test_rows_of_single_models_are_those_of_the_experiment(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(name: str, cell: Cell, context: Context, *, metrics: list, **more: str) -> Rows:
        return rows_of(name, cell.config, "val", dict.fromkeys(metrics, 0.5), **more)

    monkeypatch.setattr(module, "measured", measured)
    run = SimpleNamespace(history=[SimpleNamespace(temperature=0.1)])
    context = Context(Options(data="openmoji,n=300"), Path(), lambda cell: run, None)  # type: ignore
    experiment = module.EXPERIMENT
    whole = experiment.measure(context)
    parts = [
        experiment.of_cell(cell, context) for cell in experiment.distinct_cells(context.options)
    ]
    assert sorted(map(repr, whole)) == sorted(repr(row) for rows in parts for row in rows)


def test_front_is_what_nothing_beats() -> None:
    points = [(0.7, 0.2), (0.1, 0.1), (0.3, 0.3), (0.4, 0.25), (0.1, 0.05)]
    front = ablation.pareto(points)
    assert front == [1, 2]
    for k, (gap, recall) in enumerate(points):
        beaten = any(g <= gap and r >= recall and (g, r) != (gap, recall) for g, r in points)
        assert beaten == (k not in front)


def test_ablation_figures_show_the_rows() -> None:
    figures = ablation.EXPERIMENT.draw(presets(noise=0.0), None)
    left, middle, _ = figures["ablation"].axes
    front = left.lines[0]
    assert list(front.get_xdata()) == pytest.approx([0.10, 0.17])
    assert list(front.get_ydata()) == pytest.approx([0.05, 0.12])
    assert list(middle.lines[0].get_ydata()) == pytest.approx([0.7, 0.6046, 0.5, 0.4046, 0.3], 1e-3)
    effects = figures["ablation-effects"].axes
    shown = [line.get_xdata()[0] for line in effects[0].lines if line.get_marker() == "^"]
    assert shown == pytest.approx([0.4 - 0.75])
    for figure in figures.values():
        figure.savefig(io.BytesIO(), format="png", dpi=50)
