"""What else was blamed for the gap: measured at toy size, drawn, and judged on made-up rows."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from geomkit.embeddings.embeddings import Embeddings
from geomkit.plots import save_figure
from geomkit.reproduce import Cell, Context, Options, Row, Rows
from geomkit.reproduce.controls import control
from geomkit.reproduce.experiments import cause_runs, causes
from geomkit.reproduce.framework.claims import NOT_REPRODUCED, REPRODUCED, UNDECIDED
from geomkit.training.config import RECIPES, TrainConfig
from tests.conftest import clouds
from tests.samples import layout

pytestmark = pytest.mark.usefixtures("trained_once")

CLAIMS = causes.EXPERIMENT.claims


def trained(folder: Path, options: Options) -> Context:
    """A context whose cells were trained: made-up histories and clouds that are apart."""

    def checkpoint(cell: Cell) -> Any:
        every = max(1, cell.config.steps // 2)
        metrics = {"centroid_distance": 0.7, "linear_separability": 0.99}
        history = [
            SimpleNamespace(step=step, split="val", metrics=metrics)
            for step in (0, every, cell.config.steps)
        ]
        return SimpleNamespace(history=history)

    def embeddings(cell: Cell, split: str) -> Embeddings:
        assert split == "val"
        return Embeddings.of(*clouds(40, 8, shift=8.0, seed=cell.config.seed))

    return Context(options, folder, checkpoint=checkpoint, embeddings=embeddings)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    short = {"pairs": 32, "batch_size": 16, "steps": 4, "warmup": 1, "eval_every": 2}
    monkeypatch.setitem(RECIPES, "standard", short)
    monkeypatch.setattr(cause_runs, "ENCODER_STEPS", 4)
    monkeypatch.setattr(cause_runs, "INITIALISATIONS", 2)
    monkeypatch.setattr(control, "MAX_PAIRS", 40)


def test_the_experiment_end_to_end(
    toy: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = trained(tmp_path, Options(model="nano", seeds=(1,), device="cpu"))
    rows = causes.EXPERIMENT.measure(here)
    assert rows.values("cause") == ["cone", "mismatch", "training", "encoders", "start"]
    assert rows.where(cause="cone").values("seed") == [0, 1]
    assert rows.where(cause="start").values("loss") == ["clip", "cua"]
    assert not rows.where(metric="left_out")
    # What is kept is not made again.
    monkeypatch.setattr(cause_runs, "initial_rows", None)
    monkeypatch.setattr(control, "_trained", None)
    # As text: a number that is not known does not equal itself.
    assert list(map(repr, causes.EXPERIMENT.measure(here))) == list(map(repr, rows))
    for name, figure in causes.EXPERIMENT.draw(rows, here).items():
        save_figure(figure, tmp_path / f"{name}.png")
    statuses = [claim.verdict(rows).status for claim in CLAIMS]
    assert statuses[2] == statuses[3] == REPRODUCED, "of the made-up cells"


def test_any_data_will_do(toy: None, tmp_path: Path) -> None:
    root = layout(tmp_path / "coco", "2017", {"train": 30, "val": 12})
    options = Options(data=f"coco:{root}", model="nano", seeds=(1,), quick=True, device="cpu")
    here = trained(tmp_path, options)
    rows = causes.EXPERIMENT.measure(here)
    assert rows.where(cause="encoders").values("encoders") == ["copied", "shared"]
    assert not rows.where(cause="mismatch", pairs="mismatched")  # no claim is about them
    causes.EXPERIMENT.draw(rows, here)


def test_random_weights_are_the_seeds_own() -> None:
    config = TrainConfig(model="nano", dim=8, seed=3)
    rows = cause_runs.initial_rows(config)
    assert rows == cause_runs.initial_rows(config)
    assert [row.metric for row in rows] == [
        "centroid_distance", "linear_separability", "intra_cosine_image", "intra_cosine_text",
    ]  # fmt: skip
    assert rows.one(metric="intra_cosine_image").value > 0.5


def test_the_long_run_is_three_times_as_long() -> None:
    for options in (Options(), Options(quick=True)):
        *usual, long = (cell.config for cell in causes.EXPERIMENT.cells(options))
        assert {c.steps for c in usual} == {long.steps // 3}
        assert (long.loss, long.seed) == ("clip", 24)
    assert causes.EXPERIMENT.seconds(Options(quick=True)) < causes.EXPERIMENT.seconds(Options()) / 2


def synthetic(**changes: float) -> Rows:
    """Rows as the paper would have them, but for what is changed."""
    truth = {
        "cosine": 0.9, "initial": 1.0, "matched": 1.0, "long": 0.7, "long_apart": 1.0,
        "copied": 0.5, "shared": 0.1, "back": 0.6, "back_apart": 1.0, "kept": 0.1, "noise": 0.001,
        **changes,
    }  # fmt: skip
    rows = Rows()

    def add(cause: str, metric: str, value: float, *, loss: str = "clip", seeds=(1,)) -> None:
        rng = np.random.default_rng(len(rows))
        for seed in seeds:
            noisy = value + truth["noise"] * rng.standard_normal()
            rows.append(Row("causes", "openmoji val", 128, loss, seed, metric, noisy,
                            truth["noise"], f"cause={cause}"))  # fmt: skip

    for side in ("image", "text"):
        add("cone", f"intra_cosine_{side}", truth["cosine"], seeds=range(5))
    add("cone", "linear_separability", truth["initial"], seeds=range(5))
    add("cone", "centroid_distance", 1.1, seeds=range(5))
    three = (24, 42, 44)
    add("mismatch;pairs=matched", "linear_separability", truth["matched"], seeds=three)
    for loss, end in (("clip", 0.75), ("cua", 0.2)):
        for step, value in ((0, 1.2), (600, end)):
            where = f"training;run=standard;step={step}"
            add(where, "centroid_distance", value, loss=loss, seeds=three)
            add(where, "linear_separability", 1.0, loss=loss, seeds=three)
    for step in (0, 1800):
        add(f"training;run=long;step={step}", "centroid_distance", truth["long"], seeds=(24,))
        add(f"training;run=long;step={step}", "linear_separability", truth["long_apart"],
            seeds=(24,))  # fmt: skip
    for step in (0, 200):
        for encoders in ("separate", "copied", "shared"):
            value = truth.get(encoders, 0.8) if step else 0.1
            for metric in cause_runs.METRICS:
                where = f"encoders;encoders={encoders};views=two;step={step}"
                add(where, metric, value, seeds=(24,))
    for loss, key in (("clip", "back"), ("cua", "kept")):
        for step in (0, 600):
            where = f"start;gap=closed;step={step}"
            value = truth[key] if step else 0.01
            add(where, "centroid_distance", value, loss=loss, seeds=(24,))
            add(where, "linear_separability", truth["back_apart"] if step else 0.5, loss=loss,
                seeds=(24,))  # fmt: skip
    return rows


@pytest.mark.parametrize(
    ("changes", "denied"),
    [
        ({}, []),
        ({"cosine": 0.2}, [0]),
        ({"initial": 0.7}, [1]),
        ({"matched": 0.8}, [2]),
        ({"long": 0.2}, [3]),
        ({"long_apart": 0.7}, [3]),
        ({"copied": 0.05}, [4]),
        ({"back_apart": 0.6}, [5]),
        ({"kept": 0.5}, [6]),
    ],
)
def test_claims_where_they_hold_and_where_not(changes: dict, denied: list[int]) -> None:
    statuses = [claim.verdict(synthetic(**changes)).status for claim in CLAIMS]
    expected = [NOT_REPRODUCED if k in denied else REPRODUCED for k in range(len(CLAIMS))]
    assert statuses == expected


def test_claims_are_undecided_by_noise_and_by_nothing() -> None:
    assert {claim.verdict(Rows()).status for claim in CLAIMS} == {UNDECIDED}
    assert CLAIMS[4].verdict(synthetic(copied=0.15, noise=0.1)).status == UNDECIDED
    assert CLAIMS[5].verdict(synthetic(back=0.004)).status == NOT_REPRODUCED
    quick = [claim.verdict(synthetic(long=0.2), quick=True).status for claim in CLAIMS]
    assert quick[3] == UNDECIDED


def test_figures_show_their_rows() -> None:
    rows = synthetic(noise=0.0)
    figure = causes.by_cause(rows)
    place = {
        (axes.get_subplotspec().rowspan.start, axes.get_subplotspec().colspan.start): axes
        for axes in figure.axes
    }
    closed = [tuple(line.get_ydata()) for line in place[0, 3].lines]
    assert (0.01, 0.6) in closed and (0.01, 0.1) in closed and (1.2, 0.75) in closed
    assert (0.1, 0.5) in [tuple(line.get_ydata()) for line in place[0, 2].lines]
    assert (0.7, 0.7) in [tuple(line.get_ydata()) for line in place[0, 1].lines]
    cone = causes.cones(rows).axes[0]
    drawn = [float(np.mean(dots.get_offsets()[:, 1])) for dots in cone.collections]
    assert drawn == pytest.approx([0.9, 0.9, 1.1, 1.0])
