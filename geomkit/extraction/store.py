"""What an extraction leaves on disk: three files a shard, in clip-retrieval's layout.

The metadata of a shard is written last and carries its record: what it holds, which pictures it
lacks, the sizes and checksums of its other two files. A shard without its record is no shard.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geomkit._core.files import atomic_write
from geomkit.embeddings.manifest import KINDS, MANIFEST, PLAN
from geomkit.errors import GeomkitError

if TYPE_CHECKING:
    from geomkit.data import PairData
    from geomkit.extraction.encode import Encoded

__all__ = [
    "clear",
    "contents",
    "find_record",
    "foreign",
    "remove_leftovers",
    "shard_names",
    "store_shard",
    "write_json",
]

RECORD = "geomkit"
"""Under this name the metadata of a shard holds its record."""
_OURS = re.compile(rf"({'|'.join(KINDS)})_\d+\.(npy|parquet)")


def shard_names(number: int, shards: int) -> dict[str, str]:
    """The files of a shard, relative to the folder.

    >>> shard_names(3, 12)["img_emb"]
    'img_emb/img_emb_0003.npy'
    """
    digits = str(number).zfill(max(4, len(str(shards - 1))))
    return {kind: f"{kind}/{kind}_{digits}{suffix}" for kind, suffix in KINDS.items()}


def store_shard(
    folder: Path,
    names: Mapping[str, str],
    data: PairData,
    *,
    span: tuple[int, int],
    encoded: Encoded,
    dtype: str,
) -> dict[str, Any]:
    """Write the three files of a shard, each atomically, the metadata last.

    Args:
        folder: with ``img_emb``, ``text_emb`` and ``metadata`` in it.
        names: as :func:`shard_names` gives them.
        data: what was encoded.
        span: from which of its rows to which.
        encoded: its rows, on any device, with texts for all captions.
        dtype: to store them in.

    Returns:
        The record of the shard.

    Raises:
        GeomkitError: if a row is not finite or all zeros, or a file cannot be written.
    """
    import pyarrow
    import pyarrow.parquet

    captions = [data.captions[row] for row in encoded.rows]
    index = np.repeat(np.arange(len(captions)), [len(group) for group in captions])
    ids = [data.ids[encoded.rows[i]] for i in index]
    rows = {"img_emb": _narrowed(encoded.image, dtype), "text_emb": _narrowed(encoded.text, dtype)}
    norms = {
        "image": _norms(rows["img_emb"], "image", [data.ids[row] for row in encoded.rows]),
        "text": _norms(rows["text_emb"], "text", ids),
    }
    files = {}
    for kind, matrix in rows.items():
        buffer = io.BytesIO()
        np.save(buffer, matrix)
        with atomic_write(folder / names[kind], overwrite=True) as file:
            file.write(buffer.getbuffer())
        files[names[kind]] = _described(buffer.getbuffer())
    record = {
        "start": span[0],
        "stop": span[1],
        "images": len(rows["img_emb"]),
        "texts": len(rows["text_emb"]),
        "norms": norms,
        "bad": [{"row": b.row, "id": b.id, "reason": b.reason} for b in encoded.bad],
        "files": files,
    }
    columns = {"id": pyarrow.array(ids, pyarrow.string())}
    paths = _paths(data)
    if paths is not None:
        found = [paths(encoded.rows[i]) for i in index]
        columns["image_path"] = pyarrow.array(found, pyarrow.string())
    columns["caption"] = pyarrow.array([c for group in captions for c in group], pyarrow.string())
    columns["image_index"] = pyarrow.array(index, pyarrow.int64())
    table = pyarrow.table(columns).replace_schema_metadata(
        {RECORD: json.dumps(record, ensure_ascii=False)}
    )
    with atomic_write(folder / names["metadata"], overwrite=True) as file:
        pyarrow.parquet.write_table(table, file)
    return record


def _narrowed(rows: Any, dtype: str) -> np.ndarray:
    return np.ascontiguousarray(rows.cpu().numpy().astype(dtype))


def _norms(rows: np.ndarray, kind: str, ids: Sequence[str]) -> list[float] | None:
    """The range of the norms of rows as they are stored."""
    if not len(rows):
        return None
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
    unfit = np.flatnonzero(~(np.isfinite(norms) & (norms > 0)))
    if len(unfit):
        raise GeomkitError(
            f"the model gives no finite row of unit length for the {kind} of {ids[unfit[0]]} "
            f"({len(unfit)} such rows in this shard); try --precision fp32, or check its weights"
        )
    return [float(norms.min()), float(norms.max())]


def _paths(data: PairData) -> Callable[[int], str] | None:
    """Where each picture lies, relative to the data's own folders; ``None`` if not known."""
    pictures, index = data.images, data.index
    if data.origin is not None:
        pictures, index = data.origin.images, data.origin.index[data.index]
    names = getattr(pictures, "names", None)
    return None if names is None else lambda row: names[index[row]]


