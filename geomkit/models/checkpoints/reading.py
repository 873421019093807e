"""One sentence for whatever goes wrong in a file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from geomkit._core.memory import check_file
from geomkit.errors import GeomkitError, reason

__all__ = ["reading"]


@contextlib.contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Turn what a reader raises on a damaged file into an error that names the file.

    Args:
        path: The file.
        what: What is wrong with it if the system could read it.
    """
    check_file(path)
    try:
        yield
    except GeomkitError:
        raise
    except OSError as error:
        raise GeomkitError(f"{path}: cannot be read ({reason(error)})") from None
    except Exception as error:  # readers and what they call raise anything
        raise GeomkitError(f"{path}: {what} ({reason(error)})") from None
