"""Training: reproducible, resumable bit for bit, and honest when it fails."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from processes import start_command

from geomkit.errors import GeomkitError
from geomkit.losses.contrastive import ContrastiveLoss
from geomkit.models import tokenizers
from geomkit.models.checkpoints import load_run, save_run, weights_sha256
from geomkit.training.config import (
    TrainConfig,
    configure,
    differences,
    evaluation_steps,
    learning_rate,
)
from geomkit.training.loop import Interrupted, train
from geomkit.training.step import settle

SMALL = {"model": "nano", "pairs": 32, "batch_size": 16, "steps": 6, "warmup": 2, "eval_every": 2}


def small(**changes) -> TrainConfig:
    return configure(**{"dim": 3, "loss": "cua", **SMALL, **changes})


def checksum(path: Path) -> str:
    return weights_sha256(load_run(path).state_dict)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("finished") / "ckpt.pt"
    train(small(), path)
    return path


def test_the_same_seed_gives_the_same_weights(finished: Path, tmp_path: Path) -> None:
    train(small(), tmp_path / "again.pt")
    assert checksum(tmp_path / "again.pt") == checksum(finished)
    train(small(seed=1), tmp_path / "other.pt")
    assert checksum(tmp_path / "other.pt") != checksum(finished)


@pytest.mark.parametrize("stop_at", [1, 3, 4])
def test_stopped_and_resumed_equals_uninterrupted(
    finished: Path, tmp_path: Path, stop_at: int
) -> None:
    path = tmp_path / "ckpt.pt"
    seen: list[int] = []
    with pytest.raises(Interrupted, match="--resume"):
        train(
            small(),
            path,
            watch=lambda e: seen.append(e.step),
            should_stop=lambda: seen[-1] >= stop_at,
        )
    assert load_run(path).step == stop_at
    torch.manual_seed(12345)  # what the process did before must not matter
    resumed = train(small(), path, resume=True)
    assert checksum(path) == checksum(finished)
    whole = load_run(finished)
    assert [r.step for r in resumed.history] == [r.step for r in whole.history]
    assert resumed.history[-1].metrics == whole.history[-1].metrics
    assert path.read_bytes() == finished.read_bytes()
    for a, b in zip(resumed.snapshots, whole.snapshots, strict=True):
        assert a.step == b.step and torch.equal(a.image, b.image)


def test_killed_and_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    words = "train --loss cua --dim 3 --model nano --pairs 32 --batch-size 16 --steps 60 --warmup 2"
    path = tmp_path / "killed.pt"
    child = start_command([*words.split(), "--eval-every", "3", "--out", path.name], tmp_path)
    while child.is_alive() and not path.exists():
        time.sleep(0.05)
    time.sleep(0.4)
    child.kill()
    child.join()
    reached = load_run(path).step
    assert reached < 60
    config = small(steps=60, eval_every=3)
    train(config, path, resume=True)
    train(config, tmp_path / "whole.pt")
    assert checksum(path) == checksum(tmp_path / "whole.pt")


def test_a_vocabulary_of_the_captions_trains_as_the_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Embeddings that no caption has get no gradient; a run that has them goes on with them."""
    options = {"precision": "fp64", "steps": 3, "eval_metrics": "alignment, centroid_distance"}
    own = train(small(**options), tmp_path / "own.pt")
    with monkeypatch.context() as patch:
        patch.setattr(tokenizers, "_MOST_CAPTIONS", 0)
        with pytest.raises(Interrupted):
            train(small(**options), tmp_path / "whole.pt", should_stop=lambda: True)
    whole = train(small(**options), tmp_path / "whole.pt", resume=True)
    assert whole.model_config["text_cfg"]["vocab_size"] == tokenizers.VOCABULARY
    assert own.model_config["text_cfg"]["vocab_size"] == own.tokenizer.size < 650
    rows = whole.state_dict["token_embedding.weight"][own.tokenizer.known]
    torch.testing.assert_close(
        {**whole.state_dict, "token_embedding.weight": rows}, own.state_dict, rtol=1e-7, atol=1e-9
    )
    assert (tmp_path / "own.pt").stat().st_size < (tmp_path / "whole.pt").stat().st_size / 7
    # texts of other words are embedded with the parts that are known
    model = own.opened().model
    assert model.encode_text(own.tokenizer.encode(["xylophone"])).shape == (1, 3)
    for record in own.history:
        assert record.metrics.keys() == {"alignment", "centroid_distance"}


