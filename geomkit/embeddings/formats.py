"""Files of embeddings: what they hold, as shards that are read a block at a time.

Nothing here copies a matrix whole, save what a compressed or columnar file leaves no choice about.
"""

from __future__ import annotations

import io
import json
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from geomkit.embeddings.rows import ArrayShard, FileShard, Shard
from geomkit.errors import GeomkitError

__all__ = [
    "OWNERS",
    "Loaded",
    "guarded",
    "natural_order",
    "ownership",
    "parquet_table",
    "read_file",
    "read_matrix",
    "tensor_shard",
]

_NPY = b"\x93NUMPY"
_ZIP = b"PK\x03\x04"
_PARQUET = b"PAR1"
_SAFETENSORS_TYPES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}
_SAFETENSORS_INDEX = {"I64": "int64", "I32": "int32"}
_WIDTHS = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8, "int64": 8, "int32": 4}


OWNERS = ("image_index", "image_id", "text_image_id")
"""Arrays that say whose each text is."""


@dataclass(frozen=True)
class Loaded:
    """What a file holds.

    Attributes:
        image, text: shards of the two matrices.
        image_index: whose each text is, if the file says.
        ids: one name an image, or empty.
    """

    image: Sequence[Shard]
    text: Sequence[Shard]
    image_index: np.ndarray | None = None
    ids: tuple[str, ...] = ()


def read_file(path: Path) -> Loaded:
    """``.npz``, ``.npy`` of shape (2, n, d), ``.safetensors`` or ``.parquet``, told by content.

    Matrices are called ``image`` and ``text``. Whose each text is may be said by ``image_index``,
    or by ``image_id`` (one an image) and ``text_image_id`` (one a text), as COCO numbers them.

    Raises:
        GeomkitError: if the file is foreign, truncated or holds anything unfit.
    """
    head = _head(path)
    if head.startswith(_NPY):
        return _read_stacked(path)
    if head.startswith(_ZIP):
        return _named(path, guarded(path, _npz_members))
    if head.startswith(_PARQUET):
        return _read_parquet(path)
    if path.suffix == ".safetensors":
        return _named(path, guarded(path, _safetensors_members))
    raise GeomkitError(f"{path}: not a .npz, .npy, .safetensors or .parquet file of embeddings")


def read_matrix(path: Path) -> Sequence[Shard]:
    """One matrix: a ``.npy`` of shape (n, d), or a folder of them in natural order.

    Raises:
        GeomkitError: as :func:`read_file`.
    """
    if path.is_dir():
        files = natural_order(path.glob("*.npy"))
        if not files:
            raise GeomkitError(f"{path}: no .npy files in this folder")
        return [shard for file in files for shard in read_matrix(file)]
    if not _head(path).startswith(_NPY):
        raise GeomkitError(f"{path}: expected a .npy file of shape (n, d)")
    shape, shards = guarded(path, _npy_shards)
    if len(shape) != 2:
        raise GeomkitError(f"{path}: expected an array of shape (n, d), got {shape}")
    return shards


def natural_order(files: Any) -> list[Path]:
    """Paths by the numbers in their names: shard 10 after shard 9.

    >>> [p.name for p in natural_order([Path("a_10"), Path("a_9")])]
    ['a_9', 'a_10']
    """
    return sorted(
        files,
        key=lambda p: [int(t) if t.isdigit() else t for t in re.split(r"(\d+)", p.name)],
    )


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(8)
    except OSError as error:
        raise GeomkitError(f"{path}: cannot be read ({error.strerror or error})") from None


def guarded(path: Path, read: Any) -> Any:
    """Turn whatever a reader raises on a damaged file into one sentence."""
    try:
        return read(path)
    except GeomkitError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise GeomkitError(f"{path}: cannot be read ({reason})") from None
    except ImportError as error:
        raise GeomkitError(f"{path}: needs the package {error.name}; install it") from None
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise GeomkitError(f"{path}: damaged, or not plain arrays ({reason})") from None


def _npy_header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(file)
    raise ValueError(f"version {version} of the .npy format")


