"""Embeddings: unit rows of two modalities, checked and normalised in one place.

Everything downstream relies on it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any, cast
from zipfile import ZipFile

import numpy as np

from geomkit._core.array import Array, is_torch, like, namespace, to_numpy, upcast
from geomkit._core.files import atomic_write
from geomkit.embeddings.formats import read
from geomkit.embeddings.ownership import check_ids, check_index
from geomkit.embeddings.reading import Loaded, naming
from geomkit.embeddings.rows import (
    Rows,
    TakenRows,
    check_matrix,
    fits_memory,
    normalize_block,
)
from geomkit.errors import GeomkitError

__all__ = [
    "Clouds",
    "Embeddings",
    "from_loaded",
    "normalize",
    "read_embeddings",
    "repeated_rows",
    "write_embeddings",
]


_COMPARED = 1 << 20
"""Rows up to which equal ones are looked for."""


@dataclass(frozen=True)
class Embeddings:
    """Unit rows of two modalities, and which image each text belongs to.

    Build it with :meth:`of`, which checks and normalises; the constructor trusts its arguments.

    Attributes:
        image: ``(n, d)`` unit rows.
        text: ``(m, d)`` unit rows.
        image_index: ``(m,)`` integers; text j belongs to image ``image_index[j]``.
        modalities: Names of the two, for tables and JSON.
        ids: One name per image, or empty.
        meta: Where the rows came from, the range of their norms, and the like.

    Example:
        >>> e = Embeddings.of(np.eye(2), np.eye(2)[[0, 0, 1]], [0, 0, 1])
        >>> e.n, e.m, e.first_texts().tolist()
        (2, 3, [0, 2])
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
        image: Array | Rows,
        text: Array | Rows,
        image_index: Array | None = None,
        *,
        modalities: tuple[str, str] = ("image", "text"),
        ids: tuple[str, ...] = (),
        meta: dict[str, Any] | None = None,
    ) -> Embeddings:
        """Embeddings of raw encoder outputs, checked and normalised.

        Args:
            image: ``(n, d)`` floats (or quantised int8), n ≥ 2: an array, a tensor or
                :class:`geomkit.embeddings.rows.Rows`.
            text: ``(m, d)`` floats; without ``image_index``, m must equal n.
            image_index: For each text, the index of its image; every image needs at least one
                text.
            modalities: Names of the two.
            ids: One name per image.
            meta: Facts to keep; ``norms`` is added, the range of row norms found.

        Raises:
            GeomkitError: For a wrong rank, fewer than two rows, unequal lengths, integers, NaN or
                infinity, rows of zeros (named by their indices), or ids that repeat.

        Example:
            >>> e = Embeddings.of(np.eye(3) * 2, np.eye(3))
            >>> e.n, e.m, e.dim, e.meta["norms"]["image"]
            (3, 3, 3, [2.0, 2.0])
        """
        a, b = modalities
        (x, x_norms), (y, y_norms) = normalize(image, name=a), normalize(text, name=b)
        if is_torch(x) or is_torch(y):  # numpy widens by itself
            if not (is_torch(x) and is_torch(y) and x.device == y.device):
                raise GeomkitError(f"{a} and {b}: expected both on one device")
            if "64" in f"{x.dtype} {y.dtype}":
                x, y = x.double(), y.double()
        n, m = int(x.shape[0]), int(y.shape[0])
        index = check_index(image_index, n, m, modalities)
        check_ids(ids, n)
        about: dict[str, Any] = {**(meta or {}), "norms": {a: x_norms, b: y_norms}}
        if quantized := {m: t for m, t in ((a, _integer(image)), (b, _integer(text))) if t}:
            about["quantized"] = quantized
        return cls(x, y, index, modalities, ids, about)

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
        """Dimension of the image rows."""
        return int(self.image.shape[1])

    @property
    def equal_dims(self) -> bool:
        """Whether both modalities have the same dimension, so that they can be compared."""
        return self.image.shape[1] == self.text.shape[1]

    @property
    def norms(self) -> dict[str, list[float]]:
        """Smallest and largest norm of the rows as stored, as far as they have been read."""
        found = dict(self.meta.get("norms", {}))
        for name, rows in zip(self.modalities, (self.image, self.text), strict=True):
            if isinstance(rows, Rows):
                found[name] = rows.norms
        return found

    @property
    def marks(self) -> dict[str, Any]:
        """Shapes and a hash of some rows, by name, which all ranks must have alike."""
        found: dict[str, Any] = {}
        for name, rows in zip(self.modalities, (self.image, self.text), strict=True):
            some = to_numpy(rows[:: max(1, len(rows) // 1000)])
            found[f"shape of {name}"] = tuple(rows.shape)
            found[f"set of {name} rows"] = hashlib.sha256(some.tobytes()).hexdigest()
        return found

    def first_texts(self, caption_index: int = 0) -> np.ndarray:
        """For each image, the row of its ``caption_index``-th text, counted from 0.

        Raises:
            GeomkitError: If an image has fewer texts.

        Example:
            >>> Embeddings.of(np.eye(2), np.eye(2)[[1, 0, 0]], [1, 0, 0]).first_texts().tolist()
            [1, 0]
        """
        order = np.argsort(self.image_index, kind="stable")
        counts = np.bincount(self.image_index, minlength=self.n)
        if not 0 <= caption_index < counts.min():
            short = int(np.argmin(counts))
            raise GeomkitError(
                f"caption index {caption_index}: image {short} has only {counts[short]} "
                f"{self.modalities[1]} row(s); use a smaller index"
            )
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        return order[starts + caption_index]

    def pairs(self, caption_index: int = 0) -> tuple[Array, Array]:
        """Images and one text each, row by row: ``(n, d)`` and ``(n, d)``.

        Raises:
            GeomkitError: As :meth:`first_texts`.
        """
        first = self.first_texts(caption_index)
        if self.m == self.n and np.array_equal(first, np.arange(self.n)):
            return self.image, self.text
        if isinstance(self.text, Rows):
            return self.image, cast(Array, self.text.take(first))
        return self.image, self.text[like(first, self.text)]

    def subset(self, images: np.ndarray) -> Embeddings:
        """Return some of the images with all of their texts.

        Args:
            images: Numbers of images, each once, in their new order.

        Example:
            >>> e = Embeddings.of(np.eye(3), np.eye(3)[[0, 2, 1, 2]], [0, 2, 1, 2])
            >>> part = e.subset(np.array([2, 0]))
            >>> part.n, part.m, part.image_index.tolist()
            (2, 3, [1, 0, 0])
        """
        place = np.full(self.n, -1)
        place[images] = np.arange(len(images))
        owner = place[self.image_index]
        texts = np.flatnonzero(owner >= 0)
        image, text = (
            cast(Array, rows.take(kept))
            if isinstance(rows, Rows | TakenRows)
            else rows[like(kept, rows)]
            for rows, kept in ((self.image, images), (self.text, texts))
        )
        ids = tuple(self.ids[i] for i in images) if self.ids else ()
        meta = {**self.meta, "norms": self.norms}
        return replace(self, image=image, text=text, image_index=owner[texts], ids=ids, meta=meta)


@dataclass(frozen=True)
class Clouds:
    """Unit rows of one modality, or of two whose rows do not belong together.

    Attributes:
        rows: Unit rows ``(n, d)`` by modality, one or two.
        meta: Where the rows came from, the range of their norms, and the like.

    Example:
        >>> Clouds.of({"image": np.eye(2)}).reason
        'there is one cloud, image, and no other to compare with'
    """

    rows: dict[str, Array]
    meta: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, rows: Mapping[str, Array | Rows], *, meta: dict[str, Any] | None = None) -> Clouds:
        """Clouds of raw encoder outputs, checked and normalised.

        Raises:
            GeomkitError: As :meth:`Embeddings.of`.
        """
        units = {name: normalize(matrix, name=name) for name, matrix in rows.items()}
        about: dict[str, Any] = {**(meta or {}), "norms": {n: u[1] for n, u in units.items()}}
        if quantized := {n: t for n, matrix in rows.items() if (t := _integer(matrix))}:
            about["quantized"] = quantized
        return cls({name: unit for name, (unit, _) in units.items()}, about)

    @classmethod
    def without_pairs(cls, part: Embeddings | Clouds) -> Clouds:
        """The two clouds of embeddings whose pairs are not used."""
        if isinstance(part, Clouds):
            return part
        return cls(dict(zip(part.modalities, (part.image, part.text), strict=True)), part.meta)

    @property
    def reason(self) -> str:
        """Why there are no pairs."""
        names = list(self.rows)
        if len(names) == 1:
            return f"there is one cloud, {names[0]}, and no other to compare with"
        sizes = " and ".join(f"{len(rows)} {name}" for name, rows in self.rows.items())
        return f"{sizes} rows are not paired; image_index says which belong together"


def _integer(rows: Array | Rows) -> str:
    """Name of the integer type of rows as they were given, or nothing."""
    types = {shard.dtype for shard in rows.shards} if isinstance(rows, Rows) else {str(rows.dtype)}
    return ", ".join(sorted(t.removeprefix("torch.") for t in types if "int" in t))


def normalize(rows: Array | Rows, *, name: str = "rows") -> tuple[Array, list[float]]:
    """Unit rows, and the smallest and largest norm the rows had.

    Rows of half precision are upcast to float32 first. A row that is already of unit norm up to
    rounding of its own dtype is divided all the same, so that equal rows stay equal.

    Args:
        rows: ``(n, d)`` floats, n ≥ 2; large :class:`geomkit.embeddings.rows.Rows` are returned as
            they are, and checked and normalised as they are read.
        name: Name of the matrix for an error.

    Raises:
        GeomkitError: As :meth:`Embeddings.of`.

    Example:
        >>> unit, norms = normalize(np.array([[3.0, 4.0], [0.0, 1.0]]))
        >>> unit.tolist(), norms
        ([[0.6, 0.8], [0.0, 1.0]], [1.0, 5.0])
    """
    if isinstance(rows, Rows):
        small = fits_memory(rows.shape[0] * rows.shape[1] * rows.dtype.itemsize)
        # Large rows stand in for an array: they are read, checked and normalised block by block.
        return rows.load() if small else cast(Array, rows), rows.norms
    if not is_torch(rows):
        matrix = np.asarray(rows)
        check_matrix(name, matrix.shape, [str(matrix.dtype)])
        block, norms = normalize_block(matrix, name=name)
        return block, [float(norms.min()), float(norms.max())]
    check_matrix(name, rows.shape, [str(rows.dtype).removeprefix("torch.")])
    unit = upcast(rows.detach().cpu() if rows.device.type == "mps" else rows.detach())
    xp = namespace(unit)
    # One check of all rows; an error then names the bad ones as for numpy arrays.
    largest = xp.max(xp.abs(unit), axis=1, keepdims=True)
    if not bool(xp.all(xp.isfinite(largest) & (largest > 0))):
        normalize_block(to_numpy(unit), name=name)
    scaled = unit / largest
    length = xp.sqrt(xp.sum(scaled * scaled, axis=1, keepdims=True))
    found = length * largest
    return scaled / length, [float(xp.min(found)), float(xp.max(found))]


def read_embeddings(path: str | Path, *, columns: Mapping[str, str] | None = None) -> Embeddings:
    """Embeddings of a file or folder in one of :mod:`geomkit.embeddings.formats`.

    Small matrices are loaded, large ones read a block at a time. Of a file with more than two
    modalities these are the first two.

    Args:
        path: Path of a file or folder; its content decides the format.
        columns: Name of the array of each modality, such as ``{"image": "a", "text": "b"}``, where
            the file names them otherwise.

    Raises:
        GeomkitError: If it is missing, of no known format, truncated, or holds anything that does
            not fit.

    Example:
        >>> import os, tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "e.npz")
        >>> write_embeddings(path, Embeddings.of(np.eye(3), np.eye(3)))
        >>> read_embeddings(path).n
        3
    """
    found = from_loaded(Path(path), read(Path(path), columns))[0]
    if isinstance(found, Clouds):
        raise GeomkitError(f"{path}: {found.reason}")
    return found


def from_loaded(path: Path | None, loaded: Loaded) -> list[Embeddings | Clouds]:
    """Embeddings of each pair of modalities that a file holds, or clouds if there are no pairs.

    Args:
        path: Path of the file, which errors name; ``None`` for what is no file.
        loaded: What it holds.

    Raises:
        GeomkitError: As :func:`read_embeddings`.
    """
    a, b = loaded.modalities
    about = dict(loaded.meta)
    if path is not None:
        about = {"path": str(path)} | about
    if loaded.notes:
        about["notes"] = list(loaded.notes)
    with nullcontext() if path is None else naming(path):
        shards = {a: loaded.image, b: loaded.text, **loaded.others}
        rows = {name: Rows(parts, name=name, path=path) for name, parts in shards.items() if parts}
        if not loaded.text or (loaded.image_index is None and len(rows[a]) != len(rows[b])):
            return [Clouds.of({name: rows[name] for name in (a, b) if name in rows}, meta=about)]
        found: list[Embeddings | Clouds] = []
        for pair in combinations(rows, 2):
            # An index says whose each text is: the others have one row an image.
            first, second = sorted(pair, key=lambda name: name == b)
            index = loaded.image_index if second == b else None
            names = (first, second)
            e = Embeddings.of(rows[first], rows[second], index, modalities=names, ids=loaded.ids)
            notes = repeated_rows(first, e.image)
            said = {"notes": [*loaded.notes, *notes]} if notes else {}
            found.append(replace(e, meta={**about, **said, **e.meta}))
    return found


def repeated_rows(name: str, rows: Array) -> list[str]:
    """Note on rows that equal another one; none if all differ, or there are too many to look at."""
    if not isinstance(rows, np.ndarray) or len(rows) > _COMPARED:
        return []
    count = len(rows) - len({hash(row.tobytes()) for row in rows})
    text = (
        f"{name}: {count:,} of {len(rows):,} rows repeat another, and count as {name}s of their own"
    )
    return [text] if count else []


def write_embeddings(path: str | Path, embeddings: Embeddings, *, overwrite: bool = False) -> None:
    """Write ``.npz`` with ``image``, ``text`` and ``image_index``, atomically.

    Args:
        path: Path of the file.
        embeddings: Unit rows to write; ids and meta are not stored.
        overwrite: Whether to replace an existing file.

    Raises:
        GeomkitError: If the file exists and ``overwrite`` is not given, or cannot be written.

    Example:
        >>> import os, tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "e.npz")
        >>> write_embeddings(path, Embeddings.of(np.eye(3), np.eye(3)))
        >>> sorted(np.load(path))
        ['format', 'image', 'image_index', 'schema_version', 'text']
    """
    arrays = {
        "format": np.array("geomkit-embeddings"),
        "schema_version": np.array(1),
        "image": to_numpy(embeddings.image[:]),
        "text": to_numpy(embeddings.text[:]),
        "image_index": embeddings.image_index,
    }
    # np.savez before numpy 2.2 leaves its archive open where the disk is full.
    with atomic_write(Path(path), overwrite=overwrite) as file, ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)
