"""Decoded images, kept as pixels in one memory-mapped file: decoding is done once.

A build proceeds in chunks. A journal has a line with the checksum of each, so that a build that
was killed continues at the first chunk that is not whole, and ends with the same bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import zlib
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from geomkit._core.files import atomic_write, cache_dir, refusing
from geomkit.data.declarations import Progress
from geomkit.data.pairs import Bad, PairData
from geomkit.errors import GeomkitError
from geomkit.models.preprocess import Preprocess

__all__ = ["CHUNK", "cache_folder", "cached"]

CHUNK = 1024
"""Images per line of the journal."""

_FORMAT, _SCHEMA_VERSION = "geomkit-pictures", 2
_BATCH = 64
_Chunk = dict[str, Any]
"""A line of the journal: ``crc32`` of a chunk, and ``bad``, the images that did not decode."""
_GEOMETRY = ("size", "interpolation", "resize_mode", "fill_color")


def cache_folder(*names: str) -> Path:
    """A folder of the cache, made if it does not exist.

    Raises:
        GeomkitError: If it cannot be made.
    """
    folder = cache_dir().joinpath(*names)
    advice = "; set GEOMKIT_CACHE to a folder that can be written"
    with refusing(OSError, says=f"{folder}: the cache cannot be made", advice=advice):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def cached(
    data: PairData,
    preprocess: Preprocess,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> PairData:
    """The same data with its images as pixels, from the cache or decoded into it now.

    Images that do not decode are left out and counted in ``left_out``. If there are none, the data
    keeps its fingerprint.

    Args:
        data: Pairs to decode; images in memory are returned as they are.
        preprocess: Preprocessing of the images; only its geometry is used.
        workers: Processes that decode; default: one per core.
        progress: Function called with the count of images decoded and the total, while the cache
            is made.

    Raises:
        GeomkitError: If too many images do not decode, or the cache is damaged or cannot be
            written.
    """
    if data.in_memory or not len(data):
        return data
    plan = _plan(data, preprocess)
    content = json.dumps(asdict(plan), sort_keys=True).encode()
    file = cache_folder("images") / f"{hashlib.sha256(content).hexdigest()[:32]}.npy"
    while True:
        if not _exists(file):
            from filelock import FileLock

            with FileLock(file.with_suffix(".lock")):
                # Another process may have made it while this one waited.
                if not _exists(file):
                    _build(data, plan, file, workers, progress)
        pixels, bad = _open(file, plan)
        if not _decodes_now(data, bad):
            break
        file.unlink()
    data.check_bad(bad)
    keep = np.setdiff1d(np.arange(len(data)), [b.row for b in bad])
    kept = replace(data.take(keep), images=pixels, index=keep, origin=data)
    return replace(kept, left_out=data.without(bad), given=data.given or len(data))


@dataclass(frozen=True)
class _Plan:
    """What decides every byte of a cache file; its record begins with these entries.

    The places of the images tell data sets apart that are alike in everything else. The state is a
    hash over length, times of change and inode of every image's file: images that were replaced by
    others of the same length are decoded again.
    """

    format: str
    schema_version: int
    count: int
    sha256: str
    state: str
    places: list[str]
    chunk: int
    draft: bool
    size: int
    interpolation: str
    resize_mode: str
    fill_color: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of all the images."""
        return self.count, self.size, self.size, 3

    @property
    def head(self) -> bytes:
        """Header of a numpy file for all the images."""
        out = io.BytesIO()
        header = {"descr": "|u1", "fortran_order": False, "shape": self.shape}
        np.lib.format.write_array_header_1_0(out, header)
        return out.getvalue()

    def bytes_of(self, images: int) -> int:
        """Length of the pixels of some images."""
        return images * 3 * self.size**2

    def chunk_bytes(self, number: int) -> int:
        """Length of a chunk; the last one may be shorter."""
        return self.bytes_of(max(0, min(self.chunk, self.count - number * self.chunk)))

    def length(self, images: int) -> int:
        """Length of a file that holds the first images."""
        return len(self.head) + self.bytes_of(images)


def _plan(data: PairData, preprocess: Preprocess) -> _Plan:
    return _Plan(
        _FORMAT,
        _SCHEMA_VERSION,
        len(data),
        data.fingerprint["sha256"],
        data.state(),
        [str(Path(place.path).resolve()) for place in getattr(data.images, "places", ())],
        CHUNK,
        getattr(data.images, "draft", True),
        **{name: getattr(preprocess, name) for name in _GEOMETRY},
    )


def _exists(file: Path) -> bool:
    return file.exists() and file.with_suffix(".json").exists()