def find_record(folder: Path, names: Mapping[str, str]) -> dict[str, Any] | None:
    """The record of a shard all of whose files are there and whole, its metadata's included."""
    import pyarrow.parquet

    metadata = folder / names["metadata"]
    try:
        content = metadata.read_bytes()
        held = pyarrow.parquet.read_schema(io.BytesIO(content)).metadata or {}
        record = json.loads(held[RECORD.encode()])
        sizes = {name: (folder / name).stat().st_size for name in record["files"]}
    except (OSError, KeyError, ValueError, pyarrow.ArrowException):
        return None
    if any(sizes[name] != stored["bytes"] for name, stored in record["files"].items()):
        return None
    record["files"][names["metadata"]] = _described(content)
    return record


def _described(content: bytes | memoryview) -> dict[str, Any]:
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON atomically, over what is there; what does not change is left alone."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    if path.exists() and path.read_bytes() == text.encode():
        return
    with atomic_write(path, overwrite=True) as file:
        file.write(text.encode())


def contents(folder: Path) -> list[str]:
    """All that lies in a folder, save empty folders of the layout and half-done writes of ours."""
    found = [p for p in sorted(folder.iterdir()) if not (p.is_dir() and p.name in KINDS)]
    for kind in KINDS:
        if (folder / kind).is_dir():
            found += sorted((folder / kind).iterdir())
    return [str(p.relative_to(folder)) for p in found if not _is_leftover(p)]


def foreign(folder: Path) -> list[str]:
    """What lies among the shards and is none."""
    found = [p for kind in KINDS for p in sorted((folder / kind).glob("*")) if not _is_ours(p)]
    return [str(p.relative_to(folder)) for p in found]


def remove_leftovers(folder: Path) -> None:
    """Remove what killed writes have left half done."""
    for place in (folder, *(folder / kind for kind in KINDS)):
        for path in place.glob(".*.tmp"):
            if _is_leftover(path):
                path.unlink(missing_ok=True)


def clear(folder: Path) -> None:
    """Remove an extraction, and nothing else.

    The plan and the manifest go last: until then the folder is known for what it is.

    Raises:
        GeomkitError: if something cannot be removed.
    """
    try:
        remove_leftovers(folder)
        for kind in reversed(KINDS):
            for path in sorted((folder / kind).glob("*")):
                if _is_ours(path):
                    path.unlink()
        for name in (PLAN, MANIFEST):
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise GeomkitError(
            f"{error.filename}: cannot be removed ({error.strerror or error})"
        ) from None


def _is_ours(path: Path) -> bool:
    return _OURS.fullmatch(path.name) is not None or _is_leftover(path)


def _is_leftover(path: Path) -> bool:
    """Whether :func:`geomkit._core.files.atomic_write` was killed while it wrote a file of ours."""
    match = re.fullmatch(r"\.(.+)\.[^.]+\.tmp", path.name)
    name = match.group(1) if match else ""
    return name in (PLAN, MANIFEST) or _OURS.fullmatch(name) is not None
