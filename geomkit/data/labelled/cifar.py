"""CIFAR-10 and CIFAR-100."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from geomkit.data.declarations import Dataset, Request
from geomkit.data.labelled.classes import ClassData
from geomkit.data.labelled.disk import Found, labelled, read_torchvision
from geomkit.data.labelled.prompts import with_articles

__all__ = ["CIFAR10", "CIFAR100", "TEMPLATES", "load_cifar"]

TEMPLATES = with_articles(
    "a photo of {a} {}.",
    "a blurry photo of {a} {}.",
    "a black and white photo of {a} {}.",
    "a low contrast photo of {a} {}.",
    "a high contrast photo of {a} {}.",
    "a bad photo of {a} {}.",
    "a good photo of {a} {}.",
    "a photo of {a} small {}.",
    "a photo of {a} big {}.",
)
"""OpenAI's prompts."""


def load_cifar(request: Request, *, classes: int, folder: str) -> ClassData:
    """CIFAR as it is unpacked.

    Args:
        request: Request with the path of the folder that holds CIFAR's own folder.
        classes: Number of classes, 10 or 100.
        folder: Name of that folder.
    """
    name = f"CIFAR{classes}"

    def read(root: Path, split: str) -> Found:
        found = read_torchvision(
            root,
            root / folder,
            name,
            f"{root / folder} as unpacked from cifar-{classes}-python.tar.gz "
            f"(the reader of torchvision.datasets.{name} checks its sums)",
            lambda datasets: getattr(datasets, name)(
                str(root), train=split == "train", download=False
            ),
        )
        ids = tuple(f"{split}/{row:05d}" for row in range(len(found)))
        return Found(found.data, np.asarray(found.targets), tuple(found.classes), ids)

    return labelled(
        request, read, templates=TEMPLATES, templates_from=f"OpenAI's for CIFAR-{classes}"
    )


CIFAR10 = Dataset(
    name="cifar10",
    load=partial(load_cifar, classes=10, folder="cifar-10-batches-py"),
    help="CIFAR-10: 32 px images of 10 classes",
    path="ROOT",
    splits=("train", "test"),
    kinds=("classes",),
)
CIFAR100 = Dataset(
    name="cifar100",
    load=partial(load_cifar, classes=100, folder="cifar-100-python"),
    help="CIFAR-100: 32 px images of 100 classes",
    path="ROOT",
    splits=("train", "test"),
    kinds=("classes",),
)
