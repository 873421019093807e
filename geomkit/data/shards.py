"""Tar files of images and captions in WebDataset's layout, such as img2dataset writes.

Each tar file is read through once and its contents are noted in the cache. Any image can then be
read alone, so order and resuming are as with any other data.
"""

from __future__ import annotations

import glob
import hashlib
import json
import math
import re
import tarfile
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from geomkit._core.files import atomic_write, refusing
from geomkit._core.schema import once
from geomkit.data.cache import cache_folder
from geomkit.data.declarations import Dataset, Request
from geomkit.data.files import SUFFIXES, Place
from geomkit.data.pairs import LeftOut, PairData, caption_lines
from geomkit.data.splits import mixed
from geomkit.errors import GeomkitError

__all__ = ["DATASET", "load_shards"]

_FORMAT, _SCHEMA_VERSION = "geomkit-tar-index", 3
_BLOCK, _PIECE = 512, 1 << 20
_FETCH = "; fetch it again"
_MOST_TARS = 1_000_000
"""Names to which a pattern may expand."""
_LARGEST_TEXT = 1 << 24
"""Bytes of a ``.txt`` or ``.json`` that is read."""
_OTHER = {
    b"\x1f\x8b": "compressed with gzip",
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ": "compressed with xz",
    b"(\xb5/\xfd": "compressed with zstd",
    b"PK\x03\x04": "a zip file",
    b"PAR1": "a parquet file",
}
"""First bytes of files that are no plain tar, with what they are."""


class _Sample(NamedTuple):
    """Files of one key in a tar file.

    Attributes:
        key: Name without its last suffix.
        offset: First byte of the image; ``None`` if there is none.
        length: Length of the image in bytes.
        captions: Captions; ``None`` if there are none.
        why: What the caption is wrong with, if it is there.
    """

    key: str
    offset: int | None
    length: int | None
    captions: list[str] | None
    why: str


class _Index(NamedTuple):
    """What a tar file holds.

    Attributes:
        samples: The samples in order.
        ended: Whether the tar file has an end mark.
        suffixes: Number of members by suffix.
        fields: Fields of the first .json.
        repeats: Members that are not used, since another one came first for their sample.
        unlike: Keys of samples whose .json has another caption than their text, which is used.
        joined: Whether more follows the end mark, as where several tar files are joined.
    """

    samples: list[_Sample]
    ended: bool
    suffixes: dict[str, int]
    fields: list[str]
    repeats: list[str]
    unlike: list[str]
    joined: bool


class _Names(NamedTuple):
    """What images and captions are called in the tar files."""

    image_suffix: str | None = None
    caption_suffix: str = "txt"
    caption_field: str = "caption"


