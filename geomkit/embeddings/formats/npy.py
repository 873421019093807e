"""``.npy`` of shape (2, n, d): images first, texts second, row i of both being a pair."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import IO, BinaryIO

import numpy as np

from geomkit.embeddings.contents import Arrays
from geomkit.embeddings.reading import Format, natural_order, reading
from geomkit.embeddings.rows import ArrayShard, FileShard, Shard
from geomkit.errors import GeomkitError

__all__ = ["FORMAT", "array_in", "read_header", "read_matrix"]

_MAGIC = b"\x93NUMPY"
_OBJECTS = (
    "holds Python objects, such as a dictionary, which are not plain arrays and could run code; "
    "save a dictionary of arrays as np.savez('e.npz', **dictionary)"
)
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether columns are contiguous, and type of the array that starts here.

    Raises:
        GeomkitError: If the shape is none.
    """
    shape, fortran, dtype = _HEADERS[np.lib.format.read_magic(file)](file)
    if not all(type(side) is int and 0 <= side < 2**48 for side in shape):
        raise GeomkitError(f"damaged: its header says shape {shape}")
    return shape, fortran, dtype


def array_in(path: Path, file: BinaryIO, size: int) -> Shard:
    """The array whose ``size`` bytes, as in a .npy file, start at the file's position.

    Raises:
        GeomkitError: If it holds Python objects or is cut short.
    """
    base = file.tell()
    shape, fortran, dtype = read_header(file)
    if dtype.hasobject:
        raise GeomkitError(_OBJECTS)
    offset = file.tell()
    rest = size - (offset - base + dtype.itemsize * math.prod(shape))
    if rest < 0:
        raise GeomkitError("damaged: it ends before its last row")
    if rest > 0:  # of several calls of np.save with one open file
        raise GeomkitError(
            f"goes on for {rest:,} bytes after its array of shape {shape}, as with a second array; "
            "save several with np.savez('e.npz', image=x, text=y)"
        )
    if fortran and len(shape) > 1:  # its rows are not contiguous
        file.seek(base)
        return ArrayShard(np.lib.format.read_array(file, allow_pickle=False))
    return FileShard(path, offset, dtype.name, shape, swapped=not dtype.isnative)


def read_matrix(path: Path) -> Sequence[Shard]:
    """One matrix: a ``.npy`` of shape (n, d), or a folder of them in natural order.

    Raises:
        GeomkitError: If there is none, or one is truncated or of another shape.
    """
    if path.is_dir():
        files = natural_order(path.glob("*.npy"))
        if not files:
            raise GeomkitError(f"{path}: no .npy files in this folder")
        return [shard for file in files for shard in read_matrix(file)]
    with reading(path), path.open("rb") as file:
        if not file.peek().startswith(_MAGIC):
            raise GeomkitError("expected a .npy file of shape (n, d)")
        shard = array_in(path, file, path.stat().st_size)
        if len(shard.shape) != 2:
            raise GeomkitError(f"expected an array of shape (n, d), got {shard.shape}")
    return [shard]


def _read(path: Path) -> Arrays:
    with path.open("rb") as file:
        shard = array_in(path, file, path.stat().st_size)
    if len(shard.shape) == 2:
        return {"embedding": shard}
    if len(shard.shape) != 3 or shard.shape[0] != 2:
        raise GeomkitError(
            "expected an array of shape (2, n, d), images first and texts second, "
            f"got {shard.shape}"
        )
    return {"image": shard.part(0), "text": shard.part(1)}


FORMAT = Format(
    ".npy of shape (2, n, d)", matches=lambda path, head: head.startswith(_MAGIC), read=_read
)
