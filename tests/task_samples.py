"""Small models and data for the tests of tasks: a nano model, few emoji, SIMAT's tables."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from geomkit.data.emoji_codes import neutral
from geomkit.data.pairs import seeded_hash
from geomkit.data.queries import arithmetic_data
from geomkit.models.architectures import model_config
from geomkit.models.checkpoints import Checkpoint
from geomkit.models.preprocess import Preprocess
from geomkit.models.tokenizers import Tokenizer
from geomkit.models.two_encoder import build
from geomkit.tasks import arithmetic as module


def few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of the emoji, with all their variants."""

    def cut(spec, preprocess, *, progress=None):
        data, held_out = arithmetic_data(spec, preprocess, progress=progress)
        rows = [i for i, c in enumerate(data.ids) if seeded_hash(neutral(c), 0, "test") < 0.1]
        return data.take(np.array(rows)), held_out[rows]

    monkeypatch.setattr(module, "arithmetic_data", cut)
    monkeypatch.setattr(module, "LEAST", 2)


def nano(seed: int = 0) -> Checkpoint:
    config = model_config("nano", dim=16)
    torch.manual_seed(seed)
    model = build(config).eval()
    preprocess, tokenizer = Preprocess.for_model(config), Tokenizer.for_model(config)
    return Checkpoint(model, "geomkit", "nano.pt", config, preprocess, tokenizer)


TRIPLETS = [
    # region, subject, relation, object, row of OSCAR's matrix
    (70, "cat", "on a", "grass", 2),
    (10, "dog", "on a", "grass", 0),
    (30, "dog", "on a", "bed", 1),
    (99, "cat", "on a", "bed", 3),
]
QUERIES = [
    # region, field, value, target, caption wanted, norm2, is_test, dataset_id (of an old numbering)
    (70, "subj", "cat", "dog", 0, 4, False, 3),
    (10, "obj", "grass", "bed", 1, 1, False, 3),
    (30, "subj", "dog", "cat", 3, 9, True, 0),
]
OSCAR = torch.eye(4)[:, [0, 1, 2, 3]] * 0.9


def write_tables(root: Path, *, triplets=TRIPLETS, queries=QUERIES) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    with (root / "triplets.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("region_id", "subj", "rel", "obj", "dataset_id"), *triplets])
    columns = ("", "transfo_id", "region_id", "field", "value", "target", "norm", "query_ids",
               "target_ids", "dataset_id", "norm2", "is_test")  # fmt: skip
    lines = [
        (i, i, region, field, value, target, 26, 0, wanted, old, norm2, test)
        for i, (region, field, value, target, wanted, norm2, test, old) in enumerate(queries)
    ]
    with (root / "transfos.csv").open("w", newline="") as file:
        csv.writer(file).writerows([columns, *lines])
    return root


def write_all(root: Path) -> Path:
    write_tables(root / "simat_db")
    torch.save(OSCAR, root / "simat_db" / "oscar_similarity_matrix.pt")
    for region, subj, rel, obj, row in TRIPLETS:
        folder = root / "simat_db" / "images" / f"A {subj} {rel} {obj}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), (60 * row, 255 - 60 * row, 80)).save(folder / f"{region}.jpg")
    return root


def draw(path: Path, colour: tuple[int, int, int], seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 30, (20, 24, 3))
    Image.fromarray((np.array(colour) + noise).clip(0, 255).astype(np.uint8)).save(path)


COLOURS = {"red_thing": (200, 0, 0), "green_thing": (0, 200, 0), "blue_thing": (0, 0, 200)}


def folders(root: Path, per_class: int = 4, *, only: tuple[str, ...] = tuple(COLOURS)) -> Path:
    for name in only:
        for i in range(per_class):
            draw(root / name / f"{i}.png", COLOURS[name], i)
    return root
