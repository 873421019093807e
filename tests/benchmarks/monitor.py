"""Seconds that GapMonitor takes for an evaluation: medians over rounds, and what each part adds.

    python tests/benchmarks/monitor.py --pairs 2048 --dim 512 --out reports/benchmarks/monitor.md

The rows are those of an ``embed`` that returns at once: encoding takes what the model takes. The
spectrum of the rows decays as that of trained models does, and the clouds overlap in part.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from geomkit import GapMonitor
from geomkit.monitoring.monitor import DEFAULT_METRICS


def rows(pairs: int, dim: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Image rows and text rows of pairs."""
    rng = np.random.default_rng(0)
    scale = np.arange(1, dim + 1) ** -0.5
    shared, gap = rng.standard_normal((pairs, dim)), rng.standard_normal(dim) * 0.05
    found = (shared + 0.5 * rng.standard_normal((pairs, dim)) for _ in range(2))
    return tuple(
        torch.from_numpy(((part * scale) + side * gap).astype(np.float32)).to(device)
        for part, side in zip(found, (1, -1), strict=True)
    )  # type: ignore[return-value]


def main() -> None:
    """Print a table, or write it to a file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=2048)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    held_out = rows(args.pairs, args.dim, args.device)
    device = torch.cuda.get_device_name() if args.device.startswith("cuda") else "CPU"
    lines = [
        "# An evaluation of GapMonitor, timed",
        "",
        "Made by `python tests/benchmarks/monitor.py --out FILE`; its head says what is measured.",
        "Where the load of other work is not near 0, the machine was not quiet; CPU seconds, of",
        "all threads, hardly depend on it.",
        "",
        f"{args.pairs:,} pairs, d = {args.dim}; {device}, {torch.get_num_threads()} threads, "
        f"{platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}; "
        f"load before: {os.getloadavg()[0]:.1f}.",
        "",
        "| metrics | median s | least s | most s | first s | CPU s, median |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    kinds: dict[str, dict[str, Any]] = {
        "default": {},
        "default, without errors": {"errors": False},
        "and linear_separability": {"metrics": [*DEFAULT_METRICS, "linear_separability"]},
        "and the group spectrum": {"metrics": [*DEFAULT_METRICS, "spectrum"]},
    }
    for name, options in kinds.items():
        monitor = GapMonitor(lambda: held_out, rows=args.pairs, **options)
        seconds, work = [], []
        for step in range(args.rounds + 1):
            start, busy = time.perf_counter(), time.process_time()
            monitor.measure(step)
            seconds.append(time.perf_counter() - start)
            work.append(time.process_time() - busy)
        first, *rest = seconds
        found = (statistics.median(rest), min(rest), max(rest), first, statistics.median(work))
        lines.append(" | ".join([f"| {name}", *(f"{value:.2f}" for value in found)]) + " |")
    text = "\n".join(lines) + "\n"
    if args.out is None:
        print(text, end="")
    else:
        args.out.write_text(text)


if __name__ == "__main__":
    main()
