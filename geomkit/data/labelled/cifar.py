"""CIFAR-10 and CIFAR-100 as they are unpacked."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from geomkit.data.declarations import Dataset
from geomkit.data.labelled.disk import Found, on_disk, read_torchvision
from geomkit.data.labelled.prompts import with_articles

__all__ = ["CIFAR10", "CIFAR100", "TEMPLATES"]

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


def _cifar(classes: int, folder: str) -> Dataset:
    name = f"CIFAR{classes}"

    def read(root: Path, split: str) -> Found:
        found = read_torchvision(
            root,
            root / folder,
            name,
            f"{root / folder} as unpacked from cifar-{classes}-python.tar.gz "
            f"(the reader of torchvision.datasets.{name} checks its sums)",
            train=split == "train",
        )
        ids = tuple(f"{split}/{row:05d}" for row in range(len(found)))
        return Found(found.data, np.asarray(found.targets), tuple(found.classes), ids)

    return on_disk(
        name.lower(),
        read,
        f"CIFAR-{classes}: 32 px images of {classes} classes",
        splits=("train", "test"),
        templates=TEMPLATES,
        templates_from=f"OpenAI's for CIFAR-{classes}",
    )


CIFAR10 = _cifar(10, "cifar-10-batches-py")
CIFAR100 = _cifar(100, "cifar-100-python")
