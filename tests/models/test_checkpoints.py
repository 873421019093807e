"""Models of every origin, written by their own library: the same rows and logits come out."""

from __future__ import annotations

import json
import os
import pickle
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import model_files
import open_clip
import pytest
import torch
from model_files import CAPTIONS, SIZE, clip_config, open_clip_model, pictures

from geomkit.errors import GeomkitError
from geomkit.models.architectures import model_config
from geomkit.models.checkpoints import Checkpoint, open_model, weights_sha256
from geomkit.models.checkpoints.torchscript import read_torchscript
from geomkit.models.tokenizers import Tokenizer
from geomkit.models.two_encoder import build

CLOSE = {"rtol": 0.0, "atol": 1e-5}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of each, for tests that leave them as they are."""
    folder = tmp_path_factory.mktemp("models")
    model_files.script(open_clip_model(), folder / "traced.pt")
    (folder / "clip").mkdir()
    model_files.hf_clip(folder / "clip")
    model_files.paper(folder / "paper.pt")
    return folder


@pytest.fixture(scope="module")
def clip_tokenizer(written: Path) -> Any:
    """CLIP's vocabulary as transformers reads it."""
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(written / "clip")


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> str:
    """The small model as an architecture that open_clip knows by name."""
    from open_clip import factory

    monkeypatch.setitem(factory._MODEL_CONFIGS, "small-test", clip_config())
    return "small-test"


def same_as_open_clip(loaded: Checkpoint, model: Any) -> None:
    images, tokens = pictures(), loaded.tokenizer.encode(CAPTIONS)
    x, y, scale, *_ = loaded.model(images, tokens)
    torch.testing.assert_close(x, model.encode_image(images, normalize=True), **CLOSE)
    torch.testing.assert_close(y, model.encode_text(tokens, normalize=True), **CLOSE)
    torch.testing.assert_close(scale, model.logit_scale.exp())
    assert not loaded.model.training
    assert all(p.dtype == torch.float32 for p in loaded.model.parameters())


def refused(source: str, *says: str) -> None:
    with pytest.raises(GeomkitError) as caught:
        open_model(source)
    text = str(caught.value)
    assert "\n" not in text
    for word in says:
        assert word in text, text


# open_clip


@pytest.mark.parametrize("form", ["plain.pt", "epoch_3.pt", "x.safetensors", "half.bin"])
def test_open_clip_weights_of_every_form(form: str, tiny: str, tmp_path: Path) -> None:
    path, model = tmp_path / form, open_clip_model()
    weights = model.state_dict()
    if form.endswith(".safetensors"):
        from safetensors.torch import save_file

        save_file(weights, path)
    elif form == "epoch_3.pt":
        wrapped = {f"module.{k}": v for k, v in weights.items()}
        torch.save({"epoch": 3, "name": "run", "state_dict": wrapped, "optimizer": {"a": 1}}, path)
    elif form == "half.bin":
        torch.save({k: v.half().float() for k, v in weights.items()}, path)
    else:
        torch.save(weights, path)
    loaded = open_model(f"open_clip:{tiny}/{path}")  # an absolute path: two slashes
    if form == "half.bin":
        assert weights_sha256(loaded.model.clip.state_dict()) != weights_sha256(weights)
        return
    same_as_open_clip(loaded, model)
    assert weights_sha256(loaded.model.clip.state_dict()) == weights_sha256(weights)
    if form == "epoch_3.pt":
        assert loaded.meta["epoch"] == 3 and loaded.meta["weights"] == "state_dict"


def test_a_relative_path_and_a_name_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs/a").mkdir(parents=True)
    model = build(model_config("nano", dim=64))
    torch.save(model.clip.state_dict(), "runs/a/x.pt")
    loaded = open_model("open_clip:nano/runs/a/x.pt")
    same_as_open_clip(loaded, model.eval().clip)
    assert loaded.kind == "open_clip" and loaded.source == "open_clip:nano/runs/a/x.pt"
    assert loaded.meta["preprocess_from"].startswith("open_clip's defaults")


