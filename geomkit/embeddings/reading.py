"""What every format shares: its declaration, the value it returns, errors that name the file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from geomkit._core.memory import check_file
from geomkit.embeddings.rows import Shard
from geomkit.errors import GeomkitError

__all__ = ["Contents", "Format", "Loaded", "naming", "natural_order", "reading"]


@dataclass(frozen=True)
class Loaded:
    """What a file or folder holds, nothing of it normalised yet.

    Attributes:
        image: Shards of the image rows, one below the other.
        text: Shards of the text rows.
        image_index: For each text, the index of its image; ``None`` if the file does not say it.
        ids: One name per image, or empty.
        split: Split of the data set that the rows are of; ``None`` if the file does not say it.
        meta: What else the file says about the origin of the rows.
        modalities: Names of the two; the second is empty if there is one cloud alone.
        others: Shards of further modalities by name; row i belongs to image i.
        notes: What was assumed, and what is not used, a sentence each.
        reading: How the file was understood, such as the separator of a table.
    """

    image: Sequence[Shard]
    text: Sequence[Shard]
    image_index: np.ndarray | None = None
    ids: tuple[str, ...] = ()
    split: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    modalities: tuple[str, str] = ("image", "text")
    others: Mapping[str, Sequence[Shard]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    reading: str = ""


@dataclass(frozen=True)
class Contents:
    """Everything in a file by name, to be told by :func:`geomkit.embeddings.contents.interpret`.

    Attributes:
        arrays: Arrays by name.
        reading: How the file was understood.
        notes: What was assumed.
    """

    arrays: Mapping[str, Any]
    reading: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Format:
    """A format of embeddings: a module of :mod:`geomkit.embeddings.formats` declares it.

    Attributes:
        name: Name in help and errors, such as ``.npz``.
        matches: Whether a path is of this format, from the path and its first 8 bytes (none for a
            folder). The first format that matches reads it.
        read: From the path to what it holds: :class:`Loaded`, or :class:`Contents` or only its
            arrays by name; called in :func:`reading`.
    """

    name: str
    matches: Callable[[Path, bytes], bool]
    read: Callable[[Path], Loaded | Contents | Mapping[str, Any]]


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Errors raised here name the file."""
    try:
        yield
    except GeomkitError as error:
        text = str(error)
        raise GeomkitError(text if text.startswith(str(path)) else f"{path}: {text}") from None
    except MemoryError:
        raise GeomkitError(f"{path}: its arrays do not fit into memory") from None


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Whatever a reader raises here on a damaged file becomes one sentence that names the file."""
    check_file(path)
    with naming(path):
        try:
            yield
        except (GeomkitError, MemoryError):
            raise
        except OSError as error:
            raise GeomkitError(f"cannot be read ({error.strerror or error})") from None
        except ImportError as error:
            raise GeomkitError(f"needs the package {error.name}; install it") from None
        except Exception as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise GeomkitError(f"damaged, or not plain arrays ({reason})") from None


def natural_order(files: Iterable[Path]) -> list[Path]:
    """Paths by the numbers in their names: shard 10 after shard 9.

    Example:
        >>> [p.name for p in natural_order([Path("a_10"), Path("a_9")])]
        ['a_9', 'a_10']
    """
    return sorted(
        files,
        key=lambda p: [int(t) if t.isdecimal() else t for t in re.split(r"(\d+)", p.name)],
    )
