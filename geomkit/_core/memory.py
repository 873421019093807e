"""Memory that is free, compared with what a file says it needs before anything is allocated."""

from __future__ import annotations

import os
from pathlib import Path

from geomkit.errors import GeomkitError

__all__ = ["available_memory", "check_memory"]


def available_memory() -> int | None:
    """Return the bytes available without swapping; ``None`` where the system does not say."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return None


def check_memory(needed: int, what: str) -> None:
    """Refuse what does not fit into the memory that is free.

    Args:
        needed: Number of bytes.
        what: File or part of it that says so, for the error.

    Raises:
        GeomkitError: If it does not fit.

    >>> check_memory(1, "a.npz: image")
    """
    available = available_memory()
    if available is not None and needed > available:
        raise GeomkitError(
            f"{what} takes {needed / 2**30:,.1f} GiB by its own account, "
            f"{available / 2**30:,.1f} GiB are free; check that it is not damaged"
        )