def test_the_running_average_is_read_when_asked_for(tiny: str, tmp_path: Path) -> None:
    model = open_clip_model()
    average = {k: v * 0.5 for k, v in model.state_dict().items()}
    path = tmp_path / "both.pt"
    torch.save({"state_dict_ema": average, "state_dict": model.state_dict(), "epoch": 1}, path)
    trained = open_model(f"open_clip:{tiny}/{path}")
    assert trained.meta["weights"] == "state_dict"
    assert trained.meta["other_weights"] == ["state_dict_ema"]
    same_as_open_clip(trained, model)
    averaged = open_model(f"open_clip:{tiny}/{path}#state_dict_ema")
    assert weights_sha256(averaged.model.clip.state_dict()) == weights_sha256(average)
    refused(f"open_clip:{tiny}/{path}#ema", "no weights under 'ema'", "state_dict_ema")


def test_a_folder_that_open_clip_wrote(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    given = {
        "size": SIZE,
        "mode": "RGB",
        "mean": [0.1, 0.2, 0.3],
        "std": [0.4, 0.5, 0.6],
        "interpolation": "bilinear",
        "resize_mode": "squash",
        "fill_color": 0,
    }
    config = {"model_cfg": clip_config(), "preprocess_cfg": given}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    save_file(open_clip_model().state_dict(), tmp_path / "open_clip_model.safetensors")
    loaded = open_model(f"open_clip:{tmp_path}")
    # open_clip's own loader is the oracle, weights and preprocessing
    theirs = open_clip.create_model(f"local-dir:{tmp_path}").eval()
    same_as_open_clip(loaded, theirs)
    expected = {**theirs.visual.preprocess_cfg, "size": SIZE}
    assert loaded.preprocess.as_dict() == expected == given


def test_an_architecture_of_open_clips_is_prepared_as_it_does(tiny: str, tmp_path: Path) -> None:
    torch.save(open_clip_model().state_dict(), path := tmp_path / "w.pt")
    theirs = open_clip.create_model(tiny, pretrained=str(path))
    want = theirs.visual.preprocess_cfg
    loaded = open_model(f"open_clip:{tiny}/{path}")
    same_as_open_clip(loaded, theirs.eval())
    assert loaded.preprocess.as_dict() == {
        **want, "size": SIZE, "mean": list(want["mean"]), "std": list(want["std"])
    }  # fmt: skip


def test_a_tag_is_read_from_the_cache_and_nowhere_else(
    tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from open_clip import pretrained

    torch.save(open_clip_model().state_dict(), path := tmp_path / "tag.pt")
    settings = {**pretrained._slpcfg(), "file": str(path), "quick_gelu": True}
    monkeypatch.setitem(pretrained._PRETRAINED, tiny, {"mine": settings})
    loaded = open_model(f"open_clip:{tiny}/mine")
    same_as_open_clip(loaded, open_clip_model())
    assert loaded.preprocess.mean == (0.5, 0.5, 0.5)
    assert loaded.preprocess.resize_mode == "squash"

    def no_network(*_: Any, **__: Any) -> None:
        raise AssertionError("asked the network")

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("socket.socket.connect", no_network)
    monkeypatch.setattr("urllib.request.urlopen", no_network)
    settings = {"url": "https://example.org/x.pt", "hf_hub": "nobody/nothing-of-the-kind/"}
    monkeypatch.setitem(pretrained._PRETRAINED, tiny, {"mine": settings})
    refused(f"open_clip:{tiny}/mine", "not in the local cache", "--download")
    # a file of that name goes before the tag
    monkeypatch.chdir(tmp_path)
    torch.save(open_clip_model().state_dict(), "mine")
    same_as_open_clip(open_model(f"open_clip:{tiny}/mine"), open_clip_model())


def test_both_layouts_of_the_text_tower(tiny: str, tmp_path: Path) -> None:
    from open_clip import factory
    from open_clip.model import CustomTextCLIP

    plain = open_clip_model()
    custom = CustomTextCLIP(**clip_config(), init_logit_bias=-3.0).eval()
    weights = plain.state_dict()
    moved = {k if k.startswith(("visual", "logit")) else f"text.{k}": v for k, v in weights.items()}
    custom.load_state_dict({**moved, "logit_bias": torch.tensor([-4.0])[0]})
    torch.save(custom.state_dict(), path := tmp_path / "w.pt")
    loaded = open_model(f"open_clip:{tiny}/{path}")  # --force-custom-text and --siglip of open_clip
    same_as_open_clip(loaded, plain)
    assert loaded.model.clip.logit_bias.item() == -4.0
    factory._MODEL_CONFIGS[tiny] = {**clip_config(), "custom_text": True}  # undone by the fixture
    torch.save(weights, path)
    same_as_open_clip(loaded := open_model(f"open_clip:{tiny}/{path}"), plain)
    assert type(loaded.model.clip) is CustomTextCLIP


def test_a_folder_with_a_tokenizer_of_its_own(tmp_path: Path) -> None:
    model_files.hf_siglip(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    text = {**clip_config()["text_cfg"], "vocab_size": 300, "hf_tokenizer_name": "some/where",
            "tokenizer_kwargs": {"clean": "canonicalize"}}  # fmt: skip
    config = {**clip_config(), "text_cfg": text}
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    torch.save(build(config).clip.state_dict(), tmp_path / "open_clip_pytorch_model.bin")
    loaded = open_model(f"open_clip:{tmp_path}")
    theirs = open_clip.get_tokenizer(f"local-dir:{tmp_path}")
    assert torch.equal(loaded.tokenizer.encode(CAPTIONS), theirs(CAPTIONS))
    assert loaded.preprocess.mean == open_clip.OPENAI_DATASET_MEAN
    assert "defaults" in loaded.meta["preprocess_from"]
    tokens = loaded.tokenizer.encode(CAPTIONS)
    with torch.no_grad():
        torch.testing.assert_close(
            loaded.model.encode_text(loaded.model.trim(tokens)),
            loaded.model.clip.encode_text(tokens, normalize=True),
            **CLOSE,
        )
    for name in ("a.bin", "b.bin"):
        torch.save({}, tmp_path / name)
    (tmp_path / "open_clip_pytorch_model.bin").unlink()
    refused(f"open_clip:{tmp_path}", "found weights: a.bin, b.bin")


def test_a_tag_in_the_hubs_cache(
    tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants
    from open_clip import pretrained
    from safetensors.torch import save_file

    commit = "0" * 40
    place = tmp_path / "models--some--model"
    (place / "snapshots" / commit).mkdir(parents=True)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(commit)
    save_file(
        open_clip_model().state_dict(), place / "snapshots" / commit / "open_clip_model.safetensors"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setitem(pretrained._PRETRAINED, tiny, {"hub": {"hf_hub": "some/model/"}})
    before = constants.HF_HUB_OFFLINE
    same_as_open_clip(open_model(f"open_clip:{tiny}/HUB"), open_clip_model())
    assert constants.HF_HUB_OFFLINE is before


def test_a_tags_activation_is_the_one_it_was_trained_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from open_clip import factory, pretrained

    plain = {k: v for k, v in clip_config().items() if k != "quick_gelu"}
    monkeypatch.setitem(factory._MODEL_CONFIGS, "plain-test", plain)
    torch.save(open_clip_model().state_dict(), path := tmp_path / "tag.pt")
    settings = {**pretrained._pcfg(), "file": str(path), "quick_gelu": True}
    monkeypatch.setitem(pretrained._PRETRAINED, "plain-test", {"mine": settings})
    same_as_open_clip(open_model("open_clip:plain-test/mine"), open_clip_model())


def test_weights_that_do_not_fit(tiny: str, tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    whole = open_clip_model().state_dict()
    torch.save({k: v for k, v in whole.items() if k != "visual.proj"}, path)
    refused(f"open_clip:{tiny}/{path}", "do not fit small-test: missing 'visual.proj'")
    torch.save({**whole, "head.weight": torch.ones(2), "head.bias": torch.ones(2)}, path)
    refused(f"open_clip:{tiny}/{path}", "unknown 'head.weight' and 1 more")
    torch.save({**whole, "visual.proj": torch.ones(64, 25)}, path)
    refused(f"open_clip:{tiny}/{path}", "shape of 'visual.proj' (64, 25) for (64, 24)")
    refused(f"open_clip:nano/{path}", "do not fit nano", "more")


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("open_clip:ViT-B-3/x.pt", ("unknown model", "did you mean 'ViT-B-32'")),
        ("open_clip:ViT-B-32", ("which weights", "openai")),
        ("open_clip:ViT-B-32/none.pt", ("no file 'none.pt'", "laion2b_s34b_b79k")),
        ("open_clip:nano/", ("which weights",)),
        ("hf:nowhere", ("no such folder",)),
        ("openai:nowhere.pt", ("no such file",)),
        ("paper:nowhere.pt", ("no such file",)),
        ("hf:", ("nothing after the colon",)),
        ("nowhere.pt", ("no such file",)),
        ("C:\\x.pt", ("no such file",)),
    ],
)
def test_sources_that_are_not_there(
    source: str, says: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(source, *says)


# transformers


def hf_logits(model: Any, tokenizer: Any, length: int, *, mask: bool) -> torch.Tensor:
    words = tokenizer(
        CAPTIONS, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    )
    more = {"attention_mask": words.attention_mask} if mask else {}
    with torch.no_grad():
        found = model(input_ids=words.input_ids, pixel_values=pictures(), **more)
    return found.logits_per_image


@torch.no_grad()
def our_logits(loaded: Checkpoint) -> torch.Tensor:
    x, y, scale, *_ = loaded.model(pictures(), loaded.tokenizer.encode(CAPTIONS))
    bias = loaded.model.clip.logit_bias
    return scale * x @ y.T + (0.0 if bias is None else bias)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"hidden_act": "gelu", "layer_norm_eps": 1e-3},
        {"hidden_act": "gelu_pytorch_tanh"},
        {"vocab_size": 49500, "eos_token_id": 49407},
        {"eos_token_id": 2},
    ],
    ids=["quick", "gelu", "tanh", "eos", "old_eos"],
)
def test_clip_of_transformers(options: dict[str, Any], clip_tokenizer: Any, tmp_path: Path) -> None:
    model = model_files.hf_clip(tmp_path, **options)
    loaded = open_model(f"hf:{tmp_path}")
    expected = hf_logits(model, clip_tokenizer, 77, mask=True)
    torch.testing.assert_close(our_logits(loaded), expected, **CLOSE)
    assert loaded.tokenizer.as_dict() == {"name": "SimpleTokenizer", "context_length": 77}
    assert loaded.preprocess.resize_mode == "shortest" and loaded.preprocess.size == SIZE


def test_siglip_of_transformers(tmp_path: Path) -> None:
    model, tokenizer = model_files.hf_siglip(tmp_path)
    loaded = open_model(f"hf:{tmp_path}")
    expected = hf_logits(model, tokenizer, 64, mask=False)
    torch.testing.assert_close(our_logits(loaded), expected, **CLOSE)
    assert loaded.model.clip.logit_bias.item() == -7.5
    assert loaded.tokenizer.name == "HFTokenizer"
    assert loaded.preprocess.resize_mode == "squash" and loaded.preprocess.mean == (0.5, 0.5, 0.5)
    # a checkpoint that stores this config builds the same model again
    again = build(json.loads(json.dumps(loaded.model_config)))
    again.clip.load_state_dict(loaded.model.clip.state_dict())
    again.eval()
    with torch.no_grad():
        torch.testing.assert_close(
            again.encode_image(pictures()), loaded.model.encode_image(pictures())
        )
    tokens = loaded.tokenizer.encode(CAPTIONS)
    assert torch.equal(loaded.model.trim(tokens), tokens)  # the last token counts: nothing to cut


def test_shards_and_pickles_of_transformers(written: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file
    from transformers import CLIPModel

    folder = model_files.copy(written / "clip", tmp_path / "a")
    whole = open_model(f"hf:{folder}")
    want = weights_sha256(whole.model.clip.state_dict())
    CLIPModel.from_pretrained(folder).save_pretrained(folder, max_shard_size="300KB")
    (folder / "model.safetensors").unlink(missing_ok=True)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 1
    sharded = open_model(f"hf:{folder}")
    assert weights_sha256(sharded.model.clip.state_dict()) == want
    shard = next(iter(sorted(set(index["weight_map"].values()))))
    (folder / shard).unlink()
    refused(f"hf:{folder}", shard, "no such file")
    index["weight_map"] = {k: f"../{v}" for k, v in index["weight_map"].items()}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(f"hf:{folder}", "outside its folder")
    (folder / "model.safetensors.index.json").unlink()
    refused(f"hf:{folder}", "no weights in it")
    torch.save(load_file(written / "clip" / "model.safetensors"), folder / "pytorch_model.bin")
    assert weights_sha256(open_model(f"hf:{folder}").model.clip.state_dict()) == want


def test_folders_of_transformers_that_say_too_little(written: Path, tmp_path: Path) -> None:
    folder = model_files.copy(written / "clip", tmp_path / "a")
    inputs = folder / "preprocessor_config.json"
    given = json.loads(inputs.read_text())

    def with_(**changes: Any) -> None:
        inputs.write_text(json.dumps({**given, **changes}))

    with_(size={"shortest_edge": 40})
    refused(f"hf:{folder}", "resizes to 40 px and crops to 32")
    with_(size={"shortest_edge": 64}, crop_size=64)
    refused(f"hf:{folder}", "images of 64 px, the model takes 32")
    with_(resample=5)
    refused(f"hf:{folder}", "resample 5")
    with_(size=SIZE, crop_size=SIZE, resample=2)  # as old versions wrote it
    assert open_model(f"hf:{folder}").preprocess.interpolation == "bilinear"
    inputs.write_text(json.dumps({k: v for k, v in given.items() if k != "image_mean"}))
    refused(f"hf:{folder}", "says nothing about 'image_mean'")
    inputs.unlink()
    refused(f"hf:{folder}", "preprocessing is unknown", "preprocessor_config.json")
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": given}))
    assert open_model(f"hf:{folder}").preprocess.size == SIZE
    (folder / "vocab.json").unlink()
    refused(f"hf:{folder}", "no tokenizer")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "blip"}))
    refused(f"hf:{folder}", "type 'blip'", "clip and siglip")
    (folder / "config.json").write_text("{")
    refused(f"hf:{folder}", "config.json", "no valid JSON")


