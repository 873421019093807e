"""COCO Captions as it is downloaded: the layouts of 2017 and 2014, and Karpathy's split of 2014.

Images may stay in their zip files, and so may the annotations.
"""

from __future__ import annotations

import json
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from geomkit._core.files import refusing
from geomkit._core.schema import once
from geomkit.data.declarations import Dataset, Request
from geomkit.data.files import Place, open_zip, read_member
from geomkit.data.pairs import LeftOut, PairData
from geomkit.errors import GeomkitError, unknown_name

__all__ = ["DATASET", "PUBLISHED", "YEARS", "load_coco"]

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
"""Count of images in each split, as published."""

_KARPATHY = "dataset_coco.json"
_KARPATHY_PARTS = ("coco_karpathy_{}.json", "coco_{}_karpathy.json")
"""The same split in a file for each part, as BLIP and as CLIP_benchmark have it."""
_Json = Path | zipfile.Path
_UNLIKE = (KeyError, TypeError, AttributeError, ValueError)
"""What reading entries of JSON that has another shape raises."""


class _Image(NamedTuple):
    folder: str
    file: str
    id: str
    split: str
    captions: tuple[str, ...]


def load_coco(
    request: Request, *, year: str | None = None, captions: int | None = None
) -> PairData:
    """COCO's images with their captions, ordered by the annotations' ids.

    Args:
        request: Request with the path of the folder that holds ``annotations`` and ``train2017``,
            ``val2017`` and so on. The split ``test`` is Karpathy's (his ``restval`` is training).
            Without validation captions a fifth is held out.
        year: ``2017``, ``2014`` or ``karpathy``; default: the first that is there.
        captions: Largest number of captions per image; default: all.

    Raises:
        GeomkitError: If captions or a whole folder of images are missing, or damaged.
    """
    root = request.folder()
    if captions is not None and captions < 1:
        raise GeomkitError(f"coco: captions: expected 1 or more, got {captions}")
    if year is not None and year not in YEARS:
        raise unknown_name("year of coco", year, YEARS)
    there = {y: sources for y in YEARS if (sources := _annotations(root, y))}
    chosen = year or next(iter(there), "2017")
    if chosen not in there:
        wanted, zipped = f"captions_train{chosen}.json", f", or in annotations_trainval{chosen}.zip"
        if chosen == "karpathy":
            wanted, zipped = _KARPATHY, ""
        also = f"; found: {', '.join(there)}" if there else ""
        raise GeomkitError(
            f"coco: {root}: no {wanted} in it, in its annotations folder{zipped}{also}"
        )
    alone = chosen != "karpathy" and list(there[chosen]) == ["train"]
    part = "all" if alone and request.split != "test" else request.split
    found = list(_read(root, chosen, there[chosen], part))
    unlisted = [image.id for image in found if not image.file]
    found = [image for image in found if image.file]
    images = [image for image in found if image.captions]
    if not images:
        raise GeomkitError(f"coco: {root}: no image with a caption in {part} ({chosen})")
    ids = [image.id for image in images]
    if len(set(ids)) < len(ids):  # numbers that only count within their split
        ids = [f"{image.split}/{image.id}" for image in images]
    name, count = Counter(ids).most_common(1)[0]
    if count > 1:
        raise GeomkitError(f"coco: {root}: image {name} is listed twice ({chosen})")
    several = f"{chosen}'s layout, as no year= was given ({', '.join(there)} found)"
    bare = [f"{image.folder}/{image.file}" for image in found if not image.captions]
    notes = [
        several if year is None and len(there) > 1 else "",
        _count(len(found), chosen, "train" if alone else part),
        f"no captions_val{chosen}.json" if alone and request.split != "all" else "",
    ]
    folders = sorted({image.folder for image in images})
    places, inside = zip(*(_images(root, folder) for folder in folders), strict=True)
    place = [folders.index(image.folder) for image in images]
    return request.pairs(
        [inside[p] + image.file for p, image in zip(place, images, strict=True)],
        [image.captions[:captions] for image in images],
        places=places,
        place=place,
        ids=ids,
        splits=None if alone else [image.split for image in images],
        source=f"COCO {chosen}",
        notes=notes,
        left_out=[
            *LeftOut.of("images without captions", bare),
            *LeftOut.of("images that have captions but are not listed", unlisted),
        ],
    )


def _annotations(root: Path, year: str) -> dict[str, _Json]:
    """Split → JSON file with its captions, which may be in a zip file; Karpathy's is for all."""
    folders = (root / "annotations", root)
    if year == "karpathy":
        files = [folder / _KARPATHY for folder in folders[::-1] if (folder / _KARPATHY).is_file()]
        if files:
            return {"all": files[0]}
        parts: dict[str, _Json] = {}
        for split in ("train", "val", "test"):
            names = [name.format(split) for name in _KARPATHY_PARTS]
            files = [f / name for name in names for f in folders if (f / name).is_file()]
            parts |= {split: files[0]} if files else {}
        return parts
    found: dict[str, _Json] = {}
    for split in ("train", "val"):
        name = f"captions_{split}{year}.json"
        for folder in folders:
            archive = folder / f"annotations_trainval{year}.zip"
            places: list[_Json] = [folder / name]
            if archive.is_file():
                places.append(zipfile.Path(open_zip(archive), f"annotations/{name}"))
            for place in places:
                if place.is_file():
                    found.setdefault(split, place)
    return found


