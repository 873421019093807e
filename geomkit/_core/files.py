"""Files that are complete or absent, and where geomkit keeps its cache."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from geomkit.errors import GeomkitError, reason

__all__ = [
    "atomic_write", "cache_dir", "check_target", "clear_leftovers", "from_home", "is_torch_file",
    "refusing", "sole_writer",
]  # fmt: skip

_TORCH_SUFFIXES = (".pt", ".pth", ".ckpt", ".bin")
_LONG = 200
"""Bytes of a file name up to which the names of files beside it contain it; the limit is 255."""


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
        path: File to write; of a link, the file that it leads to.
        overwrite: Whether an existing file may be replaced.

    Raises:
        GeomkitError: If the target is a folder, a device or a pipe, exists without ``overwrite``,
            or its folder is missing or not writable.
    """
    with refusing(OSError, ValueError, says=f"{path}: cannot be written"):
        target = _target(path)
        found = None
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            found = target.lstat().st_mode
        folder = path.parent if target.name == path.name else target.parent
        there = folder.is_dir()
    if found is not None and stat.S_ISDIR(found):
        raise GeomkitError(f"{path}: is a folder; name a file")
    if found is not None and not stat.S_ISREG(found):
        raise GeomkitError(f"{path}: is a device, a pipe or a link without end; name a file")
    if found is not None and not overwrite:
        raise GeomkitError(f"{path}: exists already; give --overwrite or another name")
    if not there:
        raise GeomkitError(f"{folder}: no such folder; create it first, or name another path")
    if not os.access(folder, os.W_OK):
        raise GeomkitError(f"{folder}: not writable; name another path")


def _target(path: Path) -> Path:
    """The file that a path leads to: a link is followed, not replaced."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def _beside(path: Path) -> str:
    """How the names of files that belong to a file begin, within the limit of names."""
    name = path.name
    if len(encoded := os.fsencode(name)) > _LONG:
        name = hashlib.sha256(encoded).hexdigest()[:16]
    return f".{name}."


class _File(io.FileIO):
    """A file that keeps the first error of the system, which torch and numpy replace by their own.

    It shows no descriptor, through which numpy and Pillow would write past it.
    """

    failed: OSError | None = None

    def write(self, content: Any, /) -> int:
        try:
            return super().write(content)
        except OSError as error:
            self.failed = self.failed or error
            raise

    def fileno(self) -> int:
        raise io.UnsupportedOperation("fileno")


@contextlib.contextmanager
def atomic_write(path: Path, *, overwrite: bool = False) -> Iterator[BinaryIO]:
    """Yield a binary file that gets its name only when it is complete and on disk.

    It is written beside the target, synced, then renamed: after a crash, a kill or a full disk the
    target is as it was before. A file that is replaced keeps its permissions.

    Args:
        path: File to write.
        overwrite: Whether an existing file may be replaced.

    Raises:
        GeomkitError: As :func:`check_target`, or if writing fails (a full disk).
    """
    check_target(path, overwrite=overwrite)
    target = _target(path)
    unchanged = "; the target is unchanged"
    with refusing(OSError, says=f"{path}: cannot be written", advice=unchanged):
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=_beside(target), suffix=".tmp")
        temporary, raw = Path(name), _File(handle, "wb")
        try:
            with io.BufferedWriter(raw) as file:
                yield cast(BinaryIO, file)
                file.flush()
                os.fsync(handle)
            temporary.chmod(_mode(target))
            _rename(temporary, target, overwrite=overwrite)
        except Exception:
            if raw.failed is not None:
                raise raw.failed from None
            raise
        finally:
            temporary.unlink(missing_ok=True)
    # The rename must survive a power cut too; not every file system can sync a folder.
    with contextlib.suppress(OSError):
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _mode(target: Path) -> int:
    """Permissions for a file: those of the one that it replaces, or a new file's."""
    with contextlib.suppress(FileNotFoundError):
        return stat.S_IMODE(target.stat().st_mode)
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def _rename(temporary: Path, target: Path, *, overwrite: bool) -> None:
    """Give a complete file its name; without ``overwrite`` never that of another file."""
    if not overwrite:
        with contextlib.suppress(OSError):  # not every file system has hard links
            os.link(temporary, target)
            return
        check_target(target)  # another process may have written it in the meantime
    temporary.replace(target)


@contextlib.contextmanager
def sole_writer(path: Path) -> Iterator[None]:
    """Hold an output of this process, file or folder, against every other one of geomkit.

    What killed writers of the file left beside it is deleted: nobody else writes it now.

    Args:
        path: File or folder to write, in a folder that exists.

    Raises:
        GeomkitError: If another process holds it; the message names that process and its host.
    """
    import socket

    from filelock import FileLock, Timeout

    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        raise GeomkitError(f"{target.parent}: no such folder; make it first, or name another")
    note = target.parent / f"{_beside(target)}lock"
    try:
        holder = note.read_text("utf-8").strip()
    except (OSError, ValueError):
        holder = ""
    try:
        lock = FileLock(note, timeout=0)
        lock.acquire()
    except Timeout:
        raise GeomkitError(
            f"{path}: is being written by {holder or 'another process'}; wait until it ends, or "
            "name another --out"
        ) from None
    except OSError as error:
        # A folder of the user's own in one that is not: nothing can be put beside it.
        if not target.is_dir():
            raise GeomkitError(f"{note}: cannot be locked ({reason(error)})") from None
        yield
        return
    try:
        note.write_text(f"process {os.getpid()} on {socket.gethostname()}\n", "utf-8")
        clear_leftovers(target.parent, target)
        yield
    finally:
        # Deleted while it is held: whoever gets the lock of a deleted file tries again.
        note.unlink(missing_ok=True)
        lock.release()


def clear_leftovers(folder: Path, path: Path | None = None) -> None:
    """Delete what killed writers left in a folder that this process holds.

    Args:
        folder: Folder.
        path: File whose leftovers are deleted; default: those of every file, and their locks.
    """
    own = r"[a-z0-9_]{8}\.tmp"
    kind = re.escape(_beside(path)) + own if path else rf"\..+\.({own}|lock)"
    for file in folder.iterdir():
        if re.fullmatch(kind, file.name):
            file.unlink(missing_ok=True)


def cache_dir() -> Path:
    """Return the folder of prepared images: ``$GEOMKIT_CACHE``, else geomkit in the XDG cache.

    Raises:
        GeomkitError: If neither is set and there is no home folder.
    """
    explicit = os.environ.get("GEOMKIT_CACHE")
    if explicit:
        return Path(explicit)
    base = os.environ.get("XDG_CACHE_HOME")
    if base:
        return Path(base) / "geomkit"
    advice = "; set GEOMKIT_CACHE to a folder"
    with refusing(RuntimeError, says="no place for the cache of images", advice=advice):
        return Path.home() / ".cache" / "geomkit"


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