def test_weights_of_transformers_that_do_not_fit(written: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = model_files.copy(written / "clip", tmp_path / "a")
    file = folder / "model.safetensors"
    whole = {k: v.clone() for k, v in load_file(file).items()}  # not mapped from the file
    lost = "text_model.encoder.layers.1.self_attn.k_proj.weight"
    save_file({k: v for k, v in whole.items() if k != lost}, file)
    refused(f"hf:{folder}", f"missing '{lost}'")
    save_file({**whole, "surplus": torch.ones(1)}, file)
    refused(f"hf:{folder}", "unknown 'surplus'")
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    refused(f"hf:{folder}", "truncated")


@pytest.mark.parametrize(
    ("file", "key", "value", "says"),
    [
        ("config.json", "vision_config", 3, "right type"),
        ("config.json", "text_config", {"hidden_size": "a"}, "right type"),
        ("config.json", "text_config", {"num_attention_heads": 0}, "open_clip cannot build it"),
        ("config.json", "text_config", {"hidden_act": "relu"}, "hidden_act"),
        ("preprocessor_config.json", "size", [3], "right type"),
        ("preprocessor_config.json", "image_mean", 5, "right type"),
        ("preprocessor_config.json", "do_resize", False, "do_resize"),
    ],
)
def test_values_no_library_would_write(
    file: str, key: str, value: Any, says: str, written: Path, tmp_path: Path
) -> None:
    folder = model_files.copy(written / "clip", tmp_path / "a")
    content = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**content, key: value}))
    refused(f"hf:{folder}", str(folder), says)


