"""Pictures where they lie: in folders, in zip files that are never unpacked, in tar files.

Nothing is held open: a read opens, seeks and closes, so that workers may be forked or spawned at
any time. A zip's directory is read once a process, and forked workers share it.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from geomkit.data.decode import decode
from geomkit.data.pairs import PairData, seeded_hash
from geomkit.errors import GeomkitError
from geomkit.models.preprocess import Preprocess

__all__ = [
    "SUFFIXES",
    "VAL_SHARE",
    "FileImages",
    "Place",
    "hold_out",
    "missing_path",
    "zip_members",
]

SUFFIXES = frozenset([".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"])
"""Of the files that are taken for pictures."""

VAL_SHARE = 0.2
"""Held out for validation where a data set has no split of its own."""

_LOCAL_HEADER = 30


@dataclass(frozen=True)
class Place:
    """Something that holds pictures.

    Attributes:
        path: a folder, or a zip or tar file.
        kind: ``folder``, ``zip`` or ``tar``.
        instead: where else a file is looked for that is not in the folder.
    """

    path: str
    kind: str = "folder"
    instead: str | None = None


class FileImages:
    """Pictures in files, decoded when asked for.

    Args:
        places: folders, zips and tars.
        place: ``(n,)``, in which of them each picture is.
        names: the path of each in its folder or zip.
        preprocess: what to make of it, see :func:`geomkit.data.decode.prepare`.
        draft: let the JPEG decoder reduce large pictures.
        spans: ``(n, 2)``, first byte and length of each in its tar.
    """

    def __init__(
        self,
        places: Sequence[Place],
        place: Sequence[int] | np.ndarray,
        names: Sequence[str],
        preprocess: Preprocess,
        *,
        draft: bool = True,
        spans: np.ndarray | None = None,
    ) -> None:
        self.places, self.names, self.spans = tuple(places), tuple(names), spans
        self.place = np.asarray(place, np.int32)
        self.preprocess, self.draft = preprocess, draft

    @property
    def size(self) -> int:
        """Side in px."""
        return self.preprocess.size

    def __len__(self) -> int:
        return len(self.names)

    def read(self, row: int) -> np.ndarray:
        """One picture, ``(size, size, 3)`` uint8.

        Raises:
            GeomkitError: if it does not decode.
        """
        place = self.places[self.place[row]]
        if place.kind == "folder":
            source: Path | bytes = self.file(row)
        elif place.kind == "zip":
            source = _from_zip(place.path, self.names[row])
        else:
            assert self.spans is not None
            source = _read(place.path, *map(int, self.spans[row]))
        return decode(source, self.preprocess, draft=self.draft)

    def describe(self, row: int) -> str:
        """Its length in bytes, or that it is missing."""
        place = self.places[self.place[row]]
        if place.kind == "tar":
            assert self.spans is not None
            return str(self.spans[row, 1])
        try:
            if place.kind == "folder":
                return str(self.file(row).stat().st_size)
            return str(zip_members(place.path)[self.names[row]][2])
        except (OSError, KeyError):
            return "missing"

    def file(self, row: int) -> Path:
        """The file of a picture in a folder."""
        place = self.places[self.place[row]]
        found = Path(place.path, self.names[row])
        if place.instead is not None and not found.exists():
            other = Path(place.instead, self.names[row])
            return other if other.exists() else found
        return found


def zip_members(path: str | Path) -> dict[str, tuple[int, int, int, int]]:
    """What a zip holds: name → place of its header, length there, length unpacked, CRC-32.

    Raises:
        GeomkitError: if the file is missing or no whole zip.
    """
    try:
        stat = Path(path).stat()
    except OSError as error:
        raise GeomkitError(f"{path}: {error.strerror or error}") from None
    return _directory(str(path), stat.st_size, stat.st_mtime_ns)


@cache
def _directory(path: str, length: int, changed: int) -> dict[str, tuple[int, int, int, int]]:
    try:
        with zipfile.ZipFile(path) as archive:
            return {
                i.filename: (i.header_offset, i.compress_size, i.file_size, i.CRC)
                for i in archive.infolist()
            }
    except zipfile.BadZipFile:
        raise GeomkitError(f"{path}: no zip file, or cut short; fetch it again") from None
    except OSError as error:
        raise GeomkitError(f"{path}: {error.strerror or error}") from None


def _from_zip(path: str, name: str) -> bytes:
    try:
        header, packed, length, crc = zip_members(path)[name]
    except KeyError:
        raise GeomkitError(f"is not in {Path(path).name}") from None
    head = _read(path, header, _LOCAL_HEADER)
    encrypted, method = head[6] & 1, int.from_bytes(head[8:10], "little")
    # The lengths of name and extra fields may differ from those in the directory.
    skip = int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")
    if head[:4] != b"PK\x03\x04" or encrypted or method not in (0, 8):
        raise GeomkitError(f"in {Path(path).name} is encrypted, damaged or packed in a rare way")
    content = _read(path, header + _LOCAL_HEADER + skip, packed)
    try:
        content = zlib.decompress(content, -15) if method else content
    except zlib.error:
        content = b""
    if len(content) != length or zlib.crc32(content) != crc:
        raise GeomkitError(f"is damaged in {Path(path).name}")
    return content


def _read(path: str, start: int, length: int) -> bytes:
    try:
        with Path(path).open("rb") as file:
            file.seek(start)
            content = file.read(length)
    except OSError as error:
        raise GeomkitError(f"cannot be read ({path}: {error.strerror or error})") from None
    if len(content) != length:
        raise GeomkitError(f"is cut short in {Path(path).name}")
    return content


def missing_path(name: str, path: str | Path, wanted: str, options: Sequence[str]) -> GeomkitError:
    """The error for a path that is not there; a misspelt option would have ended in the path.

    >>> print(missing_path("coco", "/data/coco,yaer=2014", "folder", ["year", "captions"]))
    coco: /data/coco,yaer=2014: no such folder (or is 'yaer' an option? known: year, captions)
    """
    key = Path(path).name.rpartition(",")[2].partition("=")[0]
    hint = (
        f" (or is '{key}' an option? known: {', '.join(options)})"
        if "," in str(path) and "=" in str(path).rpartition(",")[2]
        else "; check the path"
    )
    return GeomkitError(f"{name}: {path}: no such {wanted}{hint}")


def hold_out(data: PairData, split: str, *, seed: int) -> PairData:
    """A split of data that has none of its own: a fifth is held out by a seeded hash of the ids.

    Raises:
        GeomkitError: if nothing is left.
    """
    if split == "all":
        return data
    held = np.array([seeded_hash(id_, seed, "split") < VAL_SHARE for id_ in data.ids], bool)
    rows = np.flatnonzero(held == (split == "val"))
    if not len(rows):
        raise GeomkitError(
            f"'{data.spec}': none of its {len(data)} pictures falls to {split} (a seeded fifth is "
            "held out); use all, or another seed"
        )
    share = "a fifth" if split == "val" else "four fifths"
    return data.take(rows, split=split).with_note(f"{split}: {share}, by a seeded hash of the ids")
