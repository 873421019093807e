"""Decoded pictures, kept as pixels in one memory-mapped file: decoding is done once.

A build goes in chunks; a journal has a line with the checksum of each, so that a build that was
killed goes on at the first chunk that is not there whole, and ends with the same bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from geomkit._core.files import atomic_write, cache_dir
from geomkit.data.pairs import Bad, PairData
from geomkit.errors import GeomkitError
from geomkit.models.preprocess import Preprocess

__all__ = ["CHUNK", "cache_folder", "cached"]

CHUNK = 1024
"""Pictures a line of the journal."""

_FORMAT, _SCHEMA_VERSION = "geomkit-pictures", 1
_BATCH = 64
_GEOMETRY = ("size", "interpolation", "resize_mode", "fill_color")


def cache_folder(*names: str) -> Path:
    """A folder of the cache, made if need be.

    Raises:
        GeomkitError: if it cannot be made.
    """
    folder = cache_dir().joinpath(*names)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GeomkitError(
            f"{folder}: the cache cannot be made ({error.strerror}); "
            "set GEOMKIT_CACHE to a folder that can be written"
        ) from None
    return folder


def cached(
    data: PairData,
    preprocess: Preprocess,
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> PairData:
    """The same data with its pictures as pixels, from the cache or decoded into it now.

    Pictures that do not decode are left out and counted in the note. The data keeps its
    fingerprint if there are none.

    Args:
        data: what is to be decoded; pictures in memory are returned as they are.
        preprocess: what its pictures are prepared with, of which the geometry counts.
        workers: processes that decode; a core each if not given.
        progress: called with pictures decoded and pictures in all, while the cache is made.

    Raises:
        GeomkitError: if too many pictures do not decode, the cache is damaged or can't be written.
    """
    if data.in_memory or not len(data):
        return data
    plan = _plan(data, preprocess)
    name = hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()[:32]
    folder = cache_folder("images")
    file, record = folder / f"{name}.npy", folder / f"{name}.json"
    while True:
        if not (file.exists() and record.exists()):
            with _alone(folder / f"{name}.lock"):
                # Another process may have made it while this one waited.
                if not (file.exists() and record.exists()):
                    _build(data, plan, file, record, workers, progress)
        pixels, bad = _open(file, record, plan)
        if not _mended(data, bad):
            break
        file.unlink()
    data.check_bad(bad)
    keep = np.setdiff1d(np.arange(len(data)), [b.row for b in bad])
    kept = replace(data.take(keep), images=pixels, index=keep, origin=data)
    if not bad:
        return kept
    first = f"{bad[0].id} {bad[0].reason}"
    return kept.with_note(f"{len(bad)} pictures left out that do not decode, the first: {first}")


def _plan(data: PairData, preprocess: Preprocess) -> dict[str, Any]:
    """What decides every byte of the cache; where the pictures lie tells twins in name apart."""
    fingerprint = data.fingerprint
    return {
        "format": _FORMAT,
        "schema_version": _SCHEMA_VERSION,
        "count": len(data),
        "sha256": fingerprint["sha256"],
        "places": [str(Path(p.path).resolve()) for p in getattr(data.images, "places", ())],
        "chunk": CHUNK,
        "draft": getattr(data.images, "draft", True),
        **{key: getattr(preprocess, key) for key in _GEOMETRY},
    }


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Wait until no other process builds the same; the system frees the lock of a killed one."""
    try:
        import fcntl
    except ImportError:  # Windows: two builds at once are the user's to avoid
        yield
        return
    with lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(
    data: PairData,
    plan: dict[str, Any],
    file: Path,
    record: Path,
    workers: int | None,
    progress: Callable[[int, int], None] | None,
) -> None:
    from geomkit.data.loading import batches, resolve_workers

    partial, journal = file.with_suffix(".partial"), file.with_suffix(".journal")
    head = _head(plan)
    step, count = plan["chunk"], len(data)
    picture = 3 * plan["size"] ** 2
    try:
        chunks = _resume(data, partial, journal, head, plan)
        with partial.open("r+b") as pixels, journal.open("r+b") as lines:
            pixels.seek(0, os.SEEK_END)
            lines.seek(0, os.SEEK_END)
            jobs = [
                np.arange(at, min(at + _BATCH, start + step, count))
                for start in range(step * len(chunks), count, step)
                for at in range(start, min(start + step, count), _BATCH)
            ]
            crc = 0
            bad: list[list[Any]] = []
            done = batches(data, jobs, workers=resolve_workers(workers, data))
            for job, batch in zip(jobs, done, strict=True):
                whole = np.zeros((len(job), picture), np.uint8)
                whole[batch.rows - job[0]] = batch.images.numpy().reshape(-1, picture)
                pixels.write(whole.data)
                crc = zlib.crc32(whole.data, crc)
                bad += [[b.row, b.id, b.reason] for b in batch.bad]
                end = int(job[-1]) + 1
                if end % step == 0 or end == count:
                    chunks.append({"crc32": crc, "bad": sorted(bad)})
                    _sync(pixels)  # a line of the journal vouches for pixels that are on disk
                    lines.write(json.dumps(chunks[-1]).encode() + b"\n")
                    _sync(lines)
                    crc, bad = 0, []
                    data.check_bad(_bad(chunks))  # rather now than after hours
                if progress:
                    progress(end, count)
        with atomic_write(record, overwrite=True) as out:
            out.write(json.dumps({**plan, "chunks": chunks}).encode())
        partial.replace(file)
        journal.unlink()
    except OSError as error:
        raise GeomkitError(
            f"{partial}: the picture cache cannot be written ({error.strerror or error}); make "
            "room or set GEOMKIT_CACHE, and start again: it goes on where it stopped"
        ) from None