# OpenAI


@pytest.mark.parametrize("traced", [True, False])
def test_a_torchscript_archive(traced: bool, written: Path, tmp_path: Path) -> None:
    path = written / "traced.pt" if traced else tmp_path / "scripted.pt"
    if not traced:
        model_files.script(open_clip_model(), path, traced=False)
    same_as_open_clip(loaded := open_model(f"openai:{path}"), open_clip_model())
    assert loaded.kind == "openai" and loaded.model_config == clip_config()
    # read without it, the tensors are those torch's own loader gives
    theirs = model_files.run_script(path)
    ours = read_torchscript(path)
    assert set(theirs) <= set(ours)
    assert all(torch.equal(ours[k], v) for k, v in theirs.items())


def test_half_precision_and_openais_other_entries(tmp_path: Path) -> None:
    half = {k: v.half() for k, v in open_clip_model().state_dict().items()}
    more = {k: torch.tensor(1) for k in ("input_resolution", "context_length", "vocab_size")}
    torch.save({**half, **more}, path := tmp_path / "half.pt")
    loaded = open_model(f"openai:{path}")
    assert all(torch.equal(v, half[k].float()) for k, v in loaded.model.clip.state_dict().items())


def test_a_resnet_of_openais(tmp_path: Path) -> None:
    model = model_files.resnet()
    torch.save(model.state_dict(), path := tmp_path / "rn.pt")
    same_as_open_clip(loaded := open_model(f"openai:{path}"), model)
    assert loaded.model_config["vision_cfg"]["layers"] == [1, 1, 1, 1]


