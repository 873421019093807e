"""Tars of pictures and captions in WebDataset's layout, such as img2dataset writes.

Each tar is gone through once and what it holds noted in the cache: then any picture can be read
alone, so that order and resuming are as with any other data.
"""

from __future__ import annotations

import glob
import hashlib
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from geomkit._core.files import atomic_write
from geomkit.data.cache import cache_folder
from geomkit.data.files import SUFFIXES, FileImages, Place, hold_out, missing_path
from geomkit.data.pairs import PairData
from geomkit.errors import GeomkitError
from geomkit.models.preprocess import Preprocess

__all__ = ["load_shards"]

_FORMAT, _SCHEMA_VERSION = "geomkit-tar-index", 1
_BLOCK = 512


def load_shards(
    path: str,
    *,
    split: str,
    preprocess: Preprocess,
    seed: int = 0,
    draft: bool = True,
    spec: str,
    progress: Callable[[int, int], None] | None = None,
    **_: Any,
) -> PairData:
    """The pictures of tars, with captions from ``.txt``, or from the ``caption`` of ``.json``.

    Args:
        path: a tar, a folder of them, a glob, or a pattern such as ``{00000..00099}.tar``.
        split: ``train``, ``val`` (a fifth, by a seeded hash of the keys) or ``all``.
        preprocess: what to make of the pictures.
        seed: of the fifth held out.
        draft: see :func:`geomkit.data.decode.decode`.
        spec: recorded.
        progress: called with tars gone through and tars in all, as long as any is new.

    Raises:
        GeomkitError: without the ``webdataset`` package, if there is no tar, or one is cut short.
    """
    tars = _tars(path)
    counts: dict[str, int] = {}
    where: list[tuple[int, int, int]] = []
    keys: list[tuple[str, str]] = []
    captions: list[str] = []
    no_picture = no_caption = 0
    endless = []
    for number, tar in enumerate(tars):
        index = _index(tar)
        if progress:
            progress(number + 1, len(tars))
        if not index["ended"]:
            endless.append(tar.name)
        counts[tar.name] = len(index["samples"])
        for key, offset, length, caption in index["samples"]:
            no_picture += offset is None
            no_caption += offset is not None and caption is None
            if offset is not None and caption is not None:
                where.append((number, offset, length))
                keys.append((tar.stem, key))
                captions.append(caption)
    if not where:
        raise GeomkitError(
            f"webdataset: {path}: no picture with a caption in {len(tars)} tars; expected KEY.jpg "
            "with KEY.txt, or KEY.json with a caption"
        )
    ids = [key for _, key in keys]
    if len(set(ids)) < len(ids):  # keys that only count within their tar
        ids = [f"{stem}/{key}" for stem, key in keys]
    if len(set(ids)) < len(ids):
        raise GeomkitError(f"webdataset: {path}: two samples have one key in tars of one name")
    spans = np.array(where, np.int64)
    data = PairData(
        spec=spec,
        split="all",
        images=FileImages(
            [Place(str(tar), "tar") for tar in tars],
            spans[:, 0],
            ids,
            preprocess,
            draft=draft,
            spans=spans[:, 1:],
        ),
        index=np.arange(len(ids)),
        captions=tuple((caption,) for caption in captions),
        ids=tuple(ids),
        source=f"{len(tars):,} tars, {tars[0].name} to {tars[-1].name}",
    )
    for text in (
        f"{no_picture} samples without a picture left out" if no_picture else "",
        f"{no_caption} samples without a caption left out" if no_caption else "",
        f"no end mark in {', '.join(endless)}: cut short?" if endless else "",
        *_disagreements(tars, counts),
    ):
        data = data.with_note(text)
    return hold_out(data, split, seed=seed)


def _tars(path: str) -> list[Path]:
    try:
        from webdataset.shardlists import expand_urls
    except ImportError:
        raise GeomkitError(
            "webdataset: needs the package of that name; pip install 'geomkit[webdataset]'"
        ) from None
    if Path(path).is_dir():
        found = sorted(Path(path).glob("*.tar"))
    else:
        try:
            words = [path] if Path(path).exists() else expand_urls(path)
        except Exception as error:  # whatever its parsers raise
            raise GeomkitError(f"webdataset: {path}: not a pattern ({error})") from None
        found = []
        for word in words:
            if glob.has_magic(word) and not Path(word).exists():
                found += sorted(map(Path, glob.glob(word)))  # noqa: PTH207 - may be absolute
            else:
                found.append(Path(word))
    missing = [tar for tar in found if not tar.is_file()]
    if missing or not found:
        raise missing_path("webdataset", str(missing[0]) if missing else path, "tar", ["seed", "n"])
    return list(dict.fromkeys(found))


def _index(tar: Path) -> dict[str, Any]:
    """What a tar holds, from the cache or gone through now."""
    stat = tar.stat()
    state = [str(tar.resolve()), stat.st_size, stat.st_mtime_ns]
    name = hashlib.sha256(json.dumps([_SCHEMA_VERSION, *state]).encode()).hexdigest()
    file = cache_folder("tars") / f"{name[:32]}.json"
    try:
        index = json.loads(file.read_text("utf-8"))
        if index["format"] == _FORMAT and index["tar"] == state:
            return index
    except (OSError, ValueError, KeyError, TypeError):
        pass  # none yet, or damaged: it is made anew
    index = {"format": _FORMAT, "schema_version": _SCHEMA_VERSION, "tar": state, **_go_through(tar)}
    with atomic_write(file, overwrite=True) as out:
        out.write(json.dumps(index, ensure_ascii=False, separators=(",", ":")).encode())
    return index


def _go_through(tar: Path) -> dict[str, Any]:
    from webdataset.tariterators import base_plus_ext

    pictures: dict[str, tuple[int, int]] = {}
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
                    pictures.setdefault(key, (member.offset_data, member.size))
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
    keys = dict.fromkeys([*pictures, *texts, *described])
    samples = [
        [key, *pictures.get(key, (None, None)), texts.get(key, described.get(key))] for key in keys
    ]
    return {"samples": samples, "ended": bool(after)}


def _caption(text: bytes) -> str | None:
    try:
        caption = json.loads(text).get("caption")
    except (ValueError, AttributeError):
        return None
    return caption.strip() if isinstance(caption, str) else None


def _disagreements(tars: list[Path], counts: dict[str, int]) -> list[str]:
    """Where ``sizes.json``, which the makers of a data set may lay beside it, says otherwise."""
    found = []
    for folder in dict.fromkeys(tar.parent for tar in tars):
        file = folder / "sizes.json"
        if not file.is_file():
            continue
        try:
            sizes = {str(name): int(size) for name, size in json.loads(file.read_bytes()).items()}
        except (ValueError, TypeError, AttributeError, OSError):
            raise GeomkitError(f"webdataset: {file}: expected tars and their counts") from None
        wrong = [n for n, size in sizes.items() if counts.get(n, size) != size]
        if wrong:
            rest = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
            found.append(
                f"sizes.json says {sizes[wrong[0]]} for {wrong[0]}, it holds {counts[wrong[0]]}"
                f"{rest}"
            )
    return found
