"""Small whole files of every kind that the command line reads, to be damaged."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import model_files
import numpy as np
import torch
from samples import layout, picture, write

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


def pairs(folder: Path) -> None:
    """Images with a ``.txt`` beside each, in formats of all kinds."""
    for k, kind in enumerate(("png", "jpeg", "gif", "bmp", "tiff", "webp", "ppm", "png")):
        write(folder / f"{k}.{kind}", picture(k, kind.upper()))
        write(folder / f"{k}.txt", f"a dog {k}\nthe cat {k}")


def classes(folder: Path) -> None:
    for k in range(8):
        write(folder / ("cat", "dog")[k % 2] / f"{k}.png", picture(k))


def image_table(folder: Path) -> None:
    pictures(folder)


def image_parquet(folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    images = [{"bytes": picture(k), "path": f"{k}.png"} for k in range(8)]
    captions = [[f"a dog {k}", f"a cat {k}"] for k in range(8)]
    pq.write_table(pa.table({"filepath": images, "title": captions}), folder / "t.parquet")


def coco(folder: Path) -> None:
    layout(folder, "2017", {"train": 5, "val": 3})


def coco_zips(folder: Path) -> None:
    layout(folder, "2017", {"train": 5, "val": 3})
    for name, members in (
        ("annotations_trainval2017", "annotations"), ("train2017", "train2017"),
    ):  # fmt: skip
        with zipfile.ZipFile(folder / f"{name}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted((folder / members).iterdir()):
                archive.write(file, f"{members}/{file.name}")
        shutil.rmtree(folder / members)


def karpathy(folder: Path) -> None:
    images = [
        {
            "filepath": "val2014", "filename": f"{k}.jpg", "cocoid": k,
            "split": ("train", "restval", "val", "test")[k % 4],
            "sentences": [{"sentid": k, "raw": f"a dog {k}"}],
        }
        for k in range(8)
    ]  # fmt: skip
    write(folder / "dataset_coco.json", json.dumps({"images": images}))
    for k in range(8):
        write(folder / "val2014" / f"{k}.jpg", picture(k))


def tars(folder: Path) -> None:
    with tarfile.open(folder / "0.tar", "w") as archive:
        for k in range(8):
            text = json.dumps({"caption": [f"a dog {k}"]}) if k % 2 else f"a cat {k}"
            members = {"png": picture(k), ("json" if k % 2 else "txt"): text.encode()}
            for suffix, content in members.items():
                entry = tarfile.TarInfo(f"{k}.{suffix}")
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))


def record(folder: Path) -> None:
    from geomkit.reproduce.framework.experiment import Options
    from geomkit.reproduce.framework.record import JudgedClaim, Record, Seconds

    verdict = JudgedClaim("It is so", "0.1", "", "undecided", "0.1 seeds")
    place = folder / "figure1"
    place.mkdir()
    Record(
        "figure1", "Title", Options(), "geomkit reproduce", ({"key": "a", "loss": "clip"},),
        Seconds(1.0, 2.0), (verdict,), {"python": "3"},
    ).write(place)  # fmt: skip


def results(folder: Path) -> None:
    from geomkit.reproduce.framework.results import Row, write_rows

    names = ("centroid_distance", "uniformity")
    rows = (
        Row("figure2", "openmoji val", dim, loss, 1, name, dim / 100, 0.01)
        for dim in (8, 16) for loss in ("clip", "cua") for name in names
    )  # fmt: skip
    write_rows(folder / "results.csv", rows)


OTHERS: dict[str, tuple[Callable[[Path], None], str]] = {
    "record": (record, "reproduce figure1 --plan --out {}"),
    "results": (results, "plot-gap {}/results.csv --metrics uniformity --out {}/f.png --overwrite"),
}
"""Other files that geomkit writes and reads, likewise, with a command that reads them."""
DATA: dict[str, tuple[Callable[[Path], None], str]] = {
    "pairs": (pairs, "imagefolder:{}"),
    "classes": (classes, "imagefolder:{}"),
    "image-table": (image_table, "csv:{}/table.csv"),
    "image-parquet": (image_parquet, "csv:{}/t.parquet"),
    "coco": (coco, "coco:{}"),
    "coco-zips": (coco_zips, "coco:{}"),
    "karpathy": (karpathy, "coco:{}"),
    "webdataset": (tars, "webdataset:{}"),
}
"""Every kind of DATA, likewise."""