def _head(plan: dict[str, Any]) -> bytes:
    """numpy's header for all the pictures."""
    import io

    out = io.BytesIO()
    shape = (plan["count"], plan["size"], plan["size"], 3)
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(out, header)
    return out.getvalue()


def _resume(
    data: PairData, partial: Path, journal: Path, head: bytes, plan: dict[str, Any]
) -> list[dict[str, Any]]:
    """Chunks of an earlier build that are whole; what follows them is cut off."""
    partial.touch()
    journal.touch()
    whole: list[dict[str, Any]] = []
    kept = 0
    with partial.open("r+b") as pixels, journal.open("r+b") as lines:
        if pixels.read(len(head)) == head:
            for line in lines:
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    chunk = json.loads(line)
                    size = _chunk_bytes(plan, len(whole))
                    intact = line.endswith(b"\n") and _crc32(pixels, size) == chunk["crc32"]
                    if intact and not _mended(data, _bad([chunk])):
                        whole.append(chunk)
                        kept += len(line)
                        continue
                break
        lines.truncate(kept)
        end = len(head) + sum(_chunk_bytes(plan, i) for i in range(len(whole)))
        pixels.truncate(end if whole else 0)
        if not whole:
            pixels.seek(0)
            pixels.write(head)
    return whole


def _bad(chunks: list[dict[str, Any]]) -> list[Bad]:
    return [Bad(*entry) for chunk in chunks for entry in chunk["bad"]]


def _mended(data: PairData, bad: list[Bad]) -> bool:
    """Whether a picture that did not decode does so now: it has been fetched again, say."""
    return any(not data.read([b.row])[2] for b in bad)


def _chunk_bytes(plan: dict[str, Any], number: int) -> int:
    pictures = min(plan["chunk"], plan["count"] - number * plan["chunk"])
    return max(0, pictures) * 3 * plan["size"] ** 2


def _crc32(file: BinaryIO, length: int) -> int | None:
    """The checksum of the next bytes of a file; none if there are fewer."""
    crc = 0
    while length:
        piece = file.read(min(length, 1 << 22))
        if not piece:
            return None
        crc, length = zlib.crc32(piece, crc), length - len(piece)
    return crc


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _open(file: Path, record: Path, plan: dict[str, Any]) -> tuple[np.ndarray, list[Bad]]:
    """The pixels of a cache that is whole, and the pictures that are not in it."""
    try:
        said = json.loads(record.read_bytes())
        if {key: said.get(key) for key in plan} != plan:
            raise ValueError("another data set's")
        chunks = said["chunks"]
        pixels = np.load(file, mmap_mode="r")
        shape = (plan["count"], plan["size"], plan["size"], 3)
        if pixels.shape != shape or pixels.dtype != np.uint8:
            raise ValueError(f"shape {pixels.shape}, expected {shape}")
        if len(chunks) != -(-plan["count"] // plan["chunk"]):
            raise ValueError(f"{len(chunks)} checksums")
        whole = len(_head(plan)) + 3 * plan["count"] * plan["size"] ** 2
        if file.stat().st_size != whole:
            raise ValueError(f"{file.stat().st_size:,} bytes, expected {whole:,}")
        _check(file, chunks, plan)
        bad = _bad(chunks)
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise GeomkitError(
            f"{file}: the picture cache is damaged ({reason}); delete it, and it is made again"
        ) from None
    return pixels, bad


def _check(file: Path, chunks: list[dict[str, Any]], plan: dict[str, Any]) -> None:
    """Compare every checksum, once for each state the system reports of the file."""
    stat = file.stat()
    state = json.dumps([stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns])
    seen = file.with_suffix(".checked")
    if seen.exists() and seen.read_text("utf-8") == state:
        return
    with file.open("rb") as pixels:
        pixels.seek(len(_head(plan)))
        for number, chunk in enumerate(chunks):
            if _crc32(pixels, _chunk_bytes(plan, number)) != chunk["crc32"]:
                raise ValueError(f"pictures from {number * plan['chunk']:,} on")
    with contextlib.suppress(GeomkitError), atomic_write(seen, overwrite=True) as out:
        out.write(state.encode())
