"""Rows: a matrix of unit rows over files and arrays of any size, normalised as it is read.

Nothing is loaded before it is needed: a block of rows is read, widened to float32, checked and
divided by its norms in one go. An error names the number of a row that is not finite or all zeros.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from geomkit.errors import GeomkitError

__all__ = [
    "NUMBERS", "ArrayShard", "FileShard", "Rows", "Shard", "TakenRows", "check_matrix",
    "fits_memory", "normalize_block",
]  # fmt: skip

_BFLOAT16 = "bfloat16"
NUMBERS = ("float16", _BFLOAT16, "float32", "float64", "int8", "uint8")
"""Number types that rows can have; of integers those that embeddings are quantised to."""
_DENSE = 8
_BLOCK = 8192
_IN_MEMORY = 1 << 29
"""Bytes up to which a matrix is kept in memory; a larger one is read as it is needed."""


def fits_memory(size: int) -> bool:
    """Whether a matrix of ``size`` bytes is small enough to be kept in memory."""
    return size <= _IN_MEMORY


@dataclass(frozen=True)
class ArrayShard:
    """An array in memory, or what has ``shape``, ``dtype`` and slices like one."""

    array: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return self.array.shape

    @property
    def dtype(self) -> str:
        """Name of the number type, whatever its byte order."""
        return self.array.dtype.name

    def read(self, start: int, stop: int) -> np.ndarray:
        """Rows ``start`` to ``stop``, as stored."""
        return self.array[start:stop]

    def part(self, number: int) -> ArrayShard:
        """One entry along the first axis."""
        return ArrayShard(self.array[number])

    def reshaped(self, *shape: int) -> ArrayShard:
        """The same numbers in another shape."""
        return ArrayShard(self.array.reshape(shape))


@dataclass(frozen=True)
class FileShard:
    """An array whose rows are contiguous in a file, read and not memory-mapped.

    Truncating a mapped file kills the process that reads it; a read that comes back short can be
    reported.

    Attributes:
        path: Path of the file.
        offset: Number of bytes before the first row.
        dtype: Name of the number type, such as ``float32`` or ``bfloat16``.
        shape: Shape of the array.
        swapped: Whether the byte order is not this machine's.
    """

    path: Path
    offset: int
    dtype: str
    shape: tuple[int, ...]
    swapped: bool = False

    def __post_init__(self) -> None:
        """Refuse a shape that is none."""
        if not all(type(side) is int and side >= 0 for side in self.shape):
            raise GeomkitError(f"damaged: shape {self.shape}")

    def _entry(self, number: int) -> tuple[np.dtype, int, int]:
        """Type as stored, count of numbers and place in the file of an entry of the first axis."""
        stored = np.dtype(np.uint16 if self.dtype == _BFLOAT16 else self.dtype)
        count = math.prod(self.shape[1:])
        return stored, count, self.offset + number * count * stored.itemsize

    def read(self, start: int, stop: int) -> np.ndarray:
        """Rows ``start`` to ``stop``, as stored; bfloat16 as float32.

        Raises:
            GeomkitError: If the file has become shorter.
        """
        stored, width, place = self._entry(start)
        count = (stop - start) * width
        # Opened for each block: threads need no lock then, and every system can do it.
        flat = np.fromfile(self.path, stored, count, offset=place)
        if len(flat) < count:
            raise GeomkitError(
                f"{self.path}: ends before row {stop - 1}; was it changed while being read?"
            )
        if self.swapped:
            flat.byteswap(inplace=True)
        if self.dtype == _BFLOAT16:
            flat = (flat.astype(np.uint32) << 16).view(np.float32)
        return flat.reshape(stop - start, *self.shape[1:])

    def part(self, number: int) -> FileShard:
        """One entry along the first axis."""
        return replace(self, offset=self._entry(number)[2], shape=self.shape[1:])

    def reshaped(self, *shape: int) -> FileShard:
        """The same numbers in another shape."""
        return replace(self, shape=shape)


Shard = ArrayShard | FileShard
"""An array that can be read a block of rows at a time."""


def check_matrix(name: str, shape: Sequence[int], dtypes: Iterable[str]) -> None:
    """Refuse what cannot be normalised row by row.

    Args:
        name: Name of the matrix for an error.
        shape: Its shape.
        dtypes: Names of the number types of its parts.

    Raises:
        GeomkitError: For a wrong rank, fewer than two rows, no columns, or numbers that are not
            floating-point.
    """
    if len(shape) != 2:
        raise GeomkitError(f"{name}: expected an (n, d) matrix, got shape {tuple(shape)}")
    if shape[0] < 2 or shape[1] < 1:
        raise GeomkitError(
            f"{name}: expected at least two rows of at least one number, got shape {tuple(shape)}"
        )
    for kind in dtypes:
        if kind not in NUMBERS:
            raise GeomkitError(f"{name}: expected floating-point rows, got {kind}")


def normalize_block(
    rows: np.ndarray, *, name: str, first: int | np.ndarray = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Unit rows, and the norms the rows had.

    Args:
        rows: ``(r, d)`` floats; half precision and quantised integers become float32.
        name: Name of the matrix for an error.
        first: Number of the first row, or the numbers of all rows.

    Raises:
        GeomkitError: For NaN, infinity or rows of zeros, by their numbers.
    """
    wide = rows.astype(np.float32) if rows.dtype.itemsize < 4 else rows
    # The largest entry first: the square of a tiny or huge one would leave the range of the dtype.
    largest = np.maximum(wide.max(axis=1), -wide.min(axis=1))
    finite = np.isfinite(largest)
    for bad, what in ((~finite, "NaN or infinity"), (largest == 0, "nothing but zeros")):
        if bad.any():
            numbers = (first + np.arange(len(rows)) if isinstance(first, int) else first)[bad]
            listed = ", ".join(map(str, numbers[:5]))
            more = f" and {len(numbers) - 5} more" if len(numbers) > 5 else ""
            raise GeomkitError(
                f"{name}: {what} in row{'s'[: len(numbers) > 1]} {listed}{more}; remove those rows"
            )
    scaled = wide / largest[:, None]
    length = np.sqrt(np.einsum("ij,ij->i", scaled, scaled))
    scaled /= length[:, None]
    return scaled, length * largest


