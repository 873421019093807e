"""Zero-shot and arithmetic as experiments: at toy size, on made-up rows, figures by their data."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from task_samples import few_images, folders, write_all

from geomkit.data.labelled.attributes import ATTRIBUTES
from geomkit.data.relations import MEAN
from geomkit.errors import GeomkitError
from geomkit.models.checkpoints import load_run
from geomkit.plots import Panel, Series, small_multiples
from geomkit.reproduce.experiments import arithmetic, zeroshot
from geomkit.reproduce.framework import cells as grid_cells
from geomkit.reproduce.framework.cells import LOSSES
from geomkit.reproduce.framework.claims import (
    NO_DIFFERENCE,
    NOT_REPRODUCED,
    REPRODUCED,
    UNDECIDED,
)
from geomkit.reproduce.framework.experiment import Cell, Context, Experiment, Options
from geomkit.reproduce.framework.figures import dot_of
from geomkit.reproduce.framework.grid import cell_path, train_cells
from geomkit.reproduce.framework.measuring import openmoji_with
from geomkit.reproduce.framework.results import Row, Rows, published, read_rows, write_rows

pytestmark = pytest.mark.usefixtures("trained_once")

COCO_MINI = Path(__file__).parents[3] / "shared" / "data" / "coco-mini"
TOY = Options(data="openmoji,n=40", model="nano", seeds=(1,), threads=1, workers=0)
NO_COCO = pytest.mark.skipif(not COCO_MINI.is_dir(), reason="no COCO folder here")


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps of sixteen pairs, eight dimensions, a tenth of the emoji."""
    shorten(monkeypatch)
    for module in (zeroshot, arithmetic):
        monkeypatch.setattr(module, "DIM", 8)
    monkeypatch.setattr(arithmetic, "STRENGTHS", (0.0, 1.0))
    monkeypatch.setattr(zeroshot, "DIMS", (8,))
    few_images(monkeypatch)


def shorten(monkeypatch: pytest.MonkeyPatch) -> None:
    real = grid_cells.cell_of

    def cell_of(options: Options, **given: object) -> Cell:
        made = real(options, **given)
        short = {"steps": 2, "warmup": 1, "batch_size": 16, "eval_every": 2}
        if made.start is None:
            short["model"] = "nano"
        return replace(made, config=replace(made.config, **short))

    monkeypatch.setattr(grid_cells, "cell_of", cell_of)


def context(folder: Path, cells: Path, options: Options, said: list[str]) -> Context:
    def nothing(cell: Cell, split: str) -> None:
        raise AssertionError("no embeddings of pairs are needed")

    return Context(
        options,
        folder,
        checkpoint=lambda cell: load_run(cell_path(cells, cell)),
        embeddings=nothing,
        say=said.append,
    )


def measured(
    experiment: Experiment, tmp_path: Path, options: Options
) -> tuple[Rows, Context, list]:
    said: list[str] = []
    cells = experiment.cells(options)
    train_cells(cells, tmp_path / "cells", options)
    folder = tmp_path / experiment.name
    folder.mkdir(exist_ok=True)
    found = context(folder, tmp_path / "cells", options, said)
    rows = experiment.measure(found)
    write_rows(tmp_path / "rows.csv", rows, overwrite=True)
    assert read_rows(tmp_path / "rows.csv").values("condition") == rows.values("condition")
    return rows, found, said


def drawn(figure) -> None:
    figure.savefig(io.BytesIO(), format="png", dpi=50)


