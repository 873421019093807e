"""load_classes(): labelled images with class names and prompts, from a DATA spec."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from geomkit.data.declarations import Progress, Request
from geomkit.data.labelled import prompts
from geomkit.data.pairs import PairData
from geomkit.data.registry import requested
from geomkit.errors import GeomkitError
from geomkit.models.preprocess import Preprocess

__all__ = ["ClassData", "check_spec", "load_classes"]


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

    def __len__(self) -> int:
        """Count of images."""
        return len(self.labels)

    @property
    def counts(self) -> np.ndarray:
        """Count of images of each class, shape ``(C,)``."""
        return np.bincount(self.labels, minlength=len(self.class_names))

    def take(self, rows: np.ndarray, *, split: str | None = None) -> ClassData:
        """The same data with only some of its rows."""
        return replace(self, data=self.data.take(rows, split=split), labels=self.labels[rows])


def load_classes(
    spec: str,
    *,
    preprocess: Preprocess,
    split: str | None = None,
    classnames: str | Path | None = None,
    templates: str | Path | None = None,
    max_bad: float = 0.01,
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
        progress: Function called with the count of images drawn and the total, if OpenMoji's are
            not cached yet.

    Returns:
        The images with their labels, class names and prompts.

    Raises:
        GeomkitError: If the data set, split or attribute is unknown, a folder is missing or
            damaged, or a file of names or prompts does not fit.

    >>> skin = load_classes("openmoji,attribute=skin_tone", preprocess=Preprocess(32))
    >>> skin.class_names[0], skin.counts.tolist()
    ('light skin tone', [70, 70, 70, 70, 70])
    """
    asked = {"split": split or "", "max_bad": max_bad, "progress": progress}
    request, options = _request(spec, preprocess=preprocess, **asked)
    found: ClassData = request.dataset.load(request, **options)
    if not len(found):
        raise GeomkitError(f"data '{spec}' ({found.data.split}): no images")
    if classnames is not None:
        names = prompts.read_classnames(Path(classnames), found.class_names)
        found = replace(found, class_names=names, names_from=str(classnames))
    if templates is not None:
        read = prompts.read_templates(Path(templates))
        found = replace(found, templates=read, templates_from=str(templates))
    captions = tuple((found.class_names[label],) for label in found.labels)
    return replace(found, data=replace(found.data, captions=captions))


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
