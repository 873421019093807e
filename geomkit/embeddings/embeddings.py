"""Embeddings: unit rows by modality, and the files they come from.

The one place where rows are checked and normalised; everything downstream may rely on it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from geomkit._core.array import Array, is_torch, like, namespace, to_numpy, upcast
from geomkit.embeddings.folders import read_folder
from geomkit.embeddings.formats import Loaded, read_file
from geomkit.embeddings.rows import Rows, normalize_block
from geomkit.errors import GeomkitError

__all__ = ["Embeddings", "from_loaded", "normalize", "read_embeddings", "write_embeddings"]

_IN_MEMORY = 1 << 29
"""Bytes of a normalised matrix up to which it is kept; a larger one is read as it is needed."""


@dataclass(frozen=True)
class Embeddings:
    """Unit rows of two modalities, and which text belongs to which image.

    Build it with :meth:`of`, which checks and normalises; the constructor trusts its arguments.

    Attributes:
        image: ``(n, d)`` unit rows.
        text: ``(m, d)`` unit rows.
        image_index: ``(m,)`` integers; text j describes image ``image_index[j]``.
        modalities: the names of the two, for tables and JSON.
        ids: one name an image, or empty.
        meta: where the rows came from, the range of norms they had, and the like.
    """

    image: Array
    text: Array
    image_index: np.ndarray
    modalities: tuple[str, str] = ("image", "text")
    ids: tuple[str, ...] = ()
    meta: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        image: Array,
        text: Array,
        image_index: Array | None = None,
        *,
        modalities: tuple[str, str] = ("image", "text"),
        ids: tuple[str, ...] = (),
        meta: dict[str, Any] | None = None,
    ) -> Embeddings:
        """Check and normalise raw encoder outputs.

        Args:
            image: ``(n, d)`` floats, n ≥ 2.
            text: ``(m, d)`` floats; without ``image_index``, m must equal n.
            image_index: whose each text is; every image needs at least one.
            modalities: names for the two.
            ids: one name an image.
            meta: carried along; ``norms`` is added: the range of row norms found.

        Raises:
            GeomkitError: for a wrong rank, fewer than two rows, unequal lengths, integers, NaN or
                infinity, rows of zeros (named by their indices), or ids that repeat.

        >>> e = Embeddings.of(np.eye(3) * 2, np.eye(3))
        >>> e.n, e.m, e.dim, e.meta["norms"]["image"]
        (3, 3, 3, [2.0, 2.0])
        """
        a, b = modalities
        x, y = normalize(image, name=a), normalize(text, name=b)
        x, y = (_alike(x[0], y[0], modalities), x[1]), (_alike(y[0], x[0], modalities), y[1])
        n, m = int(x[0].shape[0]), int(y[0].shape[0])
        index = _check_index(image_index, n, m, modalities)
        _check_ids(ids, n)
        norms = {a: x[1], b: y[1]}
        return cls(x[0], y[0], index, modalities, ids, {**(meta or {}), "norms": norms})

    @property
    def n(self) -> int:
        """Number of images."""
        return int(self.image.shape[0])

    @property
    def m(self) -> int:
        """Number of texts."""
        return int(self.text.shape[0])

    @property
    def dim(self) -> int:
        """Dimension of the images' space."""
        return int(self.image.shape[1])

    @property
    def equal_dims(self) -> bool:
        """Whether both modalities have one dimension, so that they can be compared."""
        return self.image.shape[1] == self.text.shape[1]

    @property
    def norms(self) -> dict[str, list[float]]:
        """Range of the norms the rows had, as far as they have been read."""
        found = dict(self.meta["norms"])
        for name, rows in zip(self.modalities, (self.image, self.text), strict=True):
            if isinstance(rows, Rows):
                found[name] = rows.norms
        return found

    def first_texts(self, caption_index: int = 0) -> np.ndarray:
        """For each image, the row of its ``caption_index``-th text.

        Raises:
            GeomkitError: if an image has fewer texts.

        >>> Embeddings.of(np.eye(2), np.eye(2)[[1, 0, 0]], [1, 0, 0]).first_texts().tolist()
        [1, 0]
        """
        order = np.argsort(self.image_index, kind="stable")
        counts = np.bincount(self.image_index, minlength=self.n)
        if not 0 <= caption_index < counts.min():
            short = int(np.argmin(counts))
            raise GeomkitError(
                f"caption index {caption_index}: image {short} has only {counts[short]} "
                f"{self.modalities[1]} row(s); use a smaller one"
            )
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        return order[starts + caption_index]

    def pairs(self, caption_index: int = 0) -> tuple[Array, Array]:
        """Images and one text each, row by row: ``(n, d)`` and ``(n, d)``."""
        first = self.first_texts(caption_index)
        if self.m == self.n and np.array_equal(first, np.arange(self.n)):
            return self.image, self.text
        if isinstance(self.text, Rows):
            return self.image, self.text.take(first)
        return self.image, self.text[like(first, self.text)]


def _alike(rows: Array, other: Array, modalities: tuple[str, str]) -> Array:
    """Tensors in the wider precision of the two; numpy widens by itself.

    Raises:
        GeomkitError: if they are not on one device.
    """
    if not is_torch(rows) and not is_torch(other):
        return rows
    if not (is_torch(rows) and is_torch(other)) or rows.device != other.device:
        raise GeomkitError(f"{' and '.join(modalities)}: expected both on one device")
    return rows.double() if "64" in str(other.dtype) else rows


