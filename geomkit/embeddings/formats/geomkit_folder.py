"""The folder that ``geomkit extract`` writes: clip-retrieval's layout with a manifest.

Its metadata has a row per text; ``image_index`` counts the images of the shard.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from geomkit._core.schema import check_schema
from geomkit.embeddings.formats.clip_retrieval import (
    Owners,
    numbered_files,
    read_metadata,
    read_shards,
)
from geomkit.embeddings.manifest import (
    MANIFEST,
    ShardEntry,
    cut_captions,
    is_extraction,
    read_json,
)
from geomkit.embeddings.ownership import check_index
from geomkit.embeddings.reading import Format, Loaded, naming
from geomkit.errors import GeomkitError

__all__ = ["FORMAT"]

_KEPT = ("given", "reading", "note", "fast_decode", "count", "lengths_and_times")
"""What the manifest says of the data, kept with the embeddings."""


@dataclass(frozen=True)
class _Bad:
    row: int
    id: str
    reason: str


@dataclass(frozen=True)
class _LeftOut:
    what: str
    count: int
    first: list[str]


_READ: Mapping[str, Mapping[str, Any]] = {
    "data": {"spec": str, "split": str | None, "left_out": list[_LeftOut] | None},
    "model": {"source": str, "notes": list[str] | None},
}
_RESTORE = "geomkit extract --resume restores it"


def _read(path: Path) -> Loaded:
    manifest = read_json(path / MANIFEST)
    if manifest is None:
        raise GeomkitError(
            "an extraction that is not finished; geomkit extract --resume continues it"
        )
    where = f"{path / MANIFEST}: damaged; extract again with --overwrite"
    check_schema(manifest.get("shards"), list[ShardEntry], f"{where}: shards")
    for name, kinds in _READ.items():
        part: Any = manifest.get(name)
        check_schema(part, dict, f"{where}: {name}")
        for key, kind in kinds.items():
            check_schema(part.get(key), kind, f"{where}: {name}.{key}")
    check_schema(manifest.get("bad", []), list[_Bad], f"{where}: bad")
    check_schema(manifest.get("cut", 0), int, f"{where}: cut")
    shards = [ShardEntry.from_json(shard) for shard in manifest["shards"]]
    meta = {"data": manifest["data"]["spec"], "model": manifest["model"]["source"]}
    split = manifest["data"]["split"]
    meta |= {key: manifest["data"][key] for key in _KEPT if key in manifest["data"]}
    assumed = tuple(manifest["model"].get("notes") or ())
    bad = [(entry["id"], entry["reason"]) for entry in manifest.get("bad", ())]
    left_out = manifest["data"].get("left_out") or ()
    not_given = tuple(
        f"{x['count']:,} {x['what']}, such as {', '.join(x['first'][:1])}" for x in left_out
    )
    found = numbered_files(path)
    listed = {path / name: stored for shard in shards for name, stored in shard.files.items()}
    for file, stored in listed.items():
        if not file.is_file():
            raise GeomkitError(f"{file}: missing, though {MANIFEST} lists it; {_RESTORE}")
        if (size := file.stat().st_size) != stored.bytes:
            raise GeomkitError(
                f"{file}: {size} bytes, but {MANIFEST} says {stored.bytes}; {_RESTORE}"
            )
    with ThreadPoolExecutor() as pool:
        whole = pool.map(lambda entry: entry[1].fits(entry[0]), listed.items())
        for file, same in zip(listed, whole, strict=True):
            if not same:
                raise GeomkitError(f"{file}: changed since it was written; {_RESTORE}")
    for file in (file for files in found.values() for file in files.values()):
        if file not in listed:
            raise GeomkitError(f"{file}: not in {MANIFEST}; move it elsewhere")
    loaded = read_shards(path, found, _owners)
    for k, (entry, a, b) in enumerate(zip(shards, loaded.image, loaded.text, strict=True)):
        if (a.shape[0], b.shape[0]) != (entry.images, entry.texts):
            raise GeomkitError(
                f"{path}: shard {k}: {a.shape[0]} images and {b.shape[0]} texts, but {MANIFEST} "
                f"says {entry.images} and {entry.texts}"
            )
    notes = assumed + loaded.notes
    if not_given:
        notes += (f"not extracted: {'; '.join(not_given)}",)
        meta["left_out"] = list(left_out)
    if bad:
        used = sum(entry.images for entry in shards)
        about = f"such as {bad[0][0]} ({bad[0][1]})"
        notes += (f"{used} of {used + len(bad)} images; {len(bad)} do not decode, {about}",)
        meta["bad"] = [{"id": name, "reason": reason} for name, reason in bad]
    notes += cut_captions(manifest.get("cut", 0))
    return replace(loaded, split=split, meta=meta, notes=notes)


def _owners(metadata: Path | None, first: int, images: int, texts: int) -> Owners:
    assert metadata is not None  # the manifest lists it
    table, index = read_metadata(metadata, images, texts)
    with naming(metadata):
        if index is None or "id" not in table.column_names:
            raise GeomkitError("expected columns id and image_index")
        index = check_index(index, images, texts)
    _, place = np.unique(index, return_index=True)
    return index + first, table.column("id").take(place).to_pylist()


FORMAT = Format(
    "a folder of geomkit extract", matches=lambda path, head: is_extraction(path), read=_read
)
