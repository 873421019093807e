"""TensorBoard and Weights & Biases get open_clip's names, and a run that goes on its own curves."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

from geomkit.errors import GeomkitError
from geomkit.training.config import configure
from geomkit.training.loop import Event, Interrupted, train
from geomkit.training.trackers import losses, scalars, tracker

OF_A_STEP = {
    "train/loss", "train/contrastive_loss", "train/alignment_loss", "train/lr", "train/scale",
    "train/data_time", "train/batch_time", "train/samples_per_second",
    "train/samples_per_second_per_gpu",
}  # fmt: skip


def config(**changes):
    options = {"model": "nano", "dim": 5, "recipe": "standard", "pairs": 32, "batch_size": 16}
    return configure(**{**options, "steps": 4, "eval_every": 2, "loss": "ca", **changes})


def test_names_and_values() -> None:
    event = Event(
        "step", 3, config(warmup=0, schedule="constant"), "cpu",
        {"clip_loss": 2.0, "alignment_loss": 0.5},
        seconds=(0.5, 0.1), ranks=2, temperature=0.05,
    )  # fmt: skip
    found = losses(event) | scalars(event)
    assert set(found) == OF_A_STEP
    assert found["train/loss"] == 2.5 and found["train/contrastive_loss"] == 2.0
    assert found["train/scale"] == pytest.approx(20) and found["train/lr"] == 5e-4
    assert found["train/samples_per_second"] == 32
    assert found["train/samples_per_second_per_gpu"] == 16


def test_tensorboard_holds_every_step_and_evaluation(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out = tmp_path / "run.pt"
    seen: list[int] = []

    def watching(event: Event) -> None:
        seen.append(event.step)
        watch(event)

    watch = tracker("tensorboard", out)
    with pytest.raises(Interrupted):
        train(config(), out, watch=watching, should_stop=lambda: seen[-1] >= 3)
    watch = tracker("tensorboard", out)
    content = train(config(), out, watch=watching, resume=True)
    held = EventAccumulator(str(tmp_path / "run_tensorboard"))
    held.Reload()
    names = set(held.Tags()["scalars"])
    assert names >= OF_A_STEP
    assert [point.step for point in held.Scalars("train/loss")] == [1, 2, 3, 4]
    recalls = held.Scalars("val/image_to_text_R@1")
    assert [point.step for point in recalls] == [0, 2, 4]
    for point, record in zip(recalls, content.history, strict=True):
        expected = record.metrics["text_retrieval_recall@1"]
        assert point.value == pytest.approx(expected, rel=1e-6)
    assert "val/centroid_distance" in names and "val/clip_val_loss" in names


def test_wandb_is_told_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[tuple[int, dict]] = []
    started: list[dict] = []

    class Run:
        def log(self, values: dict, step: int) -> None:
            logged.append((step, values))

        def finish(self) -> None:
            logged.append((-1, {}))

    fake = types.ModuleType("wandb")
    fake.__spec__ = types.SimpleNamespace()  # type: ignore[assignment]
    fake.init = lambda **options: started.append(options) or Run()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", fake)
    out = tmp_path / "run.pt"
    train(config(), out, watch=tracker("wandb", out))
    train(config(), out, watch=tracker("wandb", out), overwrite=True)
    assert started[0]["id"] == started[1]["id"] and started[0]["config"]["loss"] == "ca"
    steps = [step for step, values in logged if "train/loss" in values]
    assert steps == [1, 2, 3, 4] * 2 and logged[-1][0] == -1


def test_an_unknown_tracker_or_one_not_installed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(GeomkitError, match="unknown tracker 'tensorbord'; did you mean"):
        tracker("tensorbord", tmp_path / "c.pt")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(GeomkitError, match=r"pip install 'geomkit\[wandb\]'"):
        tracker("wandb", tmp_path / "c.pt")


def test_a_loss_that_is_read_late_is_written_at_its_own_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on CUDA: the event of a step has the loss of the one before."""
    from geomkit.training import trackers

    logged: list[tuple[int, dict]] = []

    def collect(out: Path, project: str):
        event = yield from trackers._start()
        done = event.step
        while True:
            logged.extend(trackers._points(event, done))
            done = max(done, event.terms_step)
            event = yield

    monkeypatch.setitem(trackers.TRACKERS, "torch", collect)
    watch = tracker("torch", tmp_path / "run.pt")
    watch(Event("start", 0, config(), "cuda", {}))
    # An evaluation waits for the loss of its own step.
    for step, of, kind in (
        (1, 0, "step"), (2, 1, "step"), (3, 2, "step"), (3, 3, "evaluation"), (4, 3, "step"),
        (5, 4, "step"), (5, 5, "evaluation"),
    ):  # fmt: skip
        terms = {"clip_loss": float(of)} if of else {}
        watch(Event(kind, step, config(), "cuda", terms, seconds=(1.0, 0.0), terms_step=of))
    losses = [(step, v["train/loss"]) for step, v in logged if "train/loss" in v]
    assert losses == [(k, float(k)) for k in range(1, 6)]
    assert [step for step, _ in logged] == sorted(step for step, _ in logged)
