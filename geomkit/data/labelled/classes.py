"""Labelled images with class names and prompts, from a DATA spec, and the parts of a probe."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from geomkit.data.declarations import Progress, Request
from geomkit.data.labelled import prompts
from geomkit.data.pairs import PairData, seeded_hash
from geomkit.data.registry import requested
from geomkit.errors import GeomkitError
from geomkit.models.preprocess import Preprocess

__all__ = ["HELD_OUT", "ClassData", "check_spec", "load_classes", "load_parts"]

HELD_OUT = 0.2
"""Share of each class that is held out to test on, if the data set has no splits of its own."""


@dataclass(frozen=True)
class ClassData:
    """Images, each of one class.

    Attributes:
        data: Images; their one caption is the name of their class.
        labels: Class of each image, shape ``(n,)``.
        class_names: Names of the ``C`` classes.
        templates: Prompts, with ``{}`` or ``{c}`` for the name.
        dataset: Name of the data set in CLIP_benchmark, or the spec.
        names_from: Origin of the names.
        templates_from: Origin of the prompts.
        train: Split that a linear probe is fitted on; ``None`` if there is none.
        test: Split to test on.
        groups: For each image the number of its group, shape ``(n,)``: images of one group, such
            as one emoji in five skin tones, are not independent. ``None`` if all are.
    """

    data: PairData
    labels: np.ndarray
    class_names: tuple[str, ...]
    templates: tuple[str, ...]
    dataset: str
    names_from: str
    templates_from: str
    train: str | None
    test: str
    groups: np.ndarray | None = None

    def __len__(self) -> int:
        """Count of images."""
        return len(self.labels)

    @property
    def counts(self) -> np.ndarray:
        """Count of images of each class, shape ``(C,)``."""
        return np.bincount(self.labels, minlength=len(self.class_names))

    def take(self, rows: np.ndarray, *, split: str | None = None) -> ClassData:
        """The same data with only some of its rows."""
        groups = None if self.groups is None else self.groups[rows]
        data = self.data.take(rows, split=split)
        return replace(self, data=data, labels=self.labels[rows], groups=groups)


def load_classes(
    spec: str,
    *,
    preprocess: Preprocess,
    split: str | None = None,
    classnames: str | Path | None = None,
    templates: str | Path | None = None,
    max_bad: float = 0.01,
    fast_decode: bool = False,
    progress: Progress | None = None,
) -> ClassData:
    """Load labelled images, prepared for a model when they are asked for.

    Args:
        spec: DATA spec: ``imagefolder:DIR``, ``cifar10:ROOT`` and others as torchvision lays them
            out, or ``openmoji,attribute=NAME`` with one of OpenMoji's own attributes. ``geomkit
            data`` lists them all.
        preprocess: Preprocessing of the model, see :func:`geomkit.data.decode.prepare`.
        split: Split, or several joined as in ``train+val``; default: the one CLIP_benchmark tests
            on, ``test`` or ``val`` of an image folder that has them, ``val`` of OpenMoji.
        classnames: File of other names, see
            :func:`geomkit.data.labelled.prompts.read_classnames`.
        templates: File of other prompts, see
            :func:`geomkit.data.labelled.prompts.read_templates`.
        max_bad: Largest share of images that may fail to decode.
        fast_decode: Whether large JPEGs may be decoded at a reduced size, which moves the
            embeddings a little.
        progress: Function called with the count of images drawn and the total, if OpenMoji's are
            not cached yet.

    Returns:
        The images with their labels, class names and prompts.

    Raises:
        GeomkitError: If the data set, split or attribute is unknown, a folder is missing or
            damaged, a file of names or prompts does not fit, or fast decoding is asked for and
            there are no files.

    >>> skin = load_classes("openmoji,attribute=skin_tone", preprocess=Preprocess(32))
    >>> skin.class_names[0], skin.counts.tolist()
    ('light skin tone', [70, 70, 70, 70, 70])
    """
    request, options = _request(
        spec, preprocess=preprocess, split=split or "", max_bad=max_bad, draft=fast_decode,
        progress=progress,
    )  # fmt: skip
    found: ClassData = request.dataset.load(request, **options)
    if fast_decode and found.data.fast_decode is None:
        raise GeomkitError(f"data '{spec}': has no JPEG files to decode fast")
    if not len(found):
        raise GeomkitError(f"data '{spec}' ({found.data.split}): no images")
    if classnames is not None:
        names = prompts.read_classnames(Path(classnames), found.class_names)
        found = replace(found, class_names=names, names_from=str(classnames))
    if templates is not None:
        read = prompts.read_templates(Path(templates))
        found = replace(found, templates=read, templates_from=str(templates))
    name, count = Counter(found.class_names).most_common(1)[0]
    if count > 1:
        said = f"{count} classes have the name '{name}', and cannot be told apart by it"
        found = replace(found, data=found.data.with_note(said))
    captions = tuple((found.class_names[label],) for label in found.labels)
    return replace(found, data=replace(found.data, captions=captions))


def load_parts(
    spec: str,
    *,
    preprocess: Preprocess,
    train_split: str | None = None,
    test_split: str | None = None,
    seed: int = 0,
    max_bad: float = 0.01,
    fast_decode: bool = False,
    progress: Progress | None = None,
) -> tuple[ClassData, ClassData]:
    """The training and the test part of a data set.

    These are its own splits, validation counting as training if there is a test split. If it has
    no two splits, a fifth of each class is held out by a seeded hash of the images' names.

    Args:
        spec: DATA spec, as for :func:`load_classes`.
        preprocess: Preprocessing of the model.
        train_split: Split to train on, if not the data set's own.
        test_split: Split to test on, if not the data set's own.
        seed: Random seed of the hash.
        max_bad: Largest share of images that may fail to decode.
        fast_decode: Whether large JPEGs may be decoded at a reduced size, which moves the
            embeddings a little.
        progress: Function called with the count of images drawn and the total.

    Returns:
        The training part and the test part.

    Raises:
        GeomkitError: As :func:`load_classes`; or if the two parts overlap or
            differ in their classes, or a class has too few images to divide.
    """
    part = partial(
        load_classes, spec, preprocess=preprocess, max_bad=max_bad, fast_decode=fast_decode,
        progress=progress,
    )  # fmt: skip
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


def check_spec(spec: str) -> None:
    """Check a spec of labelled images, and that its folder exists.

    Raises:
        GeomkitError: If the data set or an option is unknown, or the folder is missing.

    >>> check_spec("openmoji,attribute=flag")
    """
    _request(spec, preprocess=Preprocess(32), split="")


def _request(spec: str, **asked: Any) -> tuple[Request, dict[str, Any]]:
    request, options = requested(spec, "classes", **asked)
    if request.dataset.path:
        request.folder()
    return request, options