def load_shards(
    request: Request,
    *,
    image_suffix: str | None = None,
    caption_suffix: str = "txt",
    caption_field: str = "caption",
) -> PairData:
    """The images of tar files, with captions from ``.txt``, or from the ``caption`` of ``.json``.

    A ``.txt`` has one caption a line; the field of a ``.json`` is a caption or a list of them. A
    fifth is held out for ``val``.

    Args:
        request: Request with the path of a tar file or a folder of them, a glob, or a pattern
            such as ``{00000..00099}.tar``. ``progress`` counts tar files.
        image_suffix: Suffix of the images; default: those of common formats.
        caption_suffix: Suffix of the captions.
        caption_field: Field of the captions in a ``.json``.

    Raises:
        GeomkitError: If the ``webdataset`` package is not installed, there is no tar file, or one
            is cut short, or none holds an image with a caption.
    """
    path, tars = request.path, _tars(request)
    own = image_suffix and image_suffix.lower().lstrip(".")
    names = _Names(own, caption_suffix.lower().lstrip("."), caption_field)
    held = []
    for number, tar in enumerate(tars, 1):
        held.append(_index(tar, names))
        if request.progress:
            request.progress(number, len(tars))
    samples = [(place, sample) for place, index in enumerate(held) for sample in index.samples]
    whole = [(place, s) for place, s in samples if s.offset is not None and s.captions is not None]
    if not whole:
        raise GeomkitError(
            f"webdataset: {path}: no image with a caption in {len(tars)} tar files; expected "
            f"KEY.{own or 'jpg'} with KEY.{names.caption_suffix}, or KEY.json with a "
            f"{caption_field}; {_found(held)}{_keys(samples)}"
        )
    ids = [sample.key for _, sample in whole]
    if len(set(ids)) < len(ids):  # keys that only count within their tar file
        ids = [f"{tars[place].stem}/{sample.key}" for place, sample in whole]
    if len(set(ids)) < len(ids):
        raise GeomkitError(f"webdataset: {path}: two samples have one key in tar files of one name")
    lacking: dict[str, list[str]] = {}
    for _, sample in samples:
        if sample.offset is None:
            lacking.setdefault("samples without an image", []).append(sample.key)
        elif sample.captions is None:
            what = sample.why or "samples without a caption"
            lacking.setdefault(what, []).append(sample.key)
    endless = [tar.name for tar, index in zip(tars, held, strict=True) if not index.ended]
    joined = [tar.name for tar, index in zip(tars, held, strict=True) if index.joined]
    repeats = LeftOut.of(
        "members for a sample that has one", [name for index in held for name in index.repeats]
    )
    unlike = [name for index in held for name in index.unlike]
    return request.pairs(
        ids,
        [sample.captions or [] for _, sample in whole],
        places=[Place(str(tar), "tar") for tar in tars],
        place=[place for place, _ in whole],
        spans=np.array([(sample.offset, sample.length) for _, sample in whole]),
        source=f"{len(tars):,} tars, {tars[0].name} to {tars[-1].name}",
        notes=[
            f"no end mark in {', '.join(endless)}: cut short?" if endless else "",
            f"not read: what follows the end of {', '.join(joined)}; are several tar files joined?"
            if joined
            else "",
            *(f"not used: {some}" for some in repeats),
            *map(str, LeftOut.of("samples with another caption in .json, not used", unlike)),
            mixed(map(str, tars), "tar files"),
            *_disagreements(tars, held),
        ],
        left_out=[some for what, keys in lacking.items() for some in LeftOut.of(what, keys)],
        reading=_found(held),
    )


def _keys(samples: list[tuple[int, _Sample]]) -> str:
    """A key of an image, and one of a caption, that do not go together; nothing without both."""
    image = next((s.key for _, s in samples if s.offset is not None), None)
    text = next((s.key for _, s in samples if s.captions is not None), None)
    return f"; keys such as '{image}' of images, '{text}' of captions" if image and text else ""


def _found(held: list[_Index]) -> str:
    """The suffixes of the members and the fields of their .json, and how to choose from them."""
    suffixes: Counter[str] = Counter()
    for index in held:
        suffixes.update(index.suffixes)
    fields = next((index.fields for index in held if index.fields), [])
    there = ", ".join(f"{count:,} {suffix}" for suffix, count in suffixes.most_common(6))
    inside = f" with {', '.join(map(repr, fields[:8]))}" if fields else ""
    return (
        f"members: {there or 'none'}{'; .json' if fields else ''}{inside} (choose with "
        "image_suffix=, caption_suffix=, caption_field=)"
    )


