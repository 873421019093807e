"""Random SIGKILLs of commands and their workers: nothing stays behind, --resume ends the same.

    python tests/faults/kills.py [--count 50] [--seed 0]

Each trial starts a command in an empty folder, kills it or one of its processes at a random time,
and checks that soon no process of it runs; that the same command with --resume ends with status 0
and the files of a run that nobody killed, byte by byte; and that no other file lies there. Commands
are forked from a server that has torch imported, and found again by their working directory.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))
from processes import _SERVER

NOTHING = "ended before"
PATIENCE = 60.0
"""Seconds until what is left of a killed command has to be gone."""
TRAIN = (
    "train --model nano --dim 4 --batch-size 8 --steps 6 --eval-every 2 --threads 1 --device cpu "
    "--data imagefolder:../images --repeat-captions -q --resume"
)
COMMANDS = {
    "train": f"{TRAIN} --workers 2",
    "cache": f"{TRAIN} --cache-images",
    "extract": "extract ../ckpt.pt --data imagefolder:../images --split all --out emb -q --resume "
    "--shard-rows 8 --workers 2 --device cpu",
    "reproduce": "reproduce toy --jobs 2 --data openmoji,n=24 --out out --device cpu --resume",
}
VARYING = ("run.json", "report.md", "report.html", ".json", ".pdf", ".checked")
"""Names of files that hold dates or durations."""


def main() -> int:
    """Run the trials; print a line for each and the counts; status 1 if one failed."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--count", type=int, default=50)
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    draw = random.Random(given.seed)
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        write_images(base / "images", 48)
        usual = {}
        for kind in COMMANDS:
            folder = base / f"{kind}-usual"
            begun = time.monotonic()
            assert finish(start(kind, folder)) == 0, (folder / "stderr").read_text()
            usual[kind] = time.monotonic() - begun, contents(folder)
            if kind == "train":
                shutil.copy(folder / "ckpt.pt", base / "ckpt.pt")
        trial = 0
        while trial < given.count:
            kind = list(COMMANDS)[trial % len(COMMANDS)]
            folder = base / f"{kind}-{trial}"
            duration, files = usual[kind]
            problems, what = one_trial(kind, folder, duration, files, draw)
            if what == NOTHING:  # later runs are faster than the first
                usual[kind] = 0.7 * duration, files
            trial += what != NOTHING
            counts[f"{kind}: {what}"] += 1
            counts["failed"] += bool(problems)
            print(f"{trial:3} {kind:9} {what}: {'; '.join(problems) or 'ok'}", flush=True)
            shutil.rmtree(folder)
    for what, count in sorted(counts.items()):
        print(f"{count:4} {what}")
    return int(counts["failed"] > 0)


def one_trial(
    kind: str, folder: Path, duration: float, usual: dict[str, str], draw: random.Random
) -> tuple[list[str], str]:
    """What went wrong, and what was killed."""
    problems = []
    process = start(kind, folder)
    time.sleep(draw.uniform(0.0, duration))
    found = [pid for pid in running(folder) if pid != process.pid]
    victim = process.pid if not found or draw.random() < 0.5 else draw.choice(found)
    what = "parent" if victim == process.pid else "worker or job"
    try:
        os.kill(victim, signal.SIGKILL)
    except ProcessLookupError:
        what = NOTHING
    process.join(PATIENCE)
    end = time.monotonic() + PATIENCE
    while (left := running(folder)) and time.monotonic() < end:
        time.sleep(0.1)
    if left:
        problems.append(f"{len(left)} processes stayed")
        for pid in left:
            os.kill(pid, signal.SIGKILL)
    if process.exitcode not in (0, 2, -signal.SIGKILL):
        problems.append(f"status {process.exitcode}: {last_line(folder)}")
    if "unexpected" in said(folder):
        problems.append(last_line(folder))
    status = finish(start(kind, folder))
    if status != 0:
        problems.append(f"resumed with status {status}: {last_line(folder)}")
    now = contents(folder)
    for name in sorted(usual.keys() | now.keys()):
        if name not in now:
            problems.append(f"no {name}")
        elif name not in usual:
            problems.append(f"left behind: {name}")
        elif now[name] != usual[name]:
            problems.append(f"{name} differs")
    return problems, what


