"""Rows: a matrix of unit rows over files and arrays of any size, normalised as it is read.

Nothing is loaded before it is asked for, and never more than was asked for: a block of rows is
read, widened to float32, checked and divided by its norms in one go. A row that is not finite or
that holds nothing but zeros is named by its number the moment it is met.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from geomkit.errors import GeomkitError

__all__ = ["ArrayShard", "FileShard", "Rows", "Shard", "normalize_block"]

_BFLOAT16 = "bfloat16"
_DENSE = 8
_BLOCK = 8192


class Shard(Protocol):
    """A matrix that can be read a block at a time."""

    @property
    def shape(self) -> tuple[int, int]: ...

    @property
    def dtype(self) -> str: ...

    def read(self, start: int, stop: int) -> np.ndarray: ...


@dataclass(frozen=True)
class ArrayShard:
    """Rows that are in memory already."""

    array: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and dimension."""
        return (int(self.array.shape[0]), int(self.array.shape[1]))

    @property
    def dtype(self) -> str:
        """Name of the number type."""
        return str(self.array.dtype)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Rows ``start`` to ``stop``, as stored."""
        return self.array[start:stop]


@dataclass(frozen=True)
class FileShard:
    """Rows that lie one after another in a file, read and not mapped.

    A mapped file that somebody truncates kills the process that looks at it; a read comes back
    short, and that can be said in a sentence.

    Attributes:
        path: the file.
        offset: bytes before the first row.
        dtype: ``float16``, ``bfloat16``, ``float32`` or ``float64``.
        shape: rows and dimension.
        swapped: whether the bytes are in the other order than this machine's.
    """

    path: Path
    offset: int
    dtype: str
    shape: tuple[int, int]
    swapped: bool = False

    def read(self, start: int, stop: int) -> np.ndarray:
        """Rows ``start`` to ``stop``, as stored; bfloat16 as float32.

        Raises:
            GeomkitError: if the file has become shorter.
        """
        stored = np.dtype(np.uint16 if self.dtype == _BFLOAT16 else self.dtype)
        width = self.shape[1]
        out = np.empty((stop - start, width), stored)
        # Opened for each block: threads need no lock then, and every system can do it.
        with self.path.open("rb", buffering=0) as file:
            file.seek(self.offset + start * width * stored.itemsize)
            view = memoryview(out.view(np.uint8).reshape(-1).data)
            while len(view):
                got = file.readinto(view)
                if not got:
                    raise GeomkitError(
                        f"{self.path}: ends before row {stop - 1}; was it changed while being read?"
                    )
                view = view[got:]
        if self.swapped:
            out.byteswap(inplace=True)
        return _widen_bfloat16(out) if self.dtype == _BFLOAT16 else out


def _widen_bfloat16(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def normalize_block(
    rows: np.ndarray, *, name: str, first: int | np.ndarray = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Unit rows and the norms they had.

    Args:
        rows: ``(r, d)`` floats; half precision becomes float32.
        name: of the matrix, for an error.
        first: number of the first row, or the numbers of all.

    Raises:
        GeomkitError: for NaN, infinity or rows of zeros, by their numbers.
    """
    wide = rows.astype(np.float32) if rows.dtype == np.float16 else rows
    # The largest entry first: the square of a tiny or huge one would leave the range of the dtype.
    largest = np.maximum(wide.max(axis=1), -wide.min(axis=1))
    good = np.isfinite(largest) & (largest > 0)
    if not good.all():
        numbers = first + np.arange(len(rows)) if isinstance(first, int) else first
        bad = ~np.isfinite(largest)
        if bad.any():
            raise GeomkitError(
                f"{name}: NaN or infinity in {_listed(numbers[bad])}; drop or mend those rows"
            )
        raise GeomkitError(
            f"{name}: nothing but zeros in {_listed(numbers[largest == 0])}; drop them"
        )
    scaled = wide / largest[:, None]
    length = np.sqrt(np.einsum("ij,ij->i", scaled, scaled))
    scaled /= length[:, None]
    return scaled, length * largest


def _listed(indices: np.ndarray) -> str:
    shown = ", ".join(map(str, indices[:5]))
    more = f" and {len(indices) - 5} more" if len(indices) > 5 else ""
    return f"row{'s' if len(indices) > 1 else ''} {shown}{more}"