def test_randomness_outside_is_left_alone(tmp_path: Path) -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    train(small(steps=1), tmp_path / "c.pt")
    assert torch.equal(torch.get_rng_state(), before)


def test_the_checkpoint_holds_what_it_promises(finished: Path) -> None:
    content = torch.load(finished, weights_only=True)
    assert content["format"] == "geomkit-checkpoint" and content["schema_version"] == 1
    assert content["loss"] == "clip + uniformity + alignment"
    assert content["step"] == 6 and content["epoch"] == 3
    assert content["config"]["recipe"] == "sphere" and content["config"]["precision"] == "fp32"
    assert content["data"]["fingerprint"]["count"] == 32
    assert {"torch", "open_clip_torch", "geomkit"} <= set(content["versions"])
    steps = [record["step"] for record in content["history"]]
    assert steps == evaluation_steps(small()) == [s["step"] for s in content["snapshots"]]
    record = content["history"][-1]
    assert set(record["train_terms"]) == {"clip_loss", "uniformity_loss", "alignment_loss"}
    assert record["split"] == "train" and math.isfinite(record["loss"])
    assert content["snapshots"][0]["image"].shape == (32, 3)


def test_open_clip_loads_the_weights(finished: Path) -> None:
    from open_clip.model import CLIP

    content = load_run(finished)
    model = CLIP(**content.model_config)
    model.load_state_dict(content.state_dict)
    assert torch.equal(model.text_projection, content.opened().model.clip.text_projection)


def test_snapshots_are_what_the_model_gives(finished: Path) -> None:
    from geomkit.extraction.load import load_source

    embeddings, split = load_source(finished, split="train")
    assert split == "train" and embeddings.n == 32
    last = load_run(finished).snapshots[-1]
    torch.testing.assert_close(torch.from_numpy(embeddings.image), last.image)


def test_resume_of_nothing_starts_and_of_a_finished_run_does_nothing(
    finished: Path, tmp_path: Path
) -> None:
    train(small(steps=1), tmp_path / "new.pt", resume=True)
    assert load_run(tmp_path / "new.pt").step == 1
    before = finished.stat().st_mtime_ns
    notes: list[str] = []
    train(small(), finished, resume=True, watch=lambda e: notes.append(e.note))
    assert finished.stat().st_mtime_ns == before and notes == ["already finished"]


def test_an_existing_file_and_another_configuration_are_refused(finished: Path) -> None:
    before = finished.read_bytes()
    with pytest.raises(GeomkitError, match="exists already; give --resume"):
        train(small(), finished)
    with pytest.raises(GeomkitError, match=r"another configuration \(lr: 0.002 → 0.1\)"):
        train(small(lr=0.1), finished, resume=True)
    with pytest.raises(GeomkitError, match="exclude each other"):
        train(small(), finished, resume=True, overwrite=True)
    assert finished.read_bytes() == before


def test_other_data_than_the_checkpoints_is_refused(tmp_path: Path, finished: Path) -> None:
    content = load_run(finished)
    content.data["fingerprint"]["sha256"] = "0" * 64
    save_run(tmp_path / "c.pt", replace(content, step=2))
    with pytest.raises(GeomkitError, match="trained on other data"):
        train(small(), tmp_path / "c.pt", resume=True)


def test_a_loss_that_turns_nan_stops_at_once_and_keeps_the_last_good_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c.pt"
    real = ContrastiveLoss.forward
    calls = {"n": 0}

    def spoilt(self, *args, **kwargs):
        out = real(self, *args, **kwargs)
        if isinstance(out, dict):
            calls["n"] += 1
            if calls["n"] == 4:
                out["alignment_loss"] = out["alignment_loss"] * math.nan
        return out

    monkeypatch.setattr(ContrastiveLoss, "forward", spoilt)
    with pytest.raises(GeomkitError, match="step 4: alignment_loss is nan"):
        train(small(), path)
    content = load_run(path)
    assert content.step == 2
    assert all(t.isfinite().all() for t in content.state_dict.values())


