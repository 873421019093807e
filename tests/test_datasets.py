"""Data sets in files: COCO's layouts, tables, folders, tars, and specs that name them."""

from __future__ import annotations

import io
import json
import pickle
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from geomkit.data import PairData, image_folder_classes, load_data, parse_spec, with_options
from geomkit.data.pairs import seeded_hash
from geomkit.errors import GeomkitError

MINI = Path(__file__).parents[2] / "shared" / "data" / "coco-mini"


def picture(number: int, kind: str = "PNG") -> bytes:
    """A picture in a colour of its own, exact after any resizing."""
    out = io.BytesIO()
    colour = (number % 256, number // 256, 7)
    Image.new("RGB", (20 + number % 5, 16), colour).save(out, kind)
    return out.getvalue()


def numbers(data: PairData) -> list[int]:
    """Which pictures these are, by their colours."""
    middle = data.pictures()[:, 4, 4].astype(int)
    return (middle[:, 0] + 256 * middle[:, 1]).tolist()


def write(file: Path, content: bytes | str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def annotations(images: list[tuple[int, str]], *, per_image: int = 2) -> str:
    """COCO's captions, the annotations in another order than their ids."""
    entries = [
        {"id": 10 * id_ + k, "image_id": id_, "caption": f"{k or 'first'} of {id_} \n"}
        for id_, _ in images
        for k in range(per_image)
    ]
    return json.dumps(
        {
            "images": [{"id": id_, "file_name": name} for id_, name in images],
            "annotations": entries[::-1],
        }
    )


def layout(root: Path, year: str, counts: dict[str, int], *, name: str = "{:012d}.jpg") -> Path:
    """COCO in small: pictures and captions for each split."""
    number = 0
    for split, count in counts.items():
        folder = f"{split}{year}"
        images = []
        for _ in range(count):
            number += 1
            images.append((number, name.format(number, folder=folder)))
            write(root / folder / images[-1][1], picture(number))
        write(root / "annotations" / f"captions_{folder}.json", annotations(images))
    return root


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
        assert np.array_equal(one.pictures(), two.pictures())
        assert (one.ids, one.captions) == (two.ids, two.captions)
        assert one.fingerprint == two.fingerprint
    again = pickle.loads(pickle.dumps(two))  # as a spawned worker gets it
    assert np.array_equal(again.pictures([8, 0]), two.pictures([8, 0]))


def test_workers_read_from_zips(coco: Path, tmp_path: Path) -> None:
    from geomkit.loading import batches

    data = load_data(f"coco:{zipped(coco, tmp_path / 'zips')}", split="all")
    jobs = [np.array([i, 8 - i]) for i in range(9)]
    found = [b.pictures.numpy() for b in batches(data, jobs, workers=2)]
    assert all(np.array_equal(f, data.pictures(job)) for f, job in zip(found, jobs, strict=True))


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
    assert data.ids == ("1", "2", "4", "5", "6") and "1 images without captions" in data.note
    _, kept, bad = data.read()
    assert kept.tolist() == [0, 1, 2, 4] and [b.id for b in bad] == ["5"]
    assert "no such file" in bad[0].reason
    data.check_bad(bad)
    with pytest.raises(GeomkitError, match=r"picture 5 .*1 of 5 pictures"):
        load_data(f"coco:{coco}").check_bad(bad)


@pytest.mark.skipif(not MINI.is_dir(), reason="the 80 images of COCO are not here")
def test_real_images_of_coco() -> None:
    data = load_data(f"coco:{MINI}", split="all", size=64)
    assert len(data) == 80 and sum(map(len, data.captions)) == 400
    assert "118,287: a part of it" in data.note
    pixels = data.pictures()
    assert pixels.shape == (80, 64, 64, 3) and pixels.std() > 30
    assert len({p.tobytes() for p in pixels}) == 80


def test_distinct_keeps_the_first_of_each_main_caption(tmp_path: Path) -> None:
    captions = ["a dog", "a cat", "a dog", "a bird", "a cat"]
    rows = [f"{i}.png,{caption}" for i, caption in enumerate(captions)]
    table = write(tmp_path / "t.csv", "\n".join(["filepath,title", *rows]))
    assert load_data(f"csv:{table},distinct=true", split="all").ids == ("0.png", "1.png", "3.png")
    assert len(load_data(f"csv:{table}", split="all")) == 5


ODD = [
    "",
    " ".join(["long"] * 4000),
    "🐕‍🦺 und 🎉",
    "كلب يركض על הדשא",
    'quoted "comma", and\nnewline',
]


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet"])
def test_tables_keep_odd_captions(kind: str, tmp_path: Path) -> None:
    import csv

    file = tmp_path / f"t.{kind}"
    names = ["img/0.png", "img/1.png"]
    for i, name in enumerate(names):
        write(tmp_path / name, picture(i))
    rows = [(names[0], c) for c in ODD] + [(names[1], "last"), (names[0], "again")]
    if kind == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        images, captions = zip(*rows, strict=True)
        pq.write_table(pa.table({"title": captions, "filepath": images}), file)
    else:
        with file.open("w", encoding="utf-8", newline="") as out:
            table = csv.writer(out, delimiter="," if kind == "csv" else "\t")
            table.writerows([("filepath", "title"), *rows])
    data = load_data(f"csv:{file}", split="all")
    assert data.captions == ((*ODD, "again"), ("last",)) and data.ids == tuple(names)
    assert numbers(data) == [0, 1]


def test_table_columns_splits_and_separator(tmp_path: Path, monkeypatch) -> None:
    for i in range(4):
        write(tmp_path / "here" / f"{i}.png", picture(i))
    table = write(
        tmp_path / "tables" / "t.txt",
        "\ufeffname;file;says;part\nn0;0.png;a;train\nn1;1.png;b;validation\n"
        "n2;2.png;c;test\nn3;3.png;d;train\n",
    )
    monkeypatch.chdir(tmp_path / "here")  # not beside the table, so from the working directory
    spec = with_options(f"csv:{table},separator=semicolon", image_column="file")
    spec = with_options(spec, caption_column="says", id_column="name", split_column="part")
    assert load_data(spec).ids == ("n0", "n3") and numbers(load_data(spec)) == [0, 3]
    assert numbers(load_data(spec, split="val")) == [1]
    assert load_data(spec, split="test").names == ["c"]


def test_image_folder(tmp_path: Path) -> None:
    for i in range(30):
        name = "big_red-dog" if i % 2 else "cat"
        write(tmp_path / name / f"{i}.{'PNG' if i % 3 else 'png'}", picture(i))
    write(tmp_path / "cat" / "notes.md", "no picture")
    spec = f"imagefolder:{tmp_path}"
    whole, train, val = (load_data(spec, split=s) for s in ("all", "train", "val"))
    assert len(whole) == 30 and sorted(train.ids + val.ids) == sorted(whole.ids)
    assert set(whole.names) == {"a photo of a cat.", "a photo of a big red dog."}
    assert whole.names[numbers(whole).index(7)] == "a photo of a big red dog."
    files, labels, classes = image_folder_classes(tmp_path, split="val")
    assert tuple(files) == val.ids and classes == ["big red dog", "cat"]
    assert [f"a photo of a {classes[k]}." for k in labels] == val.names
    assert set(load_data(f"{spec},template={{}}!", split="all").names) == {"cat!", "big red dog!"}


def test_image_folder_with_splits(tmp_path: Path) -> None:
    for i, place in enumerate(["train/a", "train/b", "val/a", "val/b/deep", "train/a"]):
        write(tmp_path / place / f"{i}.png", picture(i))
    spec = f"imagefolder:{tmp_path}"
    assert numbers(load_data(spec)) == [0, 4, 1] and numbers(load_data(spec, split="val")) == [2, 3]
    files, labels, classes = image_folder_classes(tmp_path, split="val")
    assert files == ["val/a/2.png", "val/b/deep/3.png"] and labels.tolist() == [0, 1]
    assert classes == ["a", "b"] and len(load_data(spec, split="all")) == 5
    with pytest.raises(GeomkitError, match="no folder test"):
        load_data(spec, split="test")


def test_pictures_with_texts_beside_them(tmp_path: Path) -> None:
    for i in range(8):
        write(tmp_path / f"0000{i % 2}" / f"{i:09d}.png", picture(i))
        if i != 5:
            write(tmp_path / f"0000{i % 2}" / f"{i:09d}.txt", f"text {i}\n")
    data = load_data(f"imagefolder:{tmp_path}", split="all")
    assert dict(zip(numbers(data), data.names, strict=True)) == {
        i: f"text {i}" for i in range(8) if i != 5
    }
    assert "1 pictures without a .txt" in data.note


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
    from geomkit.data.decode import decode, plain_preprocess

    expected = [decode(s["jpg"], plain_preprocess(32)) for s in theirs]
    assert np.array_equal(data.pictures(), np.stack(expected))


def test_tars_are_gone_through_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from geomkit.data import shards as module

    folder = shards(tmp_path / "wds", count=2)
    gone_through = []
    real = module._go_through
    monkeypatch.setattr(module, "_go_through", lambda t: gone_through.append(t.name) or real(t))
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
    assert "1 samples without a picture" in data.note and "2 samples without a c" in data.note
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


def test_specs_with_any_path() -> None:
    assert parse_spec("coco:/a,b=c,captions=2,n=3") == (
        "coco",
        "/a,b=c",
        {"captions": 2, "n": 3},
    )
    assert parse_spec("csv:C:\\x,y=1\\t.csv") == ("csv", "C:\\x,y=1\\t.csv", {})
    assert parse_spec("webdataset:/a/{1,2}.tar,seed=5") == (
        "webdataset",
        "/a/{1,2}.tar",
        {"seed": 5},
    )
    assert with_options("csv:a,b.csv", max_bad=0.5, draft=False, n=None) == (
        "csv:a,b.csv,max_bad=0.5,draft=false"
    )


def test_n_counts_training_pairs(coco: Path) -> None:
    assert len(load_data(f"coco:{coco},n=4")) == 4
    assert len(load_data(f"coco:{coco},n=4", split="val")) == 3
    assert len(load_data(f"coco:{coco}", split="all", n=5)) == 5


def test_a_models_preprocessing_is_followed(tmp_path: Path) -> None:
    left_red = Image.new("RGB", (90, 30), "red")
    left_red.paste("blue", (30, 0, 90, 30))
    left_red.save(tmp_path / "a.png")
    table = write(tmp_path / "t.csv", "filepath,title\na.png,x\n")
    ways = {"size": 30, "interpolation": "bicubic", "fill_color": 5}

    def one(mode: str) -> np.ndarray:
        return load_data(
            f"csv:{table}", split="all", preprocess={**ways, "resize_mode": mode}
        ).pictures()[0]

    assert (one("shortest") == (0, 0, 255)).all()
    assert (one("squash")[:, :8] == (255, 0, 0)).all()
    assert (one("longest")[:9] == 5).all() and (one("longest")[12:18, :8] == (255, 0, 0)).all()
    plain = {**ways, "size": 32, "resize_mode": "shortest"}
    assert load_data(preprocess=plain, size=64, n=2).pictures().shape == (2, 32, 32, 3)


def _no_webdataset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "webdataset.shardlists", None)


def test_without_the_package_tars_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _no_webdataset(monkeypatch)
    with pytest.raises(GeomkitError, match=r"pip install 'geomkit\[webdataset\]'"):
        load_data(f"webdataset:{tmp_path}")


BAD = [
    ("coco", "coco needs a path; write coco:ROOT"),
    ("openmoji:x", "openmoji takes no path"),
    ("coco:{d}/none", "none: no such folder; check the path"),
    ("coco:{d}/coco,yaer=2014", "is 'yaer' an option? known: year, "),
    ("coco:{d}/coco,year=2015", "unknown year of coco '2015'"),
    ("coco:{d}/coco,year=2014", "no captions_train2014.json"),
    ("coco:{d}/coco,captions=0", "expected 1 or more, got 0"),
    ("coco:{d}/coco,n=3,n=4", "n is given twice"),
    ("coco:{d}/coco,max_bad=2", "expected a share"),
    ("coco:{d}", "no captions_train2017.json"),
    ("coco:{d}/bare", "neither a folder train2017 nor train2017.zip"),
    ("coco:{d}/cut", "train2017.zip: no zip file, or cut short"),
    ("coco:{d}/broken", "captions_train2017.json: not JSON, or cut short"),
    ("coco:{d}/foreign", "no 'annotations'"),
    ("csv:{d}/none.csv", "none.csv: no such file"),
    ("csv:{d}/t.csv,image_colum=x", "is 'image_colum' an option?"),
    ("csv:{d}/t.csv,image_column=path", "no column 'path'; there are: filepath, title"),
    ("csv:{d}/t.csv,split_column=part", "no column 'part'"),
    ("csv:{d}/short.csv", "row 2: no title"),
    ("csv:{d}/nowhere.csv", "row 1: empty filepath"),
    ("csv:{d}/latin.csv", "not UTF-8"),
    ("csv:{d}/quote.csv", "cannot be read"),
    ("csv:{d}/empty.csv", "holds no rows"),
    ("csv:{d}/blank.csv", "no column 'filepath'"),
    ("csv:{d}/t.dat", "give separator="),
    ("csv:{d}/bad.parquet", "no parquet file, or damaged"),
    ("csv:{d}/twice.csv,id_column=name", "name 'a' names two pictures"),
    ("imagefolder:{d}/none", "no such folder"),
    ("imagefolder:{d}/empty", "no pictures in it"),
    ("imagefolder:{d}/flat", "lies in no class's folder"),
    ("imagefolder:{d}/flat,template=photo", "expected {} for the class"),
    ("webdataset:{d}/none.tar", "no such tar"),
    ("webdataset:{d}/*.tar", "no such tar"),
    ("webdataset:{d}/empty", "no such tar"),
    ("webdataset:{d}/t.csv", "cut short, or no plain tar"),
]


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder of everything that is not as it should be."""
    root = tmp_path_factory.mktemp("wrong")
    layout(root / "coco", "2017", {"train": 3, "val": 2})
    good = annotations([(i, f"{i}.jpg") for i in range(20)])
    for name, content in {"bare": good, "cut": good, "broken": good[:50], "foreign": "{}"}.items():
        write(root / name / "annotations" / "captions_train2017.json", content)
    write(root / "cut" / "train2017.zip", b"PK\x03\x04 and no more")
    write(root / "t.csv", "filepath,title\na.png,x\n")
    write(root / "t.dat", "filepath,title\na.png,x\n")
    write(root / "short.csv", "filepath,title\na.png,x\nb.png\n")
    write(root / "nowhere.csv", "filepath,title\n,x\n")
    write(root / "latin.csv", "filepath,title\na.png,Hündchen\n".encode("latin-1"))
    write(root / "quote.csv", 'filepath,title\na.png,"no end\n')
    write(root / "empty.csv", "filepath,title\n")
    write(root / "blank.csv", "")
    write(root / "bad.parquet", "PAR1 and no more")
    write(root / "twice.csv", "filepath,title,name\na.png,x,a\nb.png,y,a\n")
    write(root / "flat" / "a.png", picture(1))
    (root / "empty").mkdir()
    return root


@pytest.mark.parametrize(("spec", "says"), BAD)
def test_what_cannot_be_loaded_is_one_line(spec: str, says: str, wrong: Path) -> None:
    with pytest.raises(GeomkitError) as caught:
        load_data(spec.replace("{d}", str(wrong)))
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_null_cells_of_parquet_are_named(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = tmp_path / "t.parquet"
    pq.write_table(pa.table({"filepath": ["a", "b"], "title": ["x", None]}), file)
    with pytest.raises(GeomkitError, match="row 2: no title"):
        load_data(f"csv:{file}")


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: with_options("coco:x,n=3", n=4), "n is in the spec already"),
        (lambda: with_options("openmoji", max_bad=0.1), "unknown option of openmoji 'max_bad'"),
        (lambda: with_options("csv:x", image_column="a,b"), "holds a comma"),
        (lambda: with_options("csv:x", max_bad=7), "expected a share"),
        (lambda: load_data("openmoji", split="test"), "unknown split 'test'"),
    ],
)
def test_options_that_do_not_fit(call, says: str) -> None:
    with pytest.raises(GeomkitError, match=says):
        call()


def test_damage_inside_a_zip_is_a_bad_picture(coco: Path, tmp_path: Path) -> None:
    packed = zipped(coco, tmp_path / "zips")
    file = packed / "val2017.zip"
    content = bytearray(file.read_bytes())
    inside = content.find(picture(7)[20:40])
    content[inside + 5] ^= 255
    file.write_bytes(content)
    bad = load_data(f"coco:{packed}", split="val").read()[2]
    assert [b.id for b in bad] == ["7"] and "is damaged in val2017.zip" in bad[0].reason


# The command


def test_the_command_lists_and_shows(cli, coco: Path) -> None:
    listed = cli("data").out
    for name in ("openmoji", "coco:ROOT", "csv:FILE", "imagefolder:DIR", "webdataset:PATTERN"):
        assert name in listed
    shown = cli("data", f"coco:{coco}", "--size", 10, "-o", "sheet.png", "--check", "--workers", 0)
    assert shown.status == 0 and Path("sheet.png").stat().st_size > 1000
    assert "pictures:    9, 10 px; train 6 with 12 captions, val 3 with 6 captions, no" in shown.out
    assert "a part of it" in shown.out and "checked:     9 pictures, 0 bad" in shown.out


def test_the_command_checks_every_picture(cli, refused, tmp_path: Path) -> None:
    for i in range(6):
        write(tmp_path / f"{i}.png", picture(i) if i else b"no picture")
    rows = "\n".join(f"{i}.png,text {i}" for i in range(6))
    table = write(tmp_path / "t.csv", f"file,says\n{rows}\n")
    words = ("data", f"csv:{table}", "--image-column", "file", "--caption-column", "says")
    says = ("picture 0.png", "1 of 6 pictures", "--max-bad")
    refused(*words, "--check", "--workers", 0, says=says)
    kept = cli(*words, "--check", "--workers", 0, "--max-bad", 0.2)
    assert kept.status == 0 and "bad:         0.png: does not decode (not a picture)" in kept.out
    refused(*words, "--size", 0, says=("--size",))
    refused("data", "coco", says=("coco:ROOT",))
