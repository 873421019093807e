"""Images in one folder per class."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from geomkit.data.declarations import Dataset, Request
from geomkit.data.folder import class_folders, split_folders
from geomkit.data.labelled.classes import ClassData
from geomkit.data.labelled.disk import Found, labelled

__all__ = ["DATASET", "load_image_folder", "read_folder"]


def load_image_folder(request: Request) -> ClassData:
    """Images in ``DIR/class/*.jpg``, or in ``DIR/train/class/*.jpg`` and so on."""
    return labelled(
        request,
        read_folder,
        splits=tuple(split_folders(request.folder())) or ("all",),
        dataset=request.spec,
        names_from="the folders'",
    )


def read_folder(root: Path, split: str) -> Found:
    """The images of a split of a folder, or ``all`` of them.

    Raises:
        GeomkitError: If an image is in no class's folder, or there is no image.
    """
    found = class_folders(root)
    rows = np.arange(len(found.files))
    if split != "all":
        rows = np.flatnonzero(np.array(found.splits) == split)
    files = tuple(found.files[row] for row in rows)
    return Found(
        tuple(root / file for file in files),
        found.labels[rows],
        found.names,
        files,
        found.notes,
        found.left_out,
    )


DATASET = Dataset(
    name="imagefolder",
    load=load_image_folder,
    help="images in one folder per class",
    path="DIR",
    splits=("train", "val", "test", "all"),
    kinds=("classes",),
)
