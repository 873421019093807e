"""What each loss costs a step: its forward and backward beside clip's and a ViT-B/32's step.

    python tests/benchmarks/losses.py --out reports/benchmarks/losses.md

The losses take turns on the same unit rows, and medians over the rounds are compared. On a CPU all
is measured in processor time of one thread, on which other work has little influence. The model's
forward, backward and optimizer step is measured at a small batch, with captions cut to the longest
one as in training, and scaled to the batch of the losses, which a CPU does not hold. The shares of
FLOPs do not depend on the machine: matrix products of forward and backward, counted by torch.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode
from training import Bench, in_turns, median

from geomkit._core.runtime import resolve_device
from geomkit.losses import PRESETS, TERMS, ContrastiveLoss, parse_loss

BATCH, DIM = 1024, 512


def losses(device: str) -> dict[str, Callable[[], object]]:
    """The forward and backward of every term and preset, clip first."""
    x, y = (
        torch.nn.functional.normalize(torch.randn(BATCH, DIM, device=device), dim=1)
        .requires_grad_()
        for _ in range(2)
    )  # fmt: skip
    scale, bias = (torch.tensor(v, device=device, requires_grad=True) for v in (100.0, -10.0))

    def step(criterion: ContrastiveLoss) -> Callable[[], object]:
        with_bias = [bias] if criterion.spec.logit_bias is not None else []
        return lambda: torch.autograd.backward(criterion(x, y, scale, *with_bias))

    return {name: step(ContrastiveLoss(name)) for name in dict.fromkeys([*TERMS, *PRESETS])}


def flops(work: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def model_flops(bench: Bench) -> int:
    """Of the model's forward and backward at the batch of the losses."""
    model = bench.model()
    images = bench.preprocess.to_pixels(bench.uint8.to(bench.device))
    words = model.trim(bench.tokens[: len(images)]).to(bench.device)

    def step() -> None:
        x, y, scale = model(images, words)
        (x.sum() + y.sum() + scale).backward()

    return flops(step) * BATCH // len(images)


def main() -> None:
    """Print the table, and write it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    os.environ["GEOMKIT_CACHE"] = tempfile.mkdtemp()
    device = resolve_device(options.device)
    cuda = device.startswith("cuda")
    name = torch.cuda.get_device_name() if cuda else f"{platform.machine()}, {os.cpu_count()} cores"
    load = os.getloadavg()[0]
    size = BATCH if cuda else 16
    bench = Bench("ViT-B-32", size, 10 if cuda else 2, device)
    if not cuda:
        torch.set_num_threads(1)
        bench.clock = time.process_time  # type: ignore[method-assign]
    tower = bench.bare() * BATCH / size
    works = losses(device)

    def timed(work: Callable[[], object]) -> Callable[[], float]:
        def seconds() -> float:
            start = bench.clock()
            work()
            return bench.clock() - start

        return seconds

    took = median(in_turns(options.rounds, **{n: timed(work) for n, work in works.items()}))
    counted = {n: flops(work) for n, work in works.items()}
    tower_flops = model_flops(bench)
    rows = [
        f"| {n} | {parse_loss(n).products} | {1000 * took[n]:.1f} ms | "
        f"{took[n] / took['clip']:.2f} | "
        f"{100 * (took[n] - took['clip']) / (tower + took['clip']):+.3f}% | "
        f"{100 * (counted[n] - counted['clip']) / (tower_flops + counted['clip']):+.3f}% |"
        for n in works
    ]
    how = "measured" if cuda else f"{BATCH // size} times that at batch {size}"
    lines = [
        "# The losses, measured",
        "",
        "Made by `python tests/benchmarks/losses.py --out FILE`, whose head says what is compared.",
        f"Batch {BATCH:,}, d = {DIM}, float32, medians of {options.rounds} rounds in turns"
        + ("." if cuda else "; processor time of one thread."),
        "",
        f"{name}, Python {platform.python_version()}, torch {metadata.version('torch')}; "
        f"load before: {load:.1f}.",
        "",
        f"A ViT-B/32's forward, backward and optimizer step take {tower:,.2f} s ({how}, "
        f"{bench.config.precision}) and {tower_flops / 1e12:.1f} TFLOP.",
        "",
        "| loss | products n²·d | forward and backward | of clip's | more than a step with clip | "
        "in FLOP |",
        "|---|---|---|---|---|---|",
        *rows,
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    if options.out:
        options.out.write_text(text)


if __name__ == "__main__":
    main()
