"""Checkpoints, configs and tokenizers made to run code, take memory or give other numbers."""

from __future__ import annotations

import builtins
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import whole_files
from limits import at_most
from whole_files import CONFIG

from geomkit.errors import GeomkitError
from geomkit.models.checkpoints import load_run, open_model, save_run
from geomkit.models.tokenizers import Tokenizer

RAN: list[str] = []


class Code:
    """A value whose pickle runs code."""

    def __reduce__(self) -> Any:
        return (RAN.append, ("ran",))


@pytest.fixture(autouse=True)
def nothing_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """No code of a file runs, and nobody is asked whether it may."""

    def asked(*_: Any) -> str:
        RAN.append("asked")
        return "y"

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(builtins, "input", asked)
    RAN.clear()
    yield
    assert not RAN


def refused(source: str, *says: str) -> None:
    with pytest.raises(GeomkitError) as caught:
        open_model(source)
    for word in says:
        assert word in str(caught.value), str(caught.value)
    assert "\n" not in str(caught.value)


def open_clip_folder(config: dict[str, Any]) -> str:
    Path("oc").mkdir()
    whole_files.open_clip_folder(Path("oc"))
    Path("oc/open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    return "open_clip:oc"


def own(model: dict[str, Any], **changed: Any) -> str:
    save_run("ckpt.pt", whole_files.run(model_config=model, **changed))
    return "ckpt.pt"


def vision(**changed: Any) -> dict[str, Any]:
    return {**CONFIG, "vision_cfg": {**CONFIG["vision_cfg"], **changed}}


def text(**changed: Any) -> dict[str, Any]:
    return {**CONFIG, "text_cfg": {**CONFIG["text_cfg"], **changed}}


def timm(name: str = "vit_tiny_patch16_224", **options: Any) -> dict[str, Any]:
    return vision(timm_model_name=name, timm_pool="map", timm_kwargs=options)


@pytest.mark.parametrize("write", [open_clip_folder, own])
@pytest.mark.parametrize(
    ("config", "says"),
    [
        (timm(checkpoint_path="code.pth"), "vision_cfg.timm_kwargs: 'checkpoint_path' is refused"),
        (timm(pretrained_cfg={"file": "code.pth"}), "'pretrained_cfg' is refused"),
        (timm("local-dir:here"), "'local-dir:here' names a file or a place on a hub"),
        (timm("hf-hub:a/b"), "'hf-hub:a/b' names a file or a place on a hub"),
        (timm("../code"), "'../code' names a file"),
        (text(hf_model_name="../here", hf_tokenizer_name=""), "'../here'"),
        (text(norm_kwargs={"device": "cuda"}), "text_cfg.norm_kwargs: 'device' is refused"),
        (text(tokenizer_kwargs={"trust_remote_code": True}), "'trust_remote_code' is refused"),
    ],
)  # fmt: skip
def test_a_config_names_nothing_elsewhere(write: Any, config: dict[str, Any], says: str) -> None:
    Path("code.pth").write_bytes(pickle.dumps(Code()))
    Path("here").mkdir()
    Path("here/config.json").write_text('{"architecture": "vit_tiny_patch16_224"}')
    refused(write(config), says)


@pytest.mark.parametrize("write", [open_clip_folder, own])
@pytest.mark.parametrize(
    ("config", "says"),
    [
        (vision(layers=10**9), "1,000,000,001 layers, but its weights are only"),
        (vision(layers=[1, 10**8, 1, 1]), "100,000,004 layers"),
        (timm(depth=10**8), "layers, but its weights are only"),
        (vision(width=2**20, head_width=2**20), "do not fit"),
        (text(layers=True), "text_cfg.layers: expected a whole number, got True"),
        (text(width="wide"), "text_cfg.width: expected a whole number, got 'wide'"),
        (text(vocab_size=-(2**31)), "text_cfg.vocab_size: expected a number below 2^31"),
        (text(mlp_ratio=float("inf")), "text_cfg.mlp_ratio: expected a number below 2^31"),
        ({**CONFIG, "text_cfg": 3}, "text_cfg: expected an object, got 3"),
        ({**CONFIG, "embed_dim": [8]}, "embed_dim: expected a whole number, got a list"),
        ({}, "expected an object with embed_dim, vision_cfg and text_cfg"),
    ],
)  # fmt: skip
def test_sizes_of_a_config_are_compared_before_anything_is_built(
    write: Any, config: dict[str, Any], says: str
) -> None:
    source = write(config)
    with at_most(100):
        refused(source, says)


def test_a_long_context_is_compared_before_it_is_built() -> None:
    source = own(text(context_length=20_000))
    with at_most(100):
        refused(source, "its weights do not fit", "'positional_embedding' (77, 8) for (20000, 8)")


def test_a_model_larger_than_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    from geomkit._core import memory

    source = own(CONFIG)
    monkeypatch.setattr(memory, "available_memory", lambda: 20_000)
    refused(source, "ckpt.pt", "GiB by its own account")


def test_code_of_a_text_encoder_is_never_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    base = Path("base").absolute()
    base.mkdir()
    (base / "code.py").write_text("raise SystemExit('ran')")
    (base / "config.json").write_text(
        json.dumps({"model_type": "new", "auto_map": {"AutoConfig": "code.C"}})
    )
    config = text(hf_model_name=str(base))
    refused(own(config, tokenizer=Tokenizer.in_folder(base)), "base/config.json: asks to run code")
    folder = open_clip_folder(config)
    refused(folder, "a path; put the config.json of that encoder into the folder")
    (base / "config.json").rename("oc/config.json")
    whole_files.tokenizer(Path.cwd())
    Path("tokenizer/tokenizer.json").rename("oc/tokenizer.json")
    refused(folder, "oc/config.json: asks to run code")


def test_code_of_a_tokenizer_is_never_asked_for() -> None:
    folder = whole_files.tokenizer(Path.cwd())
    (folder / "code.py").write_text("raise SystemExit('ran')")
    settings = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["code.T", "code.T"]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    for name in ("tokenizer.json", "config.json"):
        (folder / name).unlink()
    for options in ({}, {"use_fast": False}):
        with pytest.raises(GeomkitError, match="its tokenizer cannot be read"):
            Tokenizer.in_folder(folder, options=options).encode(["a dog"])


@pytest.mark.parametrize(
    "change",
    [
        {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}},
        {"post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "x",
         "type_id": 0}}], "pair": [], "special_tokens": {}}},
        {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "invert": False,
         "behavior": "Removed"}},
    ],
)  # fmt: skip
def test_a_tokenizer_that_panics(change: dict[str, Any]) -> None:
    folder = whole_files.tokenizer(Path.cwd())
    whole = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    (folder / "tokenizer.json").write_text(json.dumps({**whole, **change}))
    words = Tokenizer.in_folder(folder)
    with pytest.raises(GeomkitError, match=f"{folder}: its tokenizer") as caught:
        words.encode(["a" * 60 + "!"])
    assert "\n" not in str(caught.value)