def refuse_to_measure(monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> None:
    def never(*a: object, **k: object) -> None:
        raise AssertionError("measured twice")

    monkeypatch.setattr(module, "cell_model", never)


# zero-shot


def test_zero_shot_end_to_end(toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, found, said = measured(zeroshot.EXPERIMENT, tmp_path, TOY)
    assert rows.values("data")[0] == "openmoji,n=40,skin_tones=true val"
    classified = Rows(
        row
        for task in zeroshot.asked(TOY)
        for row in rows.where(metric=task.metric, task=task.name)
    )
    assert classified.values("task") == ["skin_tone", "gender", "flag", "group", "subgroup"]
    assert {row.loss for row in classified} == set(LOSSES) and len(classified) == 15
    assert rows.one(metric="classes", task="subgroup").value == 98
    assert rows.one(metric="emoji", task="skin_tone").value == 63
    for row in rows.where(metric=("class_variance_share", "within_one_recall")):
        assert 0 < row.value <= 1
    assert rows.where(metric="within_one_recall").values("task") == ["skin_tone"]
    assert all(0 <= row.value <= 1 and row.stderr >= 0 for row in classified)
    assert rows.one(metric="chance", task="skin_tone").value == 0.2
    assert rows.one(metric="smallest_class", task="keycap").value < zeroshot.LEAST
    assert any("keycap: left out" in text for text in said)
    for loss in LOSSES:
        values = [row.value for row in classified.where(loss=loss)]
        mean = rows.one(metric="zeroshot_mean", loss=loss, tasks="openmoji")
        assert mean.value == pytest.approx(np.mean(values))
    for figure in zeroshot.EXPERIMENT.draw(rows, found).values():
        drawn(figure)
    lines = zeroshot.by_variance(rows, dim=8).axes[1].lines
    share = rows.where(metric="class_variance_share", task="group")
    less = share.one(loss="cua").value - share.one(loss="clip").value
    assert less in [y for line in lines for y in line.get_ydata()]
    refuse_to_measure(monkeypatch, zeroshot)
    assert len(zeroshot.EXPERIMENT.measure(found)) == len(rows)  # a killed run goes on


def test_zero_shot_on_folders_of_the_users(
    toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zeroshot, "LOSSES", ("clip",))
    options = replace(TOY, tasks=(f"imagefolder:{folders(tmp_path / 'my=colours')}",))
    rows, _, _ = measured(zeroshot.EXPERIMENT, tmp_path, options)
    assert len(rows.where(metric="acc1", task="my_colours")) == 1
    given = rows.where(metric="zeroshot_mean", tasks="given")
    assert [row.value for row in given] == [
        row.value for row in rows.where(metric="acc1", task="my_colours")
    ]
    figure = zeroshot.by_task(rows, dim=8)
    assert len(figure.axes) == 4
    drawn(figure)


@NO_COCO
def test_models_of_other_data_are_asked_about_all_emoji(
    toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (zeroshot, arithmetic):
        monkeypatch.setattr(module, "LOSSES", ("cua",))
    options = replace(TOY, data=f"coco:{COCO_MINI}", quick=True)
    assert {t.split for t in zeroshot.asked(options)} == {"all"}
    rows, _, _ = measured(zeroshot.EXPERIMENT, tmp_path, options)
    assert rows.one(metric="smallest_class", task="keycap").value >= zeroshot.LEAST
    assert len(rows.where(metric="mean_per_class_recall", task="keycap")) == 1
    rows, _, _ = measured(arithmetic.EXPERIMENT, tmp_path, options)
    assert rows.values("data")[0].endswith(" all")
    assert len(rows.where(metric=MEAN, **{"lambda": "1"}, difference="words")) == 1


def mean_rows(gains: dict[str, float], *, tasks: str = "openmoji", seeds: int = 3) -> Rows:
    noise = np.random.default_rng(0).normal(0, 0.004, (len(LOSSES), seeds))
    return Rows(
        Row("zeroshot", "openmoji val", 128, loss, seed, "zeroshot_mean",
            0.4 + gains.get(loss, 0.0) + noise[k, seed], 0.02, f"tasks={tasks}")
        for k, loss in enumerate(LOSSES)
        for seed in range(seeds)
    )  # fmt: skip


def statuses(experiment: Experiment, rows: Rows, *, quick: bool = False) -> list[str]:
    return [claim.verdict(rows, quick=quick).status for claim in experiment.claims]


def test_claims_of_zero_shot() -> None:
    experiment = zeroshot.EXPERIMENT
    better = {"cua": 0.1, "cuaxu": 0.1}
    assert statuses(experiment, mean_rows(better)) == [REPRODUCED] * 2
    worse = mean_rows({"cua": -0.1, "cuaxu": 0.1})
    assert statuses(experiment, worse) == [NOT_REPRODUCED, REPRODUCED]
    assert statuses(experiment, worse, quick=True) == [UNDECIDED, REPRODUCED]
    assert statuses(experiment, mean_rows({})) == [NO_DIFFERENCE, UNDECIDED]
    assert statuses(experiment, Rows()) == [UNDECIDED] * 2
    # Data sets that were given go before the attributes.
    both = Rows([*worse, *mean_rows(better, tasks="given")])
    assert statuses(experiment, both) == [REPRODUCED] * 2
    verdict = experiment.claims[0].verdict(both)
    assert "the data sets given" in verdict.why
    assert "0.346 to 0.367" in experiment.claims[0].published
    assert "0.346 to 0.369" in experiment.claims[1].published


def test_the_figure_of_zero_shot_shows_the_rows() -> None:
    rows = Rows(
        Row("zeroshot", "o val", 128, loss, seed, "mean_per_class_recall", 0.3 + 0.1 * k, 0.01,
            "task=skin_tone")
        for k, loss in enumerate(LOSSES)
        for seed in (1, 2)
    )  # fmt: skip
    figure = zeroshot.by_task(rows)
    ours, theirs = figure.axes
    means = [line.get_ydata()[0] for line in ours.lines if line.get_label() in LOSSES]
    assert means == pytest.approx([0.3, 0.4, 0.5])
    assert [t.get_text() for t in theirs.get_xticklabels()][2] == "Caltech-101"
    hollow = [y for line in theirs.lines if line.get_label() in LOSSES for y in line.get_ydata()]
    assert sorted(hollow) == sorted(row.value for row in published("zero-shot").where(dim=128))
    drawn(figure)
    with pytest.raises(GeomkitError, match="nothing to draw"):
        zeroshot.by_task(Rows())


def test_the_mean_of_zero_shot_against_the_dimension() -> None:
    rows = Rows(
        replace(row, dim=dim, value=row.value + dim / 1000)
        for row in mean_rows({"cua": 0.1})
        for dim in (32, 64)
    )
    ours, theirs = zeroshot.by_dimension(rows).axes
    assert ours.get_title() == "geomkit: OpenMoji"
    courses = [line.get_ydata() for line in ours.lines if len(line.get_ydata()) == 2]
    assert len(courses) == 3 * len(LOSSES)  # of each loss the means and the caps of intervals
    assert [b - a for a, b in courses[::3]] == pytest.approx([0.032] * len(LOSSES))
    paper = published("zero-shot").where(dim=128, loss="clip")
    means = [y for line in theirs.lines for y in line.get_ydata()]
    assert any(y == pytest.approx(np.mean([r.value for r in paper])) for y in means)


def test_data_of_the_experiments() -> None:
    options = Options(data="openmoji,hold_out=bases,seed=2")
    assert openmoji_with(options, hold_out="relations") == "openmoji,hold_out=relations,seed=2"
    assert openmoji_with(Options(data="coco:/x,n=3"), skin_tones=True) == "coco:/x,n=3"
    for module in (zeroshot, arithmetic):
        for quick, cells, steps in ((False, 36, 150), (True, 3, 38)):
            made = module.EXPERIMENT.cells(Options(quick=quick))
            dims = {32, 64, 128} if module is zeroshot and not quick else {128}
            assert {c.config.dim for c in made} == dims
            assert len(set(made)) == cells * len(dims)
            assert {c.config.steps for c in made} == {steps}
    held_out = {c.config.data for c in arithmetic.EXPERIMENT.cells(options)}
    assert held_out == {"openmoji,hold_out=relations,seed=2,skin_tones=true"}
    assert zeroshot.asked(options)[0].spec.endswith(",skin_tones=true,seed=2")
    twice = zeroshot.asked(Options(tasks=("cifar10:/a", "cifar10:/b")))
    assert [t.name for t in twice if t.given] == ["cifar10", "cifar10-2"]
    assert {t.name for t in twice if not t.given} == set(ATTRIBUTES)


# arithmetic


def test_arithmetic_end_to_end(toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = replace(TOY, simat=str(write_all(tmp_path / "SIMAT")))
    rows, found, _ = measured(arithmetic.EXPERIMENT, tmp_path, options)
    curve = rows.where(metric="acc1", difference="words", loss="cua")
    assert [row.conditions["lambda"] for row in curve] == ["0", "1"]
    assert len(rows.where(metric="simat_score", **{"lambda": "1"})) == 3
    assert rows.one(metric="chance", of="simat_score").value == pytest.approx(100 / 3)
    assert rows.one(metric="queries", of="acc1").value > 50
    own = [m for m in rows.values("metric") if m.startswith("acc1_") and "@" not in m]
    for loss in LOSSES:
        each = [rows.one(metric=m, loss=loss, condition="").value for m in own]
        mean = rows.one(metric=MEAN, loss=loss, difference="words", **{"lambda": "1"})
        assert len(each) > 1 and mean.value == pytest.approx(np.mean(each))
    for wanted in filter(None, rows.values("wanted")):
        shares = rows.where(loss="clip", wanted=wanted)
        assert sum(row.value for row in shares) == pytest.approx(1.0)
    figures = arithmetic.EXPERIMENT.draw(rows, found)
    assert set(figures) == {"arithmetic", "arithmetic-confusion", "arithmetic-examples"}
    for figure in figures.values():
        drawn(figure)
    refuse_to_measure(monkeypatch, arithmetic)
    assert len(arithmetic.EXPERIMENT.measure(found)) == len(rows)


def score_rows(
    gains: dict[str, float], *, metric: str = MEAN, condition: str = "difference=words;lambda=1"
) -> Rows:
    noise = np.random.default_rng(1).normal(0, 0.004, (len(LOSSES), 3))
    return Rows(
        Row("arithmetic", "openmoji val", 128, loss, seed, metric,
            0.3 + gains.get(loss, 0.0) + noise[k, seed], 0.02, condition)
        for k, loss in enumerate(LOSSES)
        for seed in range(3)
    )  # fmt: skip


def test_claims_of_arithmetic() -> None:
    experiment = arithmetic.EXPERIMENT
    good, bad = {"cua": 0.1, "cuaxu": 0.1}, {"cua": -0.1, "cuaxu": -0.1}
    assert statuses(experiment, score_rows(good)) == [REPRODUCED] * 2
    assert statuses(experiment, score_rows(bad)) == [NOT_REPRODUCED] * 2
    assert statuses(experiment, score_rows(bad), quick=True) == [UNDECIDED] * 2
    assert statuses(experiment, score_rows({})) == [NO_DIFFERENCE] * 2
    assert statuses(experiment, Rows()) == [UNDECIDED] * 2
    # Only the words' difference at λ = 1 counts, and SIMAT itself before OpenMoji.
    other = score_rows(good, condition="difference=names;lambda=1")
    assert statuses(experiment, Rows([*other, *score_rows(bad)])) == [NOT_REPRODUCED] * 2
    simat = score_rows(good, metric="simat_score", condition="lambda=1")
    both = Rows([*simat, *score_rows(bad)])
    assert statuses(experiment, both) == [REPRODUCED] * 2
    assert "SIMAT" in experiment.claims[0].verdict(both).why
    assert "35.6 to 42.5 at d = 128" in experiment.claims[0].published


def test_figures_of_arithmetic_show_the_rows() -> None:
    rows = Rows()
    for k, loss in enumerate(LOSSES):
        for seed in (1, 2):
            run = ("arithmetic", "o val", 128, loss, seed)
            for strength in ("0", "0.5", "1"):
                for kind in ("words", "names"):
                    value = 0.1 * (k + 1) * float(strength)
                    rows.append(
                        Row(*run, MEAN, value, 0.01, f"difference={kind};lambda={strength}")
                    )
            for name in ("acc1_skin_tone", "acc1_hair"):
                rows.append(Row(*run, name, 0.2 + k / 10, 0.01))
            for found, share in (("a skin tone", 0.7), ("another emoji", 0.3)):
                condition = f"attribute=skin_tone;found={found};wanted=a skin tone"
                rows.append(Row(*run, "taken_for@a skin tone", share, condition=condition))
    figure = arithmetic.curves(rows, dim=128)
    words = figure.axes[0]
    for k, loss in enumerate(LOSSES):
        line = next(line for line in words.lines if line.get_label() == loss)
        np.testing.assert_allclose(line.get_xdata(), [0, 0.5, 1])
        np.testing.assert_allclose(line.get_ydata(), 0.1 * (k + 1) * np.array([0, 0.5, 1]))
    relations = figure.axes[2]
    assert [t.get_text() for t in relations.get_xticklabels()] == ["skin tone", "hair"]
    cua = next(line for line in relations.lines if line.get_label() == "cua")
    np.testing.assert_allclose(cua.get_ydata(), 0.3)
    drawn(figure)
    table = arithmetic.confusion(rows)
    np.testing.assert_allclose(table.axes[0].images[0].get_array(), [[0.7, 0.3]])
    drawn(table)
    for draw in (arithmetic.confusion, lambda r: arithmetic.curves(r, dim=128)):
        with pytest.raises(GeomkitError, match="nothing to draw"):
            draw(Rows())
    with pytest.raises(GeomkitError, match="no examples"):
        arithmetic.examples([])


def test_dots_and_their_intervals() -> None:
    run = ("e", "d", 128, "clip")
    mean = dot_of([Row(*run, s, "m", v, 0.1) for s, v in enumerate((0.9, 1.0, 1.1))], most=1.05)
    assert mean is not None and mean.value == pytest.approx(1.0)
    assert mean.low == pytest.approx(1.0 - 4.303 * 0.1 / np.sqrt(3), abs=1e-4)
    assert mean.high == 1.05 and len(mean.each) == 3
    one = dot_of([Row(*run, 0, "m", 0.5, 0.1)])
    assert one is not None and one.low == pytest.approx(0.5 - 1.96 * 0.1, abs=1e-4)
    bare = dot_of([Row(*run, 0, "m", 0.5)])
    assert bare is not None and np.isnan(bare.low)
    theirs = dot_of([Row(*run, -1, "m", 0.5, 0.1)])
    assert theirs is not None and theirs.high == pytest.approx(0.5 + 4.303 * 0.1 / np.sqrt(2))
    assert dot_of([]) is None and dot_of([Row(*run, 0, "m", np.nan)]) is None
    with pytest.raises(GeomkitError, match="nothing to draw"):
        small_multiples([Panel([Series("clip", [0], [np.nan])], categories=["a"])])
