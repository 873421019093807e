"""What runs on CUDA equals what runs on a CPU. Needs a GPU and GEOMKIT_CUDA=1.

The other tests hide the GPU, so that they are the same on every machine.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from geomkit.embeddings import Embeddings
from geomkit.losses import PRESETS, ContrastiveLoss
from geomkit.metrics import gap

pytestmark = pytest.mark.skipif(
    os.environ.get("GEOMKIT_CUDA") != "1" or not torch.cuda.is_available(),
    reason="needs a GPU and GEOMKIT_CUDA=1",
)


def clouds(n: int, d: int, seed: int = 0, *, narrow: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(n, d))
    rows = [centre + narrow * (shared + 0.5 * rng.normal(size=(n, d))) for centre in (1.0, -0.5)]
    x, y = ((r / np.linalg.norm(r, axis=1, keepdims=True)).astype(np.float32) for r in rows)
    return x, y


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("narrow", [1.0, 1e-2])
def test_every_metric_is_that_of_a_cpu(dtype: torch.dtype, narrow: float) -> None:
    arrays = [torch.from_numpy(a).to(dtype) for a in clouds(2500, 48, narrow=narrow)]
    here, there = gap(*arrays), gap(*(a.cuda() for a in arrays))
    assert here.metrics.keys() == there.metrics.keys() and here.stderr.keys() == there.stderr.keys()
    for name, value in here.metrics.items():
        assert there.metrics[name] == pytest.approx(value, rel=1e-5, abs=1e-5, nan_ok=True), name


def test_several_captions_and_estimates_are_those_of_a_cpu() -> None:
    x, y = clouds(1200, 32)
    index = np.repeat(np.arange(1200), 2)
    texts = np.repeat(y, 2, axis=0)
    texts[1::2] = np.roll(y, 1, axis=0)
    cpu = Embeddings.of(torch.from_numpy(x), torch.from_numpy(texts), index)
    gpu = Embeddings.of(torch.from_numpy(x).cuda(), torch.from_numpy(texts).cuda(), index)
    for options in ({}, {"exact_limit": 500}):
        here, there = gap(cpu, seed=3, **options), gap(gpu, seed=3, **options)
        assert here.estimated == there.estimated
        for name, value in here.metrics.items():
            assert there.metrics[name] == pytest.approx(value, rel=1e-5, abs=1e-5, nan_ok=True), (
                name
            )


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "m2mix"])  # it draws
def test_every_loss_and_its_gradient_are_those_of_a_cpu(name: str) -> None:
    found = []
    for device in ("cpu", "cuda"):
        rows = [torch.from_numpy(a).double().to(device).requires_grad_() for a in clouds(96, 16)]
        unit = [row / row.norm(dim=1, keepdim=True) for row in rows]
        loss = ContrastiveLoss(name)
        scale = torch.tensor(20.0, dtype=torch.float64, device=device)
        bias = torch.tensor(-10.0, dtype=torch.float64, device=device)
        extra = {"logit_bias": bias} if loss.spec.logit_bias is not None else {}
        value = loss(*unit, scale, **extra)
        value.backward()
        found.append([value.detach().cpu(), *(row.grad.cpu() for row in rows)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


def run(out: Path, device: str, **more: Any) -> Any:
    from geomkit.training.config import configure
    from geomkit.training.loop import train

    fields: dict[str, Any] = {
        "loss": "cua", "dim": 8, "model": "nano", "data": "openmoji,n=80", "batch_size": 16,
        "steps": 12, "eval_every": 6, "warmup": 2, "precision": "fp32", "seed": 3,
    }  # fmt: skip
    how = {name: more.pop(name) for name in ("resume", "should_stop", "watch") if name in more}
    return train(configure(**{**fields, **more}), out, device=device, **how)


def test_training_is_that_of_a_cpu_and_resumes(tmp_path: Path) -> None:
    from geomkit.training.loop import Interrupted

    steps: list[tuple[int, int, float]] = []

    def watch(event: Any) -> None:
        if event.kind == "step":
            steps.append((event.step, event.terms_step, sum(event.terms.values())))

    here = run(tmp_path / "cpu.pt", "cpu", watch=watch)
    losses = {of: loss for _, of, loss in steps}
    steps.clear()
    there = run(tmp_path / "cuda.pt", "cuda", watch=watch)
    # The loss of a step comes with the next one.
    assert [of for _, of, _ in steps] == list(range(12))
    for _, of, loss in steps[1:]:
        assert loss == pytest.approx(losses[of], rel=1e-3)
    for one, other in zip(here.history, there.history, strict=True):
        for name in ("centroid_distance", "uniformity", "paired_cosine"):
            assert one.metrics[name] == pytest.approx(other.metrics[name], abs=2e-2), name
    seen = [0]
    with pytest.raises(Interrupted):
        run(
            tmp_path / "twice.pt", "cuda", watch=lambda e: seen.append(e.step),
            should_stop=lambda: seen[-1] >= 7,
        )  # fmt: skip
    twice = run(tmp_path / "twice.pt", "cuda", resume=True)
    for name, weight in there.state_dict.items():
        torch.testing.assert_close(twice.state_dict[name], weight, rtol=1e-3, atol=1e-4, msg=name)


def test_trackers_hold_every_step(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from geomkit.training.trackers import tracker

    out = tmp_path / "run.pt"
    run(out, "cuda", watch=tracker("tensorboard", out))
    held = EventAccumulator(str(tmp_path / "run_tensorboard"))
    held.Reload()
    assert [p.step for p in held.Scalars("train/loss")] == list(range(1, 13))


def test_the_half_precision_that_auto_chooses(tmp_path: Path) -> None:
    found = run(tmp_path / "a.pt", "cuda", precision="auto")
    assert found.config["precision"] == "bf16"
    plain = run(tmp_path / "b.pt", "cuda")
    name = "uniformity"
    assert found.history[-1].metrics[name] == pytest.approx(
        plain.history[-1].metrics[name], abs=0.1
    )


def test_commands(cli: Callable, tmp_path: Path) -> None:
    small = ["--data", "openmoji,n=80", "--model", "nano", "--steps", "6", "--batch-size", "16"]
    done = cli("train", "--loss", "cua", "--dim", "3", *small, "--pairs", "80", "--device", "cuda",
               "--eval-every", "3", "--out", "c.pt")  # fmt: skip
    assert done.status == 0, done.err
    found = {}
    for device in ("cpu", "cuda"):
        done = cli("gap", "c.pt", "--json", "--device", device, "--precision", "fp32")
        assert done.status == 0, done.err
        (found[device],) = json.loads(done.out)["results"]
    assert found["cuda"]["meta"]["device"].startswith("cuda")
    for name, value in found["cpu"]["metrics"].items():
        if value is not None:
            other = found["cuda"]["metrics"][name]
            assert other == pytest.approx(value, rel=1e-2, abs=1e-2), name
    for words in (
        ["plot-sphere", "c.pt", "--device", "cuda", "--out", "s.png"],
        ["extract", "c.pt", "--device", "cuda", "--out", "e"],
        ["close", "c.pt", "--device", "cuda", "--out", "closed.safetensors"],
        ["zeroshot", "c.pt", "--data", "openmoji,attribute=flag", "--device", "cuda"],
        ["report", "c.pt", "--device", "cuda", "--out", "r.html"],
    ):
        done = cli(*words)
        assert done.status == 0, (words, done.err)
