"""What a file would take, looked at before it is read: its kind, and memory by its own account."""

from __future__ import annotations

import os
from pathlib import Path

from geomkit.errors import GeomkitError

__all__ = ["available_memory", "check_file", "check_memory", "is_bomb"]

_MOST, _SMALL = 100, 2**26
"""Zeros are packed into a thousandth, numbers that mean something into a tenth at best."""


def available_memory() -> int | None:
    """Return the bytes available without swapping; ``None`` where the system does not say."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return None


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
            "size, which no embeddings or weights do; refused"
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
