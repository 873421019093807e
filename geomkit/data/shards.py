"""Tar files of images and captions in WebDataset's layout, such as img2dataset writes.

Each tar file is read through once and its contents are noted in the cache. Any image can then be
read alone, so order and resuming are as with any other data.
"""

from __future__ import annotations

import glob
import hashlib
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from geomkit._core.files import atomic_write
from geomkit.data.cache import cache_folder
from geomkit.data.declarations import Dataset, Request
from geomkit.data.files import SUFFIXES, Place
from geomkit.data.pairs import PairData
from geomkit.errors import GeomkitError

__all__ = ["DATASET", "load_shards"]

_FORMAT, _SCHEMA_VERSION = "geomkit-tar-index", 1
_BLOCK = 512


class _Sample(NamedTuple):
    """Files of one key in a tar file; ``None`` stands for what is missing."""

    key: str
    offset: int | None
    length: int | None
    caption: str | None


@dataclass(frozen=True)
class _Index:
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
    counts: dict[str, int] = {}
    found: list[tuple[int, str, int, int, str]] = []
    no_image = no_caption = 0
    endless = []
    for number, tar in enumerate(tars):
        index = _index(tar)
        if request.progress:
            request.progress(number + 1, len(tars))
        if not index.ended:
            endless.append(tar.name)
        counts[tar.name] = len(index.samples)
        for key, offset, length, caption in index.samples:
            if offset is None or length is None:
                no_image += 1
            elif caption is None:
                no_caption += 1
            else:
                found.append((number, key, offset, length, caption))
    if not found:
        raise GeomkitError(
            f"webdataset: {path}: no image with a caption in {len(tars)} tar files; expected "
            "KEY.jpg with KEY.txt, or KEY.json with a caption"
        )
    ids = [key for _, key, *_ in found]
    if len(set(ids)) < len(ids):  # keys that only count within their tar file
        ids = [f"{tars[number].stem}/{key}" for number, key, *_ in found]
    if len(set(ids)) < len(ids):
        raise GeomkitError(f"webdataset: {path}: two samples have one key in tar files of one name")
    return request.pairs(
        ids,
        [(caption,) for *_, caption in found],
        places=[Place(str(tar), "tar") for tar in tars],
        place=[number for number, *_ in found],
        spans=np.array([(offset, length) for _, _, offset, length, _ in found], np.int64),
        source=f"{len(tars):,} tars, {tars[0].name} to {tars[-1].name}",
        notes=[
            f"{no_image} samples without an image left out" if no_image else "",
            f"{no_caption} samples without a caption left out" if no_caption else "",
            f"no end mark in {', '.join(endless)}: cut short?" if endless else "",
            *_disagreements(tars, counts),
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
        try:
            words = [path] if Path(path).exists() else expand_urls(path)
        except Exception as error:  # its parsers raise many kinds
            raise GeomkitError(f"webdataset: {path}: not a pattern ({error})") from None
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
    try:
        content = json.loads(file.read_text("utf-8"))
        if content["format"] == _FORMAT and content["tar"] == state:
            return _Index([_Sample(*sample) for sample in content["samples"]], content["ended"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # none yet, or damaged: it is written again
    index = _go_through(tar)
    content = {"format": _FORMAT, "schema_version": _SCHEMA_VERSION, "tar": state, **vars(index)}
    with atomic_write(file, overwrite=True) as out:
        out.write(json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode())
    return index


def _go_through(tar: Path) -> _Index:
    from webdataset.tariterators import base_plus_ext

    images: dict[str, tuple[int, int]] = {}
    texts: dict[str, str] = {}
    described: dict[str, str | None] = {}
    try:
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
    except (tarfile.TarError, EOFError, OSError) as error:
        raise GeomkitError(
            f"webdataset: {tar}: cut short, or no plain tar ({error}); fetch it again"
        ) from None
    except UnicodeDecodeError:
        raise GeomkitError(f"webdataset: {tar}: a caption in it is not UTF-8") from None
    if after.strip(b"\0") or 0 < len(after) < _BLOCK:  # tarfile takes half a header for the end
        raise GeomkitError(
            f"webdataset: {tar}: cut short, or damaged at byte {end:,}; fetch it again"
        )
    samples = []
    for key in dict.fromkeys([*images, *texts, *described]):
        offset, length = images.get(key, (None, None))
        samples.append(_Sample(key, offset, length, texts.get(key, described.get(key))))
    return _Index(samples, bool(after))


def _caption(text: bytes) -> str | None:
    try:
        caption = json.loads(text).get("caption")
    except (ValueError, AttributeError):
        return None
    return caption.strip() if isinstance(caption, str) else None


def _disagreements(tars: list[Path], counts: dict[str, int]) -> list[str]:
    """Where the counts in ``sizes.json``, which some data sets have beside them, differ."""
    found = []
    for folder in dict.fromkeys(tar.parent for tar in tars):
        file = folder / "sizes.json"
        if not file.is_file():
            continue
        try:
            sizes = {str(name): int(size) for name, size in json.loads(file.read_bytes()).items()}
        except (ValueError, TypeError, AttributeError, OSError):
            raise GeomkitError(
                f"webdataset: {file}: expected names of tar files and their counts"
            ) from None
        wrong = [n for n, size in sizes.items() if counts.get(n, size) != size]
        if wrong:
            rest = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
            found.append(
                f"sizes.json says {sizes[wrong[0]]} for {wrong[0]}, it holds {counts[wrong[0]]}"
                f"{rest}"
            )
    return found


DATASET = Dataset(
    name="webdataset",
    load=load_shards,
    help="tar files of images and captions, such as img2dataset writes",
    path="PATTERN",
)
