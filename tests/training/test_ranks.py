"""Training over ranks: the loss, gradients and weights of one process on the same global batch."""

from __future__ import annotations

import contextlib
import io
import os
import re
import runpy
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from conftest import clouds
from processes import run_ranks, start_ranks, start_torchrun

from geomkit import GapMonitor
from geomkit._core.parallel import Team
from geomkit.data.loading import Batch, batches
from geomkit.data.pairs import Bad, PairData
from geomkit.errors import GeomkitError
from geomkit.extraction.load import load_pairs
from geomkit.losses.contrastive import ContrastiveLoss
from geomkit.losses.spec import PRESETS, TERMS, parse_loss
from geomkit.models.checkpoints import load_run
from geomkit.models.two_encoder import TwoEncoder
from geomkit.training import loop
from geomkit.training.config import configure
from geomkit.training.loop import Interrupted, train

EXAMPLES = Path(__file__).parents[2] / "examples"
LOSSES = (*TERMS, *PRESETS)

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
        torch.manual_seed(team.rank)  # what a term draws is what the first rank draws
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
    if team.rank:  # only the first rank sees the checkpoints
        Path("elsewhere").mkdir(exist_ok=True)
        os.chdir("elsewhere")
    for name, options in runs.items():
        train(configure(**options), f"{name}.pt", team=team, resume=True)
    together(team)
    embedded(team)
    in_ones_own_loop(team)


