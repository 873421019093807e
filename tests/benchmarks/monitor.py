"""Seconds that GapMonitor takes for an evaluation: medians over rounds, and what each part adds.

    python tests/benchmarks/monitor.py --pairs 2048 --dim 512

The rows are those of an ``embed`` that returns at once: encoding takes what the model takes. The
spectrum of the rows decays as that of trained models does, and the clouds overlap in part.
"""

from __future__ import annotations

import argparse
import statistics
import time

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
    """Print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=2048)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    held_out = rows(args.pairs, args.dim, args.device)
    place = torch.cuda.get_device_name() if args.device.startswith("cuda") else "CPU"
    print(f"{args.pairs} pairs, d = {args.dim}, {place}, {torch.get_num_threads()} threads")
    kinds = {
        "default metrics": {},
        "without errors": {"errors": False},
        "with linear_separability": {"metrics": [*DEFAULT_METRICS, "linear_separability"]},
        "with the spectrum": {"metrics": [*DEFAULT_METRICS, "spectrum"]},
    }
    for name, options in kinds.items():
        monitor = GapMonitor(lambda: held_out, rows=args.pairs, **options)
        seconds = []
        for step in range(args.rounds + 1):
            start = time.perf_counter()
            monitor.measure(step)
            seconds.append(time.perf_counter() - start)
        first, *rest = seconds
        print(
            f"{name:26}  median {statistics.median(rest):.2f} s  "
            f"least {min(rest):.2f} s  most {max(rest):.2f} s  first {first:.2f} s"
        )


if __name__ == "__main__":
    main()