class Rows:
    """Unit rows over one or more shards, a block or a choice of rows at a time.

    Slicing gives a numpy array of normalised rows; :meth:`take` another ``Rows``.

    Args:
        shards: one below the other.
        name: what to call the matrix in an error.

    Raises:
        GeomkitError: if there are fewer than two rows, no columns, shards of unequal dimension, or
            numbers that are not floating-point.

    >>> rows = Rows([ArrayShard(np.array([[3.0, 4.0], [0.0, 2.0]]))], name="image")
    >>> rows[0:2].tolist(), rows.norms
    ([[0.6, 0.8], [0.0, 1.0]], [2.0, 5.0])
    """

    ndim = 2

    def __init__(self, shards: Sequence[Shard], *, name: str) -> None:
        self.name = name
        self.shards = tuple(shards)
        widths = {shard.shape[1] for shard in shards}
        if len(widths) != 1:
            raise GeomkitError(
                f"{name}: shards of unequal dimension, {', '.join(map(str, sorted(widths)))}"
            )
        types = {shard.dtype for shard in shards}
        for kind in types:
            if kind not in ("float16", _BFLOAT16, "float32", "float64"):
                raise GeomkitError(f"{name}: expected floating-point rows, got {kind}")
        self.dtype = np.dtype(np.float64 if "float64" in types else np.float32)
        self._starts = np.cumsum([0, *(shard.shape[0] for shard in shards)])
        self.shape = (int(self._starts[-1]), widths.pop())
        if self.shape[0] < 2 or self.shape[1] < 1:
            raise GeomkitError(
                f"{name}: expected at least two rows of at least one number, got shape {self.shape}"
            )
        self._norms = [np.inf, 0.0]
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def norms(self) -> list[float]:
        """Smallest and largest norm met so far."""
        return [float(self._norms[0]), float(self._norms[1])]

    def __getitem__(self, key: slice | np.ndarray) -> np.ndarray:
        if isinstance(key, slice):
            start, stop, step = key.indices(len(self))
            if step != 1:
                raise IndexError("rows are read in order: a slice with a step is not supported")
            return self._finish(self._read(start, max(start, stop)), start)
        index = np.asarray(key)
        if not len(index):
            return np.empty((0, self.shape[1]), self.dtype)
        low, high = int(index.min()), int(index.max()) + 1
        if high - low <= _DENSE * len(index):  # one read, even if some of it is not needed
            return self._finish(self._read(low, high)[index - low], index)
        out = np.empty((len(index), self.shape[1]), self.dtype)
        for k in np.argsort(index, kind="stable"):
            out[k] = self._read(int(index[k]), int(index[k]) + 1)[0]
        return self._finish(out, index)

    def load(self) -> np.ndarray:
        """All rows, normalised a block at a time."""
        out = np.empty(self.shape, self.dtype)
        for start in range(0, len(self), _BLOCK):
            out[start : start + _BLOCK] = self[start : start + _BLOCK]
        return out

    def _read(self, start: int, stop: int) -> np.ndarray:
        first = int(np.searchsorted(self._starts, start, side="right")) - 1
        parts = []
        for k in range(first, len(self.shards)):
            low, high = int(self._starts[k]), int(self._starts[k + 1])
            if low >= stop:
                break
            parts.append(self.shards[k].read(max(start, low) - low, min(stop, high) - low))
        if not parts:
            return np.empty((0, self.shape[1]), self.dtype)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _finish(self, raw: np.ndarray, first: int | np.ndarray) -> np.ndarray:
        if not len(raw):
            return raw.astype(self.dtype)
        unit, norms = normalize_block(raw, name=self.name, first=first)
        with self._lock:
            low, high = self._norms
            self._norms = [min(low, norms.min()), max(high, norms.max())]
        return unit.astype(self.dtype, copy=False)

    def take(self, index: np.ndarray) -> TakenRows:
        """The rows of an index, in its order, read only when asked for."""
        return TakenRows(self, index)


class TakenRows:
    """A choice of rows of :class:`Rows`."""

    ndim = 2

    def __init__(self, rows: Rows, index: np.ndarray) -> None:
        self._rows, self._index = rows, index
        self.shape = (len(index), rows.shape[1])
        self.dtype = rows.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> np.ndarray:
        return self._rows[self._index[key]]
