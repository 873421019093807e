"""Ranks that are killed, stopped or fail, or do not see the same: all end, --resume ends the same.

    python tests/faults/ranks.py [--ranks 2 4] [--only WORD]

Each trial starts ranks as torchrun does, but with nothing that ends one for another, and does harm
to one of them. It checks that all end within 30 s with one line on stderr, and that the command
with --resume then ends with the weights of an uninterrupted run of as many ranks, bit for bit, or
the files of an extraction, byte by byte. The seconds printed are those from the harm to the end of
the last rank; where data were missing before the ranks were there, from their start; with a full
disk, which only the first file that is written meets, from the line.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from kills import contents, write_images

sys.path.insert(0, str(Path(__file__).parent.parent))
from processes import free_port, of_rank

LIMIT = 30.0
"""Seconds within which all ranks have to end."""
TRAIN = (
    "train --model nano --dim 4 --batch-size 16 --steps 40 --eval-every 4 --warmup 1 --threads 1 "
    "--workers 0 --device cpu --data imagefolder:data --repeat-captions --out out.pt --resume -q"
)
EXTRACT = (
    "extract ../../ckpt.pt --data imagefolder:data --split all --shard-rows 4 --workers 0 "
    "--device cpu --resume -q --out "
)
SHARED, OWN = f"{EXTRACT}../out", f"{EXTRACT}out"


@dataclass(frozen=True)
class Trial:
    """A command, and what happens to one of its ranks.

    Attributes:
        words: The command.
        says: What its one line has to say.
        harm: What is done to the rank in the middle of the run, by its process and folder.
        before: What is done to its folder before it starts.
        rank: The rank; -1 is the last one.
        largest: Bytes of the largest file that it can write; fewer stand for a full disk.
        environment: Of all ranks.
        again: The command that is to end well afterwards; default: the same.
    """

    words: str
    says: str
    harm: Callable[[int, Path], None] | None = None
    before: Callable[[Path], None] = lambda folder: None
    rank: int = -1
    largest: int = resource.RLIM_INFINITY
    environment: dict[str, str] = field(default_factory=dict)
    again: str = ""


def killed(process: int, folder: Path) -> None:
    os.kill(process, signal.SIGKILL)


def stopped(process: int, folder: Path) -> None:
    os.kill(process, signal.SIGSTOP)


def spoilt(process: int, folder: Path) -> None:
    """No picture of this rank decodes any longer."""
    for path in pictures(folder):
        path.write_bytes(bytes(path.stat().st_size))


def without_data(folder: Path) -> None:
    shutil.rmtree(folder / "data")


def without_a_picture(folder: Path) -> None:
    pictures(folder)[0].unlink()


def pictures(folder: Path) -> list[Path]:
    return sorted((folder / "data").rglob("*.png"))


TRIALS = {
    "killed": Trial(TRAIN, r"another rank|rank \d has ended", killed),
    "first rank killed": Trial(TRAIN, "another rank|rank 0 has ended", killed, rank=0),
    "starved": Trial(
        TRAIN, "no sign of life for 6 seconds", stopped, environment={"GEOMKIT_TIMEOUT": "0.1"}
    ),
    "pictures spoilt": Trial(TRAIN, "does not decode|more than the share", spoilt),
    "disk full": Trial(TRAIN, r"out\.pt: cannot be written", rank=0, largest=20_000),
    "no data": Trial(TRAIN, r"rank \d: imagefolder: data", before=without_data),
    "other data": Trial(TRAIN, r"rank \d: has another", before=without_a_picture),
    "unknown option": Trial("train --los clip", "No such option: --los"),
    "extract, disk full": Trial(SHARED, r"rank \d: .*cannot be written", largest=200),
    "extract, no data": Trial(SHARED, r"rank \d: imagefolder: data", before=without_data),
    "extract, no shared disk": Trial(OWN, "has another folder 'out'", again=SHARED),
}


def main() -> int:
    """Run the trials; print a line for each; status 1 if one failed."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--ranks", type=int, nargs="+", default=[2, 4])
    options.add_argument("--only", default="", help="part of the names of trials")
    given = options.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        write_images(base / "data", 96)
        for ranks in given.ranks:
            usual = {}
            for words in (TRAIN, SHARED):
                folders = made(base, ranks)
                assert not any(ended(start(words, folders))), said(folders)
                usual[words] = results(folders)
                if words == TRAIN:
                    shutil.copy(folders[0] / "out.pt", base / "ckpt.pt")
            for name, trial in TRIALS.items():
                if given.only in name:
                    problems, seconds = one_trial(trial, made(base, ranks), usual)
                    failed += bool(problems)
                    found = "; ".join(problems) or "ok"
                    print(f"{ranks} ranks, {name:24}{seconds:5.1f} s  {found}", flush=True)
    return int(failed > 0)


