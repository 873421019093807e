"""ImageNet."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from geomkit.data.declarations import Dataset, Request
from geomkit.data.labelled.classes import ClassData
from geomkit.data.labelled.disk import Found, labelled
from geomkit.data.labelled.image_folder import read_folder
from geomkit.data.labelled.prompts import imagenet_names
from geomkit.errors import GeomkitError

__all__ = ["DATASET", "load_imagenet"]


def load_imagenet(request: Request) -> ClassData:
    """ImageNet as torchvision lays it out: ``ROOT/val/n01440764/*.JPEG`` and so on."""
    return labelled(
        request,
        _read,
        dataset="imagenet1k",
        names=lambda folders: imagenet_names(),
        names_from="open_clip's for ImageNet",
    )


def _read(root: Path, split: str) -> Found:
    folder = root / split
    expected = f"expected {folder} with 1000 folders named by WordNet id, such as n01440764"
    if not folder.is_dir():
        raise GeomkitError(f"{root}: no ImageNet {split} here; {expected}")
    try:
        found = read_folder(folder, "all")
    except GeomkitError as error:
        raise GeomkitError(f"{error}; {expected}") from None
    if len(found.folders) != 1000:
        raise GeomkitError(f"{folder}: images in {len(found.folders)} folders; {expected}")
    return replace(found, ids=tuple(f"{split}/{name}" for name in found.ids))


DATASET = Dataset(
    name="imagenet",
    load=load_imagenet,
    help="ImageNet: 1000 classes",
    path="ROOT",
    splits=("train", "val"),
    kinds=("classes",),
)
