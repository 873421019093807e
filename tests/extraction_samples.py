"""What tests of extraction share: tables of noise, a model with fresh weights, hashes of a tree."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from geomkit.data import PairData, load_data
from geomkit.models.architectures import model_config
from geomkit.models.checkpoints import Checkpoint
from geomkit.models.preprocess import Preprocess
from geomkit.models.tokenizers import Tokenizer
from geomkit.models.two_encoder import build

DIM = 6
CONFIG = model_config("nano", dim=DIM)
WORDS = ["ball", "red", "round", "old", "wall", "of", "our", "small", "house", "in", "the", "north"]
BAD = (0, 7, 12, 13, 14, 15, 25)
"""First and last of the data, last of a shard of four, all of one."""
CALM = {"rows_per_shard": 4, "batch_size": 3, "workers": 0, "device": "cpu", "precision": "fp32"}
"""Many small shards, of two batches each."""


def write_table(folder: Path, count: int, bad: tuple[int, ...] = ()) -> Path:
    """Pictures of noise, one to four captions of 1 to 16 words each; bad ones cut short."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    rows = []
    for k in range(count):
        name = f"{k:02}.png"
        pixels = rng.integers(0, 256, (rng.integers(20, 60), 40, 3), np.uint8)
        Image.fromarray(pixels).save(folder / name)
        if k in bad:
            (folder / name).write_bytes((folder / name).read_bytes()[:99])
        for _ in range(rng.integers(1, 5)):
            rows.append((name, " ".join(rng.choice(WORDS, rng.integers(1, 17)))))
    with (folder / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("filepath", "title"), *rows])
    return folder / "table.csv"


def write_tables(folder: Path) -> dict[str, Path]:
    return {"good": write_table(folder / "good", 22), "bad": write_table(folder / "bad", 26, BAD)}


def table(path: Path, **options: Any) -> PairData:
    spec = ",".join([f"csv:{path}", *(f"{k}={v}" for k, v in options.items())])
    return load_data(spec, split="all", preprocess=Preprocess.for_model(CONFIG))


def fresh(seed: int = 0) -> Checkpoint:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build(CONFIG).eval()
    parts = (CONFIG, Preprocess.for_model(CONFIG), Tokenizer.for_model(CONFIG))
    return Checkpoint(model, "geomkit", "fresh", *parts)


def tree(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@contextmanager
def single_thread() -> Iterator[None]:
    """Models as small as these only wait for each other's threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
