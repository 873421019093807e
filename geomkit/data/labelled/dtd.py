"""Describable Textures, first partition, as torchvision lays it out."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from geomkit.data.labelled.disk import Found, on_disk, read_torchvision
from geomkit.data.labelled.prompts import with_articles

__all__ = ["DATASET", "TEMPLATES"]

TEMPLATES = with_articles(
    "a photo of {a} {} texture.",
    "a photo of {a} {} pattern.",
    "a photo of {a} {} thing.",
    "a photo of {a} {} object.",
)
"""OpenAI's prompts."""


def _read(root: Path, split: str) -> Found:
    folder = root / "dtd" / "dtd"
    expected = f"{folder} with the folders images and labels"
    found = read_torchvision(root, folder, "DTD", expected, split=split)
    files = tuple(Path(file) for file in found._image_files)
    ids = tuple(f"{file.parent.name}/{file.stem}" for file in files)
    return Found(files, np.asarray(found._labels), tuple(found.classes), ids)


DATASET = on_disk(
    "dtd",
    _read,
    "Describable Textures: 47 classes",
    splits=("train", "val", "test"),
    templates=TEMPLATES,
    templates_from="OpenAI's for DTD",
)
