"""What is to be extracted into a folder, whether that fits what is there, and what it came to."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from geomkit.data.pairs import Bad, PairData
from geomkit.embeddings.manifest import KINDS, MANIFEST, PLAN, read_json
from geomkit.errors import GeomkitError, unknown_name
from geomkit.extraction.store import (
    clear,
    contents,
    find_record,
    foreign,
    remove_leftovers,
    shard_names,
    write_json,
)

__all__ = ["DTYPES", "bad_of", "check_options", "check_out", "differences", "finish", "prepare"]

DTYPES = ("float16", "float32")
"""What rows can be stored as."""

_FREE = ("model.source", "data.spec", "data.note", "threads", "versions.python")
"""What may change without changing a number: other names for the same weights and pictures, told
by their checksums. The threads of the first run are kept."""
_SHOWN = 40


def check_options(
    rows_per_shard: int,
    dtype: str,
    batch_size: int,
    workers: int | None,
    *,
    resume: bool,
    overwrite: bool,
) -> None:
    """Refuse options out of range, before any work is done.

    Raises:
        GeomkitError: naming the option.
    """
    if resume and overwrite:
        raise GeomkitError("--resume and --overwrite exclude each other; give one")
    if dtype not in DTYPES:
        raise unknown_name("dtype", dtype, DTYPES)
    for name, value, least in (
        ("shard rows", rows_per_shard, 1),
        ("batch size", batch_size, 1),
        ("workers", workers or 0, 0),
    ):
        if value < least:
            raise GeomkitError(f"{name}: expected {least} or more, got {value}")


def check_out(out: Path, *, resume: bool, overwrite: bool) -> dict[str, Any] | None:
    """Refuse, before any work is done, a folder that nothing may be extracted into.

    Returns:
        The plan, or else the manifest, of the extraction that is there.

    Raises:
        GeomkitError: see :func:`geomkit.extraction.run.extract_to`.
    """
    stored = read_json(out / PLAN) or read_json(out / MANIFEST)
    if stored is None:
        _check_room(out)
    elif not (resume or overwrite):
        raise GeomkitError(
            f"{out}: exists already; give --resume to go on, --overwrite to start anew, "
            "or another --out"
        )
    elif others := foreign(out):
        raise GeomkitError(f"{out / others[0]}: none of an extraction's files; move it away")
    return stored


def prepare(
    out: Path,
    plan: Mapping[str, Any],
    edges: Sequence[int],
    *,
    resume: bool = False,
    overwrite: bool = False,
    keep_precision: bool = False,
) -> tuple[dict[str, Any], list[int], dict[str, Any] | None]:
    """Make a folder ready for an extraction.

    Args:
        out: the folder; made if it is not there.
        plan: what is to be done.
        edges: first pictures of the shards, and the number of all.
        resume, overwrite: what to do with an extraction that is there.
        keep_precision: a resumed extraction goes on in the precision it was begun in.

    Returns:
        The plan as it is to be followed, the numbers of the shards to be written, and the manifest
        if there is nothing left to do.

    Raises:
        GeomkitError: see :func:`geomkit.extraction.run.extract_to`.
    """
    stored = check_out(out, resume=resume, overwrite=overwrite)
    plan = json.loads(json.dumps(plan))
    if stored is not None and overwrite:
        clear(out)
    elif stored is not None:
        kept = {"threads": stored.get("threads", plan["threads"])}
        if keep_precision and "precision" in stored:
            kept["precision"] = stored["precision"]
        plan = {**plan, **kept}
        changed = differences(stored, plan)
        if changed:
            raise GeomkitError(
                f"{out}: was extracted with another configuration ({'; '.join(changed)}); "
                "give the same options, or --overwrite to start anew"
            )
    try:
        for folder in (out, *(out / kind for kind in KINDS)):
            folder.mkdir(exist_ok=True)
    except OSError as error:
        raise GeomkitError(f"{out}: cannot be made ({error.strerror or error})") from None
    remove_leftovers(out)
    missing = [k for k in range(len(edges) - 1) if _record(out, edges, k) is None]
    manifest = read_json(out / MANIFEST)
    if manifest is not None and not missing:
        (out / PLAN).unlink(missing_ok=True)
        return dict(plan), [], manifest
    write_json(out / PLAN, plan)
    return dict(plan), missing, None


def finish(
    out: Path, plan: Mapping[str, Any], edges: Sequence[int], data: PairData
) -> dict[str, Any]:
    """Write the manifest of a folder whose shards are all there.

    Raises:
        GeomkitError: if a shard has gone, or too many pictures were bad.
    """
    records = []
    for k in range(len(edges) - 1):
        record = _record(out, edges, k)
        if record is None:
            raise GeomkitError(f"{out}: shard {k} has gone while others were written; --resume")
        records.append(record)
    bad = bad_of(records)
    data.check_bad(bad)
    if not any(r["images"] for r in records):
        raise GeomkitError(f"'{data.spec}' ({data.split}): none of its pictures decodes")
    manifest = {
        **plan,
        "images": sum(r["images"] for r in records),
        "texts": sum(r["texts"] for r in records),
        "norms": {
            key: [min(r["norms"][key][0] for r in held), max(r["norms"][key][1] for r in held)]
            for key in ("image", "text")
            if (held := [r for r in records if r["images"]])
        },
        "bad": [{"row": b.row, "id": b.id, "reason": b.reason} for b in bad],
        "shards": [{key: r[key] for key in ("images", "texts", "files")} for r in records],
    }
    write_json(out / MANIFEST, manifest)
    (out / PLAN).unlink(missing_ok=True)
    return manifest


def bad_of(records: Iterable[Mapping[str, Any]]) -> list[Bad]:
    """The pictures that the shards of some records lack."""
    return [Bad(**entry) for record in records for entry in record["bad"]]


def differences(stored: Mapping[str, Any], plan: Mapping[str, Any]) -> list[str]:
    """What differs between two plans, as ``name: old → new``; at most three and a count.

    >>> differences({"dtype": "float16", "threads": 1}, {"dtype": "float32", "threads": 2})
    ['dtype: float16 → float32']
    """
    old = _flat({key: stored[key] for key in plan if key in stored})
    new = _flat(plan)
    changed = [
        f"{key}: {_short(old.get(key))} → {_short(new.get(key))}"
        for key in dict.fromkeys([*old, *new])
        if key not in _FREE and old.get(key) != new.get(key)
    ]
    return changed[:3] + ([f"and {len(changed) - 3} more"] if len(changed) > 3 else [])


def _flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _check_room(out: Path) -> None:
    """Refuse a folder that holds anything, or that could not be made."""
    if out.exists() and not out.is_dir():
        raise GeomkitError(f"{out}: is a file; name a folder")
    if not out.exists():
        if not out.parent.is_dir():
            raise GeomkitError(f"{out.parent}: no such folder; make it first, or name another")
        return
    held = contents(out)
    if held:
        raise GeomkitError(
            f"{out}: holds files that are no extraction of geomkit's ({held[0]}); "
            "name a new or empty folder"
        )


def _record(out: Path, edges: Sequence[int], number: int) -> dict[str, Any] | None:
    record = find_record(out, shard_names(number, len(edges) - 1))
    span = [edges[number], edges[number + 1]]
    return record if record and [record.get("start"), record.get("stop")] == span else None
