"""Progress on a terminal and elsewhere, and the two ways a signal stops a command."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from geomkit_cli import console
from geomkit_cli.progress import Display, StopSignal


def test_without_a_terminal_only_lines_are_written(capsys: pytest.CaptureFixture[str]) -> None:
    with Display() as display:
        display.preparing(1, 2000)
        display.preparing(2000, 2000)
        display.show("training", 1, 10, "loss 1")
        display.log("a line")
    captured = capsys.readouterr()
    assert captured.err == "prepared 2,000 images\na line\n" and captured.out == ""


def test_bars_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "interactive", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    with Display(remaining=False) as display:
        display.preparing(0, 2000)
        display.show("all", 3, 1200, "steps")
        display.show("one", 1, 4, row=1, visible=False)
        display.log("a line [with brackets]")
        assert [task.description for task in display.progress.tasks] == ["all", "one"]
        assert not display.progress.tasks[1].visible
    err = capsys.readouterr().err
    assert "3/1,200 steps" in err and "a line [with brackets]" in err


def test_the_first_signal_asks_and_the_second_stops(capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopSignal("stopping") as stop:
        assert not stop()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop() and stop.number == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is before
    assert capsys.readouterr().err == "\ngeomkit: stopping (again: at once)\n"


@pytest.fixture
def hangups() -> Iterator[None]:
    """Hangups arrive, also where the tests themselves run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def test_a_patient_one_waits_and_one_that_is_not_graceful_does_not(
    capsys: pytest.CaptureFixture[str], hangups: None
) -> None:
    with StopSignal("stopping", patient=True) as stop:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
        assert stop()
    with StopSignal("stopping", patient=True) as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        assert stop.number == signal.SIGHUP
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    with StopSignal("stopping") as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        assert not stop()
    with StopSignal("stopping", graceful=False) as stop, pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    assert not stop() and capsys.readouterr().err == ""


def _event(kind: str) -> Any:
    from geomkit.training.config import configure
    from geomkit.training.loop import Event

    return Event(kind, 0, configure(), "cpu", {})


@pytest.mark.parametrize("begun", [False, True])
def test_ctrl_c_before_the_first_step_stops_at_once(
    begun: bool, cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    from geomkit.training import loop

    def train(*_: object, watch: Any, should_stop: Any, **__: object) -> None:
        if begun:
            watch(_event("start"))
        os.kill(os.getpid(), signal.SIGINT)
        assert begun and should_stop()
        raise loop.Interrupted("saved")

    monkeypatch.setattr(loop, "train", train)
    outcome = cli("train")
    assert outcome.status == 130
    assert outcome.err.splitlines()[-1] == ("geomkit: saved" if begun else "interrupted")


def test_a_log_on_a_full_disk_does_not_stop_training(
    cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from geomkit import training
    from geomkit.training import loop

    events: list[Any] = []

    def full(event: Any) -> None:
        events.append(event)
        raise OSError(28, "No space left on device")

    def train(*_: object, watch: Any, **__: object) -> None:
        for _ in range(3):
            watch(_event("start"))

    monkeypatch.setattr(training, "tracker", lambda name, out: full)
    monkeypatch.setattr(loop, "train", train)
    outcome = cli("train", "--log", "tensorboard")
    assert outcome.status == 0 and len(events) == 1
    said = "--log: cannot be written (No space left on device); training continues"
    assert outcome.err.count(said) == 1
