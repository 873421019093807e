"""Folders of embeddings in clip-retrieval's layout, its own and those that geomkit writes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from geomkit.embeddings.formats import Loaded, guarded, natural_order, parquet_table, read_matrix
from geomkit.embeddings.rows import Shard
from geomkit.errors import GeomkitError

__all__ = [
    "FORMAT",
    "KINDS",
    "MANIFEST",
    "PLAN",
    "RECORD",
    "SCHEMA_VERSION",
    "read_folder",
    "read_json",
    "read_manifest",
]

FORMAT = "geomkit-embeddings-folder"
SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
"""Says that a folder is finished and what is in it."""
PLAN = "plan.json"
"""Says what is being extracted into a folder, until it is finished."""
KINDS = {"img_emb": ".npy", "text_emb": ".npy", "metadata": ".parquet"}
"""The folders of the layout, and how the names of their files end."""
RECORD = "geomkit"
"""Under this name the metadata of a shard of ours says what it holds."""


def read_folder(path: Path) -> Loaded:
    """clip-retrieval's layout: ``img_emb/img_emb_0.npy``, ``text_emb/…``, ``metadata/….parquet``.

    Shards go by their numbers. Without metadata, or with a row of it an image, text i belongs to
    image i of its shard; a column ``image_index`` says otherwise, with a row a text: it counts the
    images of the whole folder, in a folder of ours those of the shard.

    Raises:
        GeomkitError: if a shard is missing or doubled, lengths or counts disagree, or an
            extraction is not finished or not what its manifest says.
    """
    manifest = read_manifest(path)
    numbered = {kind: _numbered(path / kind, suffix) for kind, suffix in KINDS.items()}
    if manifest is not None:
        _check_files(path, manifest, numbered)
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
    for place, number in enumerate(sorted(images)):
        a, b = read_matrix(images[number]), read_matrix(texts[number])
        rows_a, rows_b = (sum(s.shape[0] for s in shards) for shards in (a, b))
        owners = None
        if manifest is not None:
            shard = manifest["shards"][place]
            if (rows_a, rows_b) != (shard["images"], shard["texts"]):
                raise GeomkitError(
                    f"{images[number]}: {rows_a} images and {rows_b} texts in this shard, but "
                    f"{MANIFEST} says {shard['images']} and {shard['texts']}"
                )
            owners, names = _read_own_metadata(metadata[number], rows_a, rows_b)
            owners += offset
            ids += names
        elif metadata:
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


def read_manifest(path: Path) -> dict[str, Any] | None:
    """The manifest of a folder that geomkit has extracted; ``None`` for anybody else's.

    Raises:
        GeomkitError: if the extraction is not finished, or the manifest is damaged or newer than
            this version.
    """
    manifest = read_json(path / MANIFEST)
    if manifest is not None:
        shards = manifest.get("shards")
        keys = {"images", "texts", "files"}
        if not isinstance(shards, list) or not all(keys <= set(shard) for shard in shards):
            raise GeomkitError(f"{path / MANIFEST}: damaged; extract again with --overwrite")
        return manifest
    if read_json(path / PLAN) is not None:
        raise GeomkitError(
            f"{path}: an extraction that is not finished; geomkit extract --resume goes on with it"
        )
    return None


def read_json(path: Path) -> dict[str, Any] | None:
    """A plan or manifest of ours; ``None`` if there is no such file, or not one of ours.

    Raises:
        GeomkitError: if it cannot be read, or is newer than this version.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    except OSError as error:
        raise GeomkitError(f"{path}: cannot be read ({error.strerror or error})") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        return None
    version = content.get("schema_version")
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise GeomkitError(
            f"{path}: written in schema version {version}, this geomkit reads up to "
            f"{SCHEMA_VERSION}; upgrade geomkit"
        )
    return content


def _check_files(
    path: Path, manifest: dict[str, Any], numbered: dict[str, dict[int, Path]]
) -> None:
    """Sizes only: checksums would take a look at every byte."""
    listed = set()
    for shard in manifest["shards"]:
        for name, stored in shard["files"].items():
            file = path / name
            listed.add(file)
            if not file.is_file():
                raise GeomkitError(
                    f"{file}: missing, though {MANIFEST} lists it; geomkit extract --resume makes "
                    "it again"
                )
            if (size := file.stat().st_size) != stored["bytes"]:
                raise GeomkitError(
                    f"{file}: {size} bytes, but {MANIFEST} says {stored['bytes']}; "
                    "geomkit extract --resume makes it again"
                )
    for file in (file for found in numbered.values() for file in found.values()):
        if file not in listed:
            raise GeomkitError(f"{file}: not in {MANIFEST}; move it elsewhere")


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


def _read_own_metadata(path: Path, images: int, texts: int) -> tuple[np.ndarray, list[str]]:
    """Whose each text is, counted in the shard, and the ids of the images."""
    table = guarded(path, parquet_table)
    if table.num_rows != texts:
        raise GeomkitError(f"{path}: {table.num_rows} rows for {texts} texts")
    missing = {"image_index", "id"} - set(table.column_names)
    if missing:
        raise GeomkitError(f"{path}: no column {', '.join(sorted(missing))}")
    index = table.column("image_index").to_numpy()
    firsts, place = np.unique(index, return_index=True)
    if not np.array_equal(firsts, np.arange(images)):
        raise GeomkitError(f"{path}: image_index: expected every one of {images} images to occur")
    ids = table.column("id").take(place).to_pylist() if images else []
    return index.astype(np.int64), ids


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
