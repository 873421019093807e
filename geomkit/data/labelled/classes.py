"""load_classes(): labelled pictures with names of classes and prompts, from a DATA spec."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from geomkit.data.folder import image_folder_splits
from geomkit.data.labelled import prompts
from geomkit.data.labelled.attributes import ATTRIBUTES
from geomkit.data.labelled.disk import (
    READERS,
    PixelImages,
    read_splits,
    split_names,
)
from geomkit.data.openmoji import SIZES, load_openmoji
from geomkit.data.pairs import Images, PairData
from geomkit.errors import GeomkitError, unknown_name
from geomkit.models.preprocess import Preprocess

__all__ = ["CLASS_DATASETS", "ClassData", "check_spec", "load_classes"]

CLASS_DATASETS = ("openmoji", *READERS)
"""Data sets that have classes."""

_PUBLISHED = {"imagenet": "imagenet1k"}
_TITLES = {
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "dtd": "DTD",
    "caltech101": "Caltech-101",
    "imagenet": "ImageNet",
    "imagefolder": "folders",
}


@dataclass(frozen=True)
class ClassData:
    """Pictures, each of one class.

    Attributes:
        data: the pictures; their one caption is the name of their class.
        labels: ``(n,)``, class of each.
        class_names: ``C`` names.
        templates: prompts, ``{}`` or ``{c}`` standing for the name.
        dataset: the data set as CLIP_benchmark names it, or the spec.
        names_from, templates_from: whose names and prompts these are.
        train, test: the splits a linear probe uses; ``None`` if there are none.
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
        return len(self.labels)

    @property
    def counts(self) -> np.ndarray:
        """``(C,)``, pictures of each class."""
        return np.bincount(self.labels, minlength=len(self.class_names))

    def take(self, rows: np.ndarray, *, split: str | None = None) -> ClassData:
        """The same data, cut down to some of its rows."""
        return replace(self, data=self.data.take(rows, split=split), labels=self.labels[rows])


def load_classes(
    spec: str,
    *,
    preprocess: Preprocess,
    split: str | None = None,
    classnames: str | Path | None = None,
    templates: str | Path | None = None,
    max_bad: float = 0.01,
    progress: Callable[[int, int], None] | None = None,
) -> ClassData:
    """Labelled pictures, prepared as a model wants them when they are asked for.

    Args:
        spec: ``imagefolder:DIR``, ``cifar10:ROOT``, ``cifar100:ROOT``, ``dtd:ROOT``,
            ``caltech101:ROOT`` or ``imagenet:ROOT`` as torchvision lays them out; or
            ``openmoji,attribute=NAME`` with one of OpenMoji's own attributes.
        preprocess: a model's, see :func:`geomkit.data.decode.prepare`.
        split: by default the one that CLIP_benchmark tests on, ``test`` or ``val`` of an image
            folder that has them, ``val`` of OpenMoji. Several are joined: ``train+val``.
        classnames: file of other names, see :func:`geomkit.data.labelled.prompts.read_classnames`.
        templates: file of other prompts, see :func:`geomkit.data.labelled.prompts.read_templates`.
        max_bad: largest share of pictures that may fail to decode.
        progress: called with pictures drawn and in all, if OpenMoji's are not cached yet.

    Raises:
        GeomkitError: for an unknown data set, split or attribute, a folder that is missing or
            damaged, or a file of names or prompts that does not fit.

    >>> from geomkit.models.preprocess import Preprocess
    >>> skin = load_classes("openmoji,attribute=skin_tone", preprocess=Preprocess(32))
    >>> skin.class_names[0], skin.counts.tolist()
    ('light skin tone', [70, 70, 70, 70, 70])
    """
    name, options, root = check_spec(spec)
    if root is None:
        found = _openmoji(spec, options, preprocess, split, progress)
    else:
        found = _from_disk(name, root, spec, preprocess, split)
    if not len(found):
        raise GeomkitError(f"data '{spec}' ({found.data.split}): no pictures")
    if classnames is not None:
        names = prompts.read_classnames(Path(classnames), found.class_names)
        found = replace(found, class_names=names, names_from=str(classnames))
    if templates is not None:
        read = prompts.read_templates(Path(templates))
        found = replace(found, templates=read, templates_from=str(templates))
    captions = tuple((found.class_names[label],) for label in found.labels)
    return replace(found, data=replace(found.data, captions=captions, max_bad=max_bad))


def check_spec(spec: str) -> tuple[str, list[str], Path | None]:
    """The name of a data set with classes, its options and its folder (``None`` of OpenMoji).

    Raises:
        GeomkitError: for an unknown name, a spec of another form, or a folder that is not there.

    >>> check_spec("openmoji,attribute=flag")
    ('openmoji', ['attribute=flag'], None)
    """
    name, colon, rest = spec.partition(":")
    name, *options = name.split(",")
    if name not in CLASS_DATASETS:
        raise unknown_name("data set with classes", name, CLASS_DATASETS)
    if name == "openmoji":
        if colon:
            raise GeomkitError(f"data '{spec}': openmoji takes no path")
        return name, options, None
    if options or not rest:
        raise GeomkitError(f"data '{spec}': expected {name}:FOLDER")
    root = Path(rest).expanduser()
    if not root.is_dir():
        raise GeomkitError(f"{root}: no such folder")
    return name, options, root


