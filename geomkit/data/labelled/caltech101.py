"""Caltech-101 as torchvision lays it out; it has no splits of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from geomkit.data.labelled.disk import Found, on_disk, read_torchvision
from geomkit.data.labelled.prompts import with_articles

__all__ = ["DATASET", "NAMES", "TEMPLATES"]

TEMPLATES = with_articles(
    "a photo of {a} {}.",
    "a painting of {a} {}.",
    "{a} plastic {}.",
    "a sculpture of {a} {}.",
    "a sketch of {a} {}.",
    "a tattoo of {a} {}.",
    "{a} toy {}.",
    "a rendition of {a} {}.",
    "{a} embroidered {}.",
    "{a} cartoon {}.",
    "{a} {} in a video game.",
    "{a} plushie {}.",
    "{a} origami {}.",
    "art of {a} {}.",
    "graffiti of {a} {}.",
    "a drawing of {a} {}.",
    "a doodle of {a} {}.",
)
"""OpenAI's prompts."""

NAMES = {
    "Faces": "off-center face",
    "Faces_easy": "centered face",
    "Leopards": "leopard",
    "Motorbikes": "motorbike",
    "airplanes": "airplane",
    "car_side": "side of a car",
    "cougar_body": "body of a cougar cat",
    "cougar_face": "face of a cougar cat",
    "crocodile_head": "head of a crocodile",
    "flamingo_head": "head of a flamingo",
    "snoopy": "snoopy (cartoon beagle)",
    "yin_yang": "yin and yang symbol",
}
"""Classes that OpenAI gives another name than their folder's."""


def _read(root: Path, split: str) -> Found:
    folder = root / "caltech101" / "101_ObjectCategories"
    expected = f"{folder} with one folder per class, and BACKGROUND_Google, which is left out"
    found = read_torchvision(root, folder, "Caltech101", expected)
    files = tuple(
        folder / found.categories[label] / f"image_{number:04d}.jpg"
        for label, number in zip(found.y, found.index, strict=True)
    )
    ids = tuple(f"{file.parent.name}/{file.stem}" for file in files)
    names = tuple(NAMES.get(folder, folder) for folder in found.categories)
    return Found(files, np.asarray(found.y), names, ids)


DATASET = on_disk(
    "caltech101",
    _read,
    "Caltech-101: objects of 101 classes",
    splits=("all",),
    names_from="OpenAI's for Caltech-101",
    templates=TEMPLATES,
    templates_from="OpenAI's for Caltech-101",
)
