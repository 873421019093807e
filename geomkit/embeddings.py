"""Embeddings: unit rows by modality, and the files they come from.

The one place where rows are checked and normalised; everything downstream may rely on it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from geomkit._array import Array, is_torch, namespace, to_numpy, upcast
from geomkit.errors import GeomkitError

__all__ = ["Embeddings", "normalize", "read_embeddings", "write_embeddings"]


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
            GeomkitError: for a wrong rank, fewer than two rows, unequal lengths or dimensions,
                integers, NaN or infinity, or rows of zeros (named by their indices).

        >>> e = Embeddings.of(np.eye(3) * 2, np.eye(3))
        >>> e.n, e.m, e.dim, e.meta["norms"]["image"]
        (3, 3, 3, [2.0, 2.0])
        """
        a, b = modalities
        x, norms_x = normalize(image, name=a)
        y, norms_y = normalize(text, name=b)
        if x.shape[1] != y.shape[1]:
            raise GeomkitError(
                f"{a} and {b}: expected rows of one dimension, got {x.shape[1]} and {y.shape[1]}"
            )
        index = _check_index(image_index, len(x), len(y), modalities)
        if ids and len(ids) != len(x):
            raise GeomkitError(f"ids: expected one an image ({len(x)}), got {len(ids)}")
        norms = {a: norms_x, b: norms_y}
        return cls(x, y, index, modalities, ids, {**(meta or {}), "norms": norms})

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
        """Dimension of the space."""
        return int(self.image.shape[1])

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
        if self.m == self.n and np.array_equal(self.image_index, np.arange(self.n)):
            return self.image, self.text
        return self.image, self.text[self.first_texts(caption_index)]


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


def normalize(rows: Array, *, name: str = "rows") -> tuple[Array, list[float]]:
    """Check rows and divide each by its norm.

    Rows of half precision are upcast to float32 first. A row that is already of unit norm up to
    rounding of its own dtype is divided all the same, so that equal rows stay equal.

    Args:
        rows: ``(n, d)`` floats, n ≥ 2.
        name: what to call them in an error.

    Returns:
        The unit rows, and the smallest and largest norm found.

    Raises:
        GeomkitError: see :meth:`Embeddings.of`.

    >>> unit, norms = normalize(np.array([[3.0, 4.0], [0.0, 1.0]]))
    >>> unit.tolist(), norms
    ([[0.6, 0.8], [0.0, 1.0]], [1.0, 5.0])
    """
    if not is_torch(rows):
        rows = np.asarray(rows)
    if rows.ndim != 2:
        raise GeomkitError(f"{name}: expected an (n, d) matrix, got shape {tuple(rows.shape)}")
    n, d = rows.shape
    if n < 2 or d < 1:
        raise GeomkitError(
            f"{name}: expected at least two rows of at least one number, got shape {(n, d)}"
        )
    if "float" not in str(rows.dtype):
        raise GeomkitError(f"{name}: expected floating-point rows, got {rows.dtype}")
    xp = namespace(upcast(rows[:1]))
    unit = upcast(rows)
    if "128" in str(unit.dtype):
        raise GeomkitError(f"{name}: expected real numbers of at most 64 bits, got {rows.dtype}")
    bad = ~xp.all(xp.isfinite(unit), axis=1)
    if bool(xp.any(bad)):
        raise GeomkitError(f"{name}: NaN or infinity in {_rows(bad)}; drop or mend those rows")
    # The largest entry first: the square of a tiny or huge one would leave the range of the dtype.
    largest = xp.max(xp.abs(unit), axis=1, keepdims=True)
    if bool(xp.any(largest == 0)):
        raise GeomkitError(f"{name}: nothing but zeros in {_rows(largest[:, 0] == 0)}; drop them")
    scaled = unit / largest
    length = xp.sqrt(xp.sum(scaled * scaled, axis=1, keepdims=True))
    norms = length * largest
    return scaled / length, [float(xp.min(norms)), float(xp.max(norms))]


def _rows(mask: Array) -> str:
    indices = np.flatnonzero(to_numpy(mask))
    shown = ", ".join(map(str, indices[:5]))
    more = f" and {len(indices) - 5} more" if len(indices) > 5 else ""
    return f"row{'s' if len(indices) > 1 else ''} {shown}{more}"


def read_embeddings(path: str | Path) -> Embeddings:
    """Read ``.npz`` (arrays ``image``, ``text``, optional ``image_index``) or ``.npy`` (2, n, d).

    Raises:
        GeomkitError: if the file is missing, foreign, truncated or holds anything unfit.
    """
    path = Path(path)
    arrays = _load_numpy(path)
    if isinstance(arrays, np.ndarray):
        if arrays.ndim != 3 or arrays.shape[0] != 2:
            raise GeomkitError(
                f"{path}: expected an array of shape (2, n, d), images first and texts second, "
                f"got {arrays.shape}"
            )
        image, text, index = arrays[0], arrays[1], None
    else:
        missing = [key for key in ("image", "text") if key not in arrays]
        if missing:
            raise GeomkitError(
                f"{path}: expected arrays 'image' and 'text', "
                f"found {', '.join(sorted(arrays)) or 'none'}"
            )
        image, text, index = arrays["image"], arrays["text"], arrays.get("image_index")
    try:
        return Embeddings.of(image, text, index, meta={"path": str(path)})
    except GeomkitError as error:
        raise GeomkitError(f"{path}: {error}") from None


def _load_numpy(path: Path) -> np.ndarray | dict[str, np.ndarray]:
    try:
        with path.open("rb") as file:
            head = file.read(6)
            if head != b"\x93NUMPY" and head[:4] != b"PK\x03\x04":
                raise GeomkitError(f"{path}: not a .npz or .npy file of numpy's")
            file.seek(0)
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded
            return {key: loaded[key] for key in loaded.files}
    except GeomkitError:
        raise
    except OSError as error:
        raise GeomkitError(f"{path}: cannot be read ({error.strerror or error})") from None
    except Exception as error:  # numpy and zipfile raise what they like on a damaged file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise GeomkitError(f"{path}: damaged, or not plain arrays ({reason})") from None


def write_embeddings(path: str | Path, embeddings: Embeddings, *, overwrite: bool = False) -> None:
    """Write ``.npz`` with ``image``, ``text`` and ``image_index``, atomically.

    Raises:
        GeomkitError: if the file exists and ``overwrite`` is not given, or cannot be written.
    """
    from geomkit._io import atomic_write

    with atomic_write(Path(path), overwrite=overwrite) as file:
        np.savez(
            file,
            image=to_numpy(embeddings.image),
            text=to_numpy(embeddings.text),
            image_index=embeddings.image_index,
        )
