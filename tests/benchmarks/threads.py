"""Training steps with one thread and with one per core, alone and beside busy processes: a table.

    python tests/benchmarks/threads.py --out reports/benchmarks/threads.md

Each way to wait is a process of its own, since OpenMP reads its settings at the start; the
processes take turns, a few steps each, so that whatever else the machine does slows all of them.
*Spinning* is OpenMP's default: a thread that waits for another keeps its core. *Passive* is
``OMP_WAIT_POLICY=passive``, which ``geomkit`` sets unless the environment does: it sleeps.
A busy process is a loop that does nothing. The last table is the default run in three dimensions
as the command does it, start included.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

PASSIVE = {"OMP_WAIT_POLICY": "passive"}
WAYS: dict[str, tuple[int, dict[str, str]]] = {
    "1 thread": (1, {}),
    "spinning": (0, {}),
    "briefly": (0, {**PASSIVE, "GOMP_SPINCOUNT": "1000"}),
    "passive": (0, PASSIVE),
}
"""Number of threads (0: one per core) and OpenMP's settings."""


def worker(model: str, threads: int) -> None:
    """Do as many steps as each line of the input says, and print the seconds of one."""
    import numpy as np
    import torch

    from geomkit.losses import ContrastiveLoss
    from geomkit.models.architectures import model_config
    from geomkit.models.two_encoder import build
    from geomkit.training.config import configure
    from geomkit.training.step import backward, optimizer_for

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    config = configure(loss="cua", dim=3 if model == "nano" else 128)
    architecture = model_config(model, dim=config.dim)
    architecture["text_cfg"]["vocab_size"] = 2000
    network = build(architecture, temperature=0.05, learn_temperature=False).train()
    optimizer, criterion = optimizer_for(network, config), ContrastiveLoss("cua")
    weights = list(network.parameters())
    size = config.batch_size
    images = torch.randn(size, 3, 32, 32)
    tokens = torch.zeros(size, 10, dtype=torch.long)
    for row, length in enumerate(np.random.default_rng(0).integers(1, 9, size)):
        tokens[row, : length + 1] = torch.randint(1, 1999, (int(length) + 1,))
        tokens[row, length + 1] = 1999

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        backward(network, criterion, images, tokens, device="cpu", precision="fp32")
        torch.nn.utils.clip_grad_norm_(weights, config.clip_norm)
        optimizer.step()

    for line in sys.stdin:
        start = time.perf_counter()
        for _ in range(int(line)):
            step()
        print((time.perf_counter() - start) / int(line), flush=True)


@contextlib.contextmanager
def busy(count: int) -> Iterator[None]:
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def seconds(model: str, steps: int, load: int) -> dict[str, float]:
    """Seconds of a step beside busy processes, by way; one process after the other."""
    found = {}
    for name, (threads, settings) in WAYS.items():
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMP", "GOMP"))}
        count = threads or len(os.sched_getaffinity(0))
        command = [sys.executable, __file__, "--worker", model, str(count)]
        with busy(load):
            said = subprocess.run(
                command, env=environment | settings, input=f"3\n{steps}\n", text=True,
                stdout=subprocess.PIPE, check=True,
            ).stdout  # fmt: skip
        found[name] = float(said.split()[1])
    print(model, load, found, flush=True)
    return found


def default_run(load: int) -> str:
    """A row about ``geomkit train --loss cua --dim 3`` beside busy processes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "ckpt.pt"
        command = [sys.executable, "-m", "geomkit_cli", "--quiet", "train", "--loss", "cua"]
        start, others = time.perf_counter(), os.getloadavg()[0]
        process = subprocess.Popen([*command, "--dim", "3", "--out", str(out)])
        with busy(load):  # whose own seconds are not counted: only ended children are
            process.wait()
            seconds = time.perf_counter() - start
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
        size = out.stat().st_size / 1e6
    cpu = sum(getattr(after, of) - getattr(before, of) for of in ("ru_utime", "ru_stime"))
    return f"| {load} | {others:.1f} | {seconds:.0f} s | {cpu:.0f} s | {size:.1f} MB |"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--worker", nargs=2, metavar=("MODEL", "THREADS"))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--steps", type=int, default=50)
    options = parser.parse_args()
    if options.worker:
        worker(options.worker[0], int(options.worker[1]))
        return
    from importlib import metadata

    cores = len(os.sched_getaffinity(0))
    lines = [
        "# Threads of a training step, measured",
        "",
        "Made by `python tests/benchmarks/threads.py --out FILE`, whose head says what is",
        "compared.",
        f"Milliseconds of a step, the mean of {options.steps}, and the share of one thread's time.",
        "Where the load of other work is not near 0, the machine was not quiet.",
        "",
        f"{platform.machine()}, {cores} cores, Python {platform.python_version()}, "
        f"torch {metadata.version('torch')}; load before: {os.getloadavg()[0]:.1f}.",
        "",
        f"| model | busy processes beside | {' | '.join(WAYS)} |",
        "|---" * (2 + len(WAYS)) + "|",
    ]
    for model in ("nano", "tiny"):
        for load in (0, 1, cores):
            t = seconds(model, options.steps, load)
            cells = " | ".join(f"{1000 * v:,.0f} ms: {v / t['1 thread']:.2f}" for v in t.values())
            lines.append(f"| {model} | {load} | {cells} |")
    lines += [
        "",
        "## `geomkit train --loss cua --dim 3`",
        "",
        "| busy processes beside | load of other work before | time | CPU time | checkpoint |",
        "|---|---|---|---|---|",
        *(default_run(load) for load in (0, 1)),
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    if options.out:
        options.out.write_text(text)


if __name__ == "__main__":
    main()
