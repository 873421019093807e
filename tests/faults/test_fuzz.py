"""Damaged files of every kind: one line that names them and status 2, or a result.

``GEOMKIT_EXAMPLES`` sets the number of damaged files. Each is read by the command line in a process
forked from this one, which must not die, exceed a gigabyte or take longer than 20 s.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import mutations
import pytest
import whole_files
from limits import forget_peak, peak

EXAMPLES = int(os.environ.get("GEOMKIT_EXAMPLES", "40"))
SEED = int(os.environ.get("GEOMKIT_SEED", "0"))
SECONDS, MEGABYTES = 20, 1000


class Kind(NamedTuple):
    """A kind of file: how to write it into a folder, and a command that reads it.

    ``{}`` in the command stands for the folder, ``{pictures}`` for one with a small table of
    images, ``{model}`` for a checkpoint.
    """

    name: str
    build: Callable[[Path], None]
    command: str


_GAP = "gap SOURCE --metrics centroid_distance"
_DATA = " --split all --workers 0 --device cpu"
_MODEL = _GAP + " --data csv:{pictures}/table.csv" + _DATA
_COMMANDS = {
    "checkpoint": "inspect SOURCE",
    "open-clip": "inspect SOURCE",
    "transformers": _MODEL,
    "torchscript": "inspect SOURCE",
    "paper": "inspect SOURCE",
}
KINDS = [
    *(
        Kind(name, build, _COMMANDS.get(name, _GAP).replace("SOURCE", source))
        for name, (build, source) in whole_files.SOURCES.items()
    ),
    *(
        Kind(name, build, f"gap {{model}} --metrics centroid_distance --data {spec}" + _DATA)
        for name, (build, spec) in whole_files.DATA.items()
    ),
    *(Kind(name, build, command) for name, (build, command) in whole_files.OTHERS.items()),
    Kind("checkpoint-gap", whole_files.checkpoint, _MODEL.replace("SOURCE", "{}/ckpt.pt")),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an undamaged folder of each kind, and one of pictures."""
    base = tmp_path_factory.mktemp("whole")
    (base / "pictures").mkdir()
    whole_files.pictures(base / "pictures")
    for kind in KINDS:
        (base / kind.name).mkdir()
        kind.build(base / kind.name)
    return base


def test_whole_files_are_read(whole: Path, cli: Callable) -> None:
    for kind in KINDS:
        outcome = cli(*_words(kind, whole / kind.name, whole))
        assert outcome.status == 0, (kind.name, outcome.err)


def test_damaged_files_are_refused_in_one_line(whole: Path, tmp_path: Path) -> None:
    failures, number = [], 0
    while number < EXAMPLES:
        log = tmp_path / "log"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of threads, which the child does not use
            child = os.fork()
        if child == 0:
            _work(whole, tmp_path, log, number)
        _, status, _ = os.wait4(child, 0)
        lines = log.read_text("utf-8", errors="replace").splitlines()
        failures += [line for line in lines if not line.startswith("start ")]
        started = [line for line in lines if line.startswith("start ")]
        assert started and status >> 8 != 3, "\n".join(lines)
        number = int(started[-1].split()[1]) + 1
        if status:
            how = signal.Signals(status & 127).name if status & 127 else f"status {status >> 8}"
            failures.append(f"{started[-1].removeprefix('start ')}: ended by {how}")
    assert not failures, "\n".join([f"{len(failures)} of {EXAMPLES}", *failures])


def _words(kind: Kind, folder: Path, whole: Path) -> list[str]:
    places = {"pictures": whole / "pictures", "model": whole / "checkpoint" / "ckpt.pt"}
    return kind.command.replace("{}", str(folder)).format(**places).split()


def _work(whole: Path, place: Path, log: Path, first: int) -> None:
    """Try the examples from a number on, in a child process; what goes wrong is logged."""
    try:
        import torch
        from geomkit_cli.app import run

        torch.set_num_threads(1)
        out = os.open(place / "out", os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdout = sys.stderr = os.fdopen(out, "w", 1, "utf-8", "backslashreplace")
        with log.open("w", buffering=1) as file:
            for number in range(first, EXAMPLES):
                rng = random.Random(f"{SEED} {number}")
                kind = KINDS[number % len(KINDS)]
                folder = place / f"damaged-{kind.name}"
                shutil.rmtree(folder, ignore_errors=True)
                shutil.copytree(whole / kind.name, folder)
                victim = rng.choice(sorted(p for p in folder.rglob("*") if p.is_file()))
                mutations.damage(victim, rng)
                what = f"{number} {kind.name} {victim.relative_to(folder)}"
                file.write(f"start {what}\n")
                os.ftruncate(out, 0)
                forget_peak()
                before, began = peak(), time.monotonic()
                signal.alarm(SECONDS)
                try:
                    status = run(_words(kind, folder, whole))
                except BaseException as error:
                    status, crash = -1, traceback.format_exception(error)[-1].strip()
                signal.alarm(0)
                said = (place / "out").read_text("utf-8", errors="replace")
                wrong = _wrong(status, said, f"damaged-{kind.name}")
                if status == -1:
                    wrong = crash
                if (used := peak() - before) > MEGABYTES:
                    wrong = f"{used:.0f} MB {wrong}"
                if wrong:
                    took = time.monotonic() - began
                    file.write(f"{what} ({took:.1f} s): {' '.join(wrong.split())[:300]}\n")
    except BaseException:
        log.write_text(traceback.format_exc())
        os._exit(3)
    os._exit(0)


def _wrong(status: int, said: str, name: str) -> str:
    """What is wrong with what a command said, or nothing."""
    if status not in (0, 1, 2):
        return f"status {status}: {said[-300:]}"
    errors = [line for line in said.splitlines() if line.startswith("geomkit: ")]
    for word in ("geomkit: unexpected", "Traceback", "out of memory", "panicked"):
        if word in said:
            return f"{word}: {errors[-1:] or said[-300:]}"
    if status == 2 and (len(errors) != 1 or name not in errors[0]):
        return f"no line that names the file: {said[-300:]}"
    return ""