def test_a_gradient_that_is_not_finite_keeps_the_last_good_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = ContrastiveLoss.forward
    calls = {"n": 0}

    def spoilt(self, image, *args, **kwargs):
        if image.requires_grad:
            calls["n"] += 1
            if calls["n"] == 3:
                image.register_hook(lambda gradient: gradient * math.inf)
        return real(self, image, *args, **kwargs)

    monkeypatch.setattr(ContrastiveLoss, "forward", spoilt)
    with pytest.raises(GeomkitError, match=r"step 3: .* is not finite, after a gradient"):
        train(small(), tmp_path / "c.pt", should_stop=lambda: calls["n"] == 3)
    content = load_run(tmp_path / "c.pt")
    assert content.step == 2
    assert all(t.isfinite().all() for t in content.state_dict.values())


def test_a_gradient_that_is_not_used_leaves_no_trace() -> None:
    layers = torch.nn.BatchNorm1d(3), torch.nn.Dropout(0.5), torch.nn.Linear(3, 1)
    network, rows = torch.nn.Sequential(*layers), torch.randn(8, 3)
    before = [torch.get_rng_state(), *(b.clone() for b in network.buffers())]
    settle(network, lambda: network(rows).sum().backward(), device="cpu")
    assert network[2].weight.grad is not None
    after = [torch.get_rng_state(), *network.buffers()]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_every_step_reports_the_temperature_of_its_loss(tmp_path: Path) -> None:
    found: list[float | None] = []
    train(
        small(temperature=0.05, learn_temperature=True, lr=0.1, warmup=0),
        tmp_path / "c.pt",
        watch=lambda event: found.append(event.temperature) if event.kind == "step" else None,
    )
    assert found[0] == pytest.approx(0.05) and len(set(found)) == len(found) == 6


def test_a_full_disk_keeps_the_old_checkpoint(finished: Path, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    path = tmp_path / "ckpt.pt"
    path.write_bytes(finished.read_bytes())
    content = load_run(path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # A limit on file size fails a write half way through, as a full disk does.
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))
    try:
        with pytest.raises(
            GeomkitError, match=r"cannot be written \(File too large\); the target is unchanged"
        ):
            save_run(path, content)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_bytes() == finished.read_bytes()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("learn", [False, True])
def test_temperature_fixed_or_learned_within_its_range(tmp_path: Path, learn: bool) -> None:
    config = small(temperature=0.01, learn_temperature=learn, lr=0.1, warmup=0)
    history = train(config, tmp_path / "c.pt").history
    temperatures = [record.temperature for record in history]
    assert temperatures[0] == pytest.approx(0.01)
    assert all(0.0099999 <= t <= 1.00001 for t in temperatures)
    assert (len(set(temperatures)) > 1) == learn


def test_scheduled_temperature_and_drawn_mixing_are_resumed(tmp_path: Path) -> None:
    options = {"loss": "clip + m2_mix", "temperature": 0.1, "eval_metrics": "alignment"}
    config, found, seen = small(**options, final_temperature=0.02), [], [0]
    whole = train(
        config, tmp_path / "whole.pt",
        watch=lambda event: found.append(event.temperature) if event.kind == "step" else None,
    )  # fmt: skip
    assert found == pytest.approx(np.geomspace(0.1, 0.02, 6), rel=1e-6)
    assert [record.temperature for record in whole.history] == pytest.approx(
        [found[max(0, record.step - 1)] for record in whole.history], rel=1e-6
    )
    assert whole.state_dict["logit_scale"].item() == pytest.approx(math.log(50), rel=1e-6)
    with pytest.raises(Interrupted):
        train(
            config, tmp_path / "part.pt", watch=lambda e: seen.append(e.step),
            should_stop=lambda: seen[-1] >= 3,
        )  # fmt: skip
    torch.manual_seed(12345)
    train(config, tmp_path / "part.pt", resume=True)
    assert (tmp_path / "part.pt").read_bytes() == (tmp_path / "whole.pt").read_bytes()
    # Neither what an evaluation draws nor a schedule between equal ends changes the weights.
    train(small(**{**options, "eval_every": 6}), tmp_path / "fixed.pt")
    train(small(**options, final_temperature=0.1), tmp_path / "equal.pt")
    assert checksum(tmp_path / "fixed.pt") == checksum(tmp_path / "equal.pt")


