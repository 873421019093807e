"""One table with a row for each embedding, which embedding-atlas, pandas and others load."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from itertools import islice
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from geomkit._core.array import Array, to_numpy
from geomkit._core.choices import PROJECTIONS
from geomkit.data.pairs import in_utf8
from geomkit.embeddings.embeddings import Embeddings
from geomkit.engine.across import BLOCK, nearest_across
from geomkit.errors import GeomkitError, unknown_name
from geomkit.extraction.originals import UNKNOWN, Originals
from geomkit.plots.layout import UmapOptions, umap_points
from geomkit.plots.page import compressed, thumbnails
from geomkit.plots.planes import blocks, mean_row, scatter

if TYPE_CHECKING:
    import pyarrow

__all__ = ["FORMAT", "SCHEMA_VERSION", "export_parquet"]

FORMAT = "geomkit-table"
SCHEMA_VERSION = 1
_LAID_OUT = 20_000
"""Rows that UMAP lays out in about a minute."""


def export_parquet(
    embeddings: Embeddings,
    file: BinaryIO,
    *,
    originals: Originals = UNKNOWN,
    projection: str | None = None,
    neighbours: int = 10,
    vectors: bool = False,
    thumbnail: int = 96,
    seed: int = 0,
    about: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write a Parquet table with a row for each image, then one for each caption.

    Columns: ``row``, from 0; ``modality``; ``pair``, the row of an image's first caption or of a
    caption's image; ``id`` of the image, or its number; ``caption``, of an image the first;
    ``image``, for rows of images the structure of ``bytes`` (JPEG) and ``path``; ``neighbors``, the
    structure of ``ids`` and cosine ``distances`` of the nearest rows of the other modality, nearest
    first; ``x`` and ``y``, a projection of both modalities together; ``vector``. What is not known
    or not asked for has no column. Rows are written in groups: only UMAP needs all of them at once.

    Args:
        embeddings: Rows to write.
        file: File to write to.
        originals: Their images and captions, see
            :meth:`geomkit.extraction.originals.Originals.of`.
        projection: ``pca``, ``umap`` or ``none``; default: umap up to 20,000 rows, pca of more.
        neighbours: Number of nearest rows; 0 for none.
        vectors: Whether to write the unit rows too.
        thumbnail: Largest side of the images in px, up to 96; 0 for no images.
        seed: Random seed of UMAP.
        about: Further facts for the metadata.

    Returns:
        The metadata, which is in the table's schema as JSON under ``geomkit``.

    Raises:
        GeomkitError: For an unknown projection, modalities of different dimensions that are to be
            projected or compared, and images that do not decode.

    >>> import io, pyarrow.parquet
    >>> pairs = Embeddings.of(np.eye(3), np.eye(3)[::-1])
    >>> about = export_parquet(pairs, file := io.BytesIO(), neighbours=1, projection="pca")
    >>> pyarrow.parquet.read_table(file)["neighbors"][0].as_py()
    {'ids': [5], 'distances': [0.0]}
    """
    import pyarrow
    import pyarrow.parquet

    n, m, data = embeddings.n, embeddings.m, originals.data
    if projection is None:
        projection = "umap" if n + m <= _LAID_OUT else "pca"
    _check(embeddings, projection, neighbours, thumbnail)
    images = data is not None and thumbnail > 0
    meta = {
        "format": FORMAT, "schema_version": SCHEMA_VERSION, "images": n, "captions": m,
        "modalities": embeddings.modalities, "projection": projection, "seed": seed,
        "neighbours": neighbours, "thumbnail": thumbnail if images else 0, **(about or {}),
        "attribution": data.attribution if data is not None else "",
        "versions": {name: version(name) for name in ("geomkit", "numpy", "pyarrow")},
    }  # fmt: skip
    types = {
        "row": pyarrow.int64(),
        "modality": pyarrow.string(),
        "pair": pyarrow.int64(),
        "id": pyarrow.string(),
        "caption": pyarrow.string() if originals.captions else None,
        "image": _struct(bytes=pyarrow.binary(), path=pyarrow.string()) if images else None,
        "neighbors": _struct(
            ids=pyarrow.list_(pyarrow.int64()), distances=pyarrow.list_(pyarrow.float64())
        )
        if neighbours
        else None,
        "x": pyarrow.float32() if projection != "none" else None,
        "y": pyarrow.float32() if projection != "none" else None,
        "vector": pyarrow.list_(pyarrow.float32()) if vectors else None,
    }
    schema = pyarrow.schema(
        {name: kind for name, kind in types.items() if kind is not None},
        metadata={"geomkit": json.dumps(meta, ensure_ascii=False)},
    )
    with pyarrow.parquet.ParquetWriter(file, schema) as writer:
        for group in _groups(
            embeddings, originals, projection, neighbours, vectors, thumbnail, seed
        ):
            writer.write_table(pyarrow.table({c: group[c] for c in schema.names}, schema=schema))
    return meta


