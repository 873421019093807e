"""COCO in its layouts: folders and zips, 2014 and 2017, Karpathy's split, what may be missing."""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from samples import layout, numbers, picture, write

from geomkit.data import load_data
from geomkit.data.pairs import seeded_hash
from geomkit.errors import GeomkitError

MINI = Path(__file__).parents[3] / "shared" / "data" / "coco-mini"


def zipped(root: Path, to: Path) -> Path:
    """The same, as it is downloaded: nothing unpacked, some members deflated."""
    to.mkdir()
    year = "2017"
    for folder in ("train2017", "val2017"):
        with zipfile.ZipFile(to / f"{folder}.zip", "w") as archive:
            archive.mkdir(folder)
            for i, file in enumerate(sorted((root / folder).iterdir())):
                method = zipfile.ZIP_DEFLATED if i % 2 else zipfile.ZIP_STORED
                archive.write(file, f"{folder}/{file.name}", method)
    with zipfile.ZipFile(to / f"annotations_trainval{year}.zip", "w") as archive:
        for file in (root / "annotations").iterdir():
            archive.write(file, f"annotations/{file.name}", zipfile.ZIP_DEFLATED)
    return to


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    return layout(tmp_path / "a,b=c:d", "2017", {"train": 6, "val": 3})  # any name a folder has


def test_coco_2017(coco: Path) -> None:
    train, val = (load_data(f"coco:{coco}", split=s) for s in ("train", "val"))
    assert train.ids == ("1", "2", "3", "4", "5", "6") and val.ids == ("7", "8", "9")
    assert numbers(train) == [1, 2, 3, 4, 5, 6] and numbers(val) == [7, 8, 9]
    assert train.captions[1] == ("first of 2", "1 of 2")
    assert "6 images; COCO 2017's train has 118,287: a part of it" in train.note
    whole = load_data(f"coco:{coco},captions=1", split="all")
    assert len(whole) == 9 and set(map(len, whole.captions)) == {1}
    assert "CC BY 4.0" in whole.licence and "COCO" in whole.attribution


def test_zips_equal_folders(coco: Path, tmp_path: Path) -> None:
    packed = zipped(coco, tmp_path / "zips")
    for split in ("train", "val", "all"):
        one, two = (load_data(f"coco:{root}", split=split) for root in (coco, packed))
        assert np.array_equal(one.pixels(), two.pixels())
        assert (one.ids, one.captions) == (two.ids, two.captions)
        assert one.fingerprint == two.fingerprint
    again = pickle.loads(pickle.dumps(two))  # as a spawned worker gets it
    assert np.array_equal(again.pixels([8, 0]), two.pixels([8, 0]))


def test_workers_read_from_zips(coco: Path, tmp_path: Path) -> None:
    from geomkit.data.loading import batches

    data = load_data(f"coco:{zipped(coco, tmp_path / 'zips')}", split="all")
    jobs = [np.array([i, 8 - i]) for i in range(9)]
    found = [b.images.numpy() for b in batches(data, jobs, workers=2)]
    assert all(np.array_equal(f, data.pixels(job)) for f, job in zip(found, jobs, strict=True))


def test_coco_2014_and_karpathy(tmp_path: Path) -> None:
    name = "COCO_{folder}_{:012d}.jpg"
    root = layout(tmp_path, "2014", {"train": 4, "val": 6}, name=name)
    assert numbers(load_data(f"coco:{root}", split="val")) == [5, 6, 7, 8, 9, 10]
    splits = ["train"] * 4 + ["restval"] * 2 + ["val", "val", "test", "test"]
    images = [
        {
            "filepath": folder,
            "filename": name.format(i, folder=folder),
            "cocoid": i,
            "split": split,
            "sentences": [{"raw": "b", "sentid": 2 * i + 1}, {"raw": "a", "sentid": 2 * i}],
        }
        for i, split in enumerate(splits, 1)
        for folder in ["train2014" if i <= 4 else "val2014"]
    ]
    write(root / "dataset_coco.json", json.dumps({"images": images, "dataset": "coco"}))
    spec = f"coco:{root},year=karpathy"
    found = {s: load_data(spec, split=s) for s in ("train", "val", "test", "all")}
    assert numbers(found["train"]) == [1, 2, 3, 4, 5, 6] and numbers(found["val"]) == [7, 8]
    assert numbers(found["test"]) == [9, 10] and len(found["all"]) == 10
    assert found["test"].captions[0] == ("a", "b") and "5,000" in found["test"].note
    assert "2014's layout" in load_data(f"coco:{root}").note  # several there, none named
    assert "layout" not in found["val"].note


