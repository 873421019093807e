"""Images where they are stored: in folders, in zip files that are never unpacked, in tar files.

Workers may be forked or spawned at any time: a file is opened for one read, and forked workers
share the directory of a zip file without sharing a place in it.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
import zlib
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from geomkit._core.files import refusing
from geomkit._core.memory import is_bomb
from geomkit._core.texts import Texts
from geomkit.data.decode import decode, prepare
from geomkit.errors import GeomkitError
from geomkit.models.preprocess import Preprocess

__all__ = ["SUFFIXES", "FileImages", "PixelImages", "Place", "open_zip", "read_member"]

_NAMES = "jpg jpeg jpe jfif png webp avif bmp gif tif tiff ppm pgm pbm pnm"
SUFFIXES = frozenset(f".{name}" for name in _NAMES.split())
"""Suffixes of the files that are taken for images."""


@dataclass(frozen=True)
class Place:
    """Something that holds images.

    Attributes:
        path: Path of a folder, a zip file, a tar file or a parquet file.
        kind: ``folder``, ``zip``, ``tar`` or ``parquet``.
        instead: Second folder to look in for a file that the folder lacks.
    """

    path: str
    kind: str = "folder"
    instead: str | None = None


@dataclass(frozen=True, eq=False)
class FileImages:
    """Images in files, decoded when they are asked for.

    Attributes:
        places: Folders, zip files, tar files and parquet files.
        place: Index in ``places`` for each image, shape ``(n,)``.
        names: Path of each image in its folder or zip file, or its column of a parquet file.
        preprocess: Preprocessing whose geometry is applied, see
            :func:`geomkit.data.decode.prepare`.
        draft: Whether the JPEG decoder may reduce large images.
        spans: First byte and length of each image in its tar file, or row group and row of it in
            its parquet file, shape ``(n, 2)``.
    """

    places: Sequence[Place]
    place: Sequence[int] | np.ndarray
    names: Sequence[str]
    preprocess: Preprocess
    draft: bool = False
    spans: np.ndarray | None = None

    def __post_init__(self) -> None:
        """Put the names where processes share them."""
        if not isinstance(self.names, Texts):
            object.__setattr__(self, "names", Texts(self.names))
        object.__setattr__(self, "place", np.asarray(self.place, int))

    @property
    def size(self) -> int:
        """Side in px."""
        return self.preprocess.size

    def read(self, row: int) -> np.ndarray:
        """One image, uint8, shape ``(size, size, 3)``.

        Raises:
            GeomkitError: If it does not decode.
        """
        place, name = self.places[self.place[row]], self.names[row]
        source: Path | bytes
        if place.kind == "folder":
            source = _file(place, name)
        elif place.kind == "zip":
            source = _from_zip(place.path, name)
        elif place.kind == "tar":
            source = _from_tar(place.path, *self._span(row))
        else:
            source = _from_parquet(place.path, name, *self._span(row))
        return decode(source, self.preprocess, draft=self.draft)

    def describe(self, row: int) -> str:
        """Its length in bytes, or that of its parquet file, or that it is missing."""
        place, name = self.places[self.place[row]], self.names[row]
        try:
            if place.kind == "folder":
                return str(_file(place, name).stat().st_size)
            if place.kind == "zip":
                return str(open_zip(place.path).getinfo(name).file_size)
            if place.kind == "parquet":
                return str(Path(place.path).stat().st_size)
            return str(self._span(row)[1])
        except (OSError, KeyError, ValueError):  # the last of a path with a NUL
            return "missing"

    def state(self, row: int) -> tuple[int, ...]:
        """Length, times of change and inode of the file that it is in; empty if it is missing."""
        place = self.places[self.place[row]]
        if place.kind != "folder":
            return _state(Path(place.path))
        return _state(_file(place, self.names[row]))

    def _span(self, row: int) -> tuple[int, int]:
        assert self.spans is not None
        start, length = map(int, self.spans[row])
        return start, length


@dataclass(frozen=True)
class PixelImages:
    """Images in memory that are resized when they are asked for.

    Attributes:
        array: Pixels, uint8, shape ``(n, h, w, 3)``.
        preprocess: Preprocessing whose geometry is applied.
    """

    array: np.ndarray
    preprocess: Preprocess

    @property
    def size(self) -> int:
        """Side in px."""
        return self.preprocess.size

    def read(self, row: int) -> np.ndarray:
        """One image, uint8, shape ``(size, size, 3)``."""
        return prepare(Image.fromarray(self.array[row]), self.preprocess)

    def describe(self, row: int) -> str:
        """A checksum of its pixels."""
        return hashlib.sha256(self.array[row].tobytes()).hexdigest()

    def state(self, row: int) -> tuple[int, ...]:
        """A checksum of its pixels."""
        return (zlib.crc32(self.array[row].tobytes()),)


def open_zip(path: str | Path) -> zipfile.ZipFile:
    """A zip file for reading, opened once per process.

    Raises:
        GeomkitError: If the file is missing, or no whole zip file.
    """
    says, advice = f"{path}: no zip file, or cut short", "; fetch it again"
    with refusing(zipfile.BadZipFile, OSError, says=says, advice=advice):
        stat = Path(path).stat()
        return _open_zip(str(path), stat.st_size, stat.st_mtime_ns, os.getpid())


@cache
def _open_zip(path: str, length: int, changed: int, process: int) -> zipfile.ZipFile:
    """A zip file with its directory, which forked processes share, and a file of its own.

    Forked processes also share the position that the system keeps of an open file.
    """
    archive = copy(_directory(path, length, changed))
    archive.fp = Path(path).open("rb")  # noqa: SIM115 - the archive closes it
    return archive


@cache
def _directory(path: str, length: int, changed: int) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)


def _state(path: Path) -> tuple[int, ...]:
    try:
        stat = path.stat()
    except (OSError, ValueError):  # the last of a path with a NUL
        return ()
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino


def _file(place: Place, name: str) -> Path:
    """Where an image is; a name need not be a possible path."""
    if name.startswith("~/"):
        name = os.path.expanduser(name)  # noqa: PTH111 - no error without a home
    found = Path(place.path, name)
    if place.instead is None or os.path.exists(found):  # noqa: PTH110 - no error for any name
        return found
    other = Path(place.instead, name)
    return other if os.path.exists(other) else found  # noqa: PTH110


def read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    """The content of a member of a zip file.

    Raises:
        GeomkitError: If it is damaged, or unpacks to far more than data do; the message is the
            reason, without its name.
    """
    file = Path(archive.filename or "").name
    member = archive.getinfo(name)
    if is_bomb(member.file_size, member.compress_size):
        raise GeomkitError(
            f"unpacks to {member.file_size:,} bytes from {member.compress_size:,} in {file}: not "
            "read"
        )
    damage = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError)
    with refusing(*damage, says=f"is damaged in {file}"):
        return archive.read(name)


def _from_zip(path: str, name: str) -> bytes:
    archive = open_zip(path)
    if name not in archive.NameToInfo:
        raise GeomkitError(f"is not in {Path(path).name}")
    return read_member(archive, name)


def _from_tar(path: str, start: int, length: int) -> bytes:
    with refusing(OSError, says=f"cannot be read from {path}"), Path(path).open("rb") as file:
        whole = start + length <= os.fstat(file.fileno()).st_size
        file.seek(start)
        content = file.read(length) if whole else b""
    if len(content) != length:
        raise GeomkitError(f"is cut short in {Path(path).name}")
    return content


def _from_parquet(path: str, column: str, group: int, row: int) -> Path | bytes:
    cell = _row_group(path, Path(path).stat().st_mtime_ns, column, group)[row].as_py()
    content = cell["bytes"] if isinstance(cell, dict) else cell
    if content is None and isinstance(cell, dict) and cell.get("path"):
        return Path(path).parent / cell["path"]  # as datasets writes images that are files
    if content is None:
        raise GeomkitError(f"has no bytes in {Path(path).name}")
    return content


@lru_cache(maxsize=1)
def _row_group(path: str, changed: int, column: str, group: int) -> Any:
    """A column of a row group: neighbours in it are read from it once."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    damage = (pa.ArrowException, OSError, UnicodeDecodeError)
    with refusing(*damage, says=f"cannot be read from {path}"), pq.ParquetFile(path) as table:
        return table.read_row_group(group, columns=[column]).column(0)