def test_flipped_bits_in_weights() -> None:
    source = own(CONFIG)
    content = bytearray(Path(source).read_bytes())
    place = content.index(load_run(source).state_dict["visual.proj"].numpy().tobytes())
    content[place + 2] ^= 1
    Path(source).write_bytes(content)
    refused(source, "ckpt.pt: damaged", "Bad CRC-32")


def test_checksums_that_were_not_written_are_not_compared() -> None:
    crc = getattr(torch.serialization, "set_crc32_options", None)
    if crc is None:
        pytest.skip("this torch always writes them")
    crc(False)
    try:
        source = own(CONFIG)
    finally:
        crc(True)
    assert load_run(source).step == 2


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"epoch": "x"}, "epoch: expected a whole number, got 'x'"),
        ({"loss": 3}, "loss: expected text, got 3"),
        ({"state_dict": {"a": 1}}, "state_dict.a: expected a Tensor, got 1"),
        ({"data": []}, "data: expected an object, got a list"),
        ({"data": {"spec": 1}}, "data.spec: expected text, got 1"),
        ({"config": {"precision": None, "threads": "x"}}, "config.threads: expected a whole"),
    ],
)  # fmt: skip
def test_entries_of_a_wrong_type_are_named(changed: dict[str, Any], says: str) -> None:
    refused(own(CONFIG, **changed), "ckpt.pt: damaged checkpoint", says)


def test_inner_entries_of_a_wrong_type_are_named() -> None:
    content = whole_files.run().as_dict()
    for change, says in (
        ({"preprocess": {**content["preprocess"], "size": "x"}}, "preprocess.size: expected a who"),
        ({"preprocess": {**content["preprocess"], "std": [0, 0, 0]}}, "mean and std of three"),
        ({"tokenizer": {"context_length": 10**9}}, "tokenizer.context_length: 1000000000"),
        ({"tokenizer": {"options": {"x": 1}}}, "tokenizer.options: 'x' is refused"),
        ({"history": [{**content["history"][0], "lr": []}]}, "history[0].lr: expected a number"),
        ({"snapshots": [{"step": 1, "image": torch.ones(3), "text": torch.ones(3)}]}, "snapshots"),
    ):
        torch.save({**content, **change}, "ckpt.pt")
        refused("ckpt.pt", "ckpt.pt: damaged checkpoint: ", says)


def test_weights_of_other_types_are_not_converted() -> None:
    weights = dict(whole_files.model().clip.state_dict())
    for kind in (torch.int8, torch.complex64, torch.bool):
        changed = {**weights, "visual.proj": weights["visual.proj"].to(kind)}
        refused(own(CONFIG, state_dict=changed), "type of 'visual.proj'")


def test_inputs_that_a_model_does_not_take(cli: Any) -> None:
    refused(own(CONFIG, tokenizer=Tokenizer()), "its tokenizer has 49408 ids, the model 300")
    long = Tokenizer.in_folder(".", context_length=100)
    refused(own(CONFIG, tokenizer=long), "gives 100 ids, the model takes 77")
    content = whole_files.run(tokenizer=Tokenizer.in_folder(".")).as_dict()
    content["preprocess"]["size"] = 64
    torch.save(content, "ckpt.pt")
    refused("ckpt.pt", "its images are of 64 px, the model takes 32")


@pytest.mark.parametrize("name", ["ln_final.weight", "visual.conv1.weight", "text_projection"])
def test_a_weight_without_the_axes_of_its_name(name: str) -> None:
    from geomkit.models.checkpoints.openai import _config

    weights = {
        "ln_final.weight": torch.ones(64), "positional_embedding": torch.ones(77, 64),
        "token_embedding.weight": torch.ones(49408, 1), "visual.proj": torch.ones(64, 8),
        "visual.conv1.weight": torch.ones(64, 3, 16, 16),
        "visual.positional_embedding": torch.ones(5, 64), "text_projection": torch.ones(64, 8),
    }  # fmt: skip
    assert _config(weights, "x.pt")["embed_dim"] == 8
    with pytest.raises(GeomkitError, match=rf"x.pt: damaged, '{name}' has the shape \(\)"):
        _config({**weights, name: torch.tensor(1.0)}, "x.pt")
