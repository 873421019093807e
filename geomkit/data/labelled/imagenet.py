"""ImageNet as torchvision lays it out: ``ROOT/val/n01440764/*.JPEG`` and so on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from geomkit.data.labelled.disk import Found, on_disk
from geomkit.data.labelled.image_folder import read_folder
from geomkit.data.labelled.prompts import imagenet_names
from geomkit.errors import GeomkitError

__all__ = ["DATASET"]


def _read(root: Path, split: str) -> Found:
    folder = root / split
    expected = f"expected {folder} with 1000 folders named by WordNet id, such as n01440764"
    if not folder.is_dir():
        raise GeomkitError(f"{root}: no ImageNet {split} here; {expected}")
    try:
        found = read_folder(folder, "all")
    except GeomkitError as error:
        raise GeomkitError(f"{error}; {expected}") from None
    if len(found.names) != 1000:
        raise GeomkitError(f"{folder}: images in {len(found.names)} folders; {expected}")
    ids = tuple(f"{split}/{name}" for name in found.ids)
    return replace(found, names=imagenet_names(), ids=ids)


DATASET = on_disk(
    "imagenet",
    _read,
    "ImageNet: 1000 classes",
    splits=("train", "val"),
    dataset="imagenet1k",
    names_from="open_clip's for ImageNet",
)
