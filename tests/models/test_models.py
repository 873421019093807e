"""Models: open_clip's classes, our forward pass, its own loader."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import get_type_hints

import open_clip
import pytest
import torch
from open_clip.coca_model import MultimodalCfg
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from torch.utils._python_dispatch import TorchDispatchMode

from geomkit.errors import GeomkitError
from geomkit.models.architectures import model_config
from geomkit.models.open_clip_source import config_classes, stored_configs
from geomkit.models.preprocess import Preprocess
from geomkit.models.tokenizers import Tokenizer
from geomkit.models.towers import open_clip_model
from geomkit.models.two_encoder import build

CAPTIONS = ["a", "flag of the United Kingdom", "woman in motorized wheelchair facing right", "🦊"]


@pytest.mark.parametrize("name", ["tiny", "nano"])
def test_encoders_equal_open_clips_own(name: str) -> None:
    torch.manual_seed(0)
    config = model_config(name, dim=5)
    model = build(config).double().eval()
    assert type(model.clip) is CLIP
    tokens = Tokenizer.for_model(config).encode(CAPTIONS)
    images = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    x, y, scale = model(images, tokens)
    torch.testing.assert_close(x, model.clip.encode_image(images, normalize=True))
    torch.testing.assert_close(y, model.clip.encode_text(tokens, normalize=True))
    # trimmed to the longest caption of the batch the rows stay the same
    trimmed = model.trim(tokens)
    assert trimmed.shape[1] < 16
    torch.testing.assert_close(model.encode_text(trimmed), y, rtol=1e-12, atol=1e-14)
    assert scale.item() == pytest.approx(1 / 0.07, rel=1e-6)
    # and open_clip's model as it comes, with its own attention, gradients included
    stock = open_clip_model(config, init_logit_scale=0.0).double()
    stock.load_state_dict(model.clip.state_dict())
    torch.testing.assert_close(x, stock.encode_image(images, normalize=True))
    torch.testing.assert_close(y, stock.encode_text(tokens, normalize=True))
    ((x[:, 0].sum() + y[:, 0].sum()) * 3).backward()
    both = stock.encode_image(images, normalize=True), stock.encode_text(tokens, normalize=True)
    (sum(rows[:, 0].sum() for rows in both) * 3).backward()
    for weight, other in zip(model.clip.parameters(), stock.parameters(), strict=True):
        if other.grad is not None:
            torch.testing.assert_close(weight.grad, other.grad, rtol=1e-9, atol=1e-12)


class _Copies(TorchDispatchMode):
    """Counts copies of whole tensors, and tensors filled with zeros."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.overloadpacket.__name__ in ("copy_", "clone", "fill_", "zero_")
        return func(*args, **(kwargs or {}))


def test_a_block_copies_once_for_the_backward_pass() -> None:
    """What torch's own layer does: queries, keys and values apart, and back."""
    torch.manual_seed(0)
    blocks = build(model_config("nano", dim=3)).clip.transformer.resblocks
    with _Copies() as copies:
        blocks[0](torch.randn(2, 5, 64, requires_grad=True)).sum().backward()
    assert copies.count <= 2


def test_a_vocabulary_of_the_captions() -> None:
    whole = Tokenizer.for_model(model_config("nano"))
    words = whole.for_captions(CAPTIONS)
    known = torch.tensor(words.known)
    # the same tokens under other numbers: start and end are the largest still
    ids, before = words.encode(CAPTIONS), whole.encode(CAPTIONS)
    assert torch.equal(torch.where(before > 0, known[ids], 0), before)
    assert ids.max() == words.size - 1 < 300
    # those of other texts share ids that no caption has
    other = ["Überraschung 猫!", "xylophone", "a flag"]
    here = words.encode(other)
    for row, full in zip(here.tolist(), whole.encode(other).tolist(), strict=True):
        own = [words.kept.index(t) if t in words.kept else 16 + t % 256 for t in full if t < 49406]
        end = full.index(49407)
        assert row[1:end] == own[: end - 1] and row[0] == 272 and row[end] == 273
    assert not set(here[1, 1:2].tolist()) & set(ids.flatten().tolist())
    again = Tokenizer.from_dict(words.as_dict())
    assert again == words and torch.equal(again.encode(other), here)
    for kept in ([-1], [600, 600], [49406]):
        with pytest.raises(GeomkitError, match=r"kept: expected ids from 0 to 49405, in order"):
            Tokenizer.from_dict({**words.as_dict(), "kept": kept})


def test_a_caption_that_fills_the_context() -> None:
    config = model_config("nano", dim=4)
    model = build(config).double().eval()
    tokens = Tokenizer.for_model(config).encode(["one two three " * 40, "x"])
    assert tokens.shape == (2, 32)
    assert model.trim(tokens).shape == (2, 32)
    torch.testing.assert_close(
        model.encode_text(tokens), model.clip.encode_text(tokens, normalize=True)
    )


def test_any_architecture_of_open_clips() -> None:
    config = model_config("ViT-B-32", dim=3)
    assert config["embed_dim"] == 3 and config["vision_cfg"]["image_size"] == 224
    assert Preprocess.for_model(config).size == 224
    assert Tokenizer.for_model(config).context_length == 77


def test_names_and_configs_of_open_clip_are_read_without_it() -> None:
    found = stored_configs()
    assert list(found) == open_clip.list_models()
    assert found == {name: open_clip.get_model_config(name) for name in found}
    classes = (CLIPVisionCfg, CLIPTextCfg, MultimodalCfg)
    for own, wanted in zip(config_classes(), classes, strict=True):
        assert own is not wanted and asdict(own()) == asdict(wanted())
        assert get_type_hints(own) == get_type_hints(wanted)


def test_dimension_temperature_and_size() -> None:
    torch.manual_seed(0)
    model = build(
        model_config("nano", dim=2, image_size=64), temperature=0.01, learn_temperature=False
    )
    assert model.encode_image(torch.zeros(1, 3, 64, 64)).shape == (1, 2)
    assert model.clip.logit_scale.item() == pytest.approx(math.log(100), rel=1e-6)
    assert not model.clip.logit_scale.requires_grad


def test_pixels_are_standardised() -> None:
    preprocess = Preprocess.for_model(model_config("nano"))
    white = torch.full((1, 2, 2, 3), 255, dtype=torch.uint8)
    out = preprocess.to_pixels(white)
    expected = (1 - preprocess.mean[0]) / preprocess.std[0]
    assert out.shape == (1, 3, 2, 2) and out[0, 0, 0, 0].item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: model_config("tinny"), "did you mean 'tiny'"),
        (lambda: model_config("tiny", dim=1), "dim: expected 2 or more, got 1"),
        (lambda: model_config("tiny", image_size=33), "multiple of the model's patch"),
        (lambda: build(model_config("nano"), temperature=0.001), "temperature: expected 0.01 to 1"),
        (
            lambda: Tokenizer.for_model(model_config("ViT-B-16-SigLIP")),
            "would have to be downloaded",
        ),
    ],
)
def test_what_cannot_be_built_is_refused(call, says: str) -> None:
    with pytest.raises(GeomkitError, match=says):
        call()


def test_words_of_preprocessing_are_those_that_decoding_knows() -> None:
    from geomkit.data import decode
    from geomkit.models.preprocess import KNOWN

    assert set(KNOWN["interpolation"]) == set(decode.INTERPOLATIONS)
    assert set(KNOWN["resize_mode"]) == set(decode.RESIZE_MODES)
