"""Progress on a terminal and elsewhere, and the two ways a signal stops a command."""

from __future__ import annotations

import os
import signal

import pytest
from geomkit_cli import console
from geomkit_cli.progress import Display, StopSignal


def test_without_a_terminal_only_lines_are_written(capsys: pytest.CaptureFixture[str]) -> None:
    with Display() as display:
        display.preparing(1, 2000)
        display.preparing(2000, 2000)
        display.show("training", 1, 10, "loss 1")
        display.log("a line")
    with Display(quiet=True) as display:
        display.preparing(2, 2)
        display.log("hidden")
        display.log("shown", even_if_quiet=True)
    captured = capsys.readouterr()
    assert captured.err == "prepared 2,000 images\na line\nshown\n" and captured.out == ""


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


def test_a_patient_one_waits_and_one_that_is_not_graceful_does_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with StopSignal("stopping", patient=True) as stop:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
        assert stop()
    with StopSignal("stopping", graceful=False) as stop, pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    assert not stop() and capsys.readouterr().err == ""
