"""A folder of pictures, captioned by the folder they are in or by a text file beside each."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from geomkit.data.files import SUFFIXES, VAL_SHARE, FileImages, Place, hold_out, missing_path
from geomkit.data.pairs import PairData, seeded_hash
from geomkit.errors import GeomkitError
from geomkit.models.preprocess import Preprocess

__all__ = ["TEMPLATE", "image_folder_classes", "image_folder_splits", "load_folder"]

TEMPLATE = "a photo of a {}."
"""CLIP's plainest prompt."""

_SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "validation", "valid"),
    "test": ("test",),
}


def load_folder(
    path: str,
    *,
    split: str,
    preprocess: Preprocess,
    template: str = TEMPLATE,
    seed: int = 0,
    draft: bool = True,
    spec: str,
    **_: Any,
) -> PairData:
    """Pictures with the captions in ``.txt`` files beside them, or else with their class's name.

    Args:
        path: the folder: ``DIR/class/*.jpg``, or ``DIR/train/class/*.jpg`` and
            ``DIR/val/class/*.jpg``, or pictures with a ``.txt`` of the same stem beside them, at
            any depth (what img2dataset's ``files`` makes).
        split: ``train``, ``val``, ``test`` or ``all``; where the folder has no splits a fifth is
            held out by a seeded hash of the ids.
        preprocess: what to make of the pictures.
        template: of a class's caption, ``{}`` standing for its name.
        seed: of the fifth held out.
        draft: see :func:`geomkit.data.decode.decode`.
        spec: recorded.

    Raises:
        GeomkitError: if the folder is missing, holds no pictures or no classes.
    """
    root = Path(path)
    if "{}" not in template:
        raise GeomkitError(f"imagefolder: template: expected {{}} for the class, got '{template}'")
    found = _files(root)
    if texts := _texts(root, found):
        files = [file for file in found if file in texts]
        captions = [texts[file] for file in files]
        bare = len(found) - len(files)
        note = f"{bare} pictures without a .txt beside them left out" if bare else ""
        data = _data(root, files, captions, preprocess, draft, spec).with_note(note)
        return hold_out(data, split, seed=seed)
    files, labels, classes = image_folder_classes(path, split=split, seed=seed)
    captions = [template.format(classes[label].replace("_", " ")) for label in labels]
    data = _data(root, files, captions, preprocess, draft, spec)
    held = (
        ""
        if image_folder_splits(root) or split == "all"
        else "; a fifth is held out, by a seeded hash"
    )
    return data.take(np.arange(len(data)), split=split).with_note(f"{len(classes)} classes{held}")


def image_folder_classes(
    path: str | Path, *, split: str = "all", seed: int = 0
) -> tuple[list[str], np.ndarray, list[str]]:
    """The pictures of a folder of classes, as :func:`load_folder` takes them.

    Args:
        path: ``DIR/class/*.jpg``, or ``DIR/train/class/*.jpg`` and so on.
        split: ``train``, ``val``, ``test`` or ``all``.
        seed: of the fifth held out where the folder has no splits.

    Returns:
        ``n`` files relative to the folder, which are the ids of the pictures; the ``n`` numbers
        of their classes; the classes' names, sorted, ``_`` and ``-`` as spaces.

    Raises:
        GeomkitError: if the folder is missing, has no classes, or lacks the split.
    """
    root = Path(path)
    parts = image_folder_splits(root)
    depth = 1 if parts else 0
    by_class: list[tuple[str, str]] = []
    for file in _files(root):
        steps = file.split("/")
        if len(steps) < depth + 2:
            raise GeomkitError(
                f"imagefolder: {root}: {file} lies in no class's folder and has no .txt beside "
                f"it; expected {root.name}/class/{steps[-1]}"
            )
        if not parts or steps[0] in parts.values():
            by_class.append((file, steps[depth]))
    names = sorted({name for _, name in by_class})
    if split == "all" or not parts:
        held = {file: seeded_hash(file, seed, "split") < VAL_SHARE for file, _ in by_class}
        if split == "test":
            raise GeomkitError(f"imagefolder: {root}: no folder test in it")
        if split != "all":
            by_class = [pair for pair in by_class if held[pair[0]] == (split == "val")]
    elif split in parts:
        by_class = [pair for pair in by_class if pair[0].startswith(f"{parts[split]}/")]
    else:
        there = ", ".join(parts.values())
        raise GeomkitError(f"imagefolder: {root}: no folder {split} in it; there are: {there}")
    number = {name: i for i, name in enumerate(names)}
    labels = np.array([number[name] for _, name in by_class], int)
    plain = [name.replace("_", " ").replace("-", " ") for name in names]
    return [file for file, _ in by_class], labels, plain


def _files(root: Path) -> list[str]:
    """Every picture, relative to the folder, in one order on every machine."""
    if not root.is_dir():
        raise missing_path("imagefolder", root, "folder", ["template", "seed", "n"])
    found = []
    for folder, _, files in os.walk(root, followlinks=True):
        inside = Path(folder).relative_to(root)
        found += [
            (inside / file).as_posix() for file in files if Path(file).suffix.lower() in SUFFIXES
        ]
    if not found:
        raise GeomkitError(
            f"imagefolder: {root}: no pictures in it ({', '.join(sorted(SUFFIXES))})"
        )
    return sorted(found)


def image_folder_splits(root: Path) -> dict[str, str]:
    """Which of train, val and test a folder has, with their names in it; none if it has classes.

    A class may be called "test": folders are splits if training stands beside another one, or if
    there are no others and classes lie in them.

    Args:
        root: the folder; of one that is missing there are none.
    """
    found = {
        split: next((n for n in names if (root / n).is_dir()), "")
        for split, names in _SPLITS.items()
    }
    there = {split: name for split, name in found.items() if name}
    if "train" in there and len(there) > 1:
        return there
    if not there:
        return {}
    folders = [folder for folder in root.iterdir() if folder.is_dir()]
    classes = all(any(inner.is_dir() for inner in folder.iterdir()) for folder in folders)
    return there if classes and {f.name for f in folders} == set(there.values()) else {}


def _texts(root: Path, files: Sequence[str]) -> dict[str, str]:
    """Picture → the text beside it."""
    found = {}
    for file in files:
        text = (root / file).with_suffix(".txt")
        try:
            found[file] = text.read_text("utf-8").strip()
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as error:
            raise GeomkitError(f"imagefolder: {text}: cannot be read ({error})") from None
    return found


def _data(
    root: Path,
    files: Sequence[str],
    captions: Sequence[str],
    preprocess: Preprocess,
    draft: bool,
    spec: str,
) -> PairData:
    return PairData(
        spec=spec,
        split="all",
        images=FileImages([Place(str(root))], np.zeros(len(files)), files, preprocess, draft=draft),
        index=np.arange(len(files)),
        captions=tuple((caption,) for caption in captions),
        ids=tuple(files),
        source=f"folder {root.resolve().name}",
    )