def _from_disk(
    name: str, root: Path, spec: str, preprocess: Preprocess, split: str | None
) -> ClassData:
    reader = READERS[name]
    splits, test, train = reader.splits, reader.test, reader.train
    if name == "imagefolder":
        splits = tuple(image_folder_splits(root)) or ("all",)
        test = next(s for s in ("test", "val", "train", "all") if s in splits)
        train = "+".join(s for s in splits if s != test) or None
    split = split or test
    found = read_splits(reader, root, split, splits)
    plain = tuple(folder.replace("_", " ") for folder in found.folders)
    names, names_from = plain, "the folders'" if name == "imagefolder" else "torchvision's"
    templates_from = "OpenAI's for " + _TITLES.get(name, name)
    if name == "imagenet":
        names, names_from = prompts.imagenet_names(), "open_clip's for ImageNet"
    if name == "caltech101":
        names = tuple(
            prompts.CALTECH101_NAMES.get(folder, words)
            for folder, words in zip(found.folders, plain, strict=True)
        )
        names_from = "OpenAI's for Caltech-101"
    if name not in prompts.TEMPLATES:
        templates, templates_from = prompts.imagenet_templates(), "OpenAI's for ImageNet"
    else:
        templates = prompts.TEMPLATES[name]
    return ClassData(
        data=_pairs(spec, split, found.prepared(preprocess), found.ids, str(root)),
        labels=found.labels.astype(np.int64),
        class_names=names,
        templates=templates,
        dataset=spec if name == "imagefolder" else _PUBLISHED.get(name, name),
        names_from=names_from,
        templates_from=templates_from,
        train=train,
        test=test,
    )


def _pairs(spec: str, split: str, pictures: Images, ids: tuple[str, ...], source: str) -> PairData:
    return PairData(
        spec=spec,
        split=split,
        images=pictures,
        index=np.arange(len(ids)),
        captions=(("",),) * len(ids),
        ids=ids,
        source=source,
    )


def _openmoji(
    spec: str,
    options: list[str],
    preprocess: Preprocess,
    split: str | None,
    progress: Callable[[int, int], None] | None,
) -> ClassData:
    given = dict(option.partition("=")[::2] for option in options)
    for key in given:
        if key not in ("attribute", "skin_tones", "seed"):
            raise unknown_name(
                "option of openmoji's classes", key, ("attribute", "skin_tones", "seed")
            )
    if "attribute" not in given:
        raise GeomkitError(
            f"data '{spec}': pictures without classes; choose some: "
            f"openmoji,attribute=NAME ({', '.join(ATTRIBUTES)})"
        )
    name = given["attribute"]
    if name not in ATTRIBUTES:
        raise unknown_name("attribute", name, ATTRIBUTES)
    attribute = ATTRIBUTES[name]
    try:
        seed = int(given.get("seed", "0"))
        tones = {"true": True, "false": False, "": attribute.skin_tones}[
            given.get("skin_tones", "").lower()
        ]
    except (ValueError, KeyError):
        raise GeomkitError(
            f"data '{spec}': expected skin_tones=true or false and a whole number as seed"
        ) from None
    if attribute.skin_tones and not tones:
        raise GeomkitError(f"data '{spec}': {name} needs the pictures with skin tones")
    wanted = preprocess.size
    drawn = min(max(wanted, SIZES[0]), SIZES[1])
    parts = [
        load_openmoji(
            split=one, size=drawn, skin_tones=tones, seed=seed, spec=spec, progress=progress
        )
        for one in split_names(split or "val", ("train", "val", "all"))
    ]
    data = parts[0]
    if len(parts) > 1:
        data = replace(
            data,
            split=split or "",
            index=np.concatenate([part.index for part in parts]),
            captions=tuple(c for part in parts for c in part.captions),
            ids=tuple(i for part in parts for i in part.ids),
        )
    if drawn != wanted and isinstance(data.images, np.ndarray):
        data = replace(data, images=PixelImages(data.images, preprocess))
    labels = [attribute.label(code.split("-")) for code in data.ids]
    kept = np.array([row for row, label in enumerate(labels) if label is not None], int)
    return ClassData(
        data=data.take(kept),
        labels=np.array([labels[row] for row in kept], np.int64),
        class_names=attribute.class_names,
        templates=attribute.templates,
        dataset=spec,
        names_from="geomkit's, after OpenMoji's names",
        templates_from="geomkit's, after OpenMoji's names",
        train="train",
        test="val",
    )