def test_published_counts_are_recognised(coco: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from geomkit.data import coco as module

    assert sum(n for (y, _), n in module.PUBLISHED.items() if y == "karpathy") == 123_287
    monkeypatch.setitem(module.PUBLISHED, ("2017", "train"), 6)
    monkeypatch.setitem(module.PUBLISHED, ("2017", "val"), 2)
    assert load_data(f"coco:{coco}").note == "6 images, as published"
    assert "more than there should be" in load_data(f"coco:{coco}", split="val").note


def test_a_miniature_without_validation_holds_out_a_fifth(tmp_path: Path) -> None:
    root = layout(tmp_path, "2017", {"train": 60})
    train, val = (load_data(f"coco:{root}", split=s) for s in ("train", "val"))
    assert sorted(train.ids + val.ids, key=int) == [str(i) for i in range(1, 61)]
    assert set(val.ids) == {i for i in train.ids + val.ids if seeded_hash(i, 0, "split") < 0.2}
    assert "a fifth" in val.note and "60 images" in val.note and len(val) > 4
    assert load_data(f"coco:{root},seed=1", split="val").ids != val.ids


def test_images_without_captions_and_missing_files(coco: Path) -> None:
    file = coco / "annotations" / "captions_train2017.json"
    content = json.loads(file.read_text())
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] != 3]
    file.write_text(json.dumps(content))
    (coco / "train2017" / f"{5:012d}.jpg").unlink()
    data = load_data(f"coco:{coco},max_bad=0.5")
    assert data.ids == ("1", "2", "4", "5", "6") and data.given == 6
    assert "left out: 1 images without captions (train2017/000000000003.jpg)" in data.remarks
    _, kept, bad = data.read()
    assert kept.tolist() == [0, 1, 2, 4] and [b.id for b in bad] == ["5"]
    assert "no such file" in bad[0].reason
    data.check_bad(bad)
    with pytest.raises(GeomkitError, match=r"image 5 .*1 of 5 images"):
        load_data(f"coco:{coco}").check_bad(bad)


@pytest.mark.skipif(not MINI.is_dir(), reason="the 80 images of COCO are not here")
def test_real_images_of_coco() -> None:
    data = load_data(f"coco:{MINI}", split="all", size=64)
    assert len(data) == 80 and sum(map(len, data.captions)) == 400
    assert "118,287: a part of it" in data.note
    pixels = data.pixels()
    assert pixels.shape == (80, 64, 64, 3) and pixels.std() > 30
    assert len({p.tobytes() for p in pixels}) == 80


def test_damage_inside_a_zip_is_a_bad_picture(coco: Path, tmp_path: Path) -> None:
    packed = zipped(coco, tmp_path / "zips")
    file = packed / "val2017.zip"
    content = bytearray(file.read_bytes())
    inside = content.find(picture(7)[20:40])
    content[inside + 5] ^= 255
    file.write_bytes(content)
    bad = load_data(f"coco:{packed}", split="val").read()[2]
    assert [b.id for b in bad] == ["7"] and "is damaged in val2017.zip" in bad[0].reason


def test_n_counts_training_pairs(coco: Path) -> None:
    assert len(load_data(f"coco:{coco},n=4")) == 4
    assert len(load_data(f"coco:{coco},n=4", split="val")) == 3
    assert len(load_data(f"coco:{coco}", split="all", n=5)) == 5


def test_images_that_are_not_listed_or_listed_twice(coco: Path) -> None:
    file = coco / "annotations" / "captions_train2017.json"
    content = json.loads(file.read_text())
    last = content["images"].pop()
    file.write_text(json.dumps(content))
    data = load_data(f"coco:{coco}")
    assert data.given == 6 and len(data) == 5
    assert f"1 images that have captions but are not listed ({last['id']})" in data.remarks
    content["images"].append(content["images"][0])
    file.write_text(json.dumps(content))
    with pytest.raises(GeomkitError, match="image train/1 is listed twice"):
        load_data(f"coco:{coco}")


def test_numbers_may_be_those_of_a_split(coco: Path) -> None:
    train, val = (coco / "annotations" / f"captions_{split}2017.json" for split in ("train", "val"))
    val.write_text(train.read_text())
    ids = load_data(f"coco:{coco}", split="all").ids
    assert ids[:2] == ("train/1", "train/2") and ids[-1] == "val/6"
