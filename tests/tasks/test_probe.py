"""Linear probe: what it can and cannot read, and that the test part stays unseen."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from geomkit.data.labelled import load_parts
from geomkit.errors import GeomkitError
from geomkit.models.architectures import model_config
from geomkit.models.checkpoints import Checkpoint
from geomkit.models.preprocess import Preprocess
from geomkit.models.tokenizers import Tokenizer
from geomkit.models.two_encoder import build
from geomkit.tasks import fit_probe, probe
from geomkit.tasks.scores import score


def clusters(per_class: int, classes: int = 3, d: int = 4, *, seed: int = 0, spread: float = 0.1):
    rng = np.random.default_rng(seed)
    centres = np.eye(d)[:classes]
    labels = np.repeat(np.arange(classes), per_class)
    rows = centres[labels] + spread * rng.standard_normal((len(labels), d))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True), labels


def result_on(fitted, rows, labels, classes: int):
    return score([(fitted.scores(rows, classes), labels)], classes)


@pytest.mark.parametrize("classes", [2, 3])
def test_separable_clusters_are_told_apart(classes: int) -> None:
    fitted = fit_probe(*clusters(20, classes))
    found = result_on(fitted, *clusters(30, classes, seed=1), classes)
    assert found.metrics["acc1"] == found.metrics["mean_per_class_recall"] == 1.0
    assert fitted.converged and fitted.chosen and fitted.folds == 5


def test_shuffled_labels_are_at_chance() -> None:
    rng = np.random.default_rng(2)
    rows, labels = rng.standard_normal((200, 4)), np.repeat(np.arange(4), 50)
    test_labels = rng.permutation(np.repeat(np.arange(4), 100))
    found = result_on(fit_probe(rows, rng.permutation(labels)), rng.standard_normal((400, 4)),
                   test_labels, 4)  # fmt: skip
    assert abs(found.metrics["acc1"] - 0.25) < 3 * found.stderr["acc1"]


def test_the_fit_is_the_regression_it_says() -> None:
    """At the optimum the gradient of ½‖W‖² + C Σ log-loss is zero, on standardised rows."""
    rows, labels = clusters(15, spread=0.6)
    C = 0.7
    fitted = fit_probe(rows, labels, C=C)
    z = (rows - rows.mean(axis=0)) / rows.std(axis=0)
    weights = fitted.model[-1].coef_
    scores = fitted.scores(rows, 3)
    np.testing.assert_allclose(scores, z @ weights.T + fitted.model[-1].intercept_, atol=1e-10)
    p = np.exp(scores - scores.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    gradient = weights + C * (p - np.eye(3)[labels]).T @ z
    assert np.abs(gradient).max() < 0.02 * C * len(labels) / 3
    assert not fitted.chosen and fitted.cross_validation == {}


def test_C_is_the_best_of_the_grid_and_its_neighbours() -> None:
    rows, labels = clusters(15, spread=0.9)
    fitted = fit_probe(rows, labels)
    tried = fitted.cross_validation
    assert {1e-6, 1e-4, 1e-2, 1.0, 1e2, 1e4, 1e6} <= set(tried)
    best = max(tried.values())
    assert min(c for c, a in tried.items() if a == best) == fitted.C
    steps = {round(np.log10(c), 6) for c in tried}
    assert any(step % 1 == 0.5 for step in steps) and max(map(abs, steps)) <= 6


def test_a_class_without_training_pictures_counts_as_missed() -> None:
    rows, labels = clusters(20)
    seen = labels < 2
    fitted = fit_probe(rows[seen], labels[seen], C=1.0)
    found = result_on(fitted, rows, labels, 3)
    assert found.recall.tolist() == [1.0, 1.0, 0.0]
    assert found.confusion[:, 2].tolist() == [0, 0, 0]


def test_few_pictures() -> None:
    rows, labels = clusters(3, 2)
    assert fit_probe(rows, labels).folds == 3
    uneven = np.array([0, 1, 2, 3])  # one class with a single picture
    assert set(fit_probe(rows[uneven], labels[uneven]).classes) == {0, 1}
    with pytest.raises(GeomkitError, match="one image per class"):
        fit_probe(rows[[0, 3]], labels[[0, 3]])
    with pytest.raises(GeomkitError, match="two classes"):
        fit_probe(rows[:3], labels[:3])
    for wrong in (0.0, -1.0, float("nan")):
        with pytest.raises(GeomkitError, match="positive"):
            fit_probe(rows, labels, C=wrong)
    for seed in (-1, 2**32):
        with pytest.raises(GeomkitError, match="seed: expected 0 to"):
            fit_probe(rows, labels, seed=seed)


def test_a_fit_cut_short_says_so() -> None:
    rows, labels = clusters(15, spread=0.9)
    assert not fit_probe(rows, labels, C=1e6, max_iterations=2).converged


# on pictures


def tiny() -> Checkpoint:
    config = model_config("nano", dim=16)
    torch.manual_seed(0)
    return Checkpoint(
        build(config).eval(), "geomkit", "tiny.pt", config, Preprocess.for_model(config),
        Tokenizer.for_model(config),
    )  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from PIL import Image

    folder = tmp_path_factory.mktemp("pictures")
    for label, name in enumerate(("dark", "light")):
        (folder / name).mkdir()
        for i in range(10):
            pixels = np.random.default_rng(i).integers(0, 60, (16, 16, 3)) + 180 * label
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{i}.png")
    return folder


def test_the_test_part_changes_nothing_but_its_score(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted_on = []

    def watched(rows, labels, **options):
        fitted_on.append((rows.copy(), labels.copy()))
        return fit_probe(rows, labels, **options)

    monkeypatch.setattr(sys.modules["geomkit.tasks.probe"], "fit_probe", watched)
    loaded = tiny()
    train, test = load_parts(f"imagefolder:{root}", preprocess=loaded.preprocess)
    clean = probe(loaded, train, test, workers=0)
    assert clean.metrics["acc1"] == 1.0 and clean.scored.n == 4
    # Poisoned: the test pictures become noise under turned labels.
    noise = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3)).astype(np.uint8)
    data = replace(test.data, images=noise, index=np.arange(4))
    poisoned = replace(test, data=data, labels=1 - test.labels)
    found = probe(loaded, train, poisoned, workers=0)
    assert found.metrics["acc1"] < 1.0
    for key in ("C", "cross_validation", "converged", "train_n"):
        assert found.meta[key] == clean.meta[key]
    (rows, labels), (rows_again, labels_again) = fitted_on
    np.testing.assert_array_equal(rows, rows_again)
    np.testing.assert_array_equal(labels, labels_again)
    assert len(rows) == len(train)
    # Nor does the standardisation, which is fitted with the regression, see other rows.
    np.testing.assert_allclose(
        fit_probe(rows, labels, C=1.0).model[0].mean_, rows.mean(axis=0, dtype=np.float64)
    )


def test_a_fifth_of_each_class_is_held_out_whatever_the_order(root: Path) -> None:

    spec, size = f"imagefolder:{root}", Preprocess(32)
    train, test = load_parts(spec, preprocess=size)
    assert train.counts.tolist() == [8, 8] and test.counts.tolist() == [2, 2]
    assert not set(train.data.ids) & set(test.data.ids)
    again, other = load_parts(spec, preprocess=size), load_parts(spec, preprocess=size, seed=1)
    assert again[1].data.ids == test.data.ids != other[1].data.ids


def test_splits_that_overlap_are_refused(root: Path) -> None:

    spec, size = "openmoji,attribute=gender", Preprocess(32)
    for train, test in (("train", "train"), ("train+val", "val"), ("all", "val"), ("train", "all")):
        with pytest.raises(GeomkitError, match="overlap"):
            load_parts(spec, preprocess=size, train_split=train, test_split=test)
    with pytest.raises(GeomkitError, match="name another split to train on"):
        load_parts(spec, preprocess=size, test_split="train")
    with pytest.raises(GeomkitError, match="overlap"):
        load_parts(spec, preprocess=size, train_split="val")
    with pytest.raises(GeomkitError, match="same images twice"):
        load_parts(spec, preprocess=size, test_split="val+val")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from geomkit.training.config import configure
    from geomkit.training.loop import train

    path = tmp_path_factory.mktemp("model") / "ckpt.pt"
    options = {"pairs": 32, "batch_size": 16, "steps": 1, "warmup": 1}
    train(configure(dim=8, loss="cua", model="nano", **options), path)
    return path


def test_the_command_equals_the_library(cli, root: Path, checkpoint: Path) -> None:
    words = ("probe", checkpoint, "--data", f"imagefolder:{root}", "--workers", 0)
    outcome = cli(*words, "--json", "-o", "r.json")
    assert outcome.status == 0, outcome.err
    found = json.loads(outcome.out)
    assert json.loads(Path("r.json").read_text()) == found
    assert found["task"] == "linear_probe" and found["chance"]["acc1"] == 0.5
    assert found["metrics"]["lp_acc1"] == found["metrics"]["acc1"]
    assert found["majority_share"] == 0.5 and found["stderr"]["acc1"] is not None
    assert found["meta"]["train_n"] == 16 and found["n"] == 4
    assert f"C {found['meta']['C']:.4g}, by 5-fold cross-validation" in outcome.err
    table = cli(*words, "--C", 0.5)
    assert "acc1" in table.out and "C 0.5, as given" in table.err


def test_the_command_refuses_in_one_line(refused, root: Path, checkpoint: Path) -> None:
    data = ("--data", f"imagefolder:{root}", "--workers", 0)
    refused("probe", checkpoint, *data, "--C", -1, says=("C:", "positive"))
    refused("probe", checkpoint, *data, "--train-split", "train", says=("train", "overlap"))
    refused("probe", "nowhere.pt", *data, says=("no such file",))
