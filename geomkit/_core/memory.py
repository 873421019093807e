"""What a file would take, looked at before it is read: its kind, and memory by its own account."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from geomkit._core.container import memory_limits
from geomkit.errors import GeomkitError

__all__ = [
    "available_memory",
    "check_file",
    "check_memory",
    "check_parquet",
    "device_memory",
    "is_bomb",
]

_MOST, _SMALL = 100, 2**26
"""Zeros are packed into a thousandth, numbers that mean something into a tenth at best."""


def available_memory() -> int | None:
    """Return the bytes available without swapping; ``None`` where the system does not say.

    A container may have fewer than the machine.
    """
    free = [_on_machine(), *memory_limits()]
    return min((count for count in free if count is not None), default=None)


def _on_machine() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return None


def device_memory(array: Any) -> int | None:
    """Return the bytes that are free on the accelerator of a tensor; ``None`` without one."""
    device = getattr(array, "device", None)
    if getattr(device, "type", "cpu") != "cuda":
        return None
    import torch

    return int(torch.cuda.mem_get_info(device)[0])


def is_bomb(needed: int, packed: int) -> bool:
    """Whether many bytes are packed into far fewer than any data are.

    >>> is_bomb(2**30, 2**20), is_bomb(2**30, 2**28), is_bomb(2**20, 1)
    (True, False, False)
    """
    return needed > max(_SMALL, _MOST * packed)


def check_memory(needed: int, what: str, *, packed: int | None = None) -> None:
    """Refuse what does not fit into the memory that is free, or is packed as no numbers can be.

    Args:
        needed: Number of bytes.
        what: File or part of it that says so, for the error.
        packed: Number of bytes that they are packed into; default: they are not packed.

    Raises:
        GeomkitError: If it does not fit.

    >>> check_memory(1, "a.npz: image")
    """
    if packed is not None and is_bomb(needed, packed):
        raise GeomkitError(
            f"{what} unpacks to {needed / 2**30:,.1f} GiB, {needed // max(packed, 1):,} times its "
            "size, as no embeddings, weights or captions do; refused"
        )
    available = available_memory()
    if available is not None and needed > available:
        raise GeomkitError(
            f"{what} takes {needed / 2**30:,.1f} GiB by its own account, "
            f"{available / 2**30:,.1f} GiB are free; check that it is not damaged"
        )


def check_file(path: Path) -> None:
    """Refuse what is no file or folder: reading a pipe or a device may never end.

    Raises:
        GeomkitError: If it is there and is neither.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise GeomkitError(f"{path}: is neither a file nor a folder, but a pipe or a device")


def check_parquet(path: Path, columns: Collection[str] | None = None) -> None:
    """Refuse a parquet file whose columns would not fit into memory, or are packed as no data are.

    Args:
        path: Path of the file.
        columns: Names of the columns that will be read; default: all.

    Raises:
        GeomkitError: If they do not fit.
    """
    import pyarrow.parquet

    about = pyarrow.parquet.read_metadata(path)
    groups = [about.row_group(k) for k in range(about.num_row_groups)]
    parts = [group.column(c) for group in groups for c in range(group.num_columns)]
    read = [p for p in parts if columns is None or p.path_in_schema.split(".")[0] in columns]
    # Equal values are stored once, and take their place when they are read.
    values = sum(part.num_values for part in read)
    needed = max(4 * values, sum(part.total_uncompressed_size for part in read))
    check_memory(needed, str(path), packed=path.stat().st_size)
