"""A logit bias, as SigLIP has, reaches a loss that declares one, and is trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from geomkit.losses import TERMS, Term, parse_loss
from geomkit.models.checkpoints import load_run
from geomkit.training.config import configure
from geomkit.training.loop import train

SMALL = {"dim": 3, "model": "nano", "pairs": 32, "batch_size": 16, "steps": 4, "warmup": 1}


@pytest.fixture
def term(monkeypatch: pytest.MonkeyPatch) -> Term:
    made = replace(TERMS["siglip"], logit_bias=-4.0)
    monkeypatch.setitem(TERMS, made.name, made)
    return made


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_bias_is_trained_saved_and_resumed(term: Term, tmp_path: Path, accumulate: int) -> None:
    config = configure(**SMALL, loss="siglip + alignment", accumulate=accumulate)
    whole = train(config, tmp_path / "whole.pt")
    bias = whole.state_dict["logit_bias"].item()
    assert bias != -4.0 and whole.model_config["init_logit_bias"] == -4.0
    assert whole.opened().model.logit_bias.item() == bias  # type: ignore[union-attr]
    # AdamW's first steps are of the learning rate's size: 2e-3 warmed up and annealed.
    assert abs(bias + 4.0) < 4 * config.lr
    seen: list[int] = []
    from geomkit.training.loop import Interrupted

    with pytest.raises(Interrupted):
        train(
            config, tmp_path / "part.pt", watch=lambda e: seen.append(e.step),
            should_stop=lambda: seen[-1] >= 2,
        )  # fmt: skip
    half = load_run(tmp_path / "part.pt").state_dict["logit_bias"].item()
    train(config, tmp_path / "part.pt", resume=True)
    again = load_run(tmp_path / "part.pt").state_dict["logit_bias"].item()
    assert again == bias != half


def test_a_pretrained_model_without_a_bias_gets_one(term: Term, tmp_path: Path) -> None:
    start = tmp_path / "clip.pt"
    train(configure(**SMALL), start)
    assert "logit_bias" not in load_run(start).state_dict
    options = {"recipe": "sphere", "pairs": 32, "batch_size": 16, "steps": 2, "warmup": 0}
    tuned = train(configure(loss="siglip", pretrained=str(start), **options), tmp_path / "t.pt")
    assert tuned.state_dict["logit_bias"].item() != -4.0
    assert tuned.opened().model.logit_bias is not None
    # A softmax does not depend on a bias: it stays, and the other weights do not notice it.
    spared = train(
        configure(loss="clip", pretrained=str(tmp_path / "t.pt"), **options), tmp_path / "c.pt"
    )
    assert torch.equal(spared.state_dict["logit_bias"], tuned.state_dict["logit_bias"])


def test_losses_without_a_bias_declare_none(term: Term) -> None:
    assert parse_loss("cuaxu").logit_bias is None and parse_loss("2*siglip").logit_bias == -4.0
    assert parse_loss("siglip").uses_temperature and not parse_loss("uaxu").uses_temperature