def _array_shards(
    path: Path, file: BinaryIO, base: int, size: int
) -> tuple[tuple[int, ...], list[Shard]]:
    """Shards of the .npy whose bytes start at ``base`` of a file and number ``size``."""
    file.seek(base)
    shape, fortran, dtype = _npy_header(file)
    if dtype.hasobject:
        raise GeomkitError(f"{path}: damaged, or not plain arrays (Python objects)")
    offset = file.tell()
    if offset - base + dtype.itemsize * math.prod(shape) > size:
        raise GeomkitError(f"{path}: damaged: it ends before its last row")
    if fortran and len(shape) > 1:
        file.seek(base)
        array = np.lib.format.read_array(file, allow_pickle=False)
        array = _native(array)
        return shape, [ArrayShard(a) for a in (array if len(shape) == 3 else [array])]
    name, swapped = dtype.newbyteorder("=").name, not dtype.isnative
    if len(shape) == 3:
        step = dtype.itemsize * shape[1] * shape[2]
        return shape, [
            FileShard(path, offset + k * step, name, (shape[1], shape[2]), swapped)
            for k in range(shape[0])
        ]
    rows = (shape[0], shape[1]) if len(shape) == 2 else (math.prod(shape), 1)
    return shape, [FileShard(path, offset, name, rows, swapped)]


def _native(array: np.ndarray) -> np.ndarray:
    """The same numbers in this machine's order of bytes."""
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _npy_shards(path: Path) -> tuple[tuple[int, ...], list[Shard]]:
    with path.open("rb") as file:
        return _array_shards(path, file, 0, path.stat().st_size)


def _read_stacked(path: Path) -> Loaded:
    shape, shards = guarded(path, _npy_shards)
    if len(shape) != 3 or shape[0] != 2:
        raise GeomkitError(
            f"{path}: expected an array of shape (2, n, d), images first and texts second, "
            f"got {shape}"
        )
    return Loaded(shards[:1], shards[1:])


def _check_crc(path: Path, file: BinaryIO, base: int, info: zipfile.ZipInfo) -> None:
    """One look at all the bytes, as numpy's own reader has: they are not unpacked by it here."""
    file.seek(base)
    crc, left = 0, info.file_size
    while left and (piece := file.read(min(left, 1 << 22))):
        crc, left = zlib.crc32(piece, crc), left - len(piece)
    if crc != info.CRC:
        raise GeomkitError(f"{path}: damaged: the checksum of '{info.filename}' is wrong")


Member = tuple[tuple[int, ...], Shard]


def _npz_members(path: Path) -> dict[str, Member]:
    members: dict[str, Member] = {}
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        for info in archive.infolist():
            name = info.filename.removesuffix(".npy")
            if name not in ("image", "text", *OWNERS):
                members[name] = ((), ArrayShard(np.empty((0, 0))))  # only its name is looked at
                continue
            if info.compress_type == zipfile.ZIP_STORED:
                # The local header's own lengths count: they may differ from the directory's.
                file.seek(info.header_offset + 26)
                lengths = struct.unpack("<HH", file.read(4))
                base = info.header_offset + 30 + sum(lengths)
                shape, shards = _array_shards(path, file, base, info.file_size)
                _check_crc(path, file, base, info)
            else:
                array = np.lib.format.read_array(io.BytesIO(archive.read(info)), allow_pickle=False)
                shape, shards = array.shape, [ArrayShard(np.atleast_2d(_native(array)))]
            members[name] = (tuple(shape), shards[0])
    return members


def _safetensors_members(path: Path) -> dict[str, Member]:
    # Read here and not by its own package, whose numpy reader knows no bfloat16.
    size = path.stat().st_size
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > min(size, 100_000_000):
            raise ValueError("its header is longer than the file")
        header = json.loads(file.read(length))
    members: dict[str, Member] = {}
    spans: list[tuple[int, int]] = []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        kind = {**_SAFETENSORS_TYPES, **_SAFETENSORS_INDEX}.get(entry["dtype"])
        if kind is None:
            kind = entry["dtype"].lower()
        shape = tuple(entry["shape"])
        start, stop = entry["data_offsets"]
        if 8 + length + stop > size:
            raise GeomkitError(f"{path}: damaged: it ends before its last row")
        width = _WIDTHS.get(kind)
        if start < 0 or (width and stop - start != width * math.prod(shape)):
            raise GeomkitError(f"{path}: damaged: {name} does not fill its place in the file")
        spans.append((start, stop))
        rows = (shape[0], shape[1]) if len(shape) == 2 else (math.prod(shape), 1)
        members[name] = (shape, FileShard(path, 8 + length + start, kind, rows))
    spans.sort()
    if any(end > start for (_, end), (start, _) in pairwise(spans)):
        raise GeomkitError(f"{path}: damaged: its arrays overlap")
    return members


