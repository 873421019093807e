"""A folder of images, captioned by the folder they are in or by a text file beside each."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from geomkit._core.files import refusing
from geomkit.data.declarations import Dataset, Request
from geomkit.data.files import SUFFIXES, Place
from geomkit.data.pairs import LeftOut, PairData, caption_lines, in_utf8
from geomkit.data.splits import NAMES, mixed, split_called
from geomkit.errors import GeomkitError, reason

__all__ = ["DATASET", "TEMPLATE", "ClassFolders", "class_folders", "load_folder", "split_folders"]

TEMPLATE = "a photo of a {}."
"""CLIP's plainest prompt."""
_HIDDEN = ("__MACOSX", "Thumbs.db", "desktop.ini", "@eaDir", "#recycle", "$RECYCLE.BIN",
           "lost+found", "System Volume Information")  # fmt: skip
"""Names of files and folders that a system makes, beside those that begin with a dot."""


def load_folder(request: Request, *, template: str = TEMPLATE) -> PairData:
    """Images with the captions in ``.txt`` files beside them, or else with their class's name.

    Args:
        request: Request with the path of a folder: ``DIR/class/*.jpg``, or
            ``DIR/train/class/*.jpg`` and ``DIR/val/class/*.jpg``, or images with a ``.txt`` of the
            same stem beside them, at any depth (as img2dataset's ``files`` writes them), one
            caption a line. They too may be in ``DIR/train`` and so on. A folder without splits has
            a fifth held out for ``val``.
        template: Caption of a class, with ``{}`` for its name.

    Raises:
        GeomkitError: If the folder is missing, holds no images or no classes, or too many texts
            cannot be read.
    """
    if "{}" not in template:
        raise GeomkitError(f"imagefolder: template: expected {{}} for the class, got '{template}'")
    root = request.folder()
    found = _images(root)
    texts, bad = _texts(root, found.images)
    if not texts and not bad:
        classes = class_folders(root)
        return request.pairs(
            classes.files,
            [(template.replace("{}", classes.names[label]),) for label in classes.labels],
            places=[Place(str(root))],
            splits=classes.splits,
            source=f"folder {root.resolve().name}",
            notes=classes.notes,
            left_out=classes.left_out,
            reading=f"captions from the names of the folders of {len(classes.names)} classes",
        )
    request.check_share(f"imagefolder: {root}", bad, len(found.images))
    split_of = {folder: split for split, folder in split_folders(root, captioned=True).items()}
    names = [name for name in texts if not split_of or name.split("/")[0] in split_of]
    bare = [name for name in found.images if name not in texts and name not in bad]
    outside = sorted(set(texts) - set(names))
    if not names:
        raise GeomkitError(f"imagefolder: {root}: no image with a .txt that can be read")
    captions = [texts[name] for name in names]
    shared = len(names) - len({name.rpartition(".")[0] for name in names})
    return request.pairs(
        names,
        captions,
        places=[Place(str(root))],
        splits=[split_of[name.split("/")[0]] for name in names] if split_of else None,
        source=f"folder {root.resolve().name}",
        notes=[
            _skipped(found.apart),
            f"{shared:,} images have the .txt of another" * bool(shared),
            "" if split_of else mixed(found.folders, "images"),
        ],
        left_out=[
            *LeftOut.of("images without a .txt beside them", bare),
            *LeftOut.of(
                "images with a .txt that cannot be read", [f"{k}: {v}" for k, v in bad.items()]
            ),
            *LeftOut.of(f"images outside of {', '.join(split_of)}", outside),
        ],
        reading=f"captions from .txt files, one a line; {_said(split_of)}",
    )


def _said(split_of: Mapping[str, str]) -> str:
    parts = [f"{split} in {folder}/" for folder, split in split_of.items()]
    return f"splits: {', '.join(parts)}" if parts else "no folders for splits"


@dataclass(frozen=True)
class ClassFolders:
    """Images sorted into a folder for each class.

    Attributes:
        files: Path of each of ``n`` images, relative to the folder; these are their ids.
        labels: Class of each image, shape ``(n,)``.
        names: Names of the classes, sorted, with spaces for ``_`` and ``-``.
        splits: Split of each image; ``None`` if the folder has no splits.
        notes: Remarks for the user: what was skipped, classes without images.
        left_out: Images that are in no split's folder.
    """

    files: tuple[str, ...]
    labels: np.ndarray
    names: tuple[str, ...]
    splits: tuple[str, ...] | None
    notes: tuple[str, ...] = ()
    left_out: tuple[LeftOut, ...] = ()


