"""SOURCE strings: models of others through gap and inspect, and what is refused."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import model_files
import numpy as np
import pytest
import torch
from model_files import open_clip_model

from geomkit import inspection
from geomkit.errors import GeomkitError
from geomkit.extraction.load import load_source
from geomkit.inspection import architecture_name, describe, describe_model
from geomkit.metrics import gap
from geomkit.models.architectures import model_config
from geomkit.models.checkpoints import (
    TrainedRun,
    find_kind,
    open_model,
    save_run,
    weights_sha256,
)
from geomkit.models.checkpoints.kinds import prefixes
from geomkit.models.preprocess import Preprocess
from geomkit.models.tokenizers import Tokenizer
from geomkit.models.two_encoder import build
from geomkit.sources import open_source

DATA = "openmoji,n=8"


def test_pipes_are_refused_before_open_clip_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    for source in (
        "pipe",
        "paper:pipe",
        "open_clip:ViT-B/32/pipe#ema",
        f"open_clip:a,{tmp_path}/pipe",
    ):
        with pytest.raises(GeomkitError, match="pipe: is neither a file nor a folder"):
            find_kind(source)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "pipe").touch()
    assert find_kind("open_clip:ViT-B-32/a/pipe").name == "open_clip"
    assert find_kind(f"paper:{'long' * 100}").name == "paper"


def test_a_model_of_another_is_measured(tmp_path: Path, cli: Callable[..., Any]) -> None:
    torch.save(open_clip_model().state_dict(), path := tmp_path / "w.pt")
    source = f"openai:{path}"
    outcome = cli("gap", source, "--data", DATA, "--split", "train", "--metrics", "paired_cosine",
                  "--device", "cpu", "--json")  # fmt: skip
    assert outcome.status == 0, outcome.err
    found = json.loads(outcome.out)["results"][0]
    assert found["source"] == source and found["n"] == 8 and found["dim"] == 24
    assert found["meta"]["kind"] == "openai" and found["meta"]["data"] == DATA
    # by hand, with the model's own functions
    from geomkit.data import load_data

    loaded = open_model(source)
    data = load_data(DATA, split="train", preprocess=loaded.preprocess)
    with torch.no_grad():
        images = loaded.preprocess.to_pixels(data.pixels())
        x = open_clip_model().encode_image(images, normalize=True)
        y = open_clip_model().encode_text(loaded.tokenizer.encode(data.names), normalize=True)
    assert found["metrics"]["paired_cosine"] == pytest.approx(
        (x * y).sum(dim=1).double().mean().item(), abs=1e-5
    )


def test_a_logit_scale_that_no_model_has_is_refused(tmp_path: Path) -> None:
    weights = open_clip_model().state_dict()
    for scale in (1e4, -1e4, float("nan")):
        torch.save({**weights, "logit_scale": torch.tensor(scale)}, path := tmp_path / "w.pt")
        with pytest.raises(GeomkitError, match=r"w\.pt: its logit scale, exp\(.*damaged"):
            describe(f"openai:{path}")


def test_models_are_measured_in_float32_unless_asked(
    tmp_path: Path, cli: Callable[..., Any], refused: Callable[..., str]
) -> None:
    torch.save(open_clip_model().state_dict(), path := tmp_path / "w.pt")
    words = ("gap", f"openai:{path}", "--data", DATA, "--split", "train", "--device", "cpu")
    words += ("--metrics", "paired_cosine")
    found = {}
    for precision in (None, "fp64", "bf16"):
        asked = ("--precision", precision) if precision else ()
        outcome = cli(*words, "--json", *asked)
        assert outcome.status == 0, outcome.err
        (result,) = json.loads(outcome.out)["results"]
        assert result["meta"]["precision"] == (precision or "fp32")
        found[precision] = result["metrics"]["paired_cosine"]
    assert found[None] == pytest.approx(found["fp64"], abs=1e-6)
    assert 1e-6 < abs(found["bf16"] - found["fp64"]) < 0.02
    assert "n=8, d=24, bf16" in cli(*words, "--precision", "bf16").out
    np.save(tmp_path / "e.npy", np.random.default_rng(0).standard_normal((2, 4, 3)))
    refused("gap", "e.npy", "--precision", "fp32", says=("--precision applies to checkpoints",))


def test_what_is_refused(
    tmp_path: Path, refused: Callable[..., str], cli: Callable[..., Any]
) -> None:
    np.save(tmp_path / "e.npy", np.random.default_rng(0).standard_normal((2, 4, 3)))
    torch.save({"other": torch.ones(3, 2)}, tmp_path / "w.pt")
    refused("gap", "hf:somewhere", says=("needs data", "--data"))
    refused("gap", "hf:somewhere", "--data", DATA, says=("no such folder",))
    refused("gap", "openclip:x", says=("unknown prefix", "'open_clip'"))
    refused("gap", "C:\\x.pt", says=("C:\\x.pt: no such file",))
    refused("gap", "w.pt", says=("neither a checkpoint", "open_clip:NAME/w.pt"))
    refused("gap", "e.npy", "--data", DATA, says=("--data applies to",))
    refused("inspect", "nothing.pt", says=("no such file",))
    with pytest.raises(ValueError, match="no model"):
        open_source("e.npy")


def test_prefixes() -> None:
    assert prefixes() == ["open_clip", "hf", "openai", "paper"]
    for source in ("hf:a", "open_clip:ViT-B-32//a/b.pt"):
        assert find_kind(source).name == source.partition(":")[0]
    for path in ("hf", "C:\\hf:a", "./hf:a", "emb/x.npz"):
        with pytest.raises(GeomkitError, match="no such file"):
            find_kind(path)
    with pytest.raises(GeomkitError, match="unknown prefix"):
        find_kind("clip:a")


def test_a_path_that_looks_like_a_prefix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("d:e").mkdir()
    np.save("d:e/e.npy", np.random.default_rng(0).standard_normal((2, 4, 3)))
    assert load_source("d:e/e.npy")[0].n == 4


def test_inspect_says_what_a_model_is(tmp_path: Path, cli: Callable[..., Any]) -> None:
    model = open_clip_model()
    torch.save(model.state_dict(), tmp_path / "w.pt")
    outcome = cli("inspect", "openai:w.pt", "--json")
    assert outcome.status == 0, outcome.err
    found = json.loads(outcome.out)
    assert found["schema_version"] == 1 and found["kind"] == "openai" and found["dim"] == 24
    visual = sum(p.numel() for p in model.visual.parameters())
    whole = sum(p.numel() for p in model.parameters())
    assert found["parameters"] == {"image": visual, "text": whole - visual - 1, "all": whole}
    assert found["temperature"] == pytest.approx(0.07) and found["logit_bias"] is None
    assert found["weights_sha256"] == weights_sha256(model.state_dict())
    assert found["architecture"]["image"]["patch_size"] == 16
    text = cli("inspect", "openai:w.pt").out
    assert f"{whole:,} total" in text and found["weights_sha256"] in text


def test_inspect_says_what_a_checkpoint_of_ours_is(cli: Callable[..., Any]) -> None:
    trained = cli(
        *[
            "train",
            "--model",
            "nano",
            "--batch-size",
            "8",
            "--steps",
            "1",
            "--device",
            "cpu",
            "-q",
            "--data",
        ],
        DATA,
    )
    assert trained.status == 0, trained.err
    found = json.loads(cli("inspect", "ckpt.pt", "--json").out)
    assert found["kind"] == "geomkit" and found["architecture"]["name"] == "nano"
    assert found["meta"]["data"]["spec"] == "openmoji,n=8"
    text = cli("inspect", "ckpt.pt").out
    assert "nano" in text and "openmoji,n=8" in text


@pytest.mark.parametrize("biased", [False, True])
def test_a_checkpoint_of_ours_is_described_without_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, biased: bool
) -> None:
    config = model_config("nano", dim=3) | ({"init_logit_bias": -1.0} if biased else {})
    weights = build(config).clip.state_dict()
    path = tmp_path / "ckpt.pt"

    def saved(**changed: Any) -> str:
        words = Tokenizer.for_model(config)
        run = TrainedRun(
            {**weights, **changed}, {}, 1, 2, {}, config, Preprocess(32), words, "clip",
            {"precision": "fp32", "threads": 1, "steps": 2},
            {"spec": DATA, "split": "val", "n": 8, "fingerprint": {}}, 1, [], [], {},
        )  # fmt: skip
        save_run(path, run)
        return str(path)

    wanted = describe_model(open_model(saved()))
    assert wanted["parameters"]["all"] == sum(w.numel() for w in weights.values())
    with monkeypatch.context() as patch:
        patch.setattr(inspection, "open_model", lambda *_: pytest.fail("a model is built"))
        assert describe(str(path)) == wanted
    assert describe(saved(logit_scale=weights["logit_scale"].double())) == wanted
    with pytest.raises(GeomkitError, match="do not fit"):
        describe(saved(positional_embedding=torch.zeros(3, 3)))


def test_inspect_says_what_embeddings_are(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((2, 5, 3))
    np.save(tmp_path / "e.npy", rows.astype(np.float16))
    found = describe(str(tmp_path / "e.npy"))
    assert (found["kind"], found["n"], found["m"], found["dim"]) == ("embeddings", 5, 5, 3)
    assert found["dtype"] == ["float16"]
    torch.save({"image": torch.ones(4, 3), "text": torch.ones(6, 3),
                "image_index": torch.tensor([0, 1, 2, 3, 3, 3])}, tmp_path / "e.pt")  # fmt: skip
    found = describe(str(tmp_path / "e.pt"))
    assert (found["n"], found["m"], found["dim"], found["image_index"]) == (4, 6, 3, True)


@pytest.mark.parametrize("name", ["nano", "ViT-B-32", "ViT-B-32-quickgelu", "RN50", "ViT-L-14"])
def test_architectures_are_recognised(name: str) -> None:
    assert architecture_name(model_config(name)) == name
    other = model_config(name, dim=7)
    assert architecture_name(other) == name
    other["text_cfg"]["layers"] = 5
    assert architecture_name(other) is None


def test_a_folder_of_transformers_through_the_command_line(
    tmp_path: Path, cli: Callable[..., Any]
) -> None:
    (tmp_path / "m").mkdir()
    model_files.hf_clip(tmp_path / "m")
    text = cli("inspect", "hf:m").out
    assert "folder that transformers saved" in text and "SimpleTokenizer" in text


def test_the_home_folder_is_found_wherever_a_path_begins(
    tmp_path: Path, cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (home := tmp_path / "home" / "m").mkdir(parents=True)
    np.save(home / "e.npy", np.random.default_rng(0).standard_normal((2, 9, 4)))
    np.save(home / "x.npy", np.random.default_rng(0).standard_normal((9, 4)))
    metrics = ("--metrics", "centroid_distance")
    assert cli("gap", "~/m/e.npy", *metrics).status == 0
    assert cli("gap", "--image=~/m/x.npy", "--modality", "text=~/m/x.npy", *metrics).status == 0
    assert gap("~/m/e.npy", metrics="centroid_distance").n == 9
    # A model is looked for there, too.
    assert f"hf:{home}: no config.json" in cli("inspect", "hf:~/m").err
    for open_it in (open_model, open_source):
        with pytest.raises(GeomkitError, match=f"nano/{home}: {home} is a folder"):
            open_it("open_clip:nano/~/m")


@pytest.mark.parametrize(
    ("spec", "refused"),
    [
        ("openmoji,n=8", False),
        ("csv:{here}/a.csv", False),
        ("csv:{here}/sub/a.csv,image_column=x", False),
        ("webdataset:{here}/a-{{000..009}}.tar", False),
        ("csv:{cache}/a.csv", False),
        ("csv:{here}/../a.csv", True),
        ("csv:{here}/out/a.csv", True),  # a link
        ("coco:/data", True),
        ("webdataset:{here}/{{../../a,b}}.tar", True),
        ("webdataset:/da*/a.tar", True),
    ],
)
def test_a_checkpoint_does_not_choose_what_is_read(
    spec: str, refused: bool, cache: Path, tmp_path: Path
) -> None:
    from types import SimpleNamespace

    from geomkit.sources import own_data

    here = tmp_path / "here"
    here.mkdir()
    (here / "out").symlink_to(tmp_path)
    spec = spec.format(here=here, cache=cache)
    checkpoint: Any = SimpleNamespace(source=str(here / "c.pt"), meta={"data": {"spec": spec}})
    if not refused:
        assert own_data(checkpoint) == spec
        return
    with pytest.raises(GeomkitError, match=r"outside its folder; give --data .* or --trust-data"):
        own_data(checkpoint)
    assert own_data(checkpoint, trust=True) == spec


def test_the_data_that_a_checkpoint_names_are_said_before_they_are_read(
    cli: Callable[..., Any], tmp_path: Path
) -> None:
    from dataclasses import replace

    from geomkit.models.checkpoints import load_run, save_run

    train = "train --model nano --dim 3 --batch-size 8 --steps 1 --device cpu -q --data"
    assert cli(*train.split(), DATA).status == 0
    run = load_run("ckpt.pt")
    elsewhere = f"csv:{tmp_path.parent}/none.csv"
    save_run("ckpt.pt", replace(run, data={**run.data, "spec": elsewhere}))
    for command in ("gap", "plot-pca", "extract"):
        words = [command, "ckpt.pt", *(["--out", "emb"] if command == "extract" else [])]
        outcome = cli(*words)
        assert outcome.status == 2 and "--trust-data" in outcome.err, outcome
        outcome = cli(*words, "--trust-data")
        lines = outcome.err.splitlines()
        assert outcome.status == 2 and "none.csv: no such file" in lines[-1], outcome
        said = f"no --data given, so it embeds the data set that it was trained on, {elsewhere}"
        assert f"ckpt.pt: {said}" in lines[:-1]