def _named(path: Path, members: dict[str, Member]) -> Loaded:
    missing = [key for key in ("image", "text") if key not in members]
    if missing:
        found = ", ".join(sorted(members)[:8]) or "none"
        raise GeomkitError(f"{path}: expected arrays 'image' and 'text', found {found}")
    for key in ("image", "text"):
        shape = members[key][0]
        if len(shape) != 2:
            raise GeomkitError(f"{path}: {key}: expected an (n, d) matrix, got shape {shape}")
    image, text = members["image"][1], members["text"][1]
    index, ids = ownership(
        path, {key: _integers(path, key, *members[key]) for key in OWNERS if key in members}
    )
    return Loaded([image], [text], index, ids)


def ownership(
    path: Path, found: dict[str, np.ndarray]
) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Whose each text is, and the images' ids, from whichever of :data:`OWNERS` a file has.

    Raises:
        GeomkitError: if ids of texts come without those of images, or with an index besides.
    """
    index = found.get("image_index")
    ids = tuple(map(str, found["image_id"])) if "image_id" in found else ()
    if "text_image_id" in found:
        if not ids:
            raise GeomkitError(f"{path}: text_image_id: needs image_id beside it")
        if index is not None:
            raise GeomkitError(f"{path}: image_index and text_image_id: give one of them")
        index = _match(path, found["image_id"], found["text_image_id"])
    return index, ids


def _integers(path: Path, key: str, shape: tuple[int, ...], shard: Shard) -> np.ndarray:
    if len(shape) != 1 or not shard.dtype.startswith(("int", "uint")):
        raise GeomkitError(f"{path}: {key}: expected a row of integers, got {shape} {shard.dtype}")
    return shard.read(0, shard.shape[0]).ravel().astype(np.int64)


def _match(path: Path, images: np.ndarray, texts: np.ndarray) -> np.ndarray:
    order = np.argsort(images, kind="stable")
    place = np.searchsorted(images[order], texts)
    place = np.minimum(place, len(images) - 1)
    index = order[place]
    wrong = images[index] != texts
    if wrong.any():
        row = int(np.argmax(wrong))
        raise GeomkitError(f"{path}: text_image_id: row {row} names image {texts[row]}, unknown")
    return index


def parquet_table(path: Path) -> Any:
    """A parquet file as pyarrow reads it."""
    import pyarrow.parquet

    return pyarrow.parquet.read_table(path)


def _read_parquet(path: Path) -> Loaded:
    table = guarded(path, parquet_table)
    missing = [key for key in ("image", "text") if key not in table.column_names]
    if missing:
        raise GeomkitError(
            f"{path}: expected columns 'image' and 'text', found {', '.join(table.column_names)}"
        )
    extra = [key for key in OWNERS if key in table.column_names]
    if extra:
        raise GeomkitError(
            f"{path}: {extra[0]}: a row holds an image and its text; for several texts an image "
            "use .npz or .safetensors"
        )
    image, text = (_vectors(path, table, key) for key in ("image", "text"))
    ids: tuple[str, ...] = ()
    if "id" in table.column_names:
        ids = tuple(map(str, table.column("id").to_pylist()))
    return Loaded([ArrayShard(image)], [ArrayShard(text)], None, ids)


def _vectors(path: Path, table: Any, key: str) -> np.ndarray:
    column = table.column(key).combine_chunks()
    if column.null_count:
        raise GeomkitError(f"{path}: {key}: {column.null_count} empty cells")
    import pyarrow.types as kinds

    lists = (kinds.is_list, kinds.is_large_list, kinds.is_fixed_size_list)
    if not any(is_kind(column.type) for is_kind in lists):
        raise GeomkitError(f"{path}: {key}: expected vectors, got {column.type}")
    flat = column.flatten().to_numpy(zero_copy_only=False)
    rows = len(column)
    if rows == 0 or len(flat) % rows or len(set(np.unique(_lengths(column)))) != 1:
        raise GeomkitError(f"{path}: {key}: expected vectors of one length")
    return flat.reshape(rows, -1)


def _lengths(column: Any) -> np.ndarray:
    import pyarrow.compute

    return pyarrow.compute.list_value_length(column).to_numpy(zero_copy_only=False)


def tensor_shard(tensor: Any) -> ArrayShard:
    """A torch tensor's rows without a copy; bfloat16 is widened."""
    import torch

    if tensor.dtype == torch.bfloat16:
        tensor = tensor.float()
    return ArrayShard(tensor.detach().cpu().numpy())
