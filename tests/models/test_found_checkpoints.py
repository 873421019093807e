"""Checkpoints as people have them: wrapped, resized, half said, or named as another kind."""

from __future__ import annotations

import argparse
import json
import pickle
from pathlib import Path
from typing import Any

import model_files
import numpy as np
import pytest
import torch
from model_files import CAPTIONS, SIZE, clip_config, open_clip_model

from geomkit.errors import GeomkitError
from geomkit.models.checkpoints import open_model, read_torch_file, weights_sha256
from geomkit.models.checkpoints.folder_inputs import tokenizer_in
from geomkit.models.tokenizers import Tokenizer
from geomkit.models.two_encoder import build

NAME = "found-test"
NOT_SAVED = pickle.dumps({"a": 1})


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, and the small model with GELU as an architecture known by name."""
    from open_clip import factory

    monkeypatch.chdir(tmp_path)
    plain = {k: v for k, v in clip_config().items() if k != "quick_gelu"}
    monkeypatch.setitem(factory._MODEL_CONFIGS, NAME, plain)
    return tmp_path


@pytest.fixture(scope="module")
def hf_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hf")
    model_files.hf_clip(folder)
    return folder


def weights() -> dict[str, torch.Tensor]:
    return dict(open_clip_model().state_dict())


def under(prefix: str, **changed: torch.Tensor) -> dict[str, torch.Tensor]:
    return {f"{prefix}{k}": v for k, v in {**weights(), **changed}.items()}


def refused(source: str, *says: str) -> None:
    with pytest.raises(GeomkitError) as caught:
        open_model(source)
    for word in says:
        assert word in str(caught.value), str(caught.value)
    assert "\n" not in str(caught.value)


def opened(content: Any, key: str = "", name: str = NAME) -> Any:
    torch.save(content, "w.pt")
    return open_model(f"open_clip:{name}/w.pt{key}")


def is_the_model(loaded: Any, want: dict[str, torch.Tensor] | None = None) -> None:
    assert weights_sha256(loaded.model.clip.state_dict()) == weights_sha256(want or weights())


# what stands beside the weights


def test_numbers_and_options_beside_the_weights() -> None:
    beside = {
        "epoch": np.int64(3),
        "best": np.float64(0.31),
        "history": np.arange(6, dtype=">f4").reshape(2, 3).T,
        "words": np.array(["a", "bc"]),
        "nothing": np.zeros((0, 3)),
        "args": argparse.Namespace(lr=np.float32(0.1), ok=np.bool_(True)),
    }
    loaded = opened({"state_dict": weights(), **beside})
    is_the_model(loaded)
    assert loaded.meta["epoch"] == 3 and isinstance(loaded.meta["epoch"], int)
    found = read_torch_file("w.pt")
    for name in ("best", "history", "words", "nothing"):
        assert np.array_equal(found[name], beside[name]) and found[name].shape == np.shape(
            beside[name]
        )
    assert found["args"].lr == np.float32(0.1)
    torch.save({"best": np.float64(2)}, "old.pt", _use_new_zipfile_serialization=False)
    assert read_torch_file("old.pt") == {"best": 2.0}


def test_a_state_dict_with_more_than_tensors() -> None:
    loaded = opened({"state_dict": {**weights(), "updates": 7}, "best": np.float64(1)})
    is_the_model(loaded)
    assert "1 weight left out, no tensor: 'updates'" in loaded.notes
    is_the_model(opened({k: v.numpy() for k, v in weights().items()}))


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (np.array([1, "a"], dtype=object), "an array of type 'O8'"),
        (np.zeros(2, [("a", "f4"), ("b", "O")]), "an array of type 'V12'"),
        (np.datetime64("2020-01-01"), "an array of type 'M8'"),
        (Path("a"), "pathlib.PosixPath"),
    ],
)
def test_what_is_refused_is_named(value: Any, says: str) -> None:
    torch.save({"state_dict": weights(), "x": value}, "w.pt")
    refused(f"open_clip:{NAME}/w.pt", says, "run code", "torch.save(model.state_dict(), ")


@pytest.mark.filterwarnings("error")
def test_whole_models_are_not_read() -> None:
    torch.save(open_clip_model(), "whole.pt")
    refused(f"open_clip:{NAME}/whole.pt", "a whole model (open_clip.model.CLIP)", "state_dict()")
    torch.save(open_clip_model(), "old.pt", _use_new_zipfile_serialization=False)
    refused(f"open_clip:{NAME}/old.pt", "open_clip.model.CLIP", "state_dict()")
    for content in (pickle.dumps(weights(), 2), pickle.dumps(weights(), 4), NOT_SAVED):
        Path("p.pkl").write_bytes(content)
        refused(f"open_clip:{NAME}/p.pkl", "pickle wrote, not torch.save", "state_dict()")


# prefixes


@pytest.mark.parametrize(
    ("prefix", "stripped"),
    [
        ("module.", ["module."]),
        ("model.", ["model."]),
        ("model._orig_mod.", ["_orig_mod.", "model."]),
        ("_fsdp_wrapped_module.net.module.", ["module.", "_fsdp_wrapped_module.", "net."]),
    ],
)
def test_prefixes_of_wrappers(prefix: str, stripped: list[str]) -> None:
    loaded = opened({"state_dict": under(prefix), "epoch": 1})
    is_the_model(loaded)
    assert loaded.meta["stripped"] == stripped


def test_wrappers_inside_names_and_averages() -> None:
    inside = {k.replace("resblocks.", "resblocks._fsdp_wrapped_module."): v
              for k, v in under("module.").items()}  # fmt: skip
    is_the_model(opened({**inside, "n_averaged": torch.tensor(3)}))


def test_a_scale_outside_the_model() -> None:
    outside = under("model.")
    outside["logit_scale"] = outside.pop("model.logit_scale")
    is_the_model(opened({"state_dict": outside}))


def test_a_scale_of_a_layer_is_no_other_model() -> None:
    torch.save({**weights(), "visual.trunk.attn.logit_scale": torch.ones(2)}, "w.pt")
    refused(f"open_clip:{NAME}/w.pt", "unknown 'visual.trunk.attn.logit_scale'")


def test_what_is_left_out_is_said() -> None:
    loaded = opened({"state_dict": {**under("model."), "loss.weight": torch.ones(2)}})
    is_the_model(loaded)
    assert "1 weight left out, not under 'model.': 'loss.weight'" in loaded.notes


def test_a_teacher_beside_the_student() -> None:
    one = torch.ones(())
    half = {k: v * 0.5 for k, v in weights().items()}
    both = {**weights(), **{f"teacher.{k}": v for k, v in half.items()}}
    loaded = opened({"state_dict": both})
    is_the_model(loaded)
    assert any("of another model, read with #teacher" in note for note in loaded.notes)
    for key in ("#teacher", "#state_dict.teacher", "#teacher."):
        is_the_model(opened({"state_dict": both}, key), half)
    pair = {**under("student."), **{f"teacher.{k}": v for k, v in half.items()}}
    torch.save(pair, "w.pt")
    refused(f"open_clip:{NAME}/w.pt", "2 models that fit", "#student or #teacher")
    is_the_model(opened(pair, "#student"))
    larger = {**under("student."), "teacher.visual.a": one}
    is_the_model(opened(larger))  # only one fits
    refused(f"open_clip:{NAME}/w.pt#pupil", "no weights under 'pupil.'", "student, teacher")
    torch.save({"student": weights(), "teacher": half}, "w.pt")
    refused(f"open_clip:{NAME}/w.pt", "several sets of weights", "w.pt#student")
    is_the_model(opened({"student": weights(), "teacher": half}, "#teacher"), half)


# sizes, bias, activation, names


def test_sizes_are_taken_from_the_weights() -> None:
    config = clip_config()
    larger = build({**config, "vision_cfg": {**config["vision_cfg"], "image_size": 2 * SIZE}})
    loaded = opened(larger.clip.state_dict())
    assert loaded.preprocess.size == 2 * SIZE
    assert f"image size {2 * SIZE} px, from its weights, not {SIZE}" in loaded.notes
    shorter = build({**config, "text_cfg": {**config["text_cfg"], "context_length": 16}})
    loaded = opened(shorter.clip.state_dict())
    assert loaded.tokenizer.encode(CAPTIONS).shape == (4, 16)
    assert "context length 16, from its weights, not 77" in loaded.notes
    assert not any("from its weights" in note for note in opened(weights()).notes)


@pytest.mark.parametrize(
    ("name", "key", "shape"),
    [
        ("RN50", "visual.attnpool.positional_embedding", (50, 8)),
        ("ViT-B-16-SigLIP-384", "visual.trunk.pos_embed", (1, 576, 8)),
        ("ViT-SO400M-14-SigLIP-384", "visual.trunk.pos_embed", (1, 729, 8)),
        ("EVA02-L-14", "visual.trunk.pos_embed", (1, 257, 8)),
        ("coca_ViT-B-32", "text.positional_embedding", (77, 8)),
        ("ViT-B-32", "visual.positional_embedding", (50, 8)),
    ],
)
def test_sizes_of_other_architectures_stay(name: str, key: str, shape: tuple[int, ...]) -> None:
    from geomkit.models import model_config
    from geomkit.models.checkpoints.sizes import fit_sizes

    assert fit_sizes(model_config(name), {key: torch.empty(shape, device="meta")}) == []


def test_a_missing_bias_is_zero() -> None:
    Path("folder").mkdir()
    config = {**clip_config(), "init_logit_bias": -10}
    Path("folder/open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    torch.save(weights(), "folder/open_clip_pytorch_model.bin")
    loaded = open_model("open_clip:folder")
    assert loaded.model.logit_bias is not None and loaded.model.logit_bias.item() == 0.0
    assert any("logit bias 0 assumed" in note for note in loaded.notes)


def test_the_activation_is_said() -> None:
    loaded = opened(weights())
    assert not loaded.model_config.get("quick_gelu")
    assert any(f"GELU assumed, as {NAME} has" in n and f"open_clip:{NAME}-quickgelu/w.pt" in n
               for n in loaded.notes)  # fmt: skip
    twin = open_model(f"open_clip:{NAME}-quickgelu/w.pt")
    assert twin.model_config["quick_gelu"] and twin.notes == []
    assert any(
        "QuickGELU and heads of 64 dimensions assumed" in note
        for note in open_model("openai:w.pt").notes
    )
    model_files.script(open_clip_model(), Path("traced.pt"))
    loaded = open_model(f"open_clip:{NAME}/traced.pt")
    assert loaded.model_config["quick_gelu"] and "program" in loaded.notes[0]
    assert open_model("openai:traced.pt").notes == []


def test_preprocessing_that_tags_have_otherwise_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from open_clip import pretrained

    monkeypatch.setitem(pretrained._PRETRAINED, NAME, {"plain": pretrained._pcfg()})
    assert not any("preprocessing" in note for note in opened(weights()).notes)
    monkeypatch.setitem(pretrained._PRETRAINED, NAME, {"mine": pretrained._slpcfg()})
    (note,) = (n for n in opened(weights()).notes if "preprocessing" in n)
    assert "the tag mine has mean 0.5/0.5/0.5" in note and "resize_mode squash" in note


@pytest.mark.parametrize("name", ["Found/Test", "FOUND-test", "found/test-quickgelu"])
def test_names_as_people_write_them(name: str) -> None:
    is_the_model(opened(weights(), name=name))
    refused(f"open_clip:{name},none", "no file 'none'")


def test_names_of_openais_and_tags() -> None:
    for name in ("ViT-L/14@336px", "vit-l-14-336"):
        refused(f"open_clip:{name},none", "open_clip has openai")


def test_a_text_encoder_that_is_elsewhere() -> None:
    text = {**clip_config()["text_cfg"], "hf_model_name": "some/bert"}
    Path("folder").mkdir()
    Path("folder/vocab.txt").write_text("[PAD]")
    config = {"model_cfg": {**clip_config(), "text_cfg": text}}
    Path("folder/open_clip_config.json").write_text(json.dumps(config))
    torch.save(weights(), "folder/open_clip_pytorch_model.bin")
    refused("open_clip:folder", "its text encoder is 'some/bert'", "config.json", "--download")


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("open_clip:w.pt", "which architecture? Name it before the file"),
        ("openai:ViT-L/14@336px", "open_clip:ViT-L-14-336/openai"),
        ("open_clip:hf-hub:laion/clip", "hf download laion/clip --local-dir DIR"),
        ("hf-hub:laion/clip", "hf download laion/clip --local-dir DIR"),
        ("hf:openai/clip-base", "hf download openai/clip-base --local-dir DIR"),
        ("ViT-B-32/openai", "open_clip:ViT-B-32/openai"),
        ("openai/clip-base", "hf download openai/clip-base --local-dir DIR"),
    ],
)
def test_names_of_what_is_elsewhere(source: str, says: str) -> None:
    torch.save({"a": torch.ones(1)}, "w.pt")
    refused(source, says)


# transformers


def test_weights_of_transformers_under_another_name(hf_folder: Path) -> None:
    file = hf_folder / "model.safetensors"
    for source in (f"open_clip:{NAME}/{file}", f"openai:{file}", str(file), str(hf_folder),
                   f"open_clip:{hf_folder}", f"hf:{file}"):  # fmt: skip
        refused(source, f"hf:{hf_folder}")


def test_folders_that_are_not_the_model(hf_folder: Path) -> None:
    for below in ("st/0_CLIPModel", "models--a--b/snapshots/0f"):
        Path(below).parent.mkdir(parents=True, exist_ok=True)
        Path(below).symlink_to(hf_folder)
    Path("st/modules.json").write_text(json.dumps([{"path": "0_CLIPModel", "type": "x"}]))
    Path("adapter").mkdir()
    Path("adapter/adapter_config.json").write_text('{"base_model_name_or_path": "some/base"}')
    refused("hf:st", "sentence-transformers", "hf:st/0_CLIPModel")
    refused("st", "sentence-transformers", "hf:st/0_CLIPModel")
    refused("hf:models--a--b", "hf:models--a--b/snapshots/0f")
    refused("hf:.", "hf:models--a--b/snapshots/0f")
    refused("hf:adapter", "an adapter of 'some/base' alone", "merge_and_unload()")


def test_variants_and_adapters_in_a_folder(hf_folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = model_files.copy(hf_folder, Path("a"))
    file = folder / "model.safetensors"
    whole = {k: v.clone() for k, v in load_file(file).items()}
    file.rename(folder / "model.fp16.safetensors")
    loaded = open_model("hf:a")
    assert loaded.notes == ["weights of model.fp16.safetensors, the only ones in its folder"]
    save_file(whole, folder / "model.non_ema.safetensors")
    refused("hf:a", "model.fp16.safetensors, model.non_ema.safetensors", "rename")
    key = "base_model.model.text_model.encoder.layers.0.self_attn.q_proj.lora_A.default.weight"
    save_file({**whole, key: torch.ones(2, 2)}, file)
    refused("hf:a", "adapters that are not merged", "merge_and_unload()")


@pytest.fixture(scope="module")
def clips_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import CLIPTokenizerFast

    folder = tmp_path_factory.mktemp("tokenizer")
    model_files.byte_pairs(folder)
    CLIPTokenizerFast.from_pretrained(folder).save_pretrained(folder)
    return folder


def tokenizer_of(folder: Path) -> Tokenizer:
    return tokenizer_in(folder, context_length=77, vocab_size=49409, kind="clip")[0]


def added(whole: dict[str, Any]) -> None:
    whole["added_tokens"].append({**whole["added_tokens"][0], "id": 49408, "content": "<toy>"})


def swapped(whole: dict[str, Any]) -> None:
    words = whole["model"]["vocab"]
    words["dog</w>"], words["cat</w>"] = words["cat</w>"], words["dog</w>"]


@pytest.mark.parametrize(
    "change",
    [
        added,
        swapped,
        lambda whole: whole.update(normalizer=None),
        lambda whole: whole["normalizer"]["normalizers"].insert(0, {"type": "StripAccents"}),
        lambda whole: whole["pre_tokenizer"]["pretokenizers"].pop(0),
        lambda whole: whole["model"]["merges"].pop(),
        lambda whole: whole.update(post_processor=None),
    ],
)
def test_a_tokenizer_that_differs_in_anything_is_used(change: Any, clips_tokenizer: Path) -> None:
    whole = json.loads((clips_tokenizer / "tokenizer.json").read_text(encoding="utf-8"))
    change(whole)
    Path("tokenizer.json").write_text(json.dumps(whole), encoding="utf-8")
    assert tokenizer_of(Path()).name == "HFTokenizer"


@pytest.mark.parametrize("value", [{"pre_tokenizer": 3}, {"added_tokens": [3]}])
def test_a_tokenizer_of_wrong_values_is_refused(value: Any, clips_tokenizer: Path) -> None:
    whole = json.loads((clips_tokenizer / "tokenizer.json").read_text(encoding="utf-8"))
    Path("tokenizer.json").write_text(json.dumps(whole | value), encoding="utf-8")
    with pytest.raises(GeomkitError, match="a value in it is not of the right type"):
        tokenizer_of(Path())


def test_a_tokenizer_is_used_as_its_file_says(clips_tokenizer: Path) -> None:
    from tokenizers import Tokenizer as Program

    folder = model_files.copy(clips_tokenizer, Path("t"))
    whole = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    whole["normalizer"] = None
    added(whole)
    (folder / "tokenizer.json").write_text(json.dumps(whole), encoding="utf-8")
    program = Program.from_file(str(folder / "tokenizer.json"))
    want = program.encode("A Dog and a <toy>").ids
    assert tokenizer_of(folder).encode(["A Dog and a <toy>"])[0, : len(want)].tolist() == want


@pytest.mark.parametrize("pad", ["<|endoftext|>", "!"])
def test_captions_that_are_cut_are_found(clips_tokenizer: Path, pad: str) -> None:
    folder = model_files.copy(clips_tokenizer, Path("t"))
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    settings["pad_token"] = pad
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    tokenizer = Tokenizer.in_folder(folder, context_length=8)
    captions = [" ".join(["red"] * count) for count in range(12)]
    assert tokenizer.cut(captions, tokenizer.encode(captions)) == [7, 8, 9, 10, 11]


def test_clips_own_tokenizer_needs_no_transformers(clips_tokenizer: Path) -> None:
    folder = model_files.copy(clips_tokenizer, Path("t"))
    assert tokenizer_of(folder).name == "SimpleTokenizer"
    (folder / "added_tokens.json").write_text('{"<toy>": 49408}')
    assert tokenizer_of(folder).name == "HFTokenizer"
    (folder / "added_tokens.json").unlink()
    (folder / "tokenizer.json").unlink()
    assert tokenizer_of(folder).name == "SimpleTokenizer"
    (folder / "special_tokens_map.json").write_text('{"bos_token": {"content": "<s>"}}')
    assert tokenizer_of(folder).name == "HFTokenizer"


def test_siglip_2_is_given_lower_case() -> None:
    model_files.hf_siglip(Path("s"))
    settings = json.loads(Path("s/tokenizer_config.json").read_text())
    Path("s/tokenizer_config.json").write_text(
        json.dumps({**settings, "tokenizer_class": "GemmaTokenizer"})
    )
    loaded = open_model("hf:s")
    lower, title = loaded.tokenizer.encode(["a dog", "A Dog"])
    assert torch.equal(lower, title)
    assert any("lower case" in n and "GemmaTokenizer" in n for n in loaded.notes)


# what the commands say


def test_commands_say_what_was_assumed(cli: Any, place: Path) -> None:
    from PIL import Image

    torch.save({"state_dict": under("model.")}, "w.pt")
    rows = ["filepath,title"]
    for i in range(12):
        Image.new("RGB", (SIZE, SIZE), (20 * i, 255 - 20 * i, 7 * i)).save(f"{i}.png")
        rows.append(f"{i}.png,a picture of {i}")
    Path("d.csv").write_text("\n".join(rows))
    source = f"open_clip:{NAME}/w.pt"
    told = cli("inspect", source)
    assert f"note:{' ' * 12}activation GELU assumed" in told.out
    assert f"prefix stripped: {'model.'}" in told.out and "activation:" in told.out
    found = json.loads(cli("inspect", source, "--json").out)
    assert found["architecture"]["activation"] == "GELU" and len(found["notes"]) == 1
    told = cli("gap", source, "--data", "csv:d.csv", "--split", "all", "--workers", 0, "--metrics",
               "centroid_distance", "--json")  # fmt: skip
    assert f"{source}: activation GELU assumed" in told.err
    assert json.loads(told.out)["results"][0]["meta"]["notes"] == found["notes"]
    told = cli("extract", source, "--data", "csv:d.csv", "--split", "all", "--workers", 0, "--out",
               "emb")  # fmt: skip
    assert f"{source}: activation GELU assumed" in told.err
    manifest = json.loads(Path("emb/manifest.json").read_text())
    assert manifest["model"]["notes"] == found["notes"]
