"""Training over ranks: the loss, gradients and weights of one process on the same global batch."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import clouds
from processes import run_ranks, start_torchrun

from geomkit._core.parallel import Team
from geomkit.losses.contrastive import ContrastiveLoss
from geomkit.losses.spec import PRESETS, parse_loss
from geomkit.models.checkpoints import load_run
from geomkit.training.config import configure
from geomkit.training.loop import Interrupted, train

LOSSES = ("clip", "uniformity", "cross_uniformity", "alignment", *PRESETS)

SMALL = {
    "dim": 8,
    "recipe": "standard",
    "model": "nano",
    "pairs": 64,
    "batch_size": 16,
    "steps": 10,
    "warmup": 2,
    "eval_every": 10,
    "eval_split": "train",
    "precision": "fp64",
    "temperature": 0.05,
}


def program(team: Team, runs: dict[str, dict]) -> None:
    """Every loss and its gradients on a part of the batch, then every training run."""
    held = np.load("batch.npz")
    x, y = (torch.from_numpy(held[key]).chunk(team.size)[team.rank] for key in ("x", "y"))
    found = {}
    for loss in LOSSES:
        own = [t.clone().requires_grad_() for t in (x, y)]
        scale = torch.tensor(12.0, dtype=torch.float64, requires_grad=True)
        value = ContrastiveLoss(loss, global_batch=True)(*own, scale)
        value.backward()
        # What DistributedDataParallel makes of it: the mean over ranks.
        mine = [value.detach(), scale.grad if scale.grad is not None else torch.zeros(())]
        parts = team.gather([t.numpy() for t in mine])
        rows = [np.concatenate(team.gather(t.grad.numpy() / team.size)) for t in own]
        found[loss] = [*np.mean(parts, axis=0), *rows]
    if team.rank == 0:
        np.savez(
            "found.npz", **{f"{k} {i}": v for k, vs in found.items() for i, v in enumerate(vs)}
        )
    for name, options in runs.items():
        train(configure(**options), f"{name}.pt", team=team, resume=True)


def assert_same_weights(a: Path, b: Path, *, within: float) -> None:
    one, other = (load_run(path).state_dict for path in (a, b))
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=within, msg=name)


def runs_of(ranks: int) -> dict[str, dict]:
    """What is trained over so many ranks: some losses, and one in parts, and one resumed."""
    losses = ["clip", "cua", "cuaxu"] if ranks == 2 else ["cuaxu"]
    learnt = {loss: "clip" in parse_loss(loss).weights for loss in losses}
    runs = {loss: {**SMALL, "loss": loss, "learn_temperature": learnt[loss]} for loss in losses}
    parts = {**SMALL, "loss": "cua", "accumulate": 2, "learn_temperature": True}
    return {**runs, "parts": parts, "resumed": {**SMALL, "loss": "cuaxu"}}


RANKS = [2, 4] if int(os.environ.get("GEOMKIT_EXAMPLES", "0")) >= 1000 else [2]
"""Four ranks on two cores take long: they are run where many examples are asked for."""


@pytest.fixture(scope="module", params=RANKS)
def ranked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple:
    """A folder in which so many ranks have done everything; they are slow to start."""
    folder, ranks = tmp_path_factory.mktemp(f"ranks{request.param}"), request.param
    x, y = clouds(24, 5)
    np.savez(folder / "batch.npz", x=x, y=y)
    seen: list[int] = []
    with pytest.raises(Interrupted):
        train(
            configure(**runs_of(ranks)["resumed"]),
            folder / "resumed.pt",
            watch=lambda e: seen.append(e.step),
            should_stop=lambda: seen[-1] >= 4,
        )
    run_ranks(program, ranks, folder, runs_of(ranks))
    return folder, ranks


def test_every_loss_and_its_gradient_are_those_of_the_global_batch(ranked: tuple) -> None:
    folder, _ = ranked
    held, found = np.load(folder / "batch.npz"), np.load(folder / "found.npz")
    for loss in LOSSES:
        own = [torch.from_numpy(held[key]).requires_grad_() for key in ("x", "y")]
        scale = torch.tensor(12.0, dtype=torch.float64, requires_grad=True)
        value = ContrastiveLoss(loss)(*own, scale)
        value.backward()
        slope = 0.0 if scale.grad is None else scale.grad.item()
        expected = [value.item(), slope, own[0].grad, own[1].grad]
        for number, wanted in enumerate(expected):
            np.testing.assert_allclose(
                found[f"{loss} {number}"], wanted, rtol=1e-9, atol=1e-12, err_msg=loss
            )


def test_weights_after_ten_steps_are_those_of_one_process(ranked: tuple, tmp_path: Path) -> None:
    folder, ranks = ranked
    for name, options in runs_of(ranks).items():
        config = configure(**{**options, "accumulate": 1})
        alone = train(config, tmp_path / "alone.pt", overwrite=True)
        assert_same_weights(folder / f"{name}.pt", tmp_path / "alone.pt", within=1e-9)
        content = load_run(folder / f"{name}.pt")
        assert content.ranks == ranks and len(content.history) == 2
        for one, other in zip(content.history, alone.history, strict=True):
            assert one.loss == pytest.approx(other.loss, rel=1e-9)
            assert one.train_terms == pytest.approx(other.train_terms, rel=1e-9)
            assert one.metrics == pytest.approx(other.metrics, rel=1e-6, nan_ok=True)


def test_torchrun_killed_and_terminated_and_resumed_reaches_the_same(tmp_path: Path) -> None:
    words = "--loss cuaxu --dim 8 --recipe standard --model nano --pairs 64 --batch-size 16"
    words += " --steps 40 --warmup 2 --eval-every 5 --precision fp64 --temperature 0.05"
    words += " --eval-split train"
    words = ["train", *words.split(), "--out", "c.pt", "--resume"]
    path = tmp_path / "c.pt"
    for number, end in ((signal.SIGKILL, os.killpg), (signal.SIGTERM, os.kill)):
        child = start_torchrun(2, words, tmp_path)
        before = path.stat().st_mtime_ns if path.exists() else 0
        while child.is_alive() and not (path.exists() and path.stat().st_mtime_ns > before):
            time.sleep(0.05)
        end(child.pid, number)
        child.join()
        assert 0 <= load_run(path).step < 40
    child = start_torchrun(2, words, tmp_path)
    child.join()
    assert child.exitcode == 0, (tmp_path / "stderr").read_text()[-3000:]
    assert (tmp_path / "stdout").read_text().strip() == "c.pt"  # one rank prints for all
    config = configure(**{**SMALL, "loss": "cuaxu", "steps": 40, "eval_every": 5})
    train(config, tmp_path / "alone.pt")
    assert_same_weights(path, tmp_path / "alone.pt", within=1e-8)