def class_folders(root: Path) -> ClassFolders:
    """All images of ``DIR/class/*.jpg``, or of ``DIR/train/class/*.jpg`` and so on.

    Raises:
        GeomkitError: If an image is in no class's folder, or there is no image.
    """
    split_of = {folder: split for split, folder in split_folders(root).items()}
    depth = 1 if split_of else 0
    found: list[tuple[str, str, str]] = []
    outside = []
    held = _images(root)
    for file in held.images:
        steps = file.split("/")
        if split_of and steps[0] not in split_of:
            outside.append(file)
            continue
        if len(steps) < depth + 2:
            raise GeomkitError(
                f"imagefolder: {root}: {file} is in no class's folder and has no .txt beside "
                f"it; expected {root.name}/class/{steps[-1]}"
            )
        found.append((file, steps[depth], split_of.get(steps[0], "")))
    if not found:
        raise GeomkitError(f"imagefolder: {root}: no images in {', '.join(split_of)}")
    folders, labels = np.unique([folder for _, folder, _ in found], return_inverse=True)
    for folder in folders:
        if (name := in_utf8(folder)) != folder:
            raise GeomkitError(
                f"imagefolder: {root}: the class '{name}' is no text in UTF-8; rename its folder"
            )
    there = {(*file.split("/")[: depth + 1],) for file, _, _ in found}
    empty = [
        folder
        for folder in held.folders
        if len(place := tuple(folder.split("/"))) == depth + 1
        and place not in there
        and (not split_of or place[0] in split_of)
    ]
    return ClassFolders(
        tuple(file for file, _, _ in found),
        labels,
        tuple(str(folder).replace("_", " ").replace("-", " ") for folder in folders),
        tuple(split for _, _, split in found) if split_of else None,
        tuple(
            filter(
                None,
                [
                    *map(str, LeftOut.of("folders without an image", empty)),
                    _skipped(held.others),
                    "" if split_of else mixed(held.folders, "images"),
                ],
            )
        ),
        LeftOut.of(f"images outside of {', '.join(split_of)}", outside),
    )


def split_folders(root: Path, *, captioned: bool = False) -> dict[str, str]:
    """Which of train, val and test a folder has, each with the name of its folder.

    A class may be called "test": folders are splits if there is one for training and another one,
    or if there are no other folders and all of them hold folders.

    Args:
        root: Folder; one that is missing has no splits.
        captioned: Whether the images have captions of their own. Then no folder is a class.
    """
    if not root.is_dir():
        return {}
    folders = {f.name: f for f in sorted(root.iterdir()) if f.is_dir() and not _is_hidden(f.name)}
    called = {split: [f for f in folders if split_called(f) == split] for split in NAMES}
    there = {
        split: min(found, key=lambda f: not f.lower().startswith(split))
        for split, found in called.items()
        if found
    }
    if "train" in there and len(there) > 1:
        return there
    classes = captioned or all(
        any(inner.is_dir() and not _is_hidden(inner.name) for inner in folder.iterdir())
        for folder in folders.values()
    )
    return there if classes and set(folders) == set(there.values()) else {}


def _is_hidden(name: str) -> bool:
    """Whether a file or folder is the system's or a tool's, such as ``.ipynb_checkpoints``."""
    return name.startswith(".") or name in _HIDDEN


@dataclass(frozen=True)
class _Held:
    """What a folder holds: images, folders and other files, relative to it."""

    images: list[str]
    folders: list[str]
    others: list[str]

    @property
    def apart(self) -> list[str]:
        """Other files that are not beside an image of the same stem."""
        stems = {file.rpartition(".")[0] for file in self.images}
        return [file for file in self.others if file.rpartition(".")[0] not in stems]


def _images(root: Path) -> _Held:
    """Every image, in one order on every machine; a folder that links lead to again is left out."""
    images, folders, others = [], [], []
    seen = set()
    for path, inner, files in os.walk(root, followlinks=True, onerror=_refuse):
        stat = Path(path).stat()
        if (stat.st_dev, stat.st_ino) in seen:
            inner.clear()
            continue
        seen.add((stat.st_dev, stat.st_ino))
        inner[:] = sorted(name for name in inner if not _is_hidden(name))
        inside = Path(path).relative_to(root)
        folders += [(inside / name).as_posix() for name in inner]
        here = [(inside / file).as_posix() for file in files if not _is_hidden(file)]
        images += [file for file in here if Path(file).suffix.lower() in SUFFIXES]
        others += [file for file in here if Path(file).suffix.lower() not in SUFFIXES]
    if not images:
        there = f"; it holds {_by_suffix(others)}" if others else ""
        known = ", ".join(sorted(SUFFIXES))
        raise GeomkitError(f"imagefolder: {root}: no images in it{there} ({known})")
    return _Held(sorted(images), sorted(folders), others)


def _refuse(error: OSError) -> None:
    raise GeomkitError(f"imagefolder: {error.filename}: cannot be read ({reason(error)})")


def _skipped(files: Sequence[str]) -> str:
    return f"{len(files):,} files skipped: {_by_suffix(files)}" if files else ""


def _by_suffix(files: Sequence[str]) -> str:
    counts = Counter(Path(file).suffix.lower() or "without a suffix" for file in files)
    return ", ".join(f"{count} {suffix}" for suffix, count in counts.most_common(5))


def _texts(root: Path, files: Sequence[str]) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """Image → the captions beside it; and image → why those cannot be read."""
    found, bad = {}, {}
    for file in files:
        text = (root / file).with_suffix(".txt")
        text = text if text.exists() else text.with_suffix(".TXT")
        with refusing(OSError, says=f"imagefolder: {text}: cannot be read"):
            if not text.exists():
                continue
            if not text.is_file():  # to read a named pipe would wait for ever
                bad[file] = f"{text.name} is no regular file"
                continue
            try:
                found[file] = caption_lines(text.read_bytes())
            except UnicodeDecodeError:
                bad[file] = f"{text.name} is not UTF-8"
    return found, bad


DATASET = Dataset(
    name="imagefolder",
    load=load_folder,
    find=Request.folder,
    help="images in one folder per class, or with a .txt beside each",
    options={"template": str},
    path="DIR",
    splits=("train", "val", "test", "all"),
)
