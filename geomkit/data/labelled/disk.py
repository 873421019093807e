"""Labelled images on the user's disk; nothing is downloaded.

torchvision's readers find CIFAR, DTD and Caltech-101. Only paths (or CIFAR's pixels) are taken from
them: images are decoded by geomkit's workers when they are asked for, as the model needs them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from geomkit.data.declarations import Dataset, Request
from geomkit.data.files import FileImages, PixelImages, Place
from geomkit.data.labelled import prompts
from geomkit.data.labelled.classes import ClassData
from geomkit.data.pairs import Images, LeftOut
from geomkit.data.splits import default_splits, split_names
from geomkit.errors import GeomkitError, reason

__all__ = ["Found", "labelled", "on_disk", "read_torchvision"]


@dataclass(frozen=True)
class Found:
    """Images of one split, not decoded yet.

    Attributes:
        images: Paths of ``n`` images; or pixels, uint8, shape ``(n, h, w, 3)``.
        labels: Class of each image, shape ``(n,)``.
        names: Names of the classes; ``_`` becomes a space.
        ids: Name of each image.
        notes: Remarks for the user.
        left_out: Images that are in no split.
    """

    images: tuple[Path, ...] | np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]
    ids: tuple[str, ...]
    notes: tuple[str, ...] = ()
    left_out: tuple[LeftOut, ...] = ()


def labelled(
    request: Request,
    read: Callable[[Path, str], Found],
    *,
    splits: Sequence[str] | None = None,
    dataset: str | None = None,
    names_from: str = "torchvision's",
    templates: tuple[str, ...] = (),
    templates_from: str = "OpenAI's for ImageNet",
) -> ClassData:
    """Labelled images on disk, of one split or of several joined by ``+``.

    Args:
        request: Request with the path of the data set's folder.
        read: Function from that folder and the name of one split to its images.
        splits: Splits the folder has; default: those of the data set.
        dataset: Name in CLIP_benchmark; default: the data set's.
        names_from: Origin of the names of the classes.
        templates: Prompts; default: OpenAI's for ImageNet.
        templates_from: Origin of these prompts.

    Raises:
        GeomkitError: If a split is unknown, or the classes differ between splits.
    """
    root, splits = request.folder(), splits or request.dataset.splits
    train, test = default_splits(splits)
    split = request.split or test
    parts = [read(root, name) for name in split_names(split, splits)]
    names = parts[0].names
    if any(part.names != names for part in parts):
        raise GeomkitError(f"{root}: the splits {split} differ in their classes")
    ids = tuple(name for part in parts for name in part.ids)
    images, captions = _images(parts, request), [("",)] * len(ids)
    data = request.data(
        images, captions, ids, str(root), split=split, note="; ".join(parts[0].notes)
    )
    left_out = parts[0].left_out
    given = len(ids) + sum(some.count for some in left_out)
    return ClassData(
        data=replace(data, given=given, left_out=left_out),
        labels=np.concatenate([part.labels for part in parts]).astype(np.int64),
        class_names=tuple(name.replace("_", " ") for name in names),
        templates=templates or prompts.imagenet_templates(),
        dataset=dataset or request.dataset.name,
        names_from=names_from,
        templates_from=templates_from,
        train=train,
        test=test,
    )


def on_disk(
    name: str,
    read: Callable[[Path, str], Found],
    help: str,
    *,
    splits: tuple[str, ...],
    **how: Any,
) -> Dataset:
    """Declaration of a labelled data set on disk.

    Args:
        name: Name in a DATA spec.
        read: Function from the data set's folder and the name of one split to its images.
        help: What the data set is, in one line.
        splits: Splits it has.
        how: Names and prompts, as :func:`labelled` takes them.
    """
    load = partial(labelled, read=read, **how)
    return Dataset(name, load, help, path="ROOT", splits=splits, kinds=("classes",))


def _images(parts: Sequence[Found], request: Request) -> Images:
    if isinstance(parts[0].images, np.ndarray):
        pixels = np.concatenate([np.asarray(part.images) for part in parts])
        return PixelImages(pixels, request.preprocess)
    # The paths are absolute.
    names = [str(file.absolute()) for part in parts for file in part.images]
    return FileImages([Place("")], [0] * len(names), names, request.preprocess, draft=request.draft)


def read_torchvision(root: Path, folder: Path, name: str, expected: str, **options: Any) -> Any:
    """What a reader of torchvision finds.

    Args:
        root: Folder the user named.
        folder: Folder that must exist in it; a reader might make it.
        name: Name of the reader in :mod:`torchvision.datasets`.
        expected: What should be there.
        options: Options of the reader.

    Raises:
        GeomkitError: If the data set is missing, incomplete or damaged.
    """
    if not folder.is_dir():
        raise GeomkitError(f"{root}: no {name} here; expected {expected}")
    from torchvision import datasets

    try:
        with warnings.catch_warnings():  # from numpy about pickles older than itself
            warnings.simplefilter("ignore")
            return getattr(datasets, name)(str(root), download=False, **options)
    except Exception as error:  # a damaged file makes the readers raise many kinds
        why = reason(error).split(" You can use download=True")[0].rstrip(".")
        raise GeomkitError(
            f"{root}: {name} is incomplete or damaged; expected {expected} ({why})"
        ) from None
