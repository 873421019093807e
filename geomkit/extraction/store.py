"""The folder an extraction writes: clip-retrieval's layout, a plan at first, a manifest at last.

A shard is three files. Its metadata is written last and carries its record: what the shard holds,
which images it lacks, the sizes and checksums of its other two files. A shard without its record
does not count.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geomkit._core.files import atomic_write, refusing
from geomkit._core.schema import check_schema
from geomkit.data.pairs import Bad, PairData, in_utf8
from geomkit.embeddings.manifest import (
    FORMAT,
    KINDS,
    MANIFEST,
    PLAN,
    SCHEMA_VERSION,
    ShardEntry,
    StoredFile,
    read_json,
)
from geomkit.errors import GeomkitError, unknown_name

if TYPE_CHECKING:
    from geomkit.extraction.encode import Encoded

__all__ = [
    "DTYPES", "Manifest", "Plan", "ShardFolder", "ShardRecord", "check_folder",
    "check_options", "differences", "finish", "prepare",
]  # fmt: skip

DTYPES = ("float16", "float32")
"""Number types that rows can be stored in."""

_RECORD = b"geomkit"
"""Key of the record in the metadata of a shard."""
_SHARD = rf"({'|'.join(KINDS)})_\d+\.(npy|parquet)"
_LEFTOVER = rf"\.({_SHARD}|{re.escape(PLAN)}|{re.escape(MANIFEST)})\.[^.]+\.tmp"
"""Files that a killed :func:`geomkit._core.files.atomic_write` leaves behind."""
_FREE = (
    "model.source", "model.notes", "data.spec", "data.note", "data.reading", "data.given",
    "data.left_out", "threads", "versions.python",
)  # fmt: skip
"""What may change without changing a number: other names for the same weights and images, which
have checksums. The thread count of the first run is kept."""
_ADDED = "data.lengths_and_times"
"""Of the images' files; what folders that were begun by an earlier version lack."""
_SHOWN = 40
_MOST = 2**31 - 1

