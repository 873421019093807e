"""What a linear probe is fitted on and what it is tested on: two parts without a common picture."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from geomkit.data.labelled.classes import ClassData, load_classes
from geomkit.data.pairs import seeded_hash
from geomkit.errors import GeomkitError
from geomkit.models.preprocess import Preprocess

__all__ = ["HELD_OUT", "load_parts"]

HELD_OUT = 0.2
"""Share of each class that is tested on where the data set has no splits of its own."""


def load_parts(
    spec: str,
    *,
    preprocess: Preprocess,
    train_split: str | None = None,
    test_split: str | None = None,
    seed: int = 0,
    max_bad: float = 0.01,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[ClassData, ClassData]:
    """The training and the test part of a data set.

    Its own splits, validation counting as training where there is a test split; where it has no
    two splits, a fifth of each class is held out, chosen by a seeded hash of the pictures' names.

    Args:
        spec, preprocess, max_bad, progress: as for :func:`~geomkit.tasks.load_classes`.
        train_split, test_split: other splits than those.
        seed: of the hash.

    Raises:
        GeomkitError: as :func:`~geomkit.tasks.load_classes`; or if the two parts overlap or
            differ in their classes, or a class has too few pictures to divide.
    """

    def part(split: str | None) -> ClassData:
        return load_classes(
            spec, preprocess=preprocess, split=split, max_bad=max_bad, progress=progress
        )

    test = part(test_split)
    if train_split is None and test.train is None:
        return _divide(test, seed)
    tested = test.data.split.split("+")
    if train_split is None:
        train_split = "+".join(s for s in (test.train or "").split("+") if s not in tested)
        if not train_split:
            raise GeomkitError(
                f"data '{spec}': {test.data.split} is what would be trained on; "
                "name another split to train on (--train-split)"
            )
    trained = train_split.split("+")
    if set(trained) & set(tested) or "all" in (*trained, *tested):
        raise GeomkitError(
            f"data '{spec}': train ({train_split}) and test ({test.data.split}) overlap; "
            "name two splits, or neither"
        )
    train = part(train_split)
    if train.class_names != test.class_names:
        raise GeomkitError(
            f"data '{spec}': {train_split} has {len(train.class_names)} classes and "
            f"{test.data.split} {len(test.class_names)}; expected the same folders in both"
        )
    return train, test


def _divide(whole: ClassData, seed: int) -> tuple[ClassData, ClassData]:
    """The choice hangs on the names alone, whatever the order of the pictures."""
    order = np.array([seeded_hash(name, seed, "probe") for name in whole.data.ids])
    held_out = []
    for label, count in enumerate(whole.counts):
        if count == 1:
            raise GeomkitError(
                f"data '{whole.data.spec}': one picture of '{whole.class_names[label]}', "
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