def _read(root: Path, year: str, there: dict[str, _Json], split: str) -> Iterator[_Image]:
    """The images of a split, or of all, in the order of their files; others are not looked for."""
    if year != "karpathy" and split == "test":
        raise GeomkitError(
            f"coco: {root}: COCO {year} has no captions for its test images; "
            f"Karpathy's split has (year=karpathy, with {_KARPATHY})"
        )
    if year != "karpathy" and split not in ("all", *there):
        raise GeomkitError(f"coco: {root}: no captions_{split}{year}.json; add it")
    for part, source in there.items():
        if part == "all":
            yield from (image for image in _karpathy(source) if split in ("all", image.split))
        elif split in ("all", part) and year == "karpathy":
            yield from _karpathy_part(source, part)
        elif split in ("all", part):
            yield from _captions(source, f"{part}{year}", part)


def _count(count: int, year: str, split: str) -> str:
    expected = sum(n for (y, s), n in PUBLISHED.items() if y == year and split in (s, "all"))
    if count == expected:
        return f"{count:,} images, as published"
    name = "Karpathy" if year == "karpathy" else f"COCO {year}"
    relation = "a part of it" if count < expected else "more than there should be"
    return f"{count:,} images; {name}'s {split} has {expected:,}: {relation}"


def _load(file: _Json) -> Any:
    with refusing(
        ValueError, OSError, RecursionError, says=f"coco: {file}: not JSON, or cut short"
    ):
        if not isinstance(file, zipfile.Path):
            return json.loads(file.read_bytes(), object_pairs_hook=once)
        try:
            return json.loads(read_member(file.root, file.at), object_pairs_hook=once)
        except GeomkitError as error:
            raise GeomkitError(f"coco: {file}: {error}") from None


def _captions(source: _Json, folder: str, split: str) -> Iterator[_Image]:
    content = _load(source)
    advice = "; expected images with file_name and id, annotations with image_id, id and caption"
    with refusing(*_UNLIKE, says=f"coco: {source}: not COCO's captions", advice=advice):
        by_image: dict[int, list[tuple[int, str]]] = {}
        for entry in content["annotations"]:
            by_image.setdefault(entry["image_id"], []).append((entry["id"], entry["caption"]))
        for image in content["images"]:
            texts = by_image.get(image["id"], [])
            name = _text(image["file_name"])
            yield _Image(folder, name, str(image["id"]), split, _ordered(texts))
        for number in by_image.keys() - {image["id"] for image in content["images"]}:
            yield _Image(folder, "", str(number), split, _ordered(by_image[number]))


def _karpathy(source: _Json) -> Iterator[_Image]:
    content = _load(source)
    advice = "; expected images with filepath, filename, cocoid, split and sentences"
    with refusing(*_UNLIKE, says=f"coco: {source}: not Karpathy's split of COCO", advice=advice):
        for image in content["images"]:
            texts = [(s["sentid"], s["raw"]) for s in image["sentences"]]
            split = "train" if image["split"] == "restval" else image["split"]
            # The images were moved between splits, never between COCO's folders.
            folder, name = _text(image["filepath"]), _text(image["filename"])
            yield _Image(folder, name, str(image["cocoid"]), _text(split), _ordered(texts))


def _karpathy_part(source: _Json, split: str) -> Iterator[_Image]:
    content = _load(source)
    advice = "; expected BLIP's list of image and caption, or images and annotations as COCO has"
    with refusing(*_UNLIKE, says=f"coco: {source}: not Karpathy's split of COCO", advice=advice):
        if isinstance(content, dict):
            found = {}
            for image in _captions(source, "", split):
                if image.file:
                    found[image.file] = list(image.captions)
        else:
            found = {}
            for entry in content:
                texts = entry["caption"]
                captions = found.setdefault(entry["image"], [])
                captions += [t.strip() for t in ([texts] if isinstance(texts, str) else texts)]
        for path, captions in found.items():
            name = path.rpartition("/")[2]
            # COCO_val2014_000000391895.jpg is in val2014, whatever the part.
            _, folder, number = Path(name).stem.split("_")
            yield _Image(folder, name, str(int(number)), split, tuple(captions))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, got {type(value).__name__}")
    return value


def _ordered(texts: list[tuple[int, str]]) -> tuple[str, ...]:
    return tuple(caption.strip() for _, caption in sorted(texts))


def _images(root: Path, name: str) -> tuple[Place, str]:
    """A folder of images or the zip file it came in, and what precedes the file names there."""
    tried = [root / name, root / "images" / name]
    for folder in tried:
        if folder.is_dir():
            return Place(str(folder)), ""
    for folder in tried:
        archive = folder.with_name(f"{name}.zip")
        if archive.is_file():  # one that is cut short is refused before any image is read
            inside = any(member.startswith(f"{name}/") for member in open_zip(archive).namelist())
            return Place(str(archive), "zip"), f"{name}/" if inside else ""
    raise GeomkitError(f"coco: {root}: neither a folder {name} nor {name}.zip in it; add one")


DATASET = Dataset(
    name="coco",
    load=load_coco,
    find=Request.folder,
    help="COCO Captions: 2017, 2014 or Karpathy's split, folders or zip files as downloaded",
    options={"year": str, "captions": int},
    path="ROOT",
    splits=("train", "val", "test", "all"),
    licence="annotations CC BY 4.0; each photograph under its own Flickr licence",
    attribution="COCO Captions (Lin et al. 2014, Chen et al. 2015), cocodataset.org; annotations "
    "CC BY 4.0, photographs by their Flickr users under the licences named in the annotations",
)
