"""Pretrained models made ready: another dimension, frozen parts, gradients in parts."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from geomkit.errors import GeomkitError
from geomkit.extraction.load import load_source
from geomkit.losses.contrastive import ContrastiveLoss
from geomkit.models.architectures import model_config
from geomkit.models.checkpoints import load_run
from geomkit.models.checkpoints.checkpoint import Checkpoint
from geomkit.models.checkpoints.fit import fitted
from geomkit.models.freezing import freeze, projection_names
from geomkit.models.preprocess import Preprocess
from geomkit.models.projections import change_dim
from geomkit.models.tokenizers import Tokenizer
from geomkit.models.two_encoder import build
from geomkit.training import preparation
from geomkit.training.config import configure
from geomkit.training.loop import Interrupted, train
from geomkit.training.step import backward


@pytest.fixture(scope="module")
def loaded() -> Checkpoint:
    config = model_config("nano", dim=12)
    torch.manual_seed(0)
    return Checkpoint(
        build(config).eval(),
        "open_clip",
        "open_clip:nano/x.pt",
        config,
        Preprocess.for_model(config),
        Tokenizer.for_model(config),
    )


def trained(model) -> set[str]:
    return {name for name, weight in model.clip.named_parameters() if weight.requires_grad}


@pytest.mark.parametrize("dim", [3, 12, 40])
def test_both_projections_are_fresh_and_the_rest_is_kept(loaded: Checkpoint, dim: int) -> None:
    changed = change_dim(loaded, dim, seed=5)
    old, new = loaded.model.clip.state_dict(), changed.model.clip.state_dict()
    fresh = {"visual.proj", "text_projection"}
    assert set(projection_names(changed.model)) == fresh and old.keys() == new.keys()
    for name in old:
        assert (name not in fresh) == (
            old[name].shape == new[name].shape and torch.equal(old[name], new[name])
        ), name
    for name in fresh:  # torch's own: uniform on ±1/√64
        assert new[name].shape == (64, dim)
        assert new[name].abs().max() <= 1 / math.sqrt(64)
        expected = 1 / math.sqrt(3 * 64)
        assert new[name].std().item() == pytest.approx(expected, rel=0.2)
    assert changed.model_config["embed_dim"] == dim and loaded.model_config["embed_dim"] == 12
    again = change_dim(loaded, dim, seed=5).model.clip.visual.proj
    assert torch.equal(again, changed.model.clip.visual.proj)


def test_projections_are_kept_where_the_dimension_fits(loaded: Checkpoint) -> None:
    assert change_dim(loaded, 12, keep_projection=True) is loaded
    with pytest.raises(GeomkitError, match="has 12 dimensions"):
        change_dim(loaded, 3, keep_projection=True)


def resnet() -> Checkpoint:
    config = model_config("nano", dim=16)
    config["vision_cfg"] = {
        "image_size": 32,
        "layers": [1, 1, 1, 1],
        "width": 8,
        "patch_size": None,
    }
    return Checkpoint(build(config).eval(), "open_clip", "r", config, Preprocess(32), Tokenizer())


def test_a_resnet_gets_a_projection_without_bias_and_frozen_statistics() -> None:
    loaded = resnet()
    model = change_dim(loaded, 5).model
    c_proj = model.clip.visual.attnpool.c_proj
    assert c_proj.weight.shape[0] == 5 and not c_proj.bias.any() and not c_proj.bias.requires_grad
    freeze(model, "image", fresh_projection=True)
    assert {n for n in trained(model) if n.startswith("visual.")} == {
        "visual.attnpool.c_proj.weight"
    }
    model.train()
    before = model.clip.visual.bn1.running_mean.clone()
    model.encode_image(torch.randn(4, 3, 32, 32))
    assert torch.equal(model.clip.visual.bn1.running_mean, before)


def test_a_frozen_resnet_is_opened_again() -> None:
    loaded = resnet()
    model = loaded.model
    freeze(model, "image", fresh_projection=True)
    weights = model.clip.state_dict()
    assert not any(name.endswith("num_batches_tracked") for name in weights)
    opened = fitted(loaded.model_config, weights, "c.pt")
    pixels = torch.randn(2, 3, 32, 32)
    assert torch.equal(opened.encode_image(pixels), model.eval().encode_image(pixels))


def test_batch_normalisation_in_parts_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparation, "starting_model", lambda *_, **__: resnet())
    config = configure(
        data="openmoji,n=16", batch_size=8, steps=1, accumulate=2, eval_split="train"
    )
    with pytest.raises(GeomkitError, match="--accumulate: batch normalisation would have"):
        train(config, tmp_path / "c.pt", device="cpu")


def test_freezing(loaded: Checkpoint) -> None:
    projections = {"visual.proj", "text_projection"}
    every = trained(change_dim(loaded, 3).model)
    image = {name for name in every if name.startswith("visual.")}
    for what, fresh, left in (
        ("image", True, every - image | {"visual.proj"}),
        ("image", False, every - image),
        ("text", True, image | {"text_projection", "logit_scale"}),
        ("backbone", True, projections | {"logit_scale"}),
        ("backbone", False, projections | {"logit_scale"}),
    ):
        model = change_dim(loaded, 3).model
        freeze(model, what, fresh_projection=fresh)
        assert trained(model) == left, (what, fresh)


def test_locking_counts_layers_from_the_top(loaded: Checkpoint) -> None:
    model = change_dim(loaded, 3).model
    freeze(model, lock_image=2, lock_text=1, fresh_projection=True)
    left = trained(model)
    assert "visual.proj" in left and "text_projection" in left
    assert any(n.startswith("visual.transformer.resblocks.2.") for n in left)
    assert not any(n.startswith("visual.transformer.resblocks.1.") for n in left)
    assert not any(n.startswith("transformer.resblocks.0.") for n in left)
    assert "token_embedding.weight" not in left
    with pytest.raises(GeomkitError, match="unknown part to freeze 'imag'; did you mean 'image'"):
        freeze(model, "imag")


@pytest.mark.parametrize("loss", ["clip", "cuaxu", "uaxu"])
def test_a_batch_in_parts_has_the_gradient_of_the_whole(loaded: Checkpoint, loss: str) -> None:
    torch.manual_seed(0)
    pixels = torch.randn(8, 3, 32, 32, dtype=torch.float64)
    tokens = torch.randint(1, 400, (8, 32))
    tokens[:, 9] = 49407
    found = []
    for chunks in (1, 4):
        model = build(loaded.model_config).double()
        model.clip.load_state_dict(loaded.model.clip.state_dict())
        terms = backward(
            model, ContrastiveLoss(loss), pixels, tokens,
            device="cpu", precision="fp64", chunks=chunks,
        )  # fmt: skip
        grads = {n: w.grad for n, w in model.named_parameters() if w.grad is not None}
        found.append((terms, grads))
    (terms, grads), (terms_in_parts, grads_in_parts) = found
    for name, value in terms.items():
        assert terms_in_parts[name].item() == pytest.approx(value.item(), rel=1e-12)
    for name, gradient in grads.items():
        torch.testing.assert_close(grads_in_parts[name], gradient, rtol=1e-8, atol=1e-12)


def small(**changes):
    options = {"batch_size": 16, "pairs": 32, "steps": 2, "eval_split": "train", **changes}
    return configure(**options)


def test_training_from_a_checkpoint_of_ours(tmp_path: Path) -> None:
    first = train(small(model="nano", dim=6, temperature=0.05), tmp_path / "a.pt")
    source = str(tmp_path / "a.pt")
    config = small(pretrained=source, loss="cua", dim=3, freeze="backbone", lr=1e-3)
    content = train(config, tmp_path / "b.pt")
    assert content.model_config["embed_dim"] == 3 and content.config["recipe"] == "paper"
    moved = {
        name
        for name, weight in content.state_dict.items()
        if name in first.state_dict and not torch.equal(weight, first.state_dict[name])
    }
    assert moved == {"visual.proj", "text_projection", "logit_scale"}  # τ is the recipe's 0.01
    assert content.state_dict["logit_scale"].item() == pytest.approx(math.log(100.0))
    # A run that goes on needs the model it came from no more.
    (tmp_path / "a.pt").unlink()
    longer = train(config, tmp_path / "b.pt", resume=True)
    assert longer.step == 2


def test_a_siglip_of_transformers_is_fine_tuned_and_goes_on(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from model_files import hf_siglip

    hf_siglip(tmp_path / "siglip")
    config = small(pretrained=f"hf:{tmp_path / 'siglip'}", loss="cua", dim=4, steps=4, eval_every=2)
    whole = train(config, tmp_path / "whole.pt")
    seen: list[int] = []
    with pytest.raises(Interrupted):
        train(
            config,
            tmp_path / "c.pt",
            watch=lambda event: seen.append(event.step),
            should_stop=lambda: seen[-1] >= 3,
        )
    resumed = train(config, tmp_path / "c.pt", resume=True)
    assert resumed.model_config["embed_dim"] == 4
    for name, weight in whole.state_dict.items():
        assert torch.equal(weight, resumed.state_dict[name]), name
        if name.endswith("text_projection.bias"):
            assert not weight.any()
    embeddings, split = load_source(tmp_path / "c.pt", split="train")
    assert (embeddings.n, embeddings.dim, split) == (32, 4, "train")


def test_a_pretrained_model_keeps_its_own_dimension_unless_asked(tmp_path: Path) -> None:
    train(small(model="nano", dim=6), tmp_path / "a.pt")
    content = train(small(pretrained=str(tmp_path / "a.pt"), lr=1e-9), tmp_path / "b.pt")
    before = load_run(tmp_path / "a.pt").state_dict["visual.proj"]
    torch.testing.assert_close(content.state_dict["visual.proj"], before, rtol=0, atol=1e-6)
    assert content.config["dim"] == 6


def test_configurations_that_contradict_themselves_are_refused() -> None:
    for options, says in (
        ({"pretrained": "x", "model": "tiny"}, "exclude each other"),
        ({"keep_projection": True}, "--keep-projection: needs --pretrained"),
        ({"steps": 3, "epochs": 2}, "exclude each other"),
        ({"loss": "uaxu", "learn_temperature": True}, "no term of the loss .uaxu."),
        ({"freeze": "imag"}, "did you mean 'image'"),
        ({"captions": "last"}, "unknown choice of captions"),
    ):
        with pytest.raises(GeomkitError, match=says):
            configure(**options)


def test_the_papers_recipe() -> None:
    config = configure(recipe="paper", loss="cua", dim=64, pretrained="openai:ViT-B-32.pt")
    assert (config.epochs, config.batch_size, config.lr, config.weight_decay) == (9, 64, 1e-6, 0.1)
    assert (config.beta1, config.beta2, config.temperature) == (0.9, 0.99, 0.01)
    assert (config.schedule, config.warmup, config.clip_norm) == ("constant", 0, 0.0)
    assert (config.learn_temperature, config.precision, config.dim) == (False, "fp32", 64)


def test_a_batch_is_fitted_to_data_smaller_than_it_only_if_asked(tmp_path: Path) -> None:
    config = small(model="nano", dim=4, batch_size=64, accumulate=3, steps=1)
    with pytest.raises(GeomkitError, match="64 is more than the 32 training pairs"):
        train(config, tmp_path / "c.pt")
    content = train(config, tmp_path / "c.pt", fit_batch=True)
    assert content.config["batch_size"] == 30  # 32 in three equal parts
    assert train(config, tmp_path / "c.pt", fit_batch=True, resume=True).step == 1
