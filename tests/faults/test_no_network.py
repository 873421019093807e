"""No command opens a socket, whatever SOURCE it is given, unless --download asks for it.

By default every SOURCE meets two commands and every command two SOURCES; ``GEOMKIT_EXAMPLES`` of
1,000 or more runs each with each, and prints how each ended.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import whole_files
from whole_files import CONFIG

from geomkit.models.checkpoints import save_run
from geomkit.models.tokenizers import Tokenizer

EVERY = int(os.environ.get("GEOMKIT_EXAMPLES", "60")) >= 1000
_DATA = "--data csv:{base}/pictures/table.csv"
_TASK = "{source} --data imagefolder:{base}/classes --workers 0 --device cpu"
_RUN = f"{_DATA} --split all --workers 0 --device cpu"
COMMANDS = {
    "inspect": "inspect {source}",
    "gap": f"gap {{source}} --metrics centroid_distance {_RUN}",
    "close": f"close {{source}} --method procrustes --metrics centroid_distance {_RUN}",
    "plot-close": f"plot-close {{source}} --method procrustes {_RUN} --overwrite",
    "plot-gap": f"plot-gap {{source}} --metrics centroid_distance {_RUN} --overwrite",
    "plot-pca": f"plot-pca {{source}} {_RUN} --overwrite",
    "plot-sphere": f"plot-sphere {{source}} {_RUN} --overwrite",
    "plot-umap": f"plot-umap {{source}} --neighbours 2 {_RUN} --overwrite",
    "export": f"export {{source}} --projection pca {_RUN} --overwrite",
    "extract": f"extract {{source}} --out e {_RUN} --overwrite",
    "report": f"report {{source}} --projection none {_RUN} --overwrite",
    "zeroshot": f"zeroshot {_TASK}",
    "probe": f"probe {_TASK}",
    "arithmetic": "arithmetic {source} --data simat:{base}/none --device cpu",
    "train": f"train --pretrained {{source}} {_DATA} --steps 1 --batch-size 2 --workers 0 "
    "--device cpu --overwrite",
}
"""Every command that takes a SOURCE; ``reproduce`` runs these."""


def _named(**text: Any) -> dict[str, Any]:
    return {**CONFIG, "text_cfg": {**CONFIG["text_cfg"], **text}}


def own_text_model(folder: Path) -> None:
    words = Tokenizer.in_folder(whole_files.tokenizer(folder.parent))
    config = _named(hf_model_name="roberta-base", hf_model_pretrained=True)
    save_run(folder / "ckpt.pt", whole_files.run(model_config=config, tokenizer=words))


def own_timm_model(folder: Path) -> None:
    config = {**CONFIG, "vision_cfg": {"timm_model_name": "hf-hub:timm/resnet18", "image_size": 32}}
    save_run(folder / "ckpt.pt", whole_files.run(model_config=config))


def own_tokenizer(folder: Path) -> None:
    words = Tokenizer("HFTokenizer", "openai/clip-vit-base-patch32")
    save_run(folder / "ckpt.pt", whole_files.run(tokenizer=words))


def hub_tokenizer(folder: Path) -> None:
    whole_files.open_clip_folder(folder)
    (folder / "tokenizer.json").unlink()


def hub_text_model(folder: Path) -> None:
    whole_files.open_clip_folder(folder)
    config = {"model_cfg": _named(hf_model_name="some/bert", hf_tokenizer_name="some/bert")}
    (folder / "open_clip_config.json").write_text(json.dumps(config))


def weights(folder: Path) -> None:
    torch.save(whole_files.model().clip.state_dict(), folder / "w.pt")


SOURCES = whole_files.SOURCES | {
    "own-text-model": (own_text_model, "{}/ckpt.pt"),
    "own-timm-model": (own_timm_model, "{}/ckpt.pt"),
    "own-tokenizer": (own_tokenizer, "{}/ckpt.pt"),
    "hub-tokenizer": (hub_tokenizer, "open_clip:{}"),
    "hub-text-model": (hub_text_model, "open_clip:{}"),
    "open-clip-text-model": (weights, "open_clip:roberta-ViT-B-32/{}/w.pt"),
    "open-clip-tokenizer": (weights, "open_clip:ViT-B-16-SigLIP/{}/w.pt"),
    "tag": (weights, "open_clip:ViT-B-32/laion400m_e31"),
    "tag-on-a-hub": (weights, "open_clip:ViT-B-16-SigLIP/webli"),
    "hub": (weights, "hf-hub:laion/none"),
    "hub-name": (weights, "hf:laion/none"),
    "bare-name": (weights, "laion/none"),
}
EMBEDDINGS = [name for name in whole_files.SOURCES if name not in whole_files.MODELS]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each SOURCE, pictures with captions and pictures in classes."""
    from PIL import Image

    base = tmp_path_factory.mktemp("sources")
    (base / "pictures").mkdir()
    whole_files.pictures(base / "pictures")
    for split in ("train", "val"):
        for k, word in enumerate(("dog", "cat")):
            (base / "classes" / split / word).mkdir(parents=True)
            for number in range(3):
                image = Image.new("RGB", (32, 32), (80 * number, 200 * k, 7))
                image.save(base / "classes" / split / word / f"{number}.png")
    for name, (build, _) in SOURCES.items():
        (base / name).mkdir()
        build(base / name)
    return base


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was looked up or connected to; every try fails."""
    tried: list[Any] = []

    def refuse(*given: Any, **_: Any) -> Any:
        tried.append(given)
        raise OSError("no network in this test")

    for owner, name in (
        (socket.socket, "connect"), (socket.socket, "connect_ex"), (socket, "getaddrinfo"),
        (socket, "create_connection"), (socket, "gethostbyname"),
    ):  # fmt: skip
        monkeypatch.setattr(owner, name, refuse)
    return tried


def _sources(command: str) -> list[str]:
    if EVERY or command in ("gap", "inspect"):
        return list(SOURCES)
    # UMAP takes half a minute to be compiled.
    return ["own-text-model", *["checkpoint"][: command != "plot-umap"]]


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_connects(
    command: str, base: Path, connections: list[Any], cli: Callable
) -> None:
    found = {}
    for name in _sources(command):
        words = COMMANDS[command]
        if name in EMBEDDINGS:
            words = words.replace(_RUN, "")
        source = SOURCES[name][1].format(base / name)
        outcome = cli(*words.format(source=source, base=base).split())
        assert not connections, (name, connections, outcome.err)
        assert outcome.status in (0, 2), (name, outcome)
        assert "unexpected" not in outcome.err, (name, outcome.err)
        found[name] = outcome.status
    if EVERY:
        print(f"{command}: {', '.join(f'{k} {v}' for k, v in found.items())}")
    if "checkpoint" in found:
        assert found["checkpoint"] == (2 if command == "arithmetic" else 0)