def _check_ids(ids: tuple[str, ...], n: int) -> None:
    if not ids:
        return
    if len(ids) != n:
        raise GeomkitError(f"ids: expected one an image ({n}), got {len(ids)}")
    if len(set(ids)) < n:
        first: dict[str, int] = {}
        for row, name in enumerate(ids):
            if name in first:
                raise GeomkitError(f"ids: '{name}' stands twice, at rows {first[name]} and {row}")
            first[name] = row


def _check_index(
    image_index: Array | None, n: int, m: int, modalities: tuple[str, str]
) -> np.ndarray:
    a, b = modalities
    if image_index is None:
        if n != m:
            raise GeomkitError(
                f"{a} and {b}: expected as many rows of each, got {n} and {m}; "
                f"give `image_index` if an image has several texts"
            )
        return np.arange(n)
    index = to_numpy(image_index)
    if index.shape != (m,) or not np.issubdtype(index.dtype, np.integer):
        raise GeomkitError(
            f"image_index: expected {m} integers, one a {b} row, "
            f"got shape {index.shape} of {index.dtype}"
        )
    if index.min() < 0 or index.max() >= n:
        raise GeomkitError(
            f"image_index: expected values in 0..{n - 1}, got {index.min()}..{index.max()}"
        )
    counts = np.bincount(index, minlength=n)
    if not counts.all():
        raise GeomkitError(f"image_index: image {int(np.argmin(counts))} has no {b} row")
    return index.astype(np.int64)


def normalize(rows: Array | Rows, *, name: str = "rows") -> tuple[Array | Rows, list[float]]:
    """Check rows and divide each by its norm.

    Rows of half precision are upcast to float32 first. A row that is already of unit norm up to
    rounding of its own dtype is divided all the same, so that equal rows stay equal.

    Args:
        rows: ``(n, d)`` floats, n ≥ 2; large
            :class:`geomkit.embeddings.rows.Rows` stay as they are, and are
            checked and normalised as they are read.
        name: what to call them in an error.

    Returns:
        The unit rows, and the smallest and largest norm found.

    Raises:
        GeomkitError: see :meth:`Embeddings.of`.

    >>> unit, norms = normalize(np.array([[3.0, 4.0], [0.0, 1.0]]))
    >>> unit.tolist(), norms
    ([[0.6, 0.8], [0.0, 1.0]], [1.0, 5.0])
    """
    if isinstance(rows, Rows):
        if rows.shape[0] * rows.shape[1] * rows.dtype.itemsize > _IN_MEMORY:
            return rows, rows.norms
        return rows.load(), rows.norms
    if not is_torch(rows):
        rows = np.asarray(rows)
    if rows.ndim != 2:
        raise GeomkitError(f"{name}: expected an (n, d) matrix, got shape {tuple(rows.shape)}")
    n, d = rows.shape
    if n < 2 or d < 1:
        raise GeomkitError(
            f"{name}: expected at least two rows of at least one number, got shape {(n, d)}"
        )
    kind = str(rows.dtype).removeprefix("torch.")
    if kind not in ("float16", "bfloat16", "float32", "float64"):
        raise GeomkitError(f"{name}: expected floating-point rows, got {kind}")
    if not is_torch(rows):
        unit, norms = normalize_block(rows, name=name)
        return unit, [float(norms.min()), float(norms.max())]
    unit = upcast(rows)
    xp = namespace(unit)
    # One look decides; a row that is unfit is then named as numpy's rows are.
    largest = xp.max(xp.abs(unit), axis=1, keepdims=True)
    if not bool(xp.all(xp.isfinite(largest) & (largest > 0))):
        normalize_block(to_numpy(unit), name=name)
    scaled = unit / largest
    length = xp.sqrt(xp.sum(scaled * scaled, axis=1, keepdims=True))
    found = length * largest
    return scaled / length, [float(xp.min(found)), float(xp.max(found))]


def read_embeddings(path: str | Path) -> Embeddings:
    """Read a file or a clip-retrieval folder of embeddings; see :mod:`geomkit.embeddings.formats`.

    Small matrices are loaded, large ones read a block at a time.

    Raises:
        GeomkitError: if the file is missing, foreign, truncated or holds anything unfit.
    """
    path = Path(path)
    loaded = read_folder(path) if path.is_dir() else read_file(path)
    return from_loaded(path, loaded)


def from_loaded(path: Path, loaded: Loaded, **kwargs: Any) -> Embeddings:
    """Embeddings of what a file holds, errors naming the file."""
    try:
        return Embeddings.of(
            Rows(loaded.image, name="image"),
            Rows(loaded.text, name="text"),
            loaded.image_index,
            ids=loaded.ids,
            meta={"path": str(path), **kwargs},
        )
    except GeomkitError as error:
        text = str(error)
        raise GeomkitError(text if text.startswith(str(path)) else f"{path}: {text}") from None


def write_embeddings(path: str | Path, embeddings: Embeddings, *, overwrite: bool = False) -> None:
    """Write ``.npz`` with ``image``, ``text`` and ``image_index``, atomically.

    Raises:
        GeomkitError: if the file exists and ``overwrite`` is not given, or cannot be written.
    """
    from geomkit._core.files import atomic_write

    with atomic_write(Path(path), overwrite=overwrite) as file:
        np.savez(
            file,
            format=np.array("geomkit-embeddings"),
            schema_version=np.array(1),
            image=to_numpy(embeddings.image[:]),
            text=to_numpy(embeddings.text[:]),
            image_index=embeddings.image_index,
        )