class Rows:
    """Unit rows over one or more shards, a block or a selection of rows at a time.

    Slicing returns a numpy array of normalised rows; :meth:`take` returns another view.

    Args:
        shards: Matrices of one width, one below the other.
        name: Name of the matrix for an error.
        path: File or folder of the matrix, which an error about its rows names; default: none.
        then: Function of a block of unit rows that returns the rows to read instead.

    Raises:
        GeomkitError: For shards of different widths, or as :func:`check_matrix`.

    Example:
        >>> rows = Rows([ArrayShard(np.array([[3.0, 4.0], [0.0, 2.0]]))], name="image")
        >>> rows[0:2].tolist(), rows.norms
        ([[0.6, 0.8], [0.0, 1.0]], [2.0, 5.0])
    """

    ndim = 2

    def __init__(
        self,
        shards: Sequence[Shard],
        *,
        name: str,
        path: Path | None = None,
        then: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> None:
        """Check shapes and types; nothing is read."""
        self.path, self._then = path, then
        # Errors of large matrices arise as they are measured, where no one else knows the file.
        self.name = name
        self._where = name if path is None else f"{path}: {name}"
        self.shards = tuple(shards)
        widths = sorted({shard.shape[1] for shard in shards})
        if len(widths) != 1:
            found = ", ".join(map(str, widths))
            raise GeomkitError(f"{name}: shards of unequal dimension, {found}")
        types = {shard.dtype for shard in shards}
        self._starts = np.cumsum([0, *(shard.shape[0] for shard in shards)])
        self.shape = (int(self._starts[-1]), widths[0])
        check_matrix(name, self.shape, types)
        self.dtype = np.dtype(np.float64 if "float64" in types else np.float32)
        self._norms = [math.inf, 0.0]
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Number of rows."""
        return self.shape[0]

    @property
    def norms(self) -> list[float]:
        """Smallest and largest norm found so far."""
        return list(self._norms)

    def __getitem__(self, key: slice | np.ndarray) -> np.ndarray:
        """Unit rows of a slice without a step, or of an index."""
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
        last = int(np.searchsorted(self._starts, stop))
        spans = zip(self.shards[first:last], self._starts[first:last].tolist(), strict=True)
        parts = [
            shard.read(max(start - low, 0), min(stop - low, shard.shape[0])) for shard, low in spans
        ]
        if not parts:
            return np.empty((0, self.shape[1]), self.dtype)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _finish(self, raw: np.ndarray, first: int | np.ndarray) -> np.ndarray:
        if not len(raw):
            return raw.astype(self.dtype)
        unit, norms = normalize_block(raw, name=self._where, first=first)
        with self._lock:
            low, high = self._norms
            self._norms = [min(low, float(norms.min())), max(high, float(norms.max()))]
        unit = unit.astype(self.dtype, copy=False)
        return self._then(unit) if self._then else unit

    def mapped(self, function: Callable[[np.ndarray], np.ndarray]) -> Rows:
        """The rows after a function of blocks of unit rows, applied as they are read."""
        before = self._then
        then = (lambda rows: function(before(rows))) if before else function
        return Rows(self.shards, name=self.name, path=self.path, then=then)

    def take(self, index: np.ndarray) -> TakenRows:
        """The rows at an index, in its order, read only when needed."""
        return TakenRows(self, index)


class TakenRows:
    """A selection of :class:`Rows`."""

    ndim = 2

    def __init__(self, rows: Rows, index: np.ndarray) -> None:
        self._rows, self._index = rows, index
        self.shape = (len(index), rows.shape[1])
        self.dtype = rows.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> np.ndarray:
        return self._rows[self._index[key]]

    def take(self, index: np.ndarray) -> TakenRows:
        """The rows at an index of the selection."""
        return TakenRows(self._rows, self._index[index])

    def mapped(self, function: Callable[[np.ndarray], np.ndarray]) -> TakenRows:
        """The same selection of the rows after a function, see :meth:`Rows.mapped`."""
        return TakenRows(self._rows.mapped(function), self._index)
