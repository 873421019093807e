"""Tars in WebDataset's layout: the package itself as oracle, the index, damage."""

from __future__ import annotations

import io
import json
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from samples import numbers, picture, write

from geomkit.data import load_data
from geomkit.errors import GeomkitError
from geomkit.models.preprocess import Preprocess


def shard(file: Path, members: dict[str, bytes | str]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w") as archive:
        for name, content in members.items():
            raw = content if isinstance(content, bytes) else content.encode()
            entry = tarfile.TarInfo(name)
            entry.size = len(raw)
            archive.addfile(entry, io.BytesIO(raw))
    return file


def shards(folder: Path, count: int = 3, each: int = 5) -> Path:
    for s in range(count):
        members: dict[str, bytes | str] = {}
        for i in range(s * each, (s + 1) * each):
            members[f"{i:09d}.jpg"] = picture(i)  # a PNG by another name: the content decides
            if i % 2:
                members[f"{i:09d}.txt"] = f"text {i}"
            members[f"{i:09d}.json"] = json.dumps({"caption": f"text {i}", "url": "…"})
        shard(folder / f"{s:05d}.tar", members)
    write(folder / "sizes.json", json.dumps({f"{s:05d}.tar": each for s in range(count)}))
    return folder


def test_tars_however_they_are_named(tmp_path: Path) -> None:
    folder = shards(tmp_path / "wds")
    for path in (folder, f"{folder}/{{00000..00002}}.tar", f"{folder}/*.tar"):
        data = load_data(f"webdataset:{path}", split="all")
        assert numbers(data) == list(range(15)) and data.note == ""
        assert data.names == [f"text {i}" for i in range(15)] and data.ids[3] == "000000003"
    assert numbers(load_data(f"webdataset:{folder}/00001.tar", split="all")) == [5, 6, 7, 8, 9]
    train, val = (load_data(f"webdataset:{folder}", split=s) for s in ("train", "val"))
    assert sorted(train.ids + val.ids) == list(data.ids) and len(val)


def test_tars_agree_with_webdataset_itself(tmp_path: Path) -> None:
    from webdataset.tariterators import group_by_keys, tar_file_expander

    folder = shards(tmp_path / "wds", count=1)
    data = load_data(f"webdataset:{folder}", split="all")
    with (folder / "00000.tar").open("rb") as stream:
        theirs = list(group_by_keys(tar_file_expander([{"url": "it", "stream": stream}])))
    assert [s["__key__"] for s in theirs] == list(data.ids)
    from geomkit.data.decode import decode

    expected = [decode(s["jpg"], Preprocess(32)) for s in theirs]
    assert np.array_equal(data.pixels(), np.stack(expected))


def test_tars_are_gone_through_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from geomkit.data import shards as module

    folder = shards(tmp_path / "wds", count=2)
    gone_through = []
    real = module._go_through
    monkeypatch.setattr(
        module, "_go_through", lambda t, n: gone_through.append(t.name) or real(t, n)
    )
    first, again = (load_data(f"webdataset:{folder}", split="all") for _ in range(2))
    assert gone_through == ["00000.tar", "00001.tar"] and first.ids == again.ids
    shard(folder / "00001.tar", {"x.png": picture(99), "x.txt": "changed"})
    write(folder / "sizes.json", json.dumps({"00001.tar": 5}))
    changed = load_data(f"webdataset:{folder}", split="all")
    assert numbers(changed)[-1] == 99 and gone_through[2:] == ["00001.tar"]
    assert "sizes.json says 5 for 00001.tar, it holds 1" in changed.note


def test_samples_that_lack_something(tmp_path: Path) -> None:
    file = shard(
        tmp_path / "a.tar",
        {
            "1.png": picture(1),
            "1.txt": "",
            "2.txt": "alone",
            "3.png": picture(3),
            "4.png": b"no picture",
            "4.txt": "bad",
            "5.png": picture(5),
            "5.json": '{"caption": null}',
        },
    )
    data = load_data(f"webdataset:{file}", split="all")
    assert data.ids == ("1", "4") and data.names == ["", "bad"]
    assert (
        "2 samples without a caption (3, 5); left out: 1 samples without an image (2)"
        in data.remarks
    )
    assert [b.id for b in data.read()[2]] == ["4"]


def test_a_tar_that_is_cut_short_is_named(tmp_path: Path) -> None:
    whole = shards(tmp_path / "wds", count=1).joinpath("00000.tar").read_bytes()
    with tarfile.open(tmp_path / "wds" / "00000.tar") as archive:
        last = archive.getmembers()[-1].offset_data
    for length in (100, 700, 1000, last - 300, last + 10):
        cut = write(tmp_path / f"{length}.tar", whole[:length])
        with pytest.raises(GeomkitError, match=rf"{length}.tar: cut short") as caught:
            load_data(f"webdataset:{cut}", split="all")
        assert "\n" not in str(caught.value)
    cut = write(tmp_path / "boundary.tar", whole[: last + 512])
    assert "no end mark in boundary.tar" in load_data(f"webdataset:{cut}", split="all").note
    joined = write(tmp_path / "joined.tar", whole + whole)
    note = load_data(f"webdataset:{joined}", split="all").note
    assert "not read: what follows the end of joined.tar" in note


def _no_webdataset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "webdataset.shardlists", None)


def test_without_the_package_tars_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _no_webdataset(monkeypatch)
    with pytest.raises(GeomkitError, match=r"pip install 'geomkit\[webdataset\]'"):
        load_data(f"webdataset:{tmp_path}")