def _tars(request: Request) -> list[Path]:
    try:
        from webdataset.shardlists import expand_urls
    except ImportError:
        raise GeomkitError(
            "webdataset: needs the package of that name; pip install 'geomkit[webdataset]'"
        ) from None
    path = request.path
    if Path(path).is_dir():
        found = sorted(Path(path).glob("*.tar"))
        if not found and (packed := sorted(Path(path).glob("*.tar.*"))):
            raise GeomkitError(
                f"webdataset: {path}: no .tar in it but {len(packed)} like {packed[0].name}; "
                "unpack them first"
            )
    else:
        with refusing(Exception, says=f"webdataset: {path}: not a pattern"):
            ranges = re.findall(r"\{(\d+)\.\.(\d+)", path)
            named = math.prod(abs(int(last) - int(first)) + 1 for first, last in ranges)
            if named > _MOST_TARS:
                raise GeomkitError(f"webdataset: {path}: names {named:,} tar files")
            words = [path] if Path(path).exists() else expand_urls(path)
        found = []
        for word in words:
            if glob.has_magic(word) and not Path(word).exists():
                found += sorted(map(Path, glob.glob(word)))  # noqa: PTH207 - may be absolute
            else:
                found.append(Path(word))
    missing = [tar for tar in found if not tar.is_file()]
    if missing or not found:
        raise request.missing("tar", missing[0] if missing else None)
    return list(dict.fromkeys(found))


def _index(tar: Path, names: _Names) -> _Index:
    """What a tar file holds, from the cache or read now."""
    stat = tar.stat()
    state = [str(tar.resolve()), stat.st_size, stat.st_mtime_ns, *names]
    name = hashlib.sha256(json.dumps([_SCHEMA_VERSION, *state]).encode()).hexdigest()
    file = cache_folder("tars") / f"{name[:32]}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):  # if none or damaged, it is written
        content = json.loads(file.read_text("utf-8"))
        if content["format"] == _FORMAT and content["tar"] == state:
            parts = [content[part] for part in _Index._fields[1:]]
            return _Index([_Sample(*sample) for sample in content["samples"]], *parts)
    index = _go_through(tar, names)
    content = {
        "format": _FORMAT,
        "schema_version": _SCHEMA_VERSION,
        "tar": state,
        **index._asdict(),
    }
    with atomic_write(file, overwrite=True) as out:
        out.write(json.dumps(content, separators=(",", ":")).encode())
    return index


def _go_through(tar: Path, names: _Names) -> _Index:
    images: dict[str, tuple[int, int]] = {}
    texts: dict[str, list[str] | str] = {}
    described: dict[str, list[str] | str] = {}
    suffixes: Counter[str] = Counter()
    fields: list[str] = []
    repeats = []
    says = f"webdataset: {tar}: cut short, or no plain tar"
    with refusing(OSError, says=f"webdataset: {tar}: cannot be read"), tar.open("rb") as file:
        start = file.read(8)
    for mark, what in _OTHER.items():
        if start.startswith(mark):
            raise GeomkitError(f"webdataset: {tar}: is {what}, not a plain tar; unpack it first")
    with refusing(tarfile.TarError, EOFError, OSError, says=says, advice=_FETCH):
        with tarfile.open(tar, "r:", errors="surrogateescape") as archive:
            for member in archive:
                archive.members = []  # type: ignore[attr-defined] # would grow with the tar
                key, suffix = _divided(member.name, names)
                if member.isdir() or _is_hidden(member.name):
                    continue
                if not member.isreg():
                    suffixes["links (not followed)"] += 1
                    continue
                suffixes[f".{suffix}" if suffix else "without a suffix"] += 1
                if member.issparse():
                    texts[key] = "samples with a sparse member"
                elif suffix == names.image_suffix or (
                    not names.image_suffix and f".{suffix}" in SUFFIXES
                ):
                    place = (member.offset_data, member.size)
                    if images.setdefault(key, place) != place:
                        repeats.append(member.name)
                elif suffix in (names.caption_suffix, "json") and member.size > _LARGEST_TEXT:
                    texts[key] = f"samples with a .{suffix} of over {_LARGEST_TEXT >> 20} MiB"
                elif suffix in (names.caption_suffix, "json"):
                    content = archive.extractfile(member)
                    assert content is not None
                    text = content.read()
                    if len(text) < member.size:
                        raise tarfile.ReadError("unexpected end of data")
                    kind = texts if suffix == names.caption_suffix else described
                    if key in kind:
                        repeats.append(member.name)
                    elif kind is texts:
                        texts[key] = _lines(text)
                    else:
                        described[key], found = _described(text, names.caption_field)
                        fields = fields or found
            end = archive.offset
        with tar.open("rb") as file:
            file.seek(end)
            after = file.read(_BLOCK)
            joined = any(rest.strip(b"\0") for rest in iter(lambda: file.read(_PIECE), b""))
    if after.strip(b"\0") or 0 < len(after) < _BLOCK:  # tarfile takes half a header for the end
        raise GeomkitError(f"webdataset: {tar}: cut short, or damaged at byte {end:,}{_FETCH}")
    unlike = [key for key in texts if described.get(key, texts[key]) != texts[key]]
    samples = []
    for key in dict.fromkeys([*images, *texts, *described]):
        caption = texts.get(key, described.get(key))
        captions, why = (None, caption) if isinstance(caption, str) else (caption, "")
        offset, length = images.get(key, (None, None))
        samples.append(_Sample(key, offset, length, captions, why))
    return _Index(samples, bool(after), dict(suffixes), fields, repeats, unlike, joined)