Json = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is extracted into a folder; ``plan.json`` holds these fields.

    Attributes:
        format: Name of the file's format.
        schema_version: Version of the file's format.
        model: Source, kind, configuration and checksum of the model.
        preprocess: Entries of its :class:`geomkit.models.preprocess.Preprocess`.
        tokenizer: Entries of its :class:`geomkit.models.tokenizers.Tokenizer`.
        data: DATA spec, split, fingerprint and licence of the data.
        dtype: Number type of the stored rows.
        device: Kind of device that computes them.
        precision: Precision they are computed in.
        threads: Number of CPU threads.
        batch_size: Images, and captions, per forward pass.
        rows_per_shard: Images per shard.
        versions: Versions of the packages that affect the numbers.
    """

    format: str = FORMAT
    schema_version: int = SCHEMA_VERSION
    model: Json
    preprocess: Json
    tokenizer: Json
    data: Json
    dtype: str
    device: str
    precision: str
    threads: int
    batch_size: int
    rows_per_shard: int
    versions: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return json.loads(json.dumps(asdict(self)))


@dataclass(frozen=True, kw_only=True)
class Manifest(Plan):
    """What a finished folder holds; ``manifest.json`` holds the plan and these fields.

    Attributes:
        images: Number of image rows.
        texts: Number of text rows.
        norms: Smallest and largest norm of the stored rows of ``image`` and ``text``.
        bad: Images that do not decode, left out with their captions.
        shards: The shards in order.
        cut: Number of captions that are longer than the model's context and lose their end.
    """

    images: int
    texts: int
    norms: Mapping[str, Sequence[float]]
    bad: tuple[Bad, ...]
    shards: tuple[ShardEntry, ...]
    cut: int = 0

    @classmethod
    def read(cls, folder: Path) -> Manifest | None:
        """The manifest of a folder; ``None`` if there is none, or it is damaged."""
        content = read_json(folder / MANIFEST) or {}
        with suppress(GeomkitError):
            check_schema(content, cls, MANIFEST)
            bad = tuple(Bad(**entry) for entry in content["bad"])
            shards = tuple(map(ShardEntry.from_json, content["shards"]))
            return cls(**{**content, "bad": bad, "shards": shards})
        return None


@dataclass(frozen=True)
class ShardRecord:
    """What a shard holds.

    Attributes:
        start: First row of the data set.
        stop: Row after the last one.
        images: Number of image rows.
        texts: Number of text rows.
        norms: Smallest and largest norm of the stored rows of ``image`` and ``text``, if any.
        bad: Images that do not decode, left out with their captions.
        files: Files by their paths relative to the folder.
        cut: Number of captions that lose their end.
    """

    start: int
    stop: int
    images: int
    texts: int
    norms: Mapping[str, Sequence[float] | None]
    bad: tuple[Bad, ...]
    files: Mapping[str, StoredFile]
    cut: int = 0


@dataclass(frozen=True)
class ShardFolder:
    """A folder of shards.

    Attributes:
        path: Path of the folder.
        edges: First row of each shard, and the number of rows of the data set.

    Example:
        >>> ShardFolder(Path("e"), (0, 4, 8)).names(1)["img_emb"]
        'img_emb/img_emb_0001.npy'
    """

    path: Path
    edges: tuple[int, ...]

    def __len__(self) -> int:
        """Number of shards."""
        return len(self.edges) - 1

    def span(self, number: int) -> tuple[int, int]:
        """First row of a shard in the data set, and the row after its last."""
        return self.edges[number], self.edges[number + 1]

    def names(self, number: int) -> dict[str, str]:
        """The files of a shard by kind, relative to the folder."""
        digits = str(number).zfill(max(4, len(str(len(self) - 1))))
        return {kind: f"{kind}/{kind}_{digits}{suffix}" for kind, suffix in KINDS.items()}

    def record(self, number: int, *, sums: bool = True) -> ShardRecord | None:
        """The record of a shard, if all its files are there and whole.

        Args:
            number: Number of the shard.
            sums: Whether checksums are compared, and not sizes alone.
        """
        import pyarrow.parquet

        metadata = self.names(number)["metadata"]
        try:
            content = (self.path / metadata).read_bytes()
            held = pyarrow.parquet.read_schema(io.BytesIO(content)).metadata or {}
            found = json.loads(held[_RECORD])
            check_schema(found, ShardRecord, metadata)
            bad = tuple(Bad(**entry) for entry in found["bad"])
            files = {name: StoredFile(**stored) for name, stored in found["files"].items()}
            if set(files) != {*self.names(number).values()} - {metadata}:
                return None
            whole = all(stored.fits(self.path / name, sums=sums) for name, stored in files.items())
            record = ShardRecord(**{**found, "bad": bad})
        except (OSError, KeyError, RecursionError, ValueError, pyarrow.ArrowException):
            return None
        if not whole or (record.start, record.stop) != self.span(number):
            return None
        return replace(record, files={**files, metadata: _described(content)})

    def write(
        self, number: int, data: PairData, encoded: Encoded, *, dtype: str, cut: int = 0
    ) -> ShardRecord:
        """Write the three files of a shard, each atomically, the metadata last.

        Args:
            number: Number of the shard.
            data: The data set.
            encoded: Rows of the shard on any device, with texts for all captions.
            dtype: Number type to store them in.
            cut: Number of captions that lose their end.

        Raises:
            GeomkitError: If a row is not finite or all zeros, or a file cannot be written.
        """
        import pyarrow
        import pyarrow.parquet

        names = self.names(number)
        captions = [data.captions[row] for row in encoded.rows]
        index = np.repeat(np.arange(len(captions)), [len(group) for group in captions])
        image_ids = [data.ids[row] for row in encoded.rows]
        ids = [image_ids[i] for i in index]
        image, text = (
            np.ascontiguousarray(rows.cpu().numpy().astype(dtype))
            for rows in (encoded.image, encoded.text)
        )
        norms = {"image": _norms(image, "image", image_ids), "text": _norms(text, "text", ids)}
        files = {}
        for kind, matrix in (("img_emb", image), ("text_emb", text)):
            buffer = io.BytesIO()
            np.save(buffer, matrix)
            with atomic_write(self.path / names[kind], overwrite=True) as file:
                file.write(buffer.getbuffer())
            files[names[kind]] = _described(buffer.getbuffer())
        counts = (len(image), len(text))
        record = ShardRecord(*self.span(number), *counts, norms, encoded.bad, files, cut)
        columns = {
            "id": ids,
            **_paths(data, encoded.rows[index]),
            "caption": [caption for group in captions for caption in group],
            "image_index": index,
        }
        types = {**dict.fromkeys(columns, pyarrow.string()), "image_index": pyarrow.int64()}
        about = {_RECORD: _utf8(json.dumps(asdict(record), ensure_ascii=False))}
        table = pyarrow.table(columns, schema=pyarrow.schema(types, metadata=about))
        with atomic_write(self.path / names["metadata"], overwrite=True) as file:
            pyarrow.parquet.write_table(table, file)
        return record


def _norms(rows: np.ndarray, kind: str, ids: Sequence[str]) -> list[float] | None:
    """The range of the norms of rows as they are stored."""
    if not len(rows):
        return None
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
    bad = np.flatnonzero(~(np.isfinite(norms) & (norms > 0)))
    if len(bad):
        raise GeomkitError(
            f"the model gives no finite row of unit length for the {kind} of {ids[bad[0]]} "
            f"({len(bad)} such rows in this shard); try --precision fp32, or check its weights"
        )
    return [float(norms.min()), float(norms.max())]


def _paths(data: PairData, rows: np.ndarray) -> dict[str, list[str]]:
    """The column of image paths, relative to the data's own folders; none if they are not known."""
    images, index = data.undecoded
    names = getattr(images, "names", None)
    return {} if names is None else {"image_path": [in_utf8(names[i]) for i in index[rows]]}


