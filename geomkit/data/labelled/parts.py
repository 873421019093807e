"""What a linear probe is fitted on and what it is tested on: two parts with no image in common."""

from __future__ import annotations

from functools import partial

import numpy as np

from geomkit.data.declarations import Progress
from geomkit.data.labelled.classes import ClassData, load_classes
from geomkit.data.pairs import seeded_hash
from geomkit.errors import GeomkitError
from geomkit.models.preprocess import Preprocess

__all__ = ["HELD_OUT", "load_parts"]

HELD_OUT = 0.2
"""Share of each class that is held out to test on, if the data set has no splits of its own."""


def load_parts(
    spec: str,
    *,
    preprocess: Preprocess,
    train_split: str | None = None,
    test_split: str | None = None,
    seed: int = 0,
    max_bad: float = 0.01,
    progress: Progress | None = None,
) -> tuple[ClassData, ClassData]:
    """The training and the test part of a data set.

    These are its own splits, validation counting as training if there is a test split. If it has
    no two splits, a fifth of each class is held out by a seeded hash of the images' names.

    Args:
        spec: DATA spec, as for :func:`~geomkit.data.labelled.load_classes`.
        preprocess: Preprocessing of the model.
        train_split: Split to train on, if not the data set's own.
        test_split: Split to test on, if not the data set's own.
        seed: Random seed of the hash.
        max_bad: Largest share of images that may fail to decode.
        progress: Function called with the count of images drawn and the total.

    Returns:
        The training part and the test part.

    Raises:
        GeomkitError: As :func:`~geomkit.data.labelled.load_classes`; or if the two parts overlap or
            differ in their classes, or a class has too few images to divide.
    """
    part = partial(load_classes, spec, preprocess=preprocess, max_bad=max_bad, progress=progress)
    test = part(split=test_split)
    if train_split is None and test.train is None:
        return _divide(test, seed)
    tested = test.data.split.split("+")
    if train_split is None:
        train_split = "+".join(s for s in (test.train or "").split("+") if s not in tested)
        if not train_split:
            raise GeomkitError(
                f"data '{spec}': {test.data.split} is the split to train on; "
                "name another split to train on (--train-split)"
            )
    trained = train_split.split("+")
    if set(trained) & set(tested) or "all" in (*trained, *tested):
        raise GeomkitError(
            f"data '{spec}': train ({train_split}) and test ({test.data.split}) overlap; "
            "name two splits, or neither"
        )
    train = part(split=train_split)
    if train.class_names != test.class_names:
        raise GeomkitError(
            f"data '{spec}': {train_split} has {len(train.class_names)} classes and "
            f"{test.data.split} {len(test.class_names)}; expected the same folders in both"
        )
    return train, test


def _divide(whole: ClassData, seed: int) -> tuple[ClassData, ClassData]:
    """The choice depends on the names alone, not on the order of the images."""
    order = np.array([seeded_hash(name, seed, "probe") for name in whole.data.ids])
    held_out = []
    for label, count in enumerate(whole.counts):
        if count == 1:
            raise GeomkitError(
                f"data '{whole.data.spec}': one image of '{whole.class_names[label]}', "
                "expected two or more to hold one out; or name two splits"
            )
        rows = np.flatnonzero(whole.labels == label)
        take = max(1, round(HELD_OUT * count)) if count else 0
        held_out.append(rows[np.argsort(order[rows])[:take]])
    test = np.sort(np.concatenate(held_out))
    train = np.setdiff1d(np.arange(len(whole)), test)
    share, split = f"{HELD_OUT:.0%}", whole.data.split
    return (
        whole.take(train, split=f"{split} but {share}"),
        whole.take(test, split=f"{share} of {split}"),
    )
