"""Seconds of ``geomkit close``, and of fitting beside one pass over a million pairs: a table.

    python tests/benchmarks/closing.py --out reports/benchmarks/closing.md

The first line is the whole command, all methods on 5,000 pairs: imports, fit, measurement. The
others are of a million pairs of float16 that are read from a file as needed: one pass of moments,
and ``--fit-only``, which is that pass, the fit and the file; in turns, medians over rounds.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from geomkit._core.parallel import cores
from geomkit.embeddings.embeddings import read_embeddings
from geomkit.engine.moments import Moments

DIM = 512
METHODS = ("centre", "gaussian-ot")


def write(path: Path, pairs: int, dtype: str) -> None:
    """Two clouds with a gap and decaying spectra, a block at a time."""
    rng = np.random.default_rng(0)
    scale, gap = np.arange(1, DIM + 1) ** -0.5, 0.05 * rng.standard_normal(DIM)
    out = np.lib.format.open_memmap(path, "w+", dtype, (2, pairs, DIM))
    for start in range(0, pairs, 50_000):
        stop = min(start + 50_000, pairs)
        shared = rng.standard_normal((stop - start, DIM), np.float32)
        for side, sign in enumerate((1, -1)):
            noise = rng.standard_normal(shared.shape, np.float32)
            out[side, start:stop] = (shared + 0.5 * noise) * scale + sign * gap
    out.flush()


def command(*words: object) -> float:
    """Seconds of a command."""
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "geomkit_cli", "-q", *map(str, words)], check=True,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    return time.perf_counter() - start


def moments(path: Path) -> float:
    """Seconds of one pass of moments over a file."""
    start = time.perf_counter()
    pairs = read_embeddings(path)
    Moments.of(*pairs.pairs()).numpy()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--million", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        small, large = Path(folder) / "small.npy", Path(folder) / "large.npy"
        write(small, 5_000, "float32")
        write(large, given.million, "float16")
        moments(large)  # the file is in the system's cache for all
        rounds = [
            (
                command("close", small),
                moments(large),
                *(
                    command("close", large, "--method", m, "--fit-only", "--overwrite",
                            "--out", Path(folder) / "map.safetensors")
                    for m in METHODS
                ),
            )
            for _ in range(given.rounds)
        ]  # fmt: skip
    every, one_pass, *fits = (statistics.median(column) for column in zip(*rounds, strict=True))
    lines = [
        "# Closing the gap: seconds", "",
        f"Made by `python tests/benchmarks/closing.py`; d = {DIM}, {cores()} cores, "
        f"{platform.machine()}, load average {load:.1f} before it, medians over {given.rounds} "
        "rounds.", "",
        "| what | pairs | seconds | passes of moments |", "|---|--:|--:|--:|",
        f"| `geomkit close`, all methods | 5,000 | {every:.1f} | |",
        f"| one pass of moments, in a running process | {given.million:,} | {one_pass:.1f} | 1 |",
        *(
            f"| `geomkit close --fit-only --method {method}` | {given.million:,} | {seconds:.1f} | "
            f"{seconds / one_pass:.2f} |"
            for method, seconds in zip(METHODS, fits, strict=True)
        ),
    ]  # fmt: skip
    text = "\n".join(lines) + "\n"
    if given.out:
        given.out.write_text(text, encoding="utf-8")
    print(text, end="")


if __name__ == "__main__":
    main()