def _groups(
    embeddings: Embeddings,
    originals: Originals,
    projection: str,
    neighbours: int,
    vectors: bool,
    thumbnail: int,
    seed: int,
) -> Iterator[dict[str, Any]]:
    """Values of every column, for some rows at a time."""
    n, owner = embeddings.n, np.asarray(embeddings.image_index)
    sides: tuple[Array, Array] = (embeddings.image, embeddings.text)
    texts = [in_utf8(text) for text in originals.captions]
    captions = [texts[k] for k in embeddings.first_texts()] if texts else [], texts
    points = _projected(sides, projection, seed)
    partner = (n + embeddings.first_texts(), owner)
    shown = originals.data if thumbnail else None
    pixels = iter(()) if shown is None else thumbnails(shown)
    for side, (rows, others) in enumerate((sides, sides[::-1])):
        near = nearest_across(rows, others, neighbours) if neighbours else None
        start = n * side
        for begin in range(0, len(rows), BLOCK):
            block = slice(begin, min(begin + BLOCK, len(rows)))
            count = block.stop - begin
            own = range(begin, block.stop) if side == 0 else owner[block]
            group: dict[str, Any] = {
                "row": np.arange(start + begin, start + block.stop),
                "modality": [embeddings.modalities[side]] * count,
                "pair": partner[side][block],
                "id": [in_utf8(embeddings.ids[k]) if embeddings.ids else str(k) for k in own],
                "caption": captions[side][block],
                "image": [
                    {"bytes": compressed(one, thumbnail, kind="JPEG")}
                    for one in islice(pixels, count if side == 0 else 0)
                ]
                or [None] * count,
            }
            if near is not None:
                number, cosine = next(near)
                ids, distances = number + n * (1 - side), np.maximum(1 - cosine, 0)
                group["neighbors"] = _struct_of(ids=_lists(ids), distances=_lists(distances))
            if points is not None:
                group["x"], group["y"] = points[start + begin : start + block.stop].T
            if vectors:
                group["vector"] = _lists(to_numpy(rows[block]).astype(np.float32))
            yield group


def _check(embeddings: Embeddings, projection: str, neighbours: int, thumbnail: int) -> None:
    if projection not in (*PROJECTIONS, "none"):
        raise unknown_name("projection", projection, (*PROJECTIONS, "none"))
    for name, value, most in (("neighbours", neighbours, 1000), ("thumbnail", thumbnail, 96)):
        if not 0 <= value <= most:
            raise GeomkitError(f"{name}: expected 0 to {most}, got {value}")
    if not embeddings.equal_dims and (projection != "none" or neighbours):
        raise GeomkitError(
            "the two modalities have different dimensions: there is no projection of both, and no "
            "neighbours across; ask for none of them (--projection none --neighbours 0)"
        )


def _projected(sides: tuple[Array, Array], projection: str, seed: int) -> np.ndarray | None:
    """Coordinates of all rows of both sides, ``(n + m, 2)``."""
    if projection == "none":
        return None
    if projection == "umap":
        rows = np.concatenate([to_numpy(side[:]) for side in sides])
        return umap_points(rows, UmapOptions(seed=seed))
    mean = mean_row(sides)
    _, vectors = np.linalg.eigh(scatter(sides, mean))
    basis = vectors[:, ::-1][:, :2]
    # An arbitrary sign would flip the projection from one machine to the next.
    basis = basis * np.sign(basis[np.abs(basis).argmax(axis=0), np.arange(basis.shape[1])])
    points = np.concatenate([(block - mean) @ basis for block in blocks(sides)])
    return np.pad(points, [(0, 0), (0, 2 - points.shape[1])])


def _struct(**fields: Any) -> pyarrow.DataType:
    import pyarrow

    return pyarrow.struct(list(fields.items()))


def _struct_of(**columns: Any) -> pyarrow.Array:
    import pyarrow

    return pyarrow.StructArray.from_arrays(list(columns.values()), names=list(columns))


def _lists(matrix: np.ndarray) -> pyarrow.Array:
    """A list for each row of a matrix."""
    import pyarrow

    offsets = np.arange(0, matrix.size + 1, max(matrix.shape[1], 1), dtype=np.int32)
    return pyarrow.ListArray.from_arrays(offsets, matrix.ravel())
