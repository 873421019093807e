"""Images where they are stored: in folders, in zip files that are never unpacked, in tar files.

Workers may be forked or spawned at any time: a file is opened for one read, and forked workers
share the directory of a zip file without sharing a place in it.
"""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from geomkit.data.decode import decode, prepare
from geomkit.errors import GeomkitError
from geomkit.models.preprocess import Preprocess

__all__ = ["SUFFIXES", "FileImages", "PixelImages", "Place", "open_zip"]

SUFFIXES = frozenset([".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"])
"""Suffixes of the files that are taken for images."""


@dataclass(frozen=True)
class Place:
    """Something that holds images.

    Attributes:
        path: Path of a folder, a zip file or a tar file.
        kind: ``folder``, ``zip`` or ``tar``.
        instead: Second folder to look in for a file that the folder lacks.
    """

    path: str
    kind: str = "folder"
    instead: str | None = None


@dataclass(frozen=True, eq=False)
class FileImages:
    """Images in files, decoded when they are asked for.

    Attributes:
        places: Folders, zip files and tar files.
        place: Index in ``places`` for each image, shape ``(n,)``.
        names: Path of each image in its folder or zip file.
        preprocess: Preprocessing whose geometry is applied, see
            :func:`geomkit.data.decode.prepare`.
        draft: Whether the JPEG decoder may reduce large images.
        spans: First byte and length of each image in its tar file, shape ``(n, 2)``.
    """

    places: Sequence[Place]
    place: Sequence[int] | np.ndarray
    names: Sequence[str]
    preprocess: Preprocess
    draft: bool = True
    spans: np.ndarray | None = None

    @property
    def size(self) -> int:
        """Side in px."""
        return self.preprocess.size

    def __len__(self) -> int:
        """Count of images."""
        return len(self.names)

    def read(self, row: int) -> np.ndarray:
        """One image, uint8, shape ``(size, size, 3)``.

        Raises:
            GeomkitError: If it does not decode.
        """
        place = self.places[self.place[row]]
        source: Path | bytes
        if place.kind == "folder":
            source = self._file(row)
        elif place.kind == "zip":
            source = _from_zip(place.path, self.names[row])
        else:
            source = _from_tar(place.path, *self._span(row))
        return decode(source, self.preprocess, draft=self.draft)

    def describe(self, row: int) -> str:
        """Its length in bytes, or that it is missing."""
        place = self.places[self.place[row]]
        try:
            if place.kind == "folder":
                return str(self._file(row).stat().st_size)
            if place.kind == "zip":
                return str(open_zip(place.path).getinfo(self.names[row]).file_size)
            return str(self._span(row)[1])
        except (OSError, KeyError):
            return "missing"

    def _file(self, row: int) -> Path:
        place = self.places[self.place[row]]
        found = Path(place.path, self.names[row])
        if place.instead is not None and not found.exists():
            other = Path(place.instead, self.names[row])
            return other if other.exists() else found
        return found

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

    def __len__(self) -> int:
        """Count of images."""
        return len(self.array)

    def read(self, row: int) -> np.ndarray:
        """One image, uint8, shape ``(size, size, 3)``."""
        return prepare(Image.fromarray(self.array[row]), self.preprocess)

    def describe(self, row: int) -> str:
        """A checksum of its pixels."""
        return hashlib.sha256(self.array[row].tobytes()).hexdigest()


class _ByPosition(io.FileIO):
    """A file with a position of its own in each process.

    Forked processes share the position the system keeps of an open file, so it is not used.
    """

    _at = 0

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._length()}
        self._at = start[whence] + offset
        return self._at

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            size = self._length() - self._at
        content = os.pread(self.fileno(), size, self._at)
        self._at += len(content)
        return content

    def __del__(self) -> None:  # ZipFile leaves a file that it was given open
        self.close()

    def _length(self) -> int:
        return os.fstat(self.fileno()).st_size


def open_zip(path: str | Path) -> zipfile.ZipFile:
    """A zip file for reading, opened once per process.

    Raises:
        GeomkitError: If the file is missing, or no whole zip file.
    """
    try:
        stat = Path(path).stat()
        return _open_zip(str(path), stat.st_size, stat.st_mtime_ns)
    except zipfile.BadZipFile:
        raise GeomkitError(f"{path}: no zip file, or cut short; fetch it again") from None
    except OSError as error:
        raise GeomkitError(f"{path}: {error.strerror or error}") from None


@cache
def _open_zip(path: str, length: int, changed: int) -> zipfile.ZipFile:
    # Without pread (Windows) there is no fork either.
    return zipfile.ZipFile(_ByPosition(path) if hasattr(os, "pread") else path)


def _from_zip(path: str, name: str) -> bytes:
    archive = open_zip(path)
    try:
        return archive.read(name)
    except KeyError:
        raise GeomkitError(f"is not in {Path(path).name}") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:
        raise GeomkitError(f"is damaged in {Path(path).name} ({error})") from None


def _from_tar(path: str, start: int, length: int) -> bytes:
    try:
        with Path(path).open("rb") as file:
            file.seek(start)
            content = file.read(length)
    except OSError as error:
        raise GeomkitError(f"cannot be read ({path}: {error.strerror or error})") from None
    if len(content) != length:
        raise GeomkitError(f"is cut short in {Path(path).name}")
    return content
