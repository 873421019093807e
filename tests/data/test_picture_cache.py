"""The cache of decoded pictures: the same pixels, once, through kills, damage and mending."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from geomkit.data import PairData, cached, load_data
from geomkit.data import cache as module
from geomkit.errors import GeomkitError
from geomkit.models.preprocess import Preprocess

SIZE, COUNT, CHUNK = 8, 23, 5
PLAIN = Preprocess(SIZE)
BYTES = 3 * SIZE * SIZE


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and chunks small enough to have several."""
    monkeypatch.setenv("GEOMKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "CHUNK", CHUNK)
    monkeypatch.setattr(module, "_BATCH", 2)
    return tmp_path / "cache" / "images"


@pytest.fixture
def data(tmp_path: Path) -> PairData:
    rng = np.random.default_rng(0)
    for i in range(COUNT):
        pixels = rng.integers(0, 256, (9 + i % 3, 11, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i:02d}.png")
        (tmp_path / f"{i:02d}.txt").write_text(f"text {i}")
    return load_data(f"imagefolder:{tmp_path}", split="all", size=SIZE)


def build(data: PairData, **options) -> PairData:
    return cached(data, PLAIN, workers=0, **options)


def one(folder: Path, suffix: str) -> Path:
    (found,) = folder.glob(f"*{suffix}")
    return found


def test_the_same_pixels_decoded_once(
    place: Path, data: PairData, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    kept = build(data, progress=lambda done, total: seen.append((done, total)))
    assert np.array_equal(kept.pixels(), data.pixels()) and kept.in_memory
    assert isinstance(kept.images, np.memmap)
    assert (kept.ids, kept.captions) == (data.ids, data.captions)
    assert seen[-1] == (COUNT, COUNT) and seen == sorted(seen)
    monkeypatch.setattr(module, "_build", None)  # would fail if it were made again
    again = load_data(data.spec, split="all", size=SIZE, cache_images=True)
    assert np.array_equal(again.pixels(), data.pixels())
    assert not [f for f in place.iterdir() if f.suffix in (".partial", ".journal", ".tmp")]


def test_data_and_geometry_have_their_own(place: Path, data: PairData) -> None:
    build(data)
    build(data.take(np.arange(4)))
    large = load_data(data.spec, split="all", preprocess=replace(PLAIN, size=16))
    assert cached(large, large.images.preprocess, workers=0).pixels().shape[1:3] == (16, 16)
    squash = replace(PLAIN, resize_mode="squash")
    squashed = load_data(data.spec, split="all", preprocess=squash)
    assert not np.array_equal(cached(squashed, squash, workers=0).pixels(), data.pixels())
    assert len(list(place.glob("*.npy"))) == 4
    # mean and std are no part of it: they are applied on the device
    cached(data, replace(PLAIN, mean=(0.5, 0.5, 0.5)), workers=0)
    assert len(list(place.glob("*.npy"))) == 4


def test_the_fingerprint_stays(place: Path, data: PairData) -> None:
    kept = build(data)
    assert kept.fingerprint == data.fingerprint
    rows = np.array([7, 3, 20])
    assert kept.take(rows).fingerprint == data.take(rows).fingerprint
    assert np.array_equal(kept.take(rows).pixels(), data.take(rows).pixels())
    assert kept.subset(5, seed=1).ids == data.subset(5, seed=1).ids


class Killed(BaseException):
    pass


def killed_after(count: int):
    def progress(done: int, total: int) -> None:
        if done >= count:
            raise Killed

    return progress


@pytest.mark.parametrize("after", [1, 4, 5, 6, 10, 15, 19, 20, 21, 22, 23])
def test_a_build_that_was_killed_goes_on_to_the_same_bytes(
    after: int, place: Path, data: PairData
) -> None:
    build(data)
    wanted = {f.suffix: f.read_bytes() for f in place.iterdir() if f.suffix in (".npy", ".json")}
    for file in place.iterdir():
        file.unlink()
    with pytest.raises(Killed):
        build(data, progress=killed_after(after))
    seen: list[int] = []
    build(data, progress=lambda done, _: seen.append(done))
    whole = COUNT if after == COUNT else after // CHUNK * CHUNK
    assert seen[:1] == [whole + 2][: whole < COUNT]  # what was whole is not decoded again
    assert {s: one(place, s).read_bytes() for s in wanted} == wanted


@pytest.mark.parametrize("torn", range(12))
def test_whatever_the_kill_left_behind(torn: int, place: Path, data: PairData) -> None:
    """Pixels and journal cut anywhere, at the edges of chunks and inside, or garbled."""
    with pytest.raises(Killed):
        build(data, progress=killed_after(15))
    partial, journal = one(place, ".partial"), one(place, ".journal")
    rng = np.random.default_rng(torn)
    content, lines = partial.read_bytes(), journal.read_bytes()
    assert len(lines.splitlines()) == 3
    head = len(content) - 15 * BYTES
    cut = {0: 0, 1: head - 1, 2: head, 3: head + 5 * BYTES, 4: head + 10 * BYTES + 1}
    partial.write_bytes(content[: cut.get(torn, int(rng.integers(len(content))))])
    if torn % 2:
        journal.write_bytes(lines[: int(rng.integers(len(lines)))])
    elif torn > 6:
        garbled = bytearray(lines)
        garbled[int(rng.integers(len(lines)))] ^= 1
        journal.write_bytes(garbled)
    assert np.array_equal(build(data).pixels(), data.pixels())


def test_killed_between_the_two_renames(place: Path, data: PairData) -> None:
    build(data)
    one(place, ".npy").rename(one(place, ".npy").with_suffix(".away"))  # the record alone is there
    assert np.array_equal(build(data).pixels(), data.pixels())


@pytest.mark.parametrize("damage", ["flip", "cut", "grow", "header", "record", "checksums"])
def test_damage_is_named_and_mended_by_deleting(damage: str, place: Path, data: PairData) -> None:
    build(data)
    file, record = one(place, ".npy"), one(place, ".json")
    content = bytearray(file.read_bytes())
    if damage == "flip":
        content[-BYTES * 9] ^= 1
    elif damage == "cut":
        del content[-1:]
    elif damage == "header":
        content[:6] = b"nonsen"
    elif damage == "grow":
        content += b"\0"
    elif damage == "record":
        record.write_bytes(record.read_bytes()[:-9])
    else:
        said = json.loads(record.read_bytes())
        record.write_text(json.dumps({**said, "chunks": said["chunks"][:-1]}))
    file.write_bytes(content)
    with pytest.raises(GeomkitError, match=r"\.npy: the image cache is damaged .* delete it"):
        build(data)
    file.unlink()
    assert np.array_equal(build(data).pixels(), data.pixels())


def test_bad_pictures_are_left_out_and_counted(place: Path, data: PairData, tmp_path: Path) -> None:
    good = (tmp_path / "07.png").read_bytes()
    (tmp_path / "07.png").write_bytes(b"x" * len(good))
    (tmp_path / "21.png").unlink()
    tolerant = replace(data, max_bad=0.1)
    for _ in range(2):  # built, then opened
        kept = build(tolerant)
        assert len(kept) == COUNT - 2 and not {"07.png", "21.png"} & set(kept.ids)
        assert "2 images that do not decode (07.png, which does not decode (" in kept.remarks
        whole, rows, _ = data.read()
        assert np.array_equal(kept.pixels(), whole) and kept.ids == data.take(rows).ids
    with pytest.raises(GeomkitError, match=r"07.png .*and 1 more: 2 of 23"):
        build(data)
    (tmp_path / "07.png").write_bytes(good)  # of the same length: the fingerprint is the same
    kept = build(tolerant)
    assert len(kept) == COUNT - 1 and "07.png" in kept.ids


def test_too_many_bad_pictures_stop_the_build_early(
    place: Path, data: PairData, tmp_path: Path
) -> None:
    good = {i: (tmp_path / f"{i:02d}.png").read_bytes() for i in range(6)}
    for i, content in good.items():
        (tmp_path / f"{i:02d}.png").write_bytes(b"x" * len(content))
    seen: list[int] = []
    with pytest.raises(GeomkitError, match=r"00\.png does not decode"):
        build(data, progress=lambda done, _: seen.append(done))
    assert not seen or seen[-1] <= CHUNK
    for i, content in good.items():
        (tmp_path / f"{i:02d}.png").write_bytes(content)
    assert np.array_equal(build(data).pixels(), data.pixels())


def test_two_builds_at_once(place: Path, data: PairData, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads here, as the lock belongs to the open file: to processes it is the same."""
    from concurrent.futures import ThreadPoolExecutor
    from threading import Barrier

    both, built = Barrier(2), []
    plan, real = module._plan, module._build
    monkeypatch.setattr(module, "_plan", lambda *a: (both.wait(), plan(*a))[1])
    monkeypatch.setattr(module, "_build", lambda *a: (built.append(1), real(*a))[1])
    with ThreadPoolExecutor(2) as pool:
        one_, two = pool.map(build, [data, data])
    assert np.array_equal(one_.pixels(), two.pixels()) and built == [1]
    assert np.array_equal(one_.pixels(), data.pixels())


def test_workers_decode_into_the_cache(place: Path, data: PairData) -> None:
    assert np.array_equal(cached(data, PLAIN, workers=2).pixels(), data.pixels())


def test_pictures_in_memory_need_none(place: Path, data: PairData) -> None:
    kept = build(data)
    assert cached(kept, PLAIN) is kept


def test_a_cache_that_cannot_be_written(
    place: Path, data: PairData, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_sync", full)
    with pytest.raises(GeomkitError, match=r"No space left on device.*continues where it stopped"):
        build(data)
    monkeypatch.undo()
    blocked = place.parent / "file"
    blocked.write_text("")
    monkeypatch.setenv("GEOMKIT_CACHE", str(blocked))
    with pytest.raises(GeomkitError, match="set GEOMKIT_CACHE"):
        build(data)