def _described(content: bytes | memoryview) -> StoredFile:
    return StoredFile(len(content), hashlib.sha256(content).hexdigest())


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
        GeomkitError: Naming the option.
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
        if not least <= value <= _MOST:
            raise GeomkitError(f"{name}: expected {least} to {_MOST:,}, got {value}")


def check_folder(path: Path, *, resume: bool, overwrite: bool) -> Json | None:
    """The plan, or else the manifest, of the extraction in a folder; ``None`` for a new folder.

    Raises:
        GeomkitError: If nothing may be extracted into it; see
            :func:`geomkit.extraction.run.extract`.
    """
    stored = read_json(path / PLAN) or read_json(path / MANIFEST)
    foreign = _files(path, rf"(?!{_LEFTOVER}$).*")
    if stored is None:
        if path.exists() and not path.is_dir():
            raise GeomkitError(f"{path}: is a file; name a folder")
        if not path.parent.is_dir():
            raise GeomkitError(f"{path.parent}: no such folder; make it first, or name another")
        if foreign:
            raise GeomkitError(
                f"{path}: holds files that are no extraction of geomkit "
                f"({foreign[0].relative_to(path)}); name a new or empty folder"
            )
    elif not (resume or overwrite):
        raise GeomkitError(
            f"{path}: exists already; give --resume to continue, --overwrite to replace it, or "
            "another --out"
        )
    for file in foreign:
        if file.parent != path and not re.fullmatch(_SHARD, file.name):
            raise GeomkitError(f"{file}: not a file of this extraction; move it elsewhere")
    return stored


