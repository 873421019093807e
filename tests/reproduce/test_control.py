"""Controls: views, the closing map, the loop; the idealised control's rows, figure and claims."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from geomkit.errors import GeomkitError
from geomkit.models.preprocess import Preprocess
from geomkit.plots import save_figure
from geomkit.reproduce import Context, Options, Row, Rows
from geomkit.reproduce.controls import control
from geomkit.reproduce.controls.control import Control, control_steps, run_control
from geomkit.reproduce.controls.control_rows import last_step
from geomkit.reproduce.controls.towers import build_towers
from geomkit.reproduce.controls.views import load_views
from geomkit.reproduce.experiments import idealized
from geomkit.reproduce.framework.claims import NOT_REPRODUCED, REPRODUCED, UNDECIDED
from geomkit.training.config import TrainConfig, configure
from geomkit.training.loop import train
from tests.samples import layout

SMALL = {"model": "nano", "pairs": 48, "batch_size": 16, "steps": 6, "warmup": 2, "eval_every": 3}
PREPROCESS = Preprocess(32)


def small(**changes) -> TrainConfig:
    return configure(**{"dim": 16, "recipe": "standard", **SMALL, **changes})


def views(spec: str, first: str, second: str, **options):
    return load_views(spec, first, second, split="train", preprocess=PREPROCESS, **options)


def context(folder: Path, **options) -> Context:
    def none(*_):
        raise AssertionError("no trained cell is needed")

    return Context(Options(**options), folder, checkpoint=none, embeddings=none)


# ---------------------------------------------------------------------------------- views


def test_the_same_view_twice_is_the_data_as_it_is() -> None:
    found = views("openmoji", "picture", "picture", pairs=20)
    assert len(found) == 20 and np.array_equal(found.first, found.second)
    assert np.array_equal(found.first, found.data.pixels())
    names = views("openmoji", "name", "name", pairs=20)
    assert names.first == names.second == names.data.names


def test_an_outline_is_the_drawing_without_its_colours() -> None:
    found = views("openmoji", "picture", "other picture", pairs=40)
    assert found.first.shape == found.second.shape == (len(found), 32, 32, 3)
    spread = found.second.max(axis=-1).astype(int) - found.second.min(axis=-1)
    assert spread.max() <= 8, "outlines are grey"
    assert (found.first.astype(int).max(-1) - found.first.min(-1)).max() > 100
    # Where the outline is dark the drawing is dark too, unless a colour lies over it.
    dark = found.second.max(axis=-1) < 60
    assert dark.any() and np.median(found.first.max(axis=-1)[dark]) < 80
    keys = {picture.tobytes() for picture in found.second}
    assert len(keys) == len(found), "flags of one outline are left out"


def test_names_in_two_languages_belong_to_one_thing() -> None:
    found = views("openmoji", "name", "other name", pairs=60)
    pairs = dict(zip(found.first, found.second, strict=True))
    assert len(pairs) == len(set(pairs.values())) == len(found) > 40
    whole = views("openmoji", "name", "other name")
    assert dict(zip(whole.first, whole.second, strict=True))["ewe"] == "schaf"


def test_other_data_have_half_sizes_and_second_captions(tmp_path: Path) -> None:
    root = layout(tmp_path / "coco", "2017", {"train": 20, "val": 10})
    found = views(f"coco:{root}", "picture", "other picture")
    blocks = found.first.reshape(len(found), 16, 2, 16, 2, 3).mean(axis=(2, 4))
    assert np.abs(found.second[:, ::2, ::2] - blocks).max() <= 0.5
    assert np.array_equal(found.second[:, ::2], found.second[:, 1::2])
    captions = views(f"coco:{root}", "name", "other name")
    assert captions.second == [texts[1] for texts in captions.data.captions]


def test_data_without_a_view_say_so(tmp_path: Path) -> None:
    with pytest.raises(GeomkitError, match="0 of 1481 pairs have a name and another name"):
        views("openmoji,language=fr", "name", "other name")
    with pytest.raises(GeomkitError, match="unknown view 'sound'"):
        views("openmoji", "sound", "name")


# ----------------------------------------------------------------------------------- loop


def test_nothing_set_by_hand_is_an_ordinary_training(tmp_path: Path) -> None:
    config = small()
    trained = train(config, tmp_path / "ckpt.pt", device="cpu").history
    records = run_control(Control(config, "picture", "name"), tmp_path / "work", device="cpu")
    for ours, theirs in ((records[0], trained[0]), (records[-1], trained[-1])):
        assert ours.step == theirs.step
        for name in control.METRICS:
            assert ours.val.metrics[name] == pytest.approx(theirs.metrics[name], rel=1e-4)
        assert ours.val.metrics["contrastive_loss"] == pytest.approx(theirs.loss, rel=1e-4)


def test_killed_and_gone_on_with_equals_uninterrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Control(small(), closed=True)
    whole = run_control(one, tmp_path / "whole")
    real, calls = control.finite_terms, []

    def kill(*args, **options):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return real(*args, **options)

    monkeypatch.setattr(control, "finite_terms", kill)
    with pytest.raises(KeyboardInterrupt):
        run_control(one, tmp_path / "killed")
    torch.manual_seed(99)  # what the process did before must not matter
    assert run_control(one, tmp_path / "killed") == whole
    assert len(calls) < 5 + len(control_steps(6)), "what was measured is not trained again"
    calls.clear()
    assert run_control(one, tmp_path / "killed") == whole
    assert not calls, "a finished control is read"
    assert [path.suffix for path in (tmp_path / "killed").iterdir()] == [".json"]
    assert json.loads(next((tmp_path / "killed").iterdir()).read_text())["schema_version"] == 1


def test_the_gap_is_closed_before_training_and_left_open_otherwise(tmp_path: Path) -> None:
    closed = run_control(Control(small(), closed=True), tmp_path)[0].train.metrics
    open_ = run_control(Control(small()), tmp_path)[0].train.metrics
    assert closed["centroid_distance"] < 0.1 < 0.5 < open_["centroid_distance"]
    assert closed["alignment"] < open_["alignment"]


def test_copied_encoders_on_one_input_stay_one(tmp_path: Path) -> None:
    copied, apart = (
        {r.step: r.train.metrics["alignment"] for r in run_control(Control(small(), encoders=how),
                                                                   tmp_path)}
        for how in ("copied", "separate")
    )  # fmt: skip
    # A CPU may round two equal products differently, and training makes more of it: a hundred
    # times a step and more. In three steps rounding cannot come near what other weights make.
    assert copied[0] == 0.0 and max(copied[step] for step in (1, 2, 3)) < 1e-4 < 0.1 < apart[3]


def test_shared_encoders_have_one_set_of_weights() -> None:
    from geomkit.models.architectures import model_config

    architecture = model_config("nano", dim=8)
    counts = {
        encoders: sum(
            p.numel()
            for p in build_towers(
                "picture", "other picture", architecture, encoders=encoders, temperature=0.07
            ).parameters()
        )
        for encoders in ("shared", "copied", "separate")
    }
    assert counts["copied"] == counts["separate"] == 2 * counts["shared"]
    with pytest.raises(GeomkitError, match="cannot share weights"):
        build_towers("picture", "name", architecture, encoders="shared", temperature=0.07)
    with pytest.raises(GeomkitError, match="unknown encoders"):
        build_towers("name", "name", architecture, encoders="twins", temperature=0.07)


def test_mismatched_partners_are_the_next_ones(tmp_path: Path) -> None:
    # On one picture twice a fresh pair of copies puts right partners at distance 0, wrong ones not.
    config = small(steps=1)
    right = run_control(Control(config, encoders="copied"), tmp_path)[0]
    wrong = run_control(Control(config, encoders="copied", mismatched=True), tmp_path)[0]
    assert right.train.metrics["alignment"] < 1e-9
    assert wrong.train.metrics["alignment"] > 1e-5
    for name in ("centroid_distance", "uniformity"):
        assert wrong.train.metrics[name] == pytest.approx(right.train.metrics[name], abs=1e-6)


# -------------------------------------------------------------------------- the experiment


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idealized, "STEPS", 4)
    monkeypatch.setattr(control, "MAX_PAIRS", 40)


def test_the_experiment_end_to_end(toy: None, tmp_path: Path) -> None:
    here = context(tmp_path, model="nano", seeds=(1, 2), device="cpu")
    rows = idealized.EXPERIMENT.measure(here)
    assert {row.metric for row in rows} == {*control.METRICS, "contrastive_loss"}
    assert rows.values("control") == ["pictures", "two-pictures", "names", "two-names"]
    main = rows.where(control="pictures", gap="closed", loss="clip", schedule="constant", step=4)
    assert main.values("seed") == [1, 2] and main.values("data") == [
        "openmoji train",
        "openmoji val",
    ]
    assert rows.where(control="pictures", gap="open").values("seed") == [1]
    assert all(math.isfinite(row.stderr) for row in rows if row.metric == "linear_separability")
    assert idealized.EXPERIMENT.measure(here) == rows
    figure = idealized.EXPERIMENT.draw(rows, here)["idealized"]
    save_figure(figure, tmp_path / "idealized.png")
    for claim in idealized.EXPERIMENT.claims:
        assert claim.verdict(rows).status in (REPRODUCED, NOT_REPRODUCED, UNDECIDED)
    # Four steps bring no loss to zero, and the report has to say so.
    assert idealized.EXPERIMENT.claims[2].verdict(rows).status == NOT_REPRODUCED
    assert idealized.EXPERIMENT.claims[2].verdict(rows, quick=True).status == UNDECIDED


def test_data_that_lack_a_view_leave_a_reason(
    toy: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idealized, "RUNS", (idealized.MAIN, idealized.OTHERS[-1]))
    root = layout(tmp_path / "coco", "2017", {"train": 20, "val": 10})
    said: list[str] = []
    here = context(tmp_path, data=f"coco:{root},captions=1", model="nano", seeds=(1,))
    here.say = said.append
    rows = idealized.EXPERIMENT.measure(here)
    (row,) = rows.where(metric="left_out")
    assert "another name" in row.conditions["reason"] and row.conditions["control"] == "two-names"
    assert any("left out" in line for line in said)
    figure = idealized.by_step(rows)
    texts = " ".join(t.get_text() for axes in figure.axes for t in axes.texts)
    assert "another" in texts
    save_figure(figure, tmp_path / "idealized.png")


def synthetic(start: dict[str, float], end: dict[str, float], *, noise: float = 0.002) -> Rows:
    rng = np.random.default_rng(0)
    return Rows(
        Row("idealized", "openmoji train", 128, "clip", seed, name,
            value + noise * rng.standard_normal(), noise,
            f"control={run};gap=closed;schedule=constant;step={step}")
        for run in ("pictures", "two-pictures", "names", "two-names")
        for seed in ((1, 2, 3) if run == "pictures" else (1,))
        for step, values in ((0, start), (100, end))
        for name, value in values.items()
    )  # fmt: skip


START = {"contrastive_loss": 4.8, "centroid_distance": 0.01, "linear_separability": 0.5}


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        ((0.02, 0.06, 0.99), [REPRODUCED] * 7),
        ((1.2, 0.005, 0.52), [REPRODUCED] * 2 + [NOT_REPRODUCED] * 5),
        ((0.02, 0.3, 0.8), [REPRODUCED] * 5 + [NOT_REPRODUCED, REPRODUCED]),
    ],
)
def test_claims_where_they_hold_and_where_not(end: tuple, expected: list[str]) -> None:
    rows = synthetic(START, dict(zip(START, end, strict=True)), noise=0.0005)
    assert [c.verdict(rows).status for c in idealized.EXPERIMENT.claims] == expected


def test_claims_are_undecided_by_noise_and_by_nothing() -> None:
    noisy = synthetic(START, {**START, "centroid_distance": 0.03}, noise=0.2)
    assert {c.verdict(noisy).status for c in idealized.EXPERIMENT.claims[:2]} == {UNDECIDED}
    assert {c.verdict(Rows()).status for c in idealized.EXPERIMENT.claims} == {UNDECIDED}


def test_the_figure_shows_its_rows_and_the_papers_points() -> None:
    end = {"contrastive_loss": 0.1, "centroid_distance": 0.2, "linear_separability": 0.9}
    rows = synthetic(START, end, noise=0.0)
    figure = idealized.by_step(rows)
    grid = {axes.get_subplotspec().rowspan.start: axes for axes in figure.axes
            if axes.get_subplotspec().colspan.start == 0}  # fmt: skip
    for line, metric in enumerate(idealized.SHOWN):
        drawn = [tuple(curve.get_ydata()) for curve in grid[line].lines]
        assert any(found == pytest.approx((START[metric], end[metric])) for found in drawn)
    marks = {y for curve in grid[1].lines if curve.get_marker() == "D" for y in curve.get_ydata()}
    assert marks == {0.0, 0.06}
    assert last_step(rows) == "100"