def write_images(folder: Path, count: int) -> None:
    """A folder of two classes of noise."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for k in range(count):
        path = folder / f"class {k % 6}" / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(path)


def start(kind: str, folder: Path) -> Any:
    """Start a command in a folder, with a cache of its own beside its output."""
    folder.mkdir(exist_ok=True)
    process = _SERVER.Process(target=command, args=(COMMANDS[kind].split(), folder))
    process.start()
    return process


def finish(process: Any) -> int | None:
    """The exit status of a command."""
    process.join(10 * PATIENCE)
    return process.exitcode


def command(words: list[str], folder: Path) -> None:
    """Run a command line in this process."""
    from geomkit_cli.app import run

    from geomkit.reproduce.framework import catalogue

    os.chdir(folder)
    os.environ |= {"OMP_NUM_THREADS": "1", "GEOMKIT_CACHE": str(folder / "cache")}
    for stream, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    if words[0] == "reproduce":
        catalogue.all_experiments = lambda: {"toy": toy()}  # type: ignore[assignment]
    raise SystemExit(run(words))


def toy() -> Any:
    """An experiment of four small cells."""
    from geomkit.plots.style import axes_grid
    from geomkit.reproduce.framework.experiment import Cell, Experiment
    from geomkit.reproduce.framework.results import Row, Rows
    from geomkit.training.config import configure

    cells = [
        Cell(
            configure(
                loss=loss, dim=4, seed=1, model="nano", data="openmoji,n=24", batch_size=8,
                steps=6, eval_every=3, warmup=1,
            )
        )
        for loss in ("clip", "cua", "cu", "ca")
    ]  # fmt: skip

    def measure(context: Any) -> Rows:
        found = ((cell, context.embeddings(cell, "val")) for cell in cells)
        return Rows(
            Row("toy", "openmoji val", 4, c.config.loss, 1, "n", float(e.image[:].sum()), 0.1)
            for c, e in found
        )

    def draw(rows: Rows, context: Any) -> dict[str, Any]:
        figure, (axes,) = axes_grid(1, 1, columns=1)
        axes.plot([row.value for row in rows])
        return {"toy": figure}

    return Experiment(
        "toy", "Toy", "What is it?", cells=lambda options: cells, measure=measure, draw=draw,
        seconds=lambda options: 5.0, claims=(),
    )  # fmt: skip


def running(folder: Path) -> list[int]:
    """Processes whose working directory is a folder."""
    numbers = (path.name for path in Path("/proc").iterdir() if path.name.isdigit())
    return [pid for pid in map(int, numbers) if at(pid, folder)]


def at(pid: int, folder: Path) -> bool:
    try:
        alive = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        return alive and Path(f"/proc/{pid}/cwd").readlink() == folder
    except OSError:
        return False


def contents(folder: Path) -> dict[str, str]:
    """The checksum of each file by its path; of those that hold dates only the path."""
    return dict(checksums(folder))


def checksums(folder: Path) -> Iterator[tuple[str, str]]:
    for path in folder.rglob("*"):
        if path.is_file() and path.name not in ("stdout", "stderr"):
            varies = path.name.endswith(VARYING)
            content = b"" if varies else path.read_bytes()
            yield str(path.relative_to(folder)), hashlib.sha256(content).hexdigest()


def said(folder: Path) -> str:
    """What a command said; nothing if it was killed before it could."""
    path = folder / "stderr"
    return path.read_text() if path.exists() else ""


def last_line(folder: Path) -> str:
    return (said(folder).strip().splitlines() or ["no message"])[-1][:200]


if __name__ == "__main__":
    sys.exit(main())
