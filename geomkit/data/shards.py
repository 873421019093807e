"""Tar files of images and captions in WebDataset's layout, such as img2dataset writes.

Each tar file is read through once and its contents are noted in the cache. Any image can then be
read alone, so order and resuming are as with any other data.
"""

from __future__ import annotations

import glob
import hashlib
import json
import tarfile
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from geomkit._core.files import atomic_write, refusing
from geomkit.data.cache import cache_folder
from geomkit.data.declarations import Dataset, Request
from geomkit.data.files import SUFFIXES, Place
from geomkit.data.pairs import PairData
from geomkit.errors import GeomkitError

__all__ = ["DATASET", "load_shards"]

_FORMAT, _SCHEMA_VERSION = "geomkit-tar-index", 1
_BLOCK = 512
_FETCH = "; fetch it again"


class _Sample(NamedTuple):
    """Files of one key in a tar file; ``None`` stands for what is missing."""

    key: str
    offset: int | None
    length: int | None
    caption: str | None


class _Index(NamedTuple):
    """What a tar file holds, and whether it has an end mark."""

    samples: list[_Sample]
    ended: bool


def load_shards(request: Request) -> PairData:
    """The images of tar files, with captions from ``.txt``, or from the ``caption`` of ``.json``.

    A fifth is held out for ``val``.

    Args:
        request: Request with the path of a tar file or a folder of them, a glob, or a pattern
            such as ``{00000..00099}.tar``. ``progress`` counts tar files.

    Raises:
        GeomkitError: If the ``webdataset`` package is not installed, there is no tar file, or one
            is cut short.
    """
    path, tars = request.path, _tars(request)
    held = []
    for number, tar in enumerate(tars, 1):
        held.append(_index(tar))
        if request.progress:
            request.progress(number, len(tars))
    samples = [(place, *sample) for place, index in enumerate(held) for sample in index.samples]
    images = [sample for sample in samples if sample[2] is not None]
    whole = [sample for sample in images if sample[4] is not None]
    if not whole:
        raise GeomkitError(
            f"webdataset: {path}: no image with a caption in {len(tars)} tar files; expected "
            "KEY.jpg with KEY.txt, or KEY.json with a caption"
        )
    place, keys, starts, lengths, captions = zip(*whole, strict=True)
    ids = list(keys)
    if len(set(ids)) < len(ids):  # keys that only count within their tar file
        ids = [f"{tars[number].stem}/{key}" for number, key in zip(place, keys, strict=True)]
    if len(set(ids)) < len(ids):
        raise GeomkitError(f"webdataset: {path}: two samples have one key in tar files of one name")
    no_image, no_caption = len(samples) - len(images), len(images) - len(whole)
    endless = [tar.name for tar, index in zip(tars, held, strict=True) if not index.ended]
    return request.pairs(
        ids,
        [(caption,) for caption in captions],
        places=[Place(str(tar), "tar") for tar in tars],
        place=place,
        spans=np.column_stack([starts, lengths]),
        source=f"{len(tars):,} tars, {tars[0].name} to {tars[-1].name}",
        notes=[
            f"{no_image} samples without an image left out" if no_image else "",
            f"{no_caption} samples without a caption left out" if no_caption else "",
            f"no end mark in {', '.join(endless)}: cut short?" if endless else "",
            *_disagreements(tars, held),
        ],
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
    else:
        with refusing(Exception, says=f"webdataset: {path}: not a pattern"):
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


def _index(tar: Path) -> _Index:
    """What a tar file holds, from the cache or read now."""
    stat = tar.stat()
    state = [str(tar.resolve()), stat.st_size, stat.st_mtime_ns]
    name = hashlib.sha256(json.dumps([_SCHEMA_VERSION, *state]).encode()).hexdigest()
    file = cache_folder("tars") / f"{name[:32]}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):  # if none or damaged, it is written
        content = json.loads(file.read_text("utf-8"))
        if content["format"] == _FORMAT and content["tar"] == state:
            return _Index([_Sample(*sample) for sample in content["samples"]], content["ended"])
    index = _go_through(tar)
    content = {
        "format": _FORMAT,
        "schema_version": _SCHEMA_VERSION,
        "tar": state,
        **index._asdict(),
    }
    with atomic_write(file, overwrite=True) as out:
        out.write(json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode())
    return index


def _go_through(tar: Path) -> _Index:
    from webdataset.tariterators import base_plus_ext

    images: dict[str, tuple[int, int]] = {}
    texts: dict[str, str] = {}
    described: dict[str, str | None] = {}
    damage = (tarfile.TarError, EOFError, OSError)
    with (
        refusing(*damage, says=f"webdataset: {tar}: cut short, or no plain tar", advice=_FETCH),
        refusing(UnicodeDecodeError, says=f"webdataset: {tar}: a caption in it is not UTF-8"),
    ):
        with tarfile.open(tar, "r:") as archive:
            for member in archive:
                key, suffix = base_plus_ext(member.name)
                archive.members = []  # type: ignore[attr-defined] # would grow with the tar
                if not member.isreg() or key is None or member.name.startswith("__"):
                    continue
                suffix = suffix.lower()
                if f".{suffix}" in SUFFIXES:
                    images.setdefault(key, (member.offset_data, member.size))
                elif suffix in ("txt", "json"):
                    content = archive.extractfile(member)
                    assert content is not None
                    text = content.read()
                    if len(text) < member.size:
                        raise tarfile.ReadError("unexpected end of data")
                    if suffix == "txt":
                        texts[key] = text.decode("utf-8").strip()
                    else:
                        described[key] = _caption(text)
            end = archive.offset
        with tar.open("rb") as file:
            file.seek(end)
            after = file.read(_BLOCK)
    if after.strip(b"\0") or 0 < len(after) < _BLOCK:  # tarfile takes half a header for the end
        raise GeomkitError(f"webdataset: {tar}: cut short, or damaged at byte {end:,}{_FETCH}")
    samples = []
    for key in dict.fromkeys([*images, *texts, *described]):
        offset, length = images.get(key, (None, None))
        samples.append(_Sample(key, offset, length, texts.get(key, described.get(key))))
    return _Index(samples, bool(after))


def _caption(text: bytes) -> str | None:
    with suppress(ValueError, KeyError, TypeError, AttributeError):
        return json.loads(text)["caption"].strip()
    return None


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
    help="tar files of images and captions, such as img2dataset writes",
    path="PATTERN",
)