def test_bf16_and_learning(tmp_path: Path) -> None:
    config = small(precision="bf16", steps=60, eval_every=60, pairs=64, batch_size=32, loss="clip")
    content = train(config, tmp_path / "c.pt")
    assert content.config["precision"] == "bf16"
    assert content.history[-1].loss < content.history[0].loss - 0.5
    assert all(t.dtype == torch.float32 for t in content.state_dict.values())


def test_more_than_three_dimensions_have_no_snapshots_and_hold_out(tmp_path: Path) -> None:
    content = train(small(dim=5, recipe="standard", steps=1), tmp_path / "c.pt")
    assert content.snapshots == [] and content.history[0].split == "val"


def test_learning_rate_schedules() -> None:
    cosine = TrainConfig(lr=1.0, warmup=10, steps=110)
    assert learning_rate(cosine, 4) == pytest.approx(0.5)
    assert learning_rate(cosine, 10) == 1 and learning_rate(cosine, 60) == pytest.approx(0.5)
    assert learning_rate(cosine, 109) < 1e-3
    assert learning_rate(TrainConfig(lr=1.0, schedule="constant"), 599) == 1


def test_recipes_by_dimension() -> None:
    assert configure(dim=3).recipe == "sphere" and configure(dim=4).recipe == "standard"
    assert configure(dim=128, recipe="sphere").pairs == 1024
    assert differences({**vars(TrainConfig()), "threads": 9}, TrainConfig()) == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"dim": 1}, "dim: expected 2 or more"),
        ({"loss": "cuaq"}, "did you mean 'cua'"),
        ({"recipe": "sfere"}, "did you mean 'sphere'"),
        ({"schedule": "cosin"}, "did you mean 'cosine'"),
        ({"batch_size": 1}, "batch size: expected 2 or more"),
        ({"steps": 0}, "steps: expected 1 or more"),
        ({"steps": 10**12}, "steps: expected 1 or more, up to 100,000,000"),
        ({"steps": 10**8, "eval_every": 1}, "100,000,000 evaluations in 100,000,000 steps; give a"),
        ({"seed": 2**70}, "seed: expected 0 or more, up to"),
        ({"seed": -1}, "seed: expected 0 or more"),
        ({"threads": 20_000}, "threads: expected 0 or more, up to 1,024"),
        ({"dim": 10**9}, "dim: expected 2 or more, up to 100,000"),
        ({"image_size": 10**6}, "image size: expected 1 or more, up to 10,000"),
        ({"lr": 0.0}, "lr: expected a positive number"),
        ({"lr": math.nan}, "lr: expected a positive number"),
        ({"weight_decay": -1.0}, "weight decay: expected 0 or more"),
        ({"temperature": 0.001}, "temperature: expected 0.01 to 1"),
        ({"final_temperature": 2.0}, "final temperature: expected 0.01 to 1, got 2"),
        ({"final_temperature": 0.1, "learn_temperature": True}, "exclude each other"),
        ({"final_temperature": 0.1, "loss": "uaxu"}, "--final-temperature: no term of the loss"),
        ({"beta2": 1.0}, r"beta2: expected a number in \[0, 1\)"),
        ({"eval_split": "test"}, "unknown split 'test'"),
        ({"eval_metrics": "alignment,gapp"}, "unknown metric 'gapp'"),
        ({"pairs": 5, "data": "openmoji,n=12"}, "has n=12; give one"),
    ],
)
def test_configurations_out_of_range_are_refused(changes: dict, says: str) -> None:
    with pytest.raises(GeomkitError, match=says):
        small(**changes)


def test_workers_out_of_range_are_refused(tmp_path: Path) -> None:
    for workers in (-3, 10**6):
        with pytest.raises(GeomkitError, match="workers: expected 0 to 256"):
            train(small(), tmp_path / "c.pt", workers=workers)


def test_a_batch_larger_than_the_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GeomkitError, match="64 is more than the 32 training pairs"):
        train(small(batch_size=64), tmp_path / "c.pt")
    assert not list(tmp_path.iterdir())
