"""``.safetensors`` with arrays ``image`` and ``text``.

Read here and not by its own package, whose numpy reader has no bfloat16.
"""

from __future__ import annotations

import json
import math
import struct
from itertools import pairwise
from pathlib import Path

from geomkit.embeddings.contents import Arrays
from geomkit.embeddings.reading import Format
from geomkit.embeddings.rows import FileShard, Shard
from geomkit.errors import GeomkitError

__all__ = ["FORMAT"]

_TYPES = {
    "F16": ("float16", 2), "BF16": ("bfloat16", 2), "F32": ("float32", 4), "F64": ("float64", 8),
    "I64": ("int64", 8), "I32": ("int32", 4), "I16": ("int16", 2), "I8": ("int8", 1),
    "U8": ("uint8", 1),
}  # fmt: skip
_LONGEST_HEADER = 100_000_000


def _read(path: Path) -> Arrays:
    size = path.stat().st_size
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > min(size, _LONGEST_HEADER):
            raise GeomkitError("damaged: its header is longer than the file")
        header = json.loads(file.read(length))
    base = 8 + length
    arrays: dict[str, Shard] = {}
    spans: list[tuple[int, int]] = []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        kind, width = _TYPES.get(entry["dtype"], (entry["dtype"].lower(), None))
        shape = tuple(entry["shape"])
        start, stop = entry["data_offsets"]
        if base + stop > size:
            raise GeomkitError("damaged: it ends before its last row")
        if start < 0 or (width and stop - start != width * math.prod(shape)):
            raise GeomkitError(f"damaged: {name} does not fill its place in the file")
        spans.append((start, stop))
        arrays[name] = FileShard(path, base + start, kind, shape)
    if any(end > start for (_, end), (start, _) in pairwise(sorted(spans))):
        raise GeomkitError("damaged: its arrays overlap")
    return arrays


FORMAT = Format(
    ".safetensors", matches=lambda path, head: path.suffix == ".safetensors", read=_read
)
