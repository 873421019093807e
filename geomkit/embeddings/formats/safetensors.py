"""``.safetensors`` with arrays ``image`` and ``text``.

Read here and not by its own package, whose numpy reader has no bfloat16.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

from geomkit._core.schema import once
from geomkit.embeddings.contents import Deferred
from geomkit.embeddings.reading import Contents, Format
from geomkit.embeddings.rows import ArrayShard, FileShard, Shard
from geomkit.errors import GeomkitError

__all__ = ["FORMAT"]

_TYPES = {
    "F16": ("float16", 2), "BF16": ("bfloat16", 2), "F32": ("float32", 4), "F64": ("float64", 8),
    "I64": ("int64", 8), "I32": ("int32", 4), "I16": ("int16", 2), "I8": ("int8", 1),
    "U8": ("uint8", 1), "F8_E4M3": ("float8_e4m3fn", 1), "F8_E5M2": ("float8_e5m2", 1),
}  # fmt: skip
_LONGEST_HEADER = 100_000_000


def _read(path: Path) -> Contents:
    size = path.stat().st_size
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > min(size, _LONGEST_HEADER):
            raise GeomkitError("damaged: its header is longer than the file")
        header = json.loads(file.read(length), object_pairs_hook=once)
    base = 8 + length
    arrays: dict[str, Shard | Deferred] = {}
    spans: list[tuple[int, int]] = []
    notes: list[str] = []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        kind, width = _TYPES.get(entry["dtype"], (entry["dtype"].lower(), None))
        shape = tuple(entry["shape"])
        start, stop = entry["data_offsets"]
        if not (type(start) is type(stop) is int):
            raise GeomkitError(
                f"damaged: {name} is at {start} to {stop}, which are no whole numbers"
            )
        if base + stop > size:
            raise GeomkitError("damaged: it ends before its last row")
        if start < 0 or (width and stop - start != width * math.prod(shape)):
            raise GeomkitError(f"damaged: {name} does not fill its place in the file")
        spans.append((start, stop))
        shard = FileShard(path, base + start, kind, shape)
        if kind.startswith("float8"):
            arrays[name] = Deferred(shape, "float32", partial(_widened, shard))
            notes.append(f"{name}: {kind} numbers, read as float32")
        else:
            arrays[name] = shard
    if any(end > start for (_, end), (start, _) in pairwise(sorted(spans))):
        raise GeomkitError("damaged: its arrays overlap")
    return Contents(arrays, notes=tuple(notes))


def _widened(shard: FileShard) -> ArrayShard:
    """Numbers of eight bits, which numpy has no type for."""
    import torch

    stored = replace(shard, dtype="uint8").read(0, shard.shape[0])
    return ArrayShard(torch.from_numpy(stored).view(getattr(torch, shard.dtype)).float().numpy())


FORMAT = Format(
    ".safetensors", matches=lambda path, head: path.suffix == ".safetensors", read=_read
)
