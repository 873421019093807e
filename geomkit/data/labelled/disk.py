"""Labelled pictures on the user's disk; nothing is downloaded.

torchvision's readers find CIFAR, DTD and Caltech-101. Only paths (or CIFAR's pixels) are taken from
them: pictures are decoded by our own workers when they are asked for, as the model wants them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from geomkit.data.decode import prepare
from geomkit.data.files import FileImages, Place
from geomkit.data.folder import image_folder_classes
from geomkit.data.pairs import Images
from geomkit.errors import GeomkitError, unknown_name
from geomkit.models.preprocess import Preprocess

__all__ = [
    "READERS",
    "Found",
    "PixelImages",
    "Reader",
    "read_splits",
    "split_names",
]


@dataclass(frozen=True)
class Found:
    """Pictures of one split, not decoded yet.

    Attributes:
        pictures: paths; or pixels ``(n, h, w, 3)`` uint8.
        labels: ``(n,)``, class of each.
        folders: the data set's own names of the classes.
        ids: a name for each picture.
    """

    pictures: tuple[Path, ...] | np.ndarray
    labels: np.ndarray
    folders: tuple[str, ...]
    ids: tuple[str, ...]

    def prepared(self, preprocess: Preprocess) -> Images:
        """The pictures as a model wants them, decoded when asked for."""
        if isinstance(self.pictures, np.ndarray):
            return PixelImages(self.pictures, preprocess)
        # Every pixel is decoded, as other evaluations do; only absolute paths are left to read.
        names = [str(file.absolute()) for file in self.pictures]
        return FileImages([Place("")], [0] * len(names), names, preprocess, draft=False)


@dataclass(frozen=True)
class PixelImages:
    """Pictures in memory that are still to be brought to the size a model takes."""

    pixels: np.ndarray
    preprocess: Preprocess

    @property
    def size(self) -> int:
        """Side in px."""
        return self.preprocess.size

    def __len__(self) -> int:
        return len(self.pixels)

    def read(self, row: int) -> np.ndarray:
        """One picture, ``(size, size, 3)`` uint8."""
        return prepare(Image.fromarray(self.pixels[row]), self.preprocess)

    def describe(self, row: int) -> str:
        """A checksum of its pixels."""
        import hashlib

        return hashlib.sha256(self.pixels[row].tobytes()).hexdigest()


@dataclass(frozen=True)
class Reader:
    """How one data set is found.

    Attributes:
        read: from its root and a split to the pictures.
        splits: those it has.
        test: the one zero-shot classification uses, as CLIP_benchmark does.
        train: what a linear probe is fitted on; ``None`` if the data set has no split of its own.
    """

    read: Callable[[Path, str], Found]
    splits: tuple[str, ...]
    test: str
    train: str | None


def _cifar(name: str, folder: str, archive: str) -> Callable[[Path, str], Found]:
    def read(root: Path, split: str) -> Found:
        from torchvision import datasets

        expected = (
            f"expected {root / folder} as unpacked from {archive} "
            f"(the reader of torchvision.datasets.{name} checks its sums)"
        )
        if not (root / folder).is_dir():
            raise GeomkitError(f"{root}: no {name} here; {expected}")
        found = _read(
            lambda: getattr(datasets, name)(str(root), train=split == "train", download=False),
            f"{root}: {name} is incomplete or damaged; {expected}",
        )
        ids = tuple(f"{split}/{row:05d}" for row in range(len(found)))
        return Found(found.data, np.asarray(found.targets), tuple(found.classes), ids)

    return read


def _dtd(root: Path, split: str) -> Found:
    from torchvision import datasets

    expected = f"expected {root / 'dtd' / 'dtd'} with the folders images and labels"
    if not (root / "dtd" / "dtd").is_dir():
        raise GeomkitError(f"{root}: no DTD here; {expected}")
    found = _read(
        lambda: datasets.DTD(str(root), split=split, download=False),
        f"{root}: DTD is incomplete or damaged; {expected}",
    )
    files = tuple(Path(file) for file in found._image_files)
    ids = tuple(f"{file.parent.name}/{file.stem}" for file in files)
    return Found(files, np.asarray(found._labels), tuple(found.classes), ids)


def _caltech101(root: Path, split: str) -> Found:
    from torchvision import datasets

    folder = root / "caltech101" / "101_ObjectCategories"
    expected = f"expected {folder} with a folder a class, BACKGROUND_Google (left out) among them"
    if not folder.is_dir():  # the reader would make it
        raise GeomkitError(f"{root}: no Caltech-101 here; {expected}")
    found = _read(
        lambda: datasets.Caltech101(str(root), download=False),
        f"{root}: Caltech-101 is incomplete or damaged; {expected}",
    )
    files = tuple(
        folder / found.categories[label] / f"image_{number:04d}.jpg"
        for label, number in zip(found.y, found.index, strict=True)
    )
    ids = tuple(f"{file.parent.name}/{file.stem}" for file in files)
    return Found(files, np.asarray(found.y), tuple(found.categories), ids)


def _imagenet(root: Path, split: str) -> Found:
    expected = f"expected {root / split} with 1000 folders named by WordNet id, such as n01440764"
    if not (root / split).is_dir():
        raise GeomkitError(f"{root}: no ImageNet {split} here; {expected}")
    try:
        found = _folders(root / split, f"{split}/", "all")
    except GeomkitError as error:
        raise GeomkitError(f"{error}; {expected}") from None
    if len(found.folders) != 1000:
        raise GeomkitError(f"{root / split}: pictures in {len(found.folders)} folders; {expected}")
    return found


def _image_folder(root: Path, split: str) -> Found:
    return _folders(root, "", split)


def _folders(folder: Path, prefix: str, split: str) -> Found:
    names, labels, classes = image_folder_classes(folder, split=split)
    return Found(
        tuple(folder / name for name in names),
        labels,
        tuple(classes),
        tuple(prefix + name for name in names),
    )


def _read(make: Callable[[], Any], refusal: str) -> Any:
    """What a reader of torchvision's finds, or one line."""
    try:
        with warnings.catch_warnings():  # of numpy's about pickles older than itself
            warnings.simplefilter("ignore")
            found = make()
    except Exception as error:  # they raise whatever a damaged file makes them
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        reason = reason.split(" You can use download=True")[0].rstrip(".")
        raise GeomkitError(f"{refusal} ({reason})") from None
    return found


