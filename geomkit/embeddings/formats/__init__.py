"""The formats that embeddings are read from: one module each, found without being listed.

A module declares ``FORMAT = Format(name, matches, read)``; see
:class:`geomkit.embeddings.reading.Format`. It imports numpy at most; pyarrow and torch inside the
functions that need them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

from geomkit._core.discovery import registry
from geomkit.embeddings.contents import interpret
from geomkit.embeddings.reading import Contents, Format, Loaded, reading
from geomkit.errors import GeomkitError

__all__ = ["formats", "open_file", "read"]

_HEAD = 8


@cache
def formats() -> Mapping[str, Format]:
    """All formats by name.

    Example:
        >>> ".npz" in formats()
        True
    """
    return registry(__name__, Format)


def read(path: Path, columns: Mapping[str, str] | None = None) -> Loaded:
    """What a file or folder of embeddings holds; its content decides the format.

    Args:
        path: Path of the file or folder.
        columns: Name of the array of each modality, for a file that names its arrays otherwise.

    Raises:
        GeomkitError: If it is of no known format, truncated, or holds anything that does not fit.
    """
    with reading(path):
        found = open_file(path)
        if isinstance(found, Contents):
            loaded = interpret(found.arrays, columns)
            return replace(loaded, reading=found.reading, notes=found.notes + loaded.notes)
        if columns:
            raise GeomkitError("columns: its arrays have no names to choose from")
        return found


def open_file(path: Path) -> Loaded | Contents:
    """What a file or folder holds: both modalities, or all arrays by name.

    Raises:
        GeomkitError: As :func:`read`.
    """
    with reading(path):
        head = b""
        if not path.is_dir():
            with path.open("rb") as file:
                head = file.read(_HEAD)
        for known in formats().values():
            if known.matches(path, head):
                found = known.read(path)
                return found if isinstance(found, Loaded | Contents) else Contents(found)
        raise GeomkitError(f"not embeddings in a known format; expected {', '.join(formats())}")
