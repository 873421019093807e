"""``.npz`` with arrays ``image`` and ``text``, compressed or not."""

from __future__ import annotations

import io
import math
import struct
import zipfile
import zlib
from collections import Counter
from pathlib import Path

import numpy as np

from geomkit._core.files import is_torch_file
from geomkit._core.memory import check_memory
from geomkit.embeddings.contents import Arrays, Deferred, Foreign
from geomkit.embeddings.formats.npy import array_in, read_header
from geomkit.embeddings.reading import Format, reading
from geomkit.embeddings.rows import ArrayShard, Shard, fits_memory
from geomkit.errors import GeomkitError

__all__ = ["FORMAT"]

_MAGIC = b"PK\x03\x04"


def _read(path: Path) -> Arrays:
    with zipfile.ZipFile(path) as archive:
        members = [info for info in archive.infolist() if info.filename.endswith(".npy")]
        found = {info.filename.removesuffix(".npy"): _head(path, archive, info) for info in members}
    if len(found) < len(members):
        twice = Counter(info.filename for info in members).most_common(1)[0][0]
        raise GeomkitError(f"holds {twice} twice; write it again with one array of each name")
    return found


def _head(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Deferred | Foreign:
    with archive.open(info) as file:
        shape, _, dtype = read_header(file)
    if dtype.hasobject:
        return Foreign("Python objects", shape, "object")
    if dtype.itemsize * math.prod(shape) > info.file_size:
        raise GeomkitError(f"damaged: {info.filename} ends before its last row")
    return Deferred(shape, dtype.name, lambda: _open(path, info))


def _open(path: Path, info: zipfile.ZipInfo) -> Shard:
    with reading(path), zipfile.ZipFile(path) as archive:
        return _array(path, archive, info)


def _array(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Shard:
    if info.compress_type != zipfile.ZIP_STORED or fits_memory(info.file_size):
        what = f"{path}: {info.filename}"
        check_memory(2 * info.file_size, what, packed=2 * info.compress_size)
        content = io.BytesIO(archive.read(info))  # zipfile compares the checksum as it reads
        return ArrayShard(np.lib.format.read_array(content, allow_pickle=False))
    with path.open("rb") as file:
        # The local header's own lengths count: they may differ from the directory's.
        file.seek(info.header_offset + 26)
        base = info.header_offset + 30 + sum(struct.unpack("<HH", file.read(4)))
        file.seek(base)
        crc, left = 0, info.file_size
        while left and (piece := file.read(min(left, 1 << 22))):
            crc, left = zlib.crc32(piece, crc), left - len(piece)
        if crc != info.CRC:
            raise GeomkitError(f"damaged: Bad CRC-32 for file '{info.filename}'")
        file.seek(base)
        return array_in(path, file, info.file_size)


FORMAT = Format(
    ".npz",
    matches=lambda path, head: head.startswith(_MAGIC) and not is_torch_file(path),
    read=_read,
)