READERS: dict[str, Reader] = {
    "cifar10": Reader(
        _cifar("CIFAR10", "cifar-10-batches-py", "cifar-10-python.tar.gz"),
        ("train", "test"),
        "test",
        "train",
    ),
    "cifar100": Reader(
        _cifar("CIFAR100", "cifar-100-python", "cifar-100-python.tar.gz"),
        ("train", "test"),
        "test",
        "train",
    ),
    "dtd": Reader(_dtd, ("train", "val", "test"), "test", "train+val"),
    "caltech101": Reader(_caltech101, ("all",), "all", None),
    "imagenet": Reader(_imagenet, ("train", "val"), "val", "train"),
    "imagefolder": Reader(_image_folder, ("train", "val", "test", "all"), "", ""),
}
"""How each data set is found; an image folder's splits depend on the folder."""


def split_names(split: str, splits: tuple[str, ...]) -> list[str]:
    """The splits that are joined by ``+``.

    Raises:
        GeomkitError: for one the data set lacks, or one that is in there twice.

    >>> split_names("train+val", ("train", "val", "test"))
    ['train', 'val']
    """
    names = split.split("+")
    for name in names:
        if name not in splits:
            raise unknown_name("split", name, splits)
    if len(set(names)) < len(names) or ("all" in names and len(names) > 1):
        raise GeomkitError(f"split '{split}': the same pictures twice; name each once")
    return names


def read_splits(reader: Reader, root: Path, split: str, splits: tuple[str, ...]) -> Found:
    """One split, or several joined by ``+``.

    Raises:
        GeomkitError: for a split the data set lacks, or folders that differ between them.
    """
    parts = [reader.read(root, name) for name in split_names(split, splits)]
    first = parts[0]
    if any(part.folders != first.folders for part in parts):
        raise GeomkitError(f"{root}: the splits {split} differ in their classes")
    if len(parts) == 1:
        return first
    pictures: Any
    if isinstance(first.pictures, np.ndarray):
        pictures = np.concatenate([np.asarray(part.pictures) for part in parts])
    else:
        pictures = tuple(file for part in parts for file in part.pictures)
    return Found(
        pictures,
        np.concatenate([part.labels for part in parts]),
        first.folders,
        tuple(name for part in parts for name in part.ids),
    )