def together(team: Team) -> None:
    """What ranks exchange, and what all of them refuse."""
    rows = torch.arange(2.0 * team.rank).reshape(team.rank, 2)  # none on the first rank
    whole = torch.cat([torch.arange(2.0 * k).reshape(k, 2) for k in range(team.size)])
    assert torch.equal(team.join(rows), whole)
    assert torch.equal(team.join(rows, everywhere=False), whole[: len(whole) * (team.rank == 0)])
    state = {"mask": torch.tensor([True]), "steps": torch.tensor(3), "none": torch.empty(0, 2)}
    found = team.first(lambda: {**state, "matrix": whole.T, "name": "é"})
    assert found["name"] == "é" and torch.equal(found["matrix"], whole.T)
    assert all(torch.equal(found[key], value) for key, value in state.items())
    with pytest.raises(GeomkitError, match="no such file"):
        team.first(lambda: load_run("missing.pt"))
    with pytest.raises(GeomkitError, match=r"rank 1: has another number than rank 0 \(1, not 0\)"):
        team.check_same({"number": min(team.rank, 1)})
    last = torch.eye(4)[: 4 - team.rank // (team.size - 1)]  # an incomplete batch on the last rank
    with pytest.raises(GeomkitError, match=r"image_features: .* each rank, got 4, .*drop_last"):
        ContrastiveLoss("clip", global_batch=True)(last, last, torch.tensor(1.0))

    # Two images on each rank do not decode; a rank by itself would go on.
    def failing(*args: Any, **options: Any) -> Iterator[Batch]:
        first, *rest = batches(*args, **options)
        yield replace(first, bad=[Bad(int(row), str(row), "fails") for row in first.rows[:2]])
        yield from rest

    bad = 2 * team.size
    share = (bad - 1) / SMALL["pairs"]
    with (
        mock.patch.object(PairData, "max_bad", share),
        mock.patch.object(loop, "batches", failing),
        pytest.raises(GeomkitError, match=f"and {bad - 1} more: {bad} of 64 images"),
    ):
        train(configure(**{**SMALL, "loss": "cua"}), "bad.pt", team=team)


def embedded(team: Team) -> None:
    """Embeddings of a model, of which each rank computes its part."""
    encoded: list[int] = []
    encode = TwoEncoder.encode_image

    def counted(self: TwoEncoder, pixels: torch.Tensor) -> torch.Tensor:
        encoded.append(len(pixels))
        return encode(self, pixels)

    path = team.first(lambda: Path("cuaxu.pt").resolve())
    with mock.patch.object(TwoEncoder, "encode_image", counted):
        (pairs,), _ = load_pairs(path, split="train", device="cpu", team=team)
    assert pairs.n == SMALL["pairs"] == sum(team.gather(sum(encoded))) and max(encoded) < pairs.n
    np.savez(path.with_name(f"embedded{team.rank}.npz"), image=pairs.image, text=pairs.text)


def in_ones_own_loop(team: Team) -> None:
    """The example of DistributedDataParallel, and a monitor that only the first rank calls."""
    names = runpy.run_path(str(EXAMPLES / "ddp.py"))
    with contextlib.redirect_stdout(io.StringIO()) as out:
        names["main"]()
    said = re.findall(r"distance: (\S+) before, (\S+) after 100 steps", out.getvalue())
    assert [float(a) > 2 * float(b) for a, b in said] == [True] * (team.rank == 0)
    rows = torch.randn(20, 64)
    model = torch.nn.parallel.DistributedDataParallel(names["TwoEncoders"]())
    if team.rank == 0:  # whose forward would wait for the other ranks' running means
        assert GapMonitor((rows, rows), model=model).measure(0).n == 20
    model(rows, rows)[0].sum().backward()


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
    parts = {**SMALL, "loss": "cua + m2_mix", "accumulate": 2, "learn_temperature": True}
    resumed = {**SMALL, "loss": "cuaxu", "final_temperature": 0.02}
    return {**runs, "parts": parts, "resumed": resumed}


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
        torch.manual_seed(0)
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


def test_each_rank_gets_the_embeddings_of_one_process(ranked: tuple) -> None:
    folder, ranks = ranked
    (alone,), _ = load_pairs(folder / "cuaxu.pt", split="train", device="cpu")
    for rank in range(ranks):
        with np.load(folder / f"embedded{rank}.npz") as found:
            np.testing.assert_allclose(found["image"], alone.image, rtol=0, atol=1e-12)
            np.testing.assert_allclose(found["text"], alone.text, rtol=0, atol=1e-12)


def lines(folders: list[Path]) -> list[str]:
    """What ranks said when they ended."""
    said = [line for f in folders for line in (f / "stderr").read_text().splitlines()]
    return [line for line in said if line.startswith("geomkit: ")]


def test_torchrun_killed_and_terminated_and_resumed_reaches_the_same(tmp_path: Path) -> None:
    words = "--loss cuaxu --dim 8 --recipe standard --model nano --pairs 64 --batch-size 16"
    words += " --steps 32 --warmup 2 --eval-every 8 --precision fp64 --temperature 0.05"
    words += " --eval-split train"
    words = ["train", *words.split(), "--out", "c.pt", "--resume"]
    path = tmp_path / "c.pt"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    def written(child: Any) -> None:
        """Wait until the checkpoint is there, or there again."""
        before = path.stat().st_mtime_ns if path.exists() else 0
        while child.is_alive() and not (path.exists() and path.stat().st_mtime_ns > before):
            time.sleep(0.02)
        assert child.is_alive()

    (tmp_path / "images").mkdir()
    missing = [*words, "--data", "imagefolder:images"]
    ranks = start_ranks(missing, [tmp_path, elsewhere])
    assert [process.join() or process.exitcode for process in ranks] == [2, 2]
    (line,) = lines([tmp_path, elsewhere])
    assert "rank 1: imagefolder: images: no such folder" in line
    first, second = start_ranks(words, [tmp_path, elsewhere])  # with no shared disk
    written(first)
    os.kill(second.pid, signal.SIGKILL)
    first.join()
    assert first.exitcode == 2 and not (elsewhere / "c.pt").exists()
    assert load_run(path).step < 32
    (line,) = lines([tmp_path, elsewhere])
    # Which of both is first told depends on where the other rank was.
    assert "another rank has ended" in line or "rank 1 has ended" in line
    first, second = start_ranks(words, [tmp_path, elsewhere], GEOMKIT_TIMEOUT="0.05")
    written(first)
    os.kill(second.pid, signal.SIGSTOP)
    first.join()
    second.join()  # it does not stay
    (line,) = lines([tmp_path, elsewhere])
    assert first.exitcode == 2 and "rank 1 has given no sign of life for 3 seconds" in line
    child = start_torchrun(2, words, tmp_path)
    written(child)
    os.kill(child.pid, signal.SIGTERM)
    child.join()
    assert load_run(path).step < 32
    child = start_torchrun(2, words, tmp_path, restarts=1)
    written(child)
    process = (tmp_path / ".c.pt.lock").read_text().split()[1]  # the first rank
    os.kill(int(process), signal.SIGKILL)
    child.join()
    assert child.exitcode == 0, (tmp_path / "stderr").read_text()[-3000:]
    assert (tmp_path / "stdout").read_text().strip() == "c.pt"  # one rank prints for all
    config = configure(**{**SMALL, "loss": "cuaxu", "steps": 32, "eval_every": 8})
    train(config, tmp_path / "alone.pt")
    assert_same_weights(path, tmp_path / "alone.pt", within=1e-8)
