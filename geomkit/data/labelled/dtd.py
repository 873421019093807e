"""Describable Textures."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from geomkit.data.declarations import Dataset, Request
from geomkit.data.labelled.classes import ClassData
from geomkit.data.labelled.disk import Found, labelled, read_torchvision
from geomkit.data.labelled.prompts import with_articles

__all__ = ["DATASET", "TEMPLATES", "load_dtd"]

TEMPLATES = with_articles(
    "a photo of {a} {} texture.",
    "a photo of {a} {} pattern.",
    "a photo of {a} {} thing.",
    "a photo of {a} {} object.",
)
"""OpenAI's prompts."""


def load_dtd(request: Request) -> ClassData:
    """Describable Textures, first partition, as torchvision lays it out."""
    return labelled(request, _read, templates=TEMPLATES, templates_from="OpenAI's for DTD")


def _read(root: Path, split: str) -> Found:
    folder = root / "dtd" / "dtd"
    found = read_torchvision(
        root,
        folder,
        "DTD",
        f"{folder} with the folders images and labels",
        lambda datasets: datasets.DTD(str(root), split=split, download=False),
    )
    files = tuple(Path(file) for file in found._image_files)
    ids = tuple(f"{file.parent.name}/{file.stem}" for file in files)
    return Found(files, np.asarray(found._labels), tuple(found.classes), ids)


DATASET = Dataset(
    name="dtd",
    load=load_dtd,
    help="Describable Textures: 47 classes",
    path="ROOT",
    splits=("train", "val", "test"),
    kinds=("classes",),
)