def one_trial(
    trial: Trial, folders: list[Path], usual: dict[str, dict[str, str]]
) -> tuple[list[str], float]:
    """What went wrong, and the seconds until all ranks had ended."""
    victim = range(len(folders))[trial.rank]
    trial.before(folders[victim])
    begun = time.monotonic()
    ranks = start(trial.words, folders, trial.environment, {victim: trial.largest})
    if trial.harm is not None:
        wait_for_checkpoints(3, folders[0] / "out.pt", ranks[0])
        begun = time.monotonic()
        trial.harm(ranks[victim].pid, folders[victim])
    while trial.largest >= 0 and not said(folders) and ranks[victim].poll() is None:
        begun = time.monotonic()
        time.sleep(0.01)
    statuses, lines = ended(ranks), said(folders)
    seconds = time.monotonic() - begun
    problems = [f"more than {LIMIT:.0f} s"] if seconds > LIMIT else []
    if not set(statuses) <= {2, -signal.SIGKILL}:
        problems.append(f"statuses {statuses}")
    if len(lines) != 1 or not re.search(trial.says, lines[0]):
        problems.append(f"said {lines}")
    if (again := trial.again or trial.words) in usual:
        shutil.copytree(
            folders[0].parents[1] / "data", folders[victim] / "data", dirs_exist_ok=True
        )
        for folder in folders:
            shutil.rmtree(folder / "out", ignore_errors=True)
        if any(statuses := ended(start(again, folders))):
            problems.append(f"resumed with statuses {statuses}: {said(folders)}")
        elif results(folders) != usual[again]:
            problems.append("another result")
    return problems, seconds


def wait_for_checkpoints(count: int, path: Path, rank: subprocess.Popen) -> None:
    """Wait until a checkpoint was written so often: with the first one no step is done."""
    seen: set[int] = set()
    while len(seen) < count and rank.poll() is None:
        if path.exists():
            seen.add(path.stat().st_ino)
        time.sleep(0.002)


def made(base: Path, ranks: int) -> list[Path]:
    """A new folder for each rank, with data of its own."""
    shutil.rmtree(base / "trial", ignore_errors=True)
    folders = [base / "trial" / str(rank) for rank in range(ranks)]
    for folder in folders:
        shutil.copytree(base / "data", folder / "data")
    return folders


def start(
    words: str,
    folders: list[Path],
    environment: dict[str, str] | None = None,
    largest: dict[int, int] | None = None,
) -> list[subprocess.Popen]:
    """Start ``geomkit WORDS`` on a rank in each folder."""
    port, started = free_port(), []
    for rank, folder in enumerate(folders):
        size = (largest or {}).get(rank, resource.RLIM_INFINITY)
        with (folder / "stderr").open("wb") as errors:
            started.append(
                subprocess.Popen(
                    [sys.executable, "-m", "geomkit_cli", *words.split()],
                    cwd=folder, stdout=subprocess.DEVNULL, stderr=errors,
                    env={**os.environ, **of_rank(rank, len(folders), port), **(environment or {})},
                    preexec_fn=partial(resource.setrlimit, resource.RLIMIT_FSIZE, (size, size)),
                )
            )  # fmt: skip
    return started


def ended(ranks: list[subprocess.Popen]) -> list[int]:
    """The exit statuses; of what does not end, that of a kill, long after the limit."""
    end = time.monotonic() + 10 * LIMIT
    for rank in ranks:
        try:
            rank.wait(max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            rank.kill()
    return [rank.wait() for rank in ranks]


def said(folders: list[Path]) -> list[str]:
    return [line for folder in folders for line in (folder / "stderr").read_text().splitlines()]


def results(folders: list[Path]) -> dict[str, str]:
    """What the ranks wrote: the checksums of files, and of the weights of a checkpoint."""
    import torch

    found = contents(folders[0].parent / "out")
    for folder in folders:
        if (path := folder / "out.pt").exists():
            weights = torch.load(path, weights_only=True)["state_dict"]
            found |= {f"{folder.name} {k}": str(v.tolist()) for k, v in weights.items()}
    return found


if __name__ == "__main__":
    sys.exit(main())
