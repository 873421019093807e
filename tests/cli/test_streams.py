"""What reaches the terminal, and standard streams that cannot be written."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from geomkit_cli import app, console

from geomkit._core.files import sole_writer
from geomkit._core.table import Table
from geomkit.errors import GeomkitError

WILD = "a\x1b[31m[red]b[/b]$x_1\udcff\u202e"
TAMED = "a\\u001b[31m[red]b[/b]$x_1\\udcff\\u202e"


class Full(io.StringIO):
    """A stream on a full disk."""

    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


def test_names_reach_the_terminal_without_escapes_and_markup(
    capsys: pytest.CaptureFixture[str],
) -> None:
    console.out(WILD)
    console.line(WILD)
    assert console.fail(GeomkitError(WILD)) == 2
    captured = capsys.readouterr()
    assert captured.out == TAMED + "\n"
    assert captured.err == f"{TAMED}\ngeomkit: {TAMED}\n"
    assert TAMED in Table([WILD], [[[WILD]]]).plain().splitlines()[0]
    assert TAMED in Table(["a"], [[[WILD]]]).plain()


def test_a_file_of_such_a_name_is_measured(cli, tmp_path: Path) -> None:
    name = os.fsdecode(b"a\xff[red]\x1b.npz")
    rows = np.random.default_rng(0).standard_normal((2, 8, 3))
    np.savez(tmp_path / name, image=rows[0], text=rows[1])
    for option in ("--json", "--csv", None):
        outcome = cli("gap", name, *([option] if option else []), "--metrics", "alignment")
        assert outcome.status == 0, outcome
        assert "a\\udcff[red]\\u001b.npz" in outcome.out


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_a_stream_escapes_what_its_encoding_lacks(
    encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(held, encoding=encoding))
    console.out("τ – 1")
    assert held.getvalue() == b"\\u03c4 \\u2013 1\n"


def test_data_that_cannot_be_written_is_an_error_and_a_log_is_not(
    cli, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "stdout", Full())
    assert app.run(["metrics"]) == 2
    err = capsys.readouterr().err
    assert err == "geomkit: standard output: cannot be written (No space left on device)\n"
    console.wrote(tmp_path / "ckpt.pt")  # finished work stays finished
    assert "ckpt.pt: written; standard output: cannot be" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stderr", Full())
    console.line("a line")


@pytest.mark.parametrize(
    "words",
    [
        ["gap", ""],
        ["gap", "e.npz", ""],
        ["gap", " "],
        ["gap", "--image="],
        ["inspect", ""],
        ["plot-pca", ""],
        ["train", "--out", ""],
        ["zeroshot", "", "--data", "openmoji"],
        ["extract", "", "--out", "emb"],
    ],
    ids=" ".join,
)
def test_an_empty_word_is_refused(words: list[str], refused) -> None:
    refused(*words, says=("is empty; is a variable of the shell not set?",))


@pytest.mark.parametrize(
    ("words", "out"),
    [
        (["train", "--dim", "3"], "ckpt.pt"),
        (["plot-pca", "e.npz"], "pca.png"),
        (["reproduce", "figure1", "--quick"], "reports/openmoji-quick"),
    ],
    ids=["train", "plot", "reproduce"],
)
def test_an_output_that_another_process_writes(
    words: list[str], out: str, refused, tmp_path: Path
) -> None:
    (tmp_path / out).parent.mkdir(exist_ok=True)
    with sole_writer(tmp_path / out):
        refused(*words, says=(out, f"is being written by process {os.getpid()} on"))


def test_what_is_killed_and_what_is_too_large(capsys: pytest.CaptureFixture[str]) -> None:
    from concurrent.futures.process import BrokenProcessPool

    killed = "DataLoader worker (pid 7) is killed by signal: Killed."
    for error in (RuntimeError(killed), BrokenProcessPool("a process ended abruptly")):
        console.fail(error)
        err = capsys.readouterr().err
        assert "was killed" in err and "--workers" in err and "--resume" in err
    console.fail(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you"))
    assert "out of memory" in capsys.readouterr().err


def test_ctrl_c_while_the_command_is_imported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import builtins

    from geomkit_cli import __main__

    load = builtins.__import__

    def interrupted(name: str, *more):
        if name == "app":
            raise KeyboardInterrupt
        return load(name, *more)

    monkeypatch.setattr(builtins, "__import__", interrupted)
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SystemExit) as stop:
        __main__.main()
    waits = os.environ.pop("OMP_WAIT_POLICY"), os.environ.pop("GOMP_SPINCOUNT")
    assert waits == ("passive", "1000")  # before torch is imported
    assert stop.value.code == 130 and capsys.readouterr().err == "interrupted\n"


def test_captions_are_shown_without_escapes_and_on_their_line(cli, tmp_path: Path) -> None:
    import csv

    from PIL import Image

    with (tmp_path / "a.csv").open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["filepath", "title"])
        for k in range(12):
            Image.new("RGB", (8, 8), (k, k, k)).save(tmp_path / f"{k}.png")
            lines.writerow([f"{k}.png", f"{k} \x1b[2J\nlicence: none {'x' * 1000}"])
    outcome = cli("data", "csv:a.csv")
    assert outcome.status == 0, outcome
    assert "\x1b" not in outcome.out and "\\u001b[2J licence" in outcome.out
    assert "\nlicence: none" not in outcome.out and max(map(len, outcome.out.split("\n"))) < 2000


def test_a_line_is_said_once_and_long_lines_are_indented(capsys, monkeypatch) -> None:
    console.settings.said.clear()
    for _ in range(2):
        console.line("a: embeds b", once=True)
    assert capsys.readouterr().err == "a: embeds b\n"
    monkeypatch.setenv("COLUMNS", "20")
    console.words("name: " + "word " * 6, indent=6)
    assert capsys.readouterr().out.count("\n") == 1  # no terminal
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    console.words("name: " + "word " * 6, indent=6)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 1 and all(line.startswith("      word") for line in lines[1:])