def _build(
    data: PairData, plan: _Plan, file: Path, workers: int | None, progress: Progress | None
) -> None:
    from geomkit.data.loading import batches

    partial, journal = file.with_suffix(".partial"), file.with_suffix(".journal")
    step, count = plan.chunk, plan.count
    says = f"{partial}: the image cache cannot be written"
    advice = "; make room or set GEOMKIT_CACHE, and start again: it continues where it stopped"
    with refusing(OSError, says=says, advice=advice):
        chunks = _resume(data, partial, journal, plan)
        with partial.open("ab") as pixels, journal.open("ab") as lines:
            jobs = [
                np.arange(at, min(at + _BATCH, start + step, count))
                for start in range(step * len(chunks), count, step)
                for at in range(start, min(start + step, count), _BATCH)
            ]
            crc = 0
            bad: list[Bad] = []
            done = batches(data, jobs, workers=workers)
            for job, batch in zip(jobs, done, strict=True):
                whole = np.zeros((len(job), plan.bytes_of(1)), np.uint8)
                whole[batch.rows - job[0]] = batch.images.numpy().reshape(-1, plan.bytes_of(1))
                pixels.write(whole.data)
                crc = zlib.crc32(whole.data, crc)
                bad += batch.bad
                end = int(job[-1]) + 1
                if end % step == 0 or end == count:
                    chunks.append({"crc32": crc, "bad": [list(astuple(b)) for b in sorted(bad)]})
                    _sync(pixels)  # a line of the journal vouches for pixels that are on disk
                    lines.write(json.dumps(chunks[-1]).encode() + b"\n")
                    _sync(lines)
                    crc, bad = 0, []
                    data.check_bad(_bad(chunks))  # now rather than after hours
                if progress:
                    progress(end, count)
        with atomic_write(file.with_suffix(".json"), overwrite=True) as out:
            out.write(json.dumps({**asdict(plan), "chunks": chunks}).encode())
        partial.replace(file)
        journal.unlink()


def _resume(data: PairData, partial: Path, journal: Path, plan: _Plan) -> list[_Chunk]:
    """Chunks of an earlier build that are whole; what follows them is cut off."""
    partial.touch()
    journal.touch()
    whole: list[_Chunk] = []
    kept = 0
    with partial.open("r+b") as pixels, journal.open("r+b") as lines:
        if pixels.read(len(plan.head)) == plan.head:
            for line in lines:
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    chunk = json.loads(line)
                    crc = _crc32(pixels, plan.chunk_bytes(len(whole)))
                    intact = line.endswith(b"\n") and crc == chunk["crc32"]
                    if intact and not _decodes_now(data, _bad([chunk])):
                        whole.append(chunk)
                        kept += len(line)
                        continue
                break
        lines.truncate(kept)
        pixels.seek(0)
        pixels.write(plan.head)
        pixels.truncate(plan.length(min(plan.count, plan.chunk * len(whole))))
    return whole


def _bad(chunks: Sequence[_Chunk]) -> list[Bad]:
    return [Bad(*entry) for chunk in chunks for entry in chunk["bad"]]


def _decodes_now(data: PairData, bad: Sequence[Bad]) -> bool:
    """Whether an image that did not decode does so now, after it was fetched again."""
    return any(not data.read([b.row])[2] for b in bad)


def _crc32(file: BinaryIO, length: int) -> int | None:
    """Checksum of the next bytes of a file; ``None`` if there are fewer."""
    crc = 0
    while length and (piece := file.read(min(length, 1 << 22))):
        crc, length = zlib.crc32(piece, crc), length - len(piece)
    return None if length else crc


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _open(file: Path, plan: _Plan) -> tuple[np.ndarray, list[Bad]]:
    """The pixels of a cache that is whole, and the images that are not in it."""
    damage = (OSError, ValueError, KeyError, TypeError, EOFError)
    advice = "; delete it, and it is made again"
    with refusing(*damage, says=f"{file}: the image cache is damaged", advice=advice):
        record = json.loads(file.with_suffix(".json").read_bytes())
        chunks = record["chunks"]
        if record != {**asdict(plan), "chunks": chunks}:
            raise ValueError("of another data set")
        pixels = np.load(file, mmap_mode="r")
        if pixels.shape != plan.shape or pixels.dtype != np.uint8:
            raise ValueError(f"shape {pixels.shape}, expected {plan.shape}")
        if len(chunks) != -(-plan.count // plan.chunk):
            raise ValueError(f"{len(chunks)} checksums")
        if (length := file.stat().st_size) != plan.length(plan.count):
            raise ValueError(f"{length:,} bytes, expected {plan.length(plan.count):,}")
        _check(file, chunks, plan)
        return pixels, _bad(chunks)


def _check(file: Path, chunks: Sequence[_Chunk], plan: _Plan) -> None:
    """Compare every checksum, once for each state the system reports of the file."""
    stat = file.stat()
    state = json.dumps([stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns])
    seen = file.with_suffix(".checked")
    if seen.exists() and seen.read_text("utf-8") == state:
        return
    with file.open("rb") as pixels:
        pixels.seek(plan.length(0))
        for number, chunk in enumerate(chunks):
            if _crc32(pixels, plan.chunk_bytes(number)) != chunk["crc32"]:
                raise ValueError(f"images from {number * plan.chunk:,} on")
    with contextlib.suppress(GeomkitError), atomic_write(seen, overwrite=True) as out:
        out.write(state.encode())
