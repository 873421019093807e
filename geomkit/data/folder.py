"""A folder of images, captioned by the folder they are in or by a text file beside each."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from geomkit._core.files import refusing
from geomkit.data.declarations import Dataset, Request
from geomkit.data.files import SUFFIXES, Place
from geomkit.data.pairs import PairData
from geomkit.errors import GeomkitError

__all__ = ["DATASET", "TEMPLATE", "ClassFolders", "class_folders", "load_folder", "split_folders"]

TEMPLATE = "a photo of a {}."
"""CLIP's plainest prompt."""

_SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "validation", "valid"),
    "test": ("test",),
}


def load_folder(request: Request, *, template: str = TEMPLATE) -> PairData:
    """Images with the captions in ``.txt`` files beside them, or else with their class's name.

    Args:
        request: Request with the path of a folder: ``DIR/class/*.jpg``, or
            ``DIR/train/class/*.jpg`` and ``DIR/val/class/*.jpg``, or images with a ``.txt`` of the
            same stem beside them, at any depth (as img2dataset's ``files`` writes them). A folder
            without splits has a fifth held out for ``val``.
        template: Caption of a class, with ``{}`` for its name.

    Raises:
        GeomkitError: If the folder is missing, holds no images or no classes.
    """
    if "{}" not in template:
        raise GeomkitError(f"imagefolder: template: expected {{}} for the class, got '{template}'")
    root = request.folder()
    found = _images(root)
    texts = _texts(root, found)
    if texts:
        names, captions, splits = list(texts), list(texts.values()), None
        bare = len(found) - len(texts)
        note = f"{bare} images without a .txt beside them left out" if bare else ""
    else:
        classes = class_folders(root)
        names, splits = list(classes.files), classes.splits
        captions = [template.format(classes.names[label]) for label in classes.labels]
        note = f"{len(classes.names)} classes"
    return request.pairs(
        names,
        [(caption,) for caption in captions],
        places=[Place(str(root))],
        splits=splits,
        source=f"folder {root.resolve().name}",
        notes=[note],
    )


@dataclass(frozen=True)
class ClassFolders:
    """Images sorted into a folder for each class.

    Attributes:
        files: Path of each of ``n`` images, relative to the folder; these are their ids.
        labels: Class of each image, shape ``(n,)``.
        names: Names of the classes, sorted, with spaces for ``_`` and ``-``.
        splits: Split of each image; ``None`` if the folder has no splits.
    """

    files: tuple[str, ...]
    labels: np.ndarray
    names: tuple[str, ...]
    splits: tuple[str, ...] | None


def class_folders(root: Path) -> ClassFolders:
    """All images of ``DIR/class/*.jpg``, or of ``DIR/train/class/*.jpg`` and so on.

    Raises:
        GeomkitError: If an image is in no class's folder, or there is no image.
    """
    split_of = {folder: split for split, folder in split_folders(root).items()}
    depth = 1 if split_of else 0
    found: list[tuple[str, str, str]] = []
    for file in _images(root):
        steps = file.split("/")
        if len(steps) < depth + 2:
            raise GeomkitError(
                f"imagefolder: {root}: {file} is in no class's folder and has no .txt beside "
                f"it; expected {root.name}/class/{steps[-1]}"
            )
        if not split_of or steps[0] in split_of:
            found.append((file, steps[depth], split_of.get(steps[0], "")))
    folders, labels = np.unique([folder for _, folder, _ in found], return_inverse=True)
    return ClassFolders(
        tuple(file for file, _, _ in found),
        labels,
        tuple(str(folder).replace("_", " ").replace("-", " ") for folder in folders),
        tuple(split for _, _, split in found) if split_of else None,
    )


def split_folders(root: Path) -> dict[str, str]:
    """Which of train, val and test a folder has, each with the name of its folder.

    A class may be called "test": folders are splits if there is one for training and another one,
    or if there are no other folders and all of them hold folders.

    Args:
        root: Folder; one that is missing has no splits.
    """
    found = {
        split: next((n for n in names if (root / n).is_dir()), "")
        for split, names in _SPLITS.items()
    }
    there = {split: name for split, name in found.items() if name}
    if "train" in there and len(there) > 1:
        return there
    if not there:
        return {}
    folders = [folder for folder in root.iterdir() if folder.is_dir()]
    classes = all(any(inner.is_dir() for inner in folder.iterdir()) for folder in folders)
    return there if classes and {f.name for f in folders} == set(there.values()) else {}


def _images(root: Path) -> list[str]:
    """Every image, relative to the folder, in one order on every machine."""
    found = []
    for folder, _, files in os.walk(root, followlinks=True):
        inside = Path(folder).relative_to(root)
        found += [
            (inside / file).as_posix() for file in files if Path(file).suffix.lower() in SUFFIXES
        ]
    if not found:
        raise GeomkitError(f"imagefolder: {root}: no images in it ({', '.join(sorted(SUFFIXES))})")
    return sorted(found)


def _texts(root: Path, files: Sequence[str]) -> dict[str, str]:
    """Image → the text beside it."""
    found = {}
    for file in files:
        text = (root / file).with_suffix(".txt")
        with refusing(OSError, UnicodeDecodeError, says=f"imagefolder: {text}: cannot be read"):
            if text.exists():
                found[file] = text.read_text("utf-8").strip()
    return found


DATASET = Dataset(
    name="imagefolder",
    load=load_folder,
    help="images in one folder per class, or with a .txt beside each",
    options={"template": str},
    path="DIR",
    splits=("train", "val", "test", "all"),
)