def _divided(name: str, names: _Names) -> tuple[str, str]:
    """Key and suffix of a member: a suffix that was asked for, or the last one.

    WebDataset takes the first, but names may hold dots.
    """
    for own in filter(None, (names.image_suffix, names.caption_suffix)):
        if name.lower().endswith(f".{own}"):
            return name[: -len(own) - 1], own
    key, dot, suffix = name.rpartition(".")
    return (key, suffix.lower()) if dot and "/" not in suffix else (name, "")


def _lines(text: bytes) -> list[str] | str:
    """The captions in a text file, or what is wrong with it."""
    with suppress(UnicodeDecodeError):
        return list(caption_lines(text))
    return "samples with a caption that is not UTF-8"


def _described(text: bytes, field: str) -> tuple[list[str] | str, list[str]]:
    """The captions in a .json or what is wrong with it, and the names of its fields."""
    try:
        content = json.loads(text, object_pairs_hook=once)
    except (ValueError, RecursionError):
        return "samples with a .json that is damaged", []
    if not isinstance(content, dict):
        return f"samples with a .json without a field '{field}'", []
    found = content.get(field)
    captions: list[Any] = found if isinstance(found, list) else [found]
    if found is None:
        return "samples without a caption", list(content)
    if not captions or not all(isinstance(caption, str) for caption in captions):
        return f"samples with a '{field}' in .json that is no text and no list of texts", []
    return [caption.strip() for caption in captions], list(content)


def _is_hidden(name: str) -> bool:
    """Whether a member is a system's, or WebDataset's own, such as ``__key__``."""
    steps = [step for step in name.split("/") if step not in (".", "..")]
    return any(step.startswith((".", "__")) for step in steps)


def _disagreements(tars: list[Path], held: list[_Index]) -> list[str]:
    """Where the counts in ``sizes.json``, which some data sets have beside them, differ."""
    counts = {tar.name: len(index.samples) for tar, index in zip(tars, held, strict=True)}
    found = []
    for file in dict.fromkeys(tar.parent / "sizes.json" for tar in tars):
        if not file.is_file():
            continue
        says = f"webdataset: {file}: expected names of tar files and their counts"
        with refusing(ValueError, TypeError, AttributeError, OSError, says=says):
            sizes = {str(name): int(size) for name, size in json.loads(file.read_bytes()).items()}
        wrong = [n for n, size in sizes.items() if counts.get(n, size) != size]
        if wrong:
            name, *more = wrong
            rest = f" and {len(more)} more" if more else ""
            found.append(f"sizes.json says {sizes[name]} for {name}, it holds {counts[name]}{rest}")
    return found


DATASET = Dataset(
    name="webdataset",
    load=load_shards,
    find=_tars,
    help="tar files of images and captions, such as img2dataset writes",
    options={"image_suffix": str, "caption_suffix": str, "caption_field": str},
    path="PATTERN",
)
