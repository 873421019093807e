"""Small whole files of every kind that the command line reads, to be damaged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import model_files
import numpy as np
import torch

from geomkit.models.checkpoints import save_run
from geomkit.models.checkpoints.trained_run import Record, Snapshot, TrainedRun
from geomkit.models.preprocess import Preprocess
from geomkit.models.tokenizers import Tokenizer
from geomkit.models.two_encoder import build

VOCABULARY = 300
CONFIG: dict[str, Any] = {
    "embed_dim": 8,
    "vision_cfg": {"layers": 1, "width": 8, "head_width": 8, "patch_size": 16, "image_size": 32},
    "text_cfg": {
        "context_length": 77, "vocab_size": VOCABULARY, "width": 8, "heads": 1, "layers": 1,
    },
}  # fmt: skip


def model(config: dict[str, Any] = CONFIG) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build(config)


def run(**changed: Any) -> TrainedRun:
    fields: dict[str, Any] = {
        "state_dict": dict(model().clip.state_dict()), "optimizer": {}, "epoch": 1, "step": 2,
        "rng": {"cpu": torch.get_rng_state()}, "model_config": CONFIG, "preprocess": Preprocess(32),
        "tokenizer": Tokenizer.in_folder("."), "loss": "clip", "config": {"precision": "fp32"},
        "data": {"spec": "openmoji", "n": 8}, "ranks": 1,
        "history": [Record(1, 0.5, "val", 8, 0.1, 0.07, {"clip_loss": 1.0}, 1.0, {"mmd": 0.1})],
        "snapshots": [Snapshot(1, torch.eye(3), torch.eye(3))], "versions": {"torch": "2"},
    }  # fmt: skip
    return TrainedRun(**{**fields, **changed})


def checkpoint(folder: Path) -> None:
    words = Tokenizer.in_folder(tokenizer(folder.parent), vocab_size=VOCABULARY)
    save_run(folder / "ckpt.pt", run(tokenizer=words))


def tokenizer(base: Path) -> Path:
    """A folder with a tokenizer of few words."""
    folder = base / "tokenizer"
    if not folder.exists():
        model_files.hf_siglip(folder)
    return folder


def open_clip_folder(folder: Path) -> None:
    settings = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic"}
    named = {**CONFIG, "text_cfg": {**CONFIG["text_cfg"], "hf_tokenizer_name": "own"}}
    config = {"model_cfg": named, "preprocess_cfg": settings}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    torch.save(model().clip.state_dict(), folder / "open_clip_pytorch_model.bin")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer(folder.parent) / name, folder / name)


def transformers_folder(folder: Path) -> None:
    model_files.hf_siglip(folder)


def archive(folder: Path) -> None:
    model_files.script(model_files.open_clip_model(), folder / "archive.pt")


def papers(folder: Path) -> None:
    model_files.paper(folder / "paper.pt")


def rows(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((6, 4)).astype(np.float32)


def arrays() -> dict[str, np.ndarray]:
    return {"image": rows(), "text": rows(1), "image_index": np.arange(6)}


def npz(folder: Path) -> None:
    np.savez(folder / "e.npz", **arrays())


def npy(folder: Path) -> None:
    np.save(folder / "e.npy", np.stack([rows(), rows(1)]))


def pt(folder: Path) -> None:
    torch.save({k: torch.from_numpy(v) for k, v in arrays().items()} | {"n": np.float64(3)},
               folder / "e.pt")  # fmt: skip


def safetensors(folder: Path) -> None:
    from safetensors.numpy import save_file

    save_file(arrays(), folder / "e.safetensors")


def table() -> Any:
    import pyarrow as pa

    return pa.table({"image": rows().tolist(), "text": rows(1).tolist(), "id": list("abcdef")})


def parquet(folder: Path) -> None:
    import pyarrow.parquet as pq

    pq.write_table(table(), folder / "e.parquet")


def lines(folder: Path) -> None:
    text = "\n".join(json.dumps(row) for row in table().to_pylist())
    (folder / "e.jsonl").write_text(text)


def csv(folder: Path) -> None:
    names = [f"{m}_{k}" for m in ("image", "text") for k in range(4)]
    cells = np.concatenate([rows(), rows(1)], axis=1)
    text = "\n".join([",".join(names), *(",".join(map(str, row)) for row in cells)])
    (folder / "e.csv").write_text(text)


def json_arrays(folder: Path) -> None:
    (folder / "e.json").write_text(json.dumps({k: v.tolist() for k, v in arrays().items()}))


def clip_retrieval(folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for kind, matrix in (("img_emb", rows()), ("text_emb", rows(1))):
        (folder / kind).mkdir()
        np.save(folder / kind / f"{kind}_0.npy", matrix)
    (folder / "metadata").mkdir()
    pq.write_table(pa.table({"key": list("abcdef")}), folder / "metadata" / "metadata_0.parquet")


def pictures(folder: Path) -> None:
    """Nine pictures of noise with captions, in ``table.csv``."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for k in range(9):
        pixels = rng.integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{k}.png")
    words = ["dog", "cat", "cats", "dogs", "the", "and", "a", "dog", "cat"]
    lines = [f"{k}.png,{word}" for k, word in enumerate(words)]
    (folder / "table.csv").write_text("\n".join(["filepath,title", *lines]))


def extracted(folder: Path) -> None:
    from geomkit.data import load_data
    from geomkit.extraction import extract
    from geomkit.models.checkpoints import Checkpoint

    words = Tokenizer.in_folder(tokenizer(folder.parent))
    loaded = Checkpoint(model().eval(), "geomkit", "fresh", CONFIG, Preprocess(32), words)
    spec = f"csv:{folder.parent / 'pictures' / 'table.csv'}"
    data = load_data(spec, split="all", preprocess=loaded.preprocess)
    extract(loaded, data, folder, rows_per_shard=5, device="cpu", workers=0)


SOURCES: dict[str, tuple[Callable[[Path], None], str]] = {
    "checkpoint": (checkpoint, "{}/ckpt.pt"),
    "open-clip": (open_clip_folder, "open_clip:{}"),
    "transformers": (transformers_folder, "hf:{}"),
    "torchscript": (archive, "openai:{}/archive.pt"),
    "paper": (papers, "paper:{}/paper.pt"),
    "npz": (npz, "{}/e.npz"),
    "npy": (npy, "{}/e.npy"),
    "pt": (pt, "{}/e.pt"),
    "safetensors": (safetensors, "{}/e.safetensors"),
    "parquet": (parquet, "{}/e.parquet"),
    "jsonl": (lines, "{}/e.jsonl"),
    "json": (json_arrays, "{}/e.json"),
    "csv": (csv, "{}/e.csv"),
    "clip-retrieval": (clip_retrieval, "{}"),
    "extracted": (extracted, "{}"),
}
"""Every kind of SOURCE: how to write one into a folder, and its name; ``{}`` is the folder."""
MODELS = ("checkpoint", "open-clip", "transformers", "torchscript", "paper")
