"""COCO Captions as it is downloaded: the layouts of 2017 and 2014, and Karpathy's split of 2014.

Pictures may stay in their zips, and so may the annotations.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass, field
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np

from geomkit.data.files import VAL_SHARE, FileImages, Place, missing_path, zip_members
from geomkit.data.pairs import PairData, seeded_hash
from geomkit.errors import GeomkitError, unknown_name
from geomkit.models.preprocess import Preprocess

__all__ = ["ATTRIBUTION", "LICENCE", "PUBLISHED", "YEARS", "load_coco"]

LICENCE = "annotations CC BY 4.0; each photograph under its own Flickr licence"
ATTRIBUTION = (
    "COCO Captions (Lin et al. 2014, Chen et al. 2015), cocodataset.org; annotations CC BY 4.0, "
    "photographs by their Flickr users under the licences named in the annotations"
)
YEARS = ("2017", "2014", "karpathy")

PUBLISHED = {
    ("2017", "train"): 118_287,
    ("2017", "val"): 5_000,
    ("2014", "train"): 82_783,
    ("2014", "val"): 40_504,
    ("karpathy", "train"): 113_287,
    ("karpathy", "val"): 5_000,
    ("karpathy", "test"): 5_000,
}
"""Images of each split."""

_KARPATHY = "dataset_coco.json"


@dataclass
class _Found:
    """Images of a split: where they are, what they are called, what is said of them."""

    folders: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    captions: list[tuple[str, ...]] = field(default_factory=list)
    bare: int = 0

    def add(self, folder: str, file: str, id_: Any, captions: list[tuple[int, str]]) -> None:
        if not captions:
            self.bare += 1
            return
        self.folders.append(folder)
        self.files.append(file)
        self.ids.append(str(id_))
        self.captions.append(tuple(caption.strip() for _, caption in sorted(captions)))

    def take(self, wanted: list[bool]) -> _Found:
        columns = (self.folders, self.files, self.ids, self.captions)
        return _Found(*(list(compress(column, wanted)) for column in columns))  # type: ignore


def load_coco(
    path: str,
    *,
    split: str,
    preprocess: Preprocess,
    year: str | None = None,
    captions: int | None = None,
    seed: int = 0,
    draft: bool = True,
    spec: str,
    **_: Any,
) -> PairData:
    """COCO's images with their captions, ordered by the annotations' ids.

    Args:
        path: the folder that holds ``annotations`` and ``train2017``, ``val2017`` and so on.
        split: ``train``, ``val``, ``all``, or Karpathy's ``test`` (his ``restval`` is training).
        preprocess: what to make of the pictures.
        year: ``2017``, ``2014`` or ``karpathy``; the first that is there if not given.
        captions: at most so many an image.
        seed: of the fifth that is held out where there are no validation captions.
        draft: see :func:`geomkit.data.decode.decode`.
        spec: recorded.

    Raises:
        GeomkitError: if captions or a whole folder of images are missing, or damaged.
    """
    root = Path(path)
    if not root.is_dir():
        raise missing_path("coco", path, "folder", ["year", "captions", "distinct", "n", "seed"])
    if captions is not None and captions < 1:
        raise GeomkitError(f"coco: captions: expected 1 or more, got {captions}")
    there = [y for y in YEARS if _annotations(root, y)]
    if year is not None and year not in YEARS:
        raise unknown_name("year of coco", year, YEARS)
    if not there or (year and year not in there):
        wanted = {
            "karpathy": _KARPATHY,
            "2014": "captions_train2014.json",
        }.get(year or "", "captions_train2017.json")
        zipped = "" if year == "karpathy" else f", or in annotations_trainval{wanted[-9:-5]}.zip"
        also = f"; found: {', '.join(there)}" if there else ""
        raise GeomkitError(
            f"coco: {root}: no {wanted} in it, in its annotations folder{zipped}{also}"
        )
    chosen = year or there[0]
    found, notes = _split(root, chosen, split, seed)
    if year is None and len(there) > 1:
        notes.insert(0, f"{chosen}'s layout, as no year= was given ({', '.join(there)} found)")
    if captions:
        found.captions = [texts[:captions] for texts in found.captions]
    names = sorted(set(found.folders))
    places = [_images(root, name) for name in names]
    inside = [_prefix(place, name) for place, name in zip(places, names, strict=True)]
    place = np.array([names.index(folder) for folder in found.folders], np.int32)
    files = [inside[p] + file for p, file in zip(place, found.files, strict=True)]
    return PairData(
        spec=spec,
        split=split,
        images=FileImages(places, place, files, preprocess, draft=draft),
        index=np.arange(len(files)),
        captions=tuple(found.captions),
        ids=tuple(found.ids),
        source=f"COCO {chosen}",
        licence=LICENCE,
        attribution=ATTRIBUTION,
        note="; ".join(notes),
    )


def _annotations(root: Path, year: str) -> dict[str, tuple[Path, str | None]]:
    """Split → a JSON file, or a zip and the member of it."""
    if year == "karpathy":
        files = [f for f in (root / _KARPATHY, root / "annotations" / _KARPATHY) if f.exists()]
        return {"train": (files[0], None)} if files else {}
    found: dict[str, tuple[Path, str | None]] = {}
    for split in ("train", "val"):
        name = f"captions_{split}{year}.json"
        for folder in (root / "annotations", root):
            archive = folder / f"annotations_trainval{year}.zip"
            if (folder / name).exists():
                found.setdefault(split, (folder / name, None))
            elif archive.exists() and f"annotations/{name}" in zip_members(archive):
                found.setdefault(split, (archive, f"annotations/{name}"))
    return found


def _split(root: Path, year: str, split: str, seed: int) -> tuple[_Found, list[str]]:
    annotations, found = _annotations(root, year), _Found()
    alone = set(annotations) == {"train"} and year != "karpathy"
    if year == "karpathy":
        _add_karpathy(annotations["train"][0], split, found)
    elif split == "test":
        raise GeomkitError(
            f"coco: {root}: COCO {year} has no captions for its test images; "
            f"Karpathy's split has (year=karpathy, with {_KARPATHY})"
        )
    elif not alone and split != "all" and split not in annotations:
        raise GeomkitError(f"coco: {root}: no captions_{split}{year}.json; add it")
    else:
        wanted = ("train", "val") if alone or split == "all" else (split,)
        for part in [part for part in wanted if part in annotations]:
            _add(*annotations[part], f"{part}{year}", found)
    notes = [_count(len(found.ids) + found.bare, year, "train" if alone else split)]
    if found.bare:
        notes.append(f"{found.bare} images without captions left out")
    if alone and split != "all":
        found = found.take(
            [(seeded_hash(i, seed, "split") < VAL_SHARE) == (split == "val") for i in found.ids]
        )
        notes.append(
            f"{split} is {'a fifth' if split == 'val' else 'four fifths'} of them, by a seeded "
            f"hash, as there is no captions_val{year}.json"
        )
    if not found.ids:
        raise GeomkitError(f"coco: {root}: no image with a caption in {split} ({year})")
    return found, notes


def _count(count: int, year: str, split: str) -> str:
    expected = sum(n for (y, s), n in PUBLISHED.items() if y == year and split in (s, "all"))
    if count == expected:
        return f"{count:,} images, as published"
    name = "Karpathy" if year == "karpathy" else f"COCO {year}"
    relation = "a part of it" if count < expected else "more than there should be"
    return f"{count:,} images; {name}'s {split} has {expected:,}: {relation}"


def _json(file: Path, member: str | None) -> Any:
    try:
        if member is None:
            return json.loads(file.read_bytes())
        with zipfile.ZipFile(file) as archive:
            return json.loads(archive.read(member))
    except (ValueError, OSError, zipfile.BadZipFile, EOFError) as error:
        reason = str(error).splitlines()[0]
        raise GeomkitError(f"coco: {file}: not JSON, or cut short ({reason})") from None


def _add(file: Path, member: str | None, folder: str, found: _Found) -> None:
    content = _json(file, member)
    try:
        by_image: dict[int, list[tuple[int, str]]] = {}
        for entry in content["annotations"]:
            by_image.setdefault(entry["image_id"], []).append((entry["id"], entry["caption"]))
        for image in content["images"]:
            found.add(folder, image["file_name"], image["id"], by_image.get(image["id"], []))
    except (KeyError, TypeError, AttributeError) as error:
        raise GeomkitError(
            f"coco: {file}: not COCO's captions ({_missing(error)}); expected images with "
            "file_name and id, annotations with image_id, id and caption"
        ) from None


def _add_karpathy(file: Path, split: str, found: _Found) -> None:
    content = _json(file, None)
    wanted = {"train": {"train", "restval"}, "all": {"train", "restval", "val", "test"}}
    try:
        for image in content["images"]:
            if image["split"] not in wanted.get(split, {split}):
                continue
            captions = [(s["sentid"], s["raw"]) for s in image["sentences"]]
            # The images were moved between splits, never between COCO's folders.
            found.add(image["filepath"], image["filename"], image["cocoid"], captions)
    except (KeyError, TypeError, AttributeError) as error:
        raise GeomkitError(
            f"coco: {file}: not Karpathy's split of COCO ({_missing(error)}); expected images with "
            "filepath, filename, cocoid, split and sentences"
        ) from None


def _missing(error: Exception) -> str:
    return f"no {error}" if isinstance(error, KeyError) else "another shape"


def _images(root: Path, name: str) -> Place:
    """A folder of images, or the zip it came in."""
    tried = [root / name, root / "images" / name]
    for folder in tried:
        if folder.is_dir():
            return Place(str(folder))
    for folder in tried:
        archive = folder.with_name(f"{name}.zip")
        if archive.is_file():
            zip_members(
                archive
            )  # a zip that is cut short is refused now and not picture by picture
            return Place(str(archive), "zip")
    raise GeomkitError(f"coco: {root}: neither a folder {name} nor {name}.zip in it; add one")


def _prefix(place: Place, name: str) -> str:
    """What stands before the file names in a zip: COCO's have the folder's name."""
    if place.kind == "zip" and any(m.startswith(f"{name}/") for m in zip_members(place.path)):
        return f"{name}/"
    return ""
