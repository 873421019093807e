"""Files that are complete or absent, and where geomkit keeps its cache."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from geomkit.errors import GeomkitError, reason

__all__ = ["atomic_write", "cache_dir", "check_target", "from_home", "is_torch_file", "refusing"]

_TORCH_SUFFIXES = (".pt", ".pth", ".ckpt", ".bin")


@contextlib.contextmanager
def refusing(*kinds: type[Exception], says: str, advice: str = "") -> Iterator[None]:
    """Raise errors of some kinds, such as damaged files cause, as GeomkitErrors of one line.

    Args:
        kinds: Kinds of errors; a GeomkitError is raised as it is.
        says: What is wrong, and where; the reason follows in brackets.
        advice: What to do.

    >>> with refusing(KeyError, says="a.json: not as expected", advice="; write it again"):
    ...     {}["name"]
    Traceback (most recent call last):
    geomkit.errors.GeomkitError: a.json: not as expected (no 'name'); write it again
    """
    try:
        yield
    except GeomkitError:
        raise
    except kinds as error:
        why = f"no {error}" if isinstance(error, KeyError) else reason(error)
        raise GeomkitError(f"{says} ({why}){advice}") from None


def check_target(path: Path, *, overwrite: bool = False) -> None:
    """Refuse, before any work is done, a target that could not be written at the end.

    Args:
        path: File to write.
        overwrite: Whether an existing file may be replaced.

    Raises:
        GeomkitError: If the target is a folder, exists without ``overwrite``, or its folder is
            missing or not writable.
    """
    if path.is_dir():
        raise GeomkitError(f"{path}: is a folder; name a file")
    if path.exists() and not overwrite:
        raise GeomkitError(f"{path}: exists already; give --overwrite or another name")
    folder = path.parent
    if not folder.is_dir():
        raise GeomkitError(f"{folder}: no such folder; create it first, or name another path")
    if not os.access(folder, os.W_OK):
        raise GeomkitError(f"{folder}: not writable; name another path")


@contextlib.contextmanager
def atomic_write(path: Path, *, overwrite: bool = False) -> Iterator[BinaryIO]:
    """Yield a binary file that gets its name only when it is complete and on disk.

    It is written beside the target, synced, then renamed: after a crash, a kill or a full disk the
    target is as it was before.

    Args:
        path: File to write.
        overwrite: Whether an existing file may be replaced.

    Raises:
        GeomkitError: As :func:`check_target`, or if writing fails (a full disk).
    """
    check_target(path, overwrite=overwrite)
    unchanged = "; the target is unchanged"
    with refusing(OSError, says=f"{path}: cannot be written", advice=unchanged):
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                yield cast(BinaryIO, file)
                file.flush()
                os.fsync(file.fileno())
            mask = os.umask(0)
            os.umask(mask)
            temporary.chmod(0o666 & ~mask)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    # The rename must survive a power cut too; not every file system can sync a folder.
    with contextlib.suppress(OSError):
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def cache_dir() -> Path:
    """Return the folder of prepared images: ``$GEOMKIT_CACHE``, else geomkit in the XDG cache."""
    explicit = os.environ.get("GEOMKIT_CACHE")
    if explicit:
        return Path(explicit)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "geomkit"


def from_home(source: str | Path) -> str:
    """Return a path or SOURCE with the home folder for ``~`` where a path begins with it.

    A shell expands ``~`` only at the start of a word: not in ``hf:~/model``.

    >>> from_home("hf:~/model") == f"hf:{os.path.expanduser('~')}/model"
    True
    >>> from_home("runs/a~b.pt")
    'runs/a~b.pt'
    """
    home = os.path.expanduser("~")  # noqa: PTH111 - no error without a home
    return re.sub(r"(?<![^:/])~(?=/|$)", lambda found: home, str(source))


def is_torch_file(path: Path) -> bool:
    """Whether torch wrote a file: a zip with a pickle in a folder. Does not import torch.

    Raises:
        GeomkitError: if it cannot be read.
    """
    with refusing(OSError, says=f"{path}: cannot be read"), path.open("rb") as file:
        head = file.read(6)
    if head == b"\x93NUMPY":
        return False
    if head[:4] != b"PK\x03\x04":
        return path.suffix in _TORCH_SUFFIXES
    import zipfile

    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/data.pkl") for name in archive.namelist())
    except Exception:  # zipfile raises many things on a damaged directory
        return path.suffix != ".npz"  # cut short: the reader of that suffix reports it