def prepare(
    folder: ShardFolder, plan: Plan, *, resume: bool, overwrite: bool, keep_precision: bool
) -> tuple[Plan, list[ShardRecord | None], Manifest | None]:
    """Make a folder ready for an extraction.

    Args:
        folder: The folder; created if it is not there.
        plan: What is to be done.
        resume: Whether to continue an extraction that is there.
        overwrite: Whether to replace an extraction that is there.
        keep_precision: Whether a resumed extraction keeps the precision it was begun in.

    Returns:
        The plan as it is to be followed, the records of the shards, ``None`` for those to write,
        and the manifest if nothing is left to do.

    Raises:
        GeomkitError: As :func:`geomkit.extraction.run.extract`.
    """
    out = folder.path
    stored = check_folder(out, resume=resume, overwrite=overwrite)
    if stored is not None and resume:
        kept = ("threads", "precision") if keep_precision else ("threads",)
        plan = replace(plan, **{name: stored[name] for name in kept if name in stored})
        if changed := differences(stored, plan.to_json()):
            raise GeomkitError(
                f"{out}: was extracted with another configuration ({'; '.join(changed)}); "
                "give the same options, or --overwrite to replace it"
            )
    with refusing(OSError, says=f"{out}: cannot be made or cleared"):
        for place in (out, *(out / kind for kind in KINDS)):
            place.mkdir(exist_ok=True)
        remove = _files(out, _LEFTOVER)
        if stored is not None and overwrite:
            # The metadata first, and with it the records; the plan and the manifest last: until
            # then the folder is known for what it is.
            shards = [file for file in _files(out, _SHARD) if file.parent != out]
            remove += [*reversed(shards), out / PLAN, out / MANIFEST]
        for file in remove:
            file.unlink(missing_ok=True)
    records = [folder.record(k) for k in range(len(folder))]
    manifest = Manifest.read(out)
    if manifest is not None and len(manifest.shards) == len(records):
        # The record of a shard is in its metadata, whose own checksum the manifest has.
        for k, (record, entry) in enumerate(zip(records, manifest.shards, strict=True)):
            records[k] = record if record is not None and record.files == entry.files else None
    manifest = None if None in records else manifest
    if manifest is None:
        _write_json(out / PLAN, plan)
    else:
        (out / PLAN).unlink(missing_ok=True)
    return plan, records, manifest


def finish(folder: ShardFolder, plan: Plan, data: PairData) -> Manifest:
    """Write the manifest of a folder whose shards are all there.

    Raises:
        GeomkitError: If a shard is gone, or too many images do not decode.
    """
    found = [folder.record(k, sums=False) for k in range(len(folder))]
    records = [record for record in found if record is not None]
    if len(records) < len(found):
        gone = found.index(None)
        raise GeomkitError(
            f"{folder.path}: shard {gone} disappeared while others were written; give --resume"
        )
    bad = tuple(entry for record in records for entry in record.bad)
    data.check_bad(bad)
    held = [record for record in records if record.images]
    if not held:
        raise GeomkitError(f"'{data.spec}' ({data.split}): none of its images decodes")
    norms = {}
    for key in ("image", "text"):
        low, high = zip(*(record.norms[key] or () for record in held), strict=True)
        norms[key] = [min(low), max(high)]
    manifest = Manifest(
        **vars(plan),
        images=sum(record.images for record in records),
        texts=sum(record.texts for record in records),
        norms=norms,
        bad=bad,
        shards=tuple(ShardEntry(record.images, record.texts, record.files) for record in records),
        cut=sum(record.cut for record in records),
    )
    _write_json(folder.path / MANIFEST, manifest)
    (folder.path / PLAN).unlink(missing_ok=True)
    return manifest


def differences(stored: Json, plan: Json) -> list[str]:
    """What differs between two plans, as ``name: old → new``; at most three and a count.

    Example:
        >>> differences({"dtype": "float16", "threads": 1}, {"dtype": "float32", "threads": 2})
        ['dtype: float16 → float32']
    """
    old, new = _flat({key: stored[key] for key in plan if key in stored}), _flat(plan)
    changed = [
        f"{key}: {_short(old.get(key))} → {_short(new.get(key))}"
        for key in {**old, **new}
        if key not in _FREE and old.get(key) != new.get(key) and (key in old or key != _ADDED)
    ]
    return changed[:3] + ([f"and {len(changed) - 3} more"] if len(changed) > 3 else [])


def _flat(nested: Json, prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        entry = {prefix + key: value}
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else entry
    return flat


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _write_json(path: Path, content: Plan) -> None:
    """Write JSON atomically, over what is there; a file that would not change is left alone."""
    text = json.dumps(asdict(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    if path.exists() and path.read_bytes() == _utf8(text):
        return
    with atomic_write(path, overwrite=True) as file:
        file.write(_utf8(text))


def _utf8(text: str) -> bytes:
    """JSON as bytes; a path that is not UTF-8 is escaped as JSON has it."""
    return text.encode(errors="backslashreplace")


def _files(folder: Path, pattern: str) -> list[Path]:
    """The files in a folder and the subfolders of the layout whose names fit a pattern."""
    places = (folder, *(folder / kind for kind in KINDS))
    found = [path for place in places for path in sorted(place.glob("*")) if path not in places]
    return [path for path in found if re.fullmatch(pattern, path.name)]
