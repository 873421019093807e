"""Folders of embeddings in clip-retrieval's layout."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from geomkit.errors import GeomkitError
from geomkit.formats import Loaded, guarded, natural_order, parquet_table, read_matrix
from geomkit.rows import Shard

__all__ = ["read_folder"]


def read_folder(path: Path) -> Loaded:
    """clip-retrieval's layout: ``img_emb/img_emb_0.npy``, ``text_emb/…``, ``metadata/….parquet``.

    Shards go by their numbers. Without metadata, or with a row of it an image, text i belongs to
    image i of its shard; a column ``image_index`` says otherwise, with a row a text.

    Raises:
        GeomkitError: if a shard is missing or doubled, or lengths or counts disagree.
    """
    numbered = {
        kind: _numbered(path / kind, suffix)
        for kind, suffix in (("img_emb", ".npy"), ("text_emb", ".npy"), ("metadata", ".parquet"))
    }
    images, texts, metadata = (numbered[k] for k in ("img_emb", "text_emb", "metadata"))
    if not images or not texts:
        missing = "img_emb" if not images else "text_emb"
        raise GeomkitError(
            f"{path}: no {missing}/{missing}_*.npy; expected clip-retrieval's layout"
        )
    expected = set(range(min(images), max(images) + 1))
    for kind, found in numbered.items():
        if kind == "metadata" and not found:
            continue
        gone, extra = sorted(expected - set(found)), sorted(set(found) - expected)
        if gone or extra:
            what = f"shard {gone[0]} is missing" if gone else f"shard {extra[0]} has no images"
            raise GeomkitError(f"{path / kind}: {what}")
    image: list[Shard] = []
    text: list[Shard] = []
    index: list[np.ndarray] = []
    ids: list[str] = []
    offset = 0
    for number in sorted(images):
        a, b = read_matrix(images[number]), read_matrix(texts[number])
        rows_a, rows_b = (sum(s.shape[0] for s in shards) for shards in (a, b))
        owners = None
        if metadata:
            owners, names = _read_metadata(metadata[number], rows_a, rows_b)
            ids += names
        if owners is None:
            if rows_a != rows_b:
                raise GeomkitError(
                    f"{texts[number]}: {rows_b} rows, but {images[number].name} has {rows_a}"
                )
            owners = np.arange(rows_a) + offset
        index.append(owners)
        image += a
        text += b
        offset += rows_a
    return Loaded(image, text, np.concatenate(index), tuple(ids))


def _numbered(folder: Path, suffix: str) -> dict[int, Path]:
    found: dict[int, Path] = {}
    for file in natural_order(folder.glob(f"*{suffix}")):
        match = re.search(r"(\d+)$", file.stem)
        if match is None:
            raise GeomkitError(f"{file}: expected a shard number at the end of its name")
        number = int(match.group(1))
        if number in found:
            raise GeomkitError(f"{file}: shard {number} stands twice, see {found[number].name}")
        found[number] = file
    return found


def _read_metadata(path: Path, images: int, texts: int) -> tuple[np.ndarray | None, list[str]]:
    table = guarded(path, parquet_table)
    columns = set(table.column_names)
    if "image_index" in columns:
        if table.num_rows != texts:
            raise GeomkitError(f"{path}: {table.num_rows} rows for {texts} texts")
        index = table.column("image_index").to_numpy()
        if not np.issubdtype(index.dtype, np.integer):
            raise GeomkitError(f"{path}: image_index: expected integers, got {index.dtype}")
        return index.astype(np.int64), []
    if table.num_rows != images:
        raise GeomkitError(f"{path}: {table.num_rows} rows for {images} images")
    names = next((c for c in ("id", "key", "image_path") if c in columns), None)
    return None, [str(v) for v in table.column(names).to_pylist()] if names else []
