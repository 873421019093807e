"""Which images belong to a split: one rule for data without splits of its own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np

from geomkit.data.pairs import PairData, seeded_hash
from geomkit.errors import GeomkitError, unknown_name

__all__ = ["NAMES", "VAL_SHARE", "default_splits", "held_out", "in_split", "mixed", "split_called",
           "split_names"]  # fmt: skip

NAMES = {
    "train": ("train", "training", "restval"),
    "val": ("val", "validation", "valid", "dev"),
    "test": ("test", "testing"),
}
"""What splits are called in names of folders and files, and in tables."""
VAL_SHARE = 0.2
"""Share held out for validation where a data set has no split of its own."""


def split_called(name: str) -> str | None:
    """The split that a name stands for, with a year after it or not; ``None`` for another word.

    >>> [split_called(name) for name in ("Train", "valid", "val2017", "class_1")]
    ['train', 'val', 'val', None]
    """
    word = re.sub(r"[ _-]?(19|20)\d\d$", "", name.strip().lower())
    return next((split for split, names in NAMES.items() if word in names), None)


def mixed(names: Iterable[str], what: str) -> str:
    """Remark on data whose names are of several splits that are not told apart; else nothing.

    >>> mixed(["a/train-000.tar", "a/val-000.tar"], "tar files")
    'tar files of train and val are read as one data set'
    """
    words = [set(re.split("[^a-z0-9]+", name.lower())) for name in names] or [set()]
    unlike = set.union(*words) - set.intersection(*words)
    found = [split for split in NAMES if any(split_called(word) == split for word in unlike)]
    return f"{what} of {' and '.join(found)} are read as one data set" if len(found) > 1 else ""


def held_out(names: Iterable[str], seed: int) -> np.ndarray:
    """Whether each name is held out, a fifth of all, by a seeded hash of the name.

    Of two or three names one is held out; of more at least two are, and at least two are not.

    >>> held_out("abc", 0).tolist(), held_out("bc", 0).tolist()
    ([True, False, False], [True, False])
    """
    numbers = np.array([seeded_hash(name, seed, "split") for name in names])
    found = numbers < VAL_SHARE
    least = min(2, len(numbers) // 2)
    order = np.argsort(numbers, kind="stable")
    found[order[:least]] = True
    found[order[len(order) - least :]] = False
    return found


def in_split(
    data: PairData, split: str, *, seed: int, splits: Sequence[str] | None = None
) -> PairData:
    """The rows of a split.

    Args:
        data: All the pairs.
        split: ``train``, ``val``, ``test`` or ``all``.
        seed: Random seed of the pairs that are held out.
        splits: Split of each pair; if not given, a fifth is held out by a seeded hash of the ids.

    Raises:
        GeomkitError: If no pair is in the split.
    """
    if split == "all":
        return data
    if splits is not None:
        if split not in splits:
            there = ", ".join(sorted(set(splits)))
            raise GeomkitError(f"'{data.spec}': has no split {split}; it has {there}; or use all")
        return data.take(np.flatnonzero(np.array(splits) == split), split=split)
    if split == "test":
        raise GeomkitError(f"'{data.spec}': has no split test; use train, val or all")
    rows = np.flatnonzero(held_out(data.ids, seed) == (split == "val"))
    if not len(rows):
        raise GeomkitError(
            f"'{data.spec}': none of its {len(data)} images is in {split} (a fifth is held out "
            "by a seeded hash); use all, or another seed"
        )
    share = "a fifth" if split == "val" else "four fifths"
    return data.take(rows, split=split).with_note(f"{split}: {share}, by a seeded hash of the ids")


def split_names(split: str, known: Sequence[str]) -> list[str]:
    """The splits that are joined by ``+``.

    Raises:
        GeomkitError: If one is unknown or appears twice.

    >>> split_names("train+val", ("train", "val", "test"))
    ['train', 'val']
    """
    names = split.split("+")
    for name in names:
        if name not in known:
            raise unknown_name("split", name, known)
    if len(set(names)) < len(names) or ("all" in names and len(names) > 1):
        raise GeomkitError(f"split '{split}': names the same images twice; name each split once")
    return names


def default_splits(known: Sequence[str]) -> tuple[str | None, str]:
    """The splits to train a probe on and to test on; the first is ``None`` if there is only one.

    The test split is the one CLIP_benchmark uses; all others are for training.

    >>> default_splits(("train", "val", "test")), default_splits(("train", "val", "all"))
    (('train+val', 'test'), ('train', 'val'))
    """
    test = next(name for name in ("test", "val", "train", "all") if name in known)
    return "+".join(name for name in known if name not in (test, "all")) or None, test