class Harmful:
    def __init__(self, flag: Path) -> None:
        self.flag = flag

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.flag),)


def test_nothing_a_file_holds_is_executed(tiny: str, tmp_path: Path) -> None:
    flag = tmp_path / "executed"
    harmful = pickle.dumps({"state_dict": Harmful(flag)}, protocol=2)
    pickle.loads(harmful)
    assert flag.is_dir()  # it would run
    flag.rmdir()
    archive = tmp_path / "script.pt"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("script/data.pkl", harmful)
        file.writestr("script/constants.pkl", harmful)
        file.writestr("script/code/__torch__.py", "raise SystemExit")
    refused(f"openai:{archive}", "mkdir", "refused", "could run code")
    plain = tmp_path / "plain.pt"
    torch.save({"state_dict": Harmful(flag)}, plain)
    old = tmp_path / "old.pt"
    torch.save({"state_dict": Harmful(flag)}, old, _use_new_zipfile_serialization=False)
    for path in (plain, old):
        for source in (f"openai:{path}", f"paper:{path}", f"open_clip:{tiny}/{path}", str(path)):
            refused(source, "code")
    assert not flag.exists()


def test_damaged_and_foreign_archives(written: Path, tmp_path: Path) -> None:
    content = (written / "traced.pt").read_bytes()
    short = tmp_path / "short.pt"
    short.write_bytes(content[: len(content) // 2])
    refused(f"openai:{short}", "short.pt")
    foreign = tmp_path / "foreign.pt"
    with zipfile.ZipFile(foreign, "w") as file:
        file.writestr("word/document.xml", "<a/>")
    refused(f"openai:{foreign}", "foreign.pt")
    with zipfile.ZipFile(written / "traced.pt") as source, zipfile.ZipFile(short, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            target.writestr(name, data[:-4] if name.endswith("/data/0") else data)
    refused(f"openai:{short}", "storage 0 is truncated")
    refused(f"openai:{written / 'paper.pt'}", "paper.pt")
    place = content.rindex(b"traced/version")  # of the directory at the end: no UTF-8 any more
    short.write_bytes(content[:place] + b"\xff" + content[place + 1 :])
    refused(f"openai:{short}", "short.pt")
    refused(str(short), "short.pt")
    refused(str(written / "traced.pt"), "TorchScript", "openai:")


# the paper


@pytest.mark.parametrize("swapped", [False, True])
def test_a_checkpoint_of_the_papers(swapped: bool, tmp_path: Path) -> None:
    image, text = model_files.paper(path := tmp_path / "p.pt", swapped=swapped)
    loaded = open_model(f"paper:{path}")
    tokens = loaded.tokenizer.encode(CAPTIONS)
    with torch.no_grad():
        x, y, scale, *_ = loaded.model(pictures(), tokens)
        theirs_x = image(pixel_values=pictures()).image_embeds
        theirs_y = text(input_ids=tokens).text_embeds
    torch.testing.assert_close(x, torch.nn.functional.normalize(theirs_x, dim=-1), **CLOSE)
    torch.testing.assert_close(y, torch.nn.functional.normalize(theirs_y, dim=-1), **CLOSE)
    assert scale.item() == pytest.approx(50.0, rel=1e-6)
    assert loaded.model_config["embed_dim"] == 24 and loaded.meta["epoch"] == 4


def test_other_layouts_of_the_papers(written: Path, tmp_path: Path) -> None:
    content = torch.load(written / "paper.pt", weights_only=True)
    weights, path = content["model_state_dict"], tmp_path / "p.pt"

    def stored(changed: dict[str, torch.Tensor]) -> str:
        torch.save({**content, "model_state_dict": changed}, path)
        return f"paper:{path}"

    twice = {
        k.replace("encoder2.text_model", "encoder2.image_model"): v for k, v in weights.items()
    }
    refused(stored(twice), "image_model and image_model", "two encoders of the same kind")
    extra = {**weights, "encoder2.added_projection_layer.network.0.weight": torch.ones(2)}
    refused(stored(extra), "projections of several layers")
    lost = {k: v for k, v in weights.items() if not k.endswith("visual_projection.weight")}
    refused(stored(lost), "visual")
    refused(stored({}), "nothing and nothing")
    torch.save({"epoch": 1}, path)
    refused(f"paper:{path}", "no model_state_dict")


# tokenizers


def test_captions_of_every_kind() -> None:
    entry = Tokenizer.for_model(model_config("nano"))
    tokens = entry.encode(CAPTIONS)
    assert tokens.shape == (4, 32)
    start, end = 49406, 49407
    assert tokens[1].tolist() == [start, end] + [0] * 30  # an empty caption
    assert tokens[3, 0] == start and tokens[3, -1] == end and 0 not in tokens[3]
    assert entry.encode([]).shape == (0, 32)
    with pytest.raises(GeomkitError, match="unknown tokenizer 'Word'"):
        Tokenizer("Word")


def test_a_tokenizer_of_another_model(tmp_path: Path) -> None:
    model_files.hf_siglip(tmp_path)
    entry = open_model(f"hf:{tmp_path}").tokenizer
    assert entry.encode([]).shape == (0, 64)
    with pytest.raises(GeomkitError, match="belongs to another model"):
        replace(entry, vocab_size=20).encode(["zebra"])
    with pytest.raises(GeomkitError, match="no such folder"):
        replace(entry, path=str(tmp_path / "moved")).encode(["a"])
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(GeomkitError, match="cannot be read"):
        replace(entry, context_length=63).encode(["a"])


def test_transformers_is_needed_for_its_tokenizers_alone(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model_files.hf_siglip(tmp_path)
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert open_model(f"hf:{written / 'clip'}").kind == "hf"
    entry = open_model(f"hf:{tmp_path}").tokenizer
    with pytest.raises(GeomkitError, match=r"install geomkit\[hf\]"):
        entry.encode(["a"])


def test_siglip_captions_are_cleaned_as_open_clip_does(tmp_path: Path) -> None:
    from open_clip.tokenizer import HFTokenizer

    model_files.hf_siglip(tmp_path)
    config = {
        "text_cfg": {
            "hf_tokenizer_name": "somewhere/else",
            "tokenizer_kwargs": {"clean": "canonicalize"},
            "context_length": 16,
            "vocab_size": 300,
        }
    }
    ours = Tokenizer.for_model(config, folder=tmp_path).encode(CAPTIONS)
    theirs = HFTokenizer(str(tmp_path), context_length=16, clean="canonicalize")(CAPTIONS)
    assert torch.equal(ours, theirs)
    with pytest.raises(GeomkitError, match="would have to be downloaded"):
        Tokenizer.for_model(config)
