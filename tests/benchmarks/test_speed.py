"""Speed beside the floor, on this machine, in one run: ``make benchmark``.

The floor of the pairwise part is its 4·n²·d flops at the rate of one large matrix product measured
here and now.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from geomkit.embeddings.embeddings import Embeddings
from geomkit.engine.moments import Moments
from geomkit.engine.neighbours import Neighbours
from geomkit.engine.pairwise import Pairs, walk
from geomkit.engine.reducers import PotentialSums, RankCounts
from geomkit.metrics import gap, linear_separability
from geomkit.models.tokenizers import Tokenizer

D = 512


def cloud(n: int) -> Embeddings:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, D)).astype(np.float32)
    y = 0.7 * x + rng.standard_normal((n, D)).astype(np.float32)
    x[:, 0] += 8
    y[:, 0] -= 8
    return Embeddings.of(x, y)


def matmul_rate() -> float:
    """Flops a second of a float32 product of this width, the best of five."""
    rows = np.random.default_rng(0).standard_normal((4096, D)).astype(np.float32)
    best = np.inf
    for _ in range(5):
        start = time.perf_counter()
        rows @ rows.T
        best = min(best, time.perf_counter() - start)
    return 2 * 4096**2 * D / best


@pytest.mark.parametrize("n", [5_000, 20_000])
def test_pairwise(benchmark, n: int) -> None:
    e = cloud(n)
    first = e.first_texts()

    def run() -> None:
        walk(Pairs(e.image, e.text, e.image_index, first), [PotentialSums(), RankCounts()])

    floor = 4 * n * n * D / matmul_rate()
    benchmark.pedantic(run, rounds=3, warmup_rounds=1)
    benchmark.extra_info["times_the_floor"] = round(benchmark.stats["median"] / floor, 2)


@pytest.mark.parametrize("distinct", [None, 1000])
def test_neighbours(benchmark, distinct: int | None) -> None:
    """Mutual neighbours, hubness and modality bias, without ties and with 1,000 distinct texts."""
    e = cloud(5_000)
    text = e.text if distinct is None else e.text[:distinct][np.arange(e.n) % distinct]

    def run() -> None:
        found = Neighbours()
        walk(Pairs(e.image, text, e.image_index, e.first_texts()), [found])
        found.near.overlap()
        for modality in ("image", "text"):
            found.near.counts(modality)
            found.near.mixed(modality)

    benchmark.pedantic(run, rounds=3, warmup_rounds=1)


def test_moments(benchmark) -> None:
    e = cloud(5_000)
    benchmark(Moments.of, e.image, e.text)


def test_separability(benchmark) -> None:
    e = cloud(5_000)
    benchmark(linear_separability, e.image, e.text)


def test_gap(benchmark) -> None:
    benchmark(gap, cloud(5_000))


@pytest.mark.parametrize("words", [["--help"], ["gap", "pairs.npz"]])
def test_whole_process(benchmark, tmp_path: Path, words: list[str]) -> None:
    e = cloud(5_000)
    np.savez(tmp_path / "pairs.npz", image=e.image, text=e.text)
    command = [sys.executable, "-m", "geomkit_cli", *words]
    benchmark.pedantic(
        lambda: subprocess.run(command, cwd=tmp_path, capture_output=True, check=True),
        rounds=3,
        warmup_rounds=1,
    )


@pytest.mark.parametrize("loss", ["clip", "cuaxu"])
def test_training_step(benchmark, loss: str) -> None:
    """One step of the 128-D recipe: forward, loss, backward, optimizer."""
    import torch

    from geomkit.losses.contrastive import ContrastiveLoss
    from geomkit.models.architectures import model_config
    from geomkit.models.two_encoder import build

    config = model_config("tiny", dim=128)
    model, criterion = build(config), ContrastiveLoss(loss)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    images = torch.randn(64, 3, 32, 32)
    tokens = model.trim(Tokenizer.for_model(config).encode(["a man with a red hat"] * 64))

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        criterion(*model(images, tokens)).backward()
        optimizer.step()

    benchmark(step)
