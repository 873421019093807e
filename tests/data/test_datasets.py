"""Data sets in files: specs that name them, tables, folders of pictures, bad input, the command."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from samples import annotations, layout, numbers, picture, write

from geomkit.data import find_data, load_data, parse_spec, with_options
from geomkit.data.folder import class_folders
from geomkit.errors import GeomkitError
from geomkit.models.preprocess import Preprocess


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
    found = class_folders(tmp_path)
    assert found.files == whole.ids and found.names == ("big red dog", "cat")
    assert [f"a photo of a {found.names[k]}." for k in found.labels] == whole.names
    assert set(load_data(f"{spec},template={{}}!", split="all").names) == {"cat!", "big red dog!"}


def test_image_folder_with_splits(tmp_path: Path) -> None:
    for i, place in enumerate(["train/a", "train/b", "val/a", "val/b/deep", "train/a"]):
        write(tmp_path / place / f"{i}.png", picture(i))
    spec = f"imagefolder:{tmp_path}"
    assert numbers(load_data(spec)) == [0, 4, 1] and numbers(load_data(spec, split="val")) == [2, 3]
    found = class_folders(tmp_path)
    assert found.files[3:] == ("val/a/2.png", "val/b/deep/3.png")
    assert found.labels.tolist() == [0, 0, 1, 0, 1] and found.names == ("a", "b")
    assert found.splits == ("train",) * 3 + ("val",) * 2
    assert len(load_data(spec, split="all")) == 5
    with pytest.raises(GeomkitError, match="has no split test; it has train, val; or use all"):
        load_data(spec, split="test")


def test_image_folder_of_held_out_splits_alone(tmp_path: Path) -> None:
    for i, place in enumerate(["val/a", "val/b", "test/a"]):
        write(tmp_path / place / f"{i}.png", picture(i))
    spec = f"imagefolder:{tmp_path}"
    assert numbers(load_data(spec, split="val")) == [0, 1]
    assert numbers(load_data(spec, split="test")) == [2]
    with pytest.raises(GeomkitError, match="has no split train; it has test, val"):
        load_data(spec)
    write(tmp_path / "other" / "3.png", picture(3))  # then val and test are classes, as others are
    assert set(load_data(spec, split="all").names) == {
        f"a photo of a {c}." for c in ("other", "test", "val")
    }


def test_pictures_with_texts_beside_them(tmp_path: Path) -> None:
    for i in range(8):
        write(tmp_path / f"0000{i % 2}" / f"{i:09d}.png", picture(i))
        if i != 5:
            write(tmp_path / f"0000{i % 2}" / f"{i:09d}.txt", f"text {i}\n")
    data = load_data(f"imagefolder:{tmp_path}", split="all")
    assert dict(zip(numbers(data), data.names, strict=True)) == {
        i: f"text {i}" for i in range(8) if i != 5
    }
    assert data.remarks.startswith("left out: 1 images without a .txt beside them (00001/00000000")
    assert data.given == 8 and "1 caption per image" in data.reading


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


def test_a_models_preprocessing_is_followed(tmp_path: Path) -> None:
    left_red = Image.new("RGB", (90, 30), "red")
    left_red.paste("blue", (30, 0, 90, 30))
    left_red.save(tmp_path / "a.png")
    table = write(tmp_path / "t.csv", "filepath,title\na.png,x\n")
    ways = Preprocess(30, fill_color=5)

    def one(mode: str) -> np.ndarray:
        return load_data(
            f"csv:{table}", split="all", preprocess=replace(ways, resize_mode=mode)
        ).pixels()[0]

    assert (one("shortest") == (0, 0, 255)).all()
    assert (one("squash")[:, :8] == (255, 0, 0)).all()
    assert (one("longest")[:9] == 5).all() and (one("longest")[12:18, :8] == (255, 0, 0)).all()
    plain = replace(ways, size=32)
    assert load_data(preprocess=plain, size=64, n=2).pixels().shape == (2, 32, 32, 3)


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
    ("csv:{d}/t.csv,image_column=path", "no column 'path'; there are: 'filepath', 'title'"),
    ("csv:{d}/t.csv,split_column=part", "no column 'part'"),
    ("csv:{d}/short.csv", "row 2: (line 3) no title: 1 cells, the header has 2: 1 of 2"),
    ("csv:{d}/nowhere.csv", "row 1: empty filepath"),
    ("csv:{d}/latin.csv", "not UTF-8"),
    ("csv:{d}/quote.csv", "cannot be read"),
    ("csv:{d}/empty.csv", "holds no rows"),
    ("csv:{d}/blank.csv", "no column 'filepath'"),
    ("csv:{d}/t.dat,separator=::", "separator '::': expected one character or one of comma"),
    ("csv:{d}/bad.parquet", "no parquet file, or damaged"),
    ("csv:{d}/twice.csv,id_column=name", "name 'a' names two images"),
    ("imagefolder:{d}/none", "no such folder"),
    ("imagefolder:{d}/empty", "no images in it"),
    ("imagefolder:{d}/flat", "is in no class's folder"),
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


# The command


def test_the_command_lists_and_shows(cli, tmp_path: Path) -> None:
    root = layout(tmp_path / "coco", "2017", {"train": 6, "val": 3})
    listed = cli("data").out
    for name in ("openmoji", "coco:ROOT", "csv:FILE", "imagefolder:DIR", "webdataset:PATTERN"):
        assert name in listed
    shown = cli("data", f"coco:{root}", "--size", 10, "-o", "sheet.png", "--check", "--workers", 0)
    assert shown.status == 0 and Path("sheet.png").stat().st_size > 1000
    assert "images:      9, 10 px; train 6 with 12 captions, val 3 with 6 captions, no" in shown.out
    assert "a part of it" in shown.out and "checked:     9 images, 0 bad" in shown.out


def test_the_command_checks_every_picture(cli, refused, tmp_path: Path) -> None:
    for i in range(6):
        write(tmp_path / f"{i}.png", picture(i) if i else b"no picture")
    rows = "\n".join(f"{i}.png,text {i}" for i in range(6))
    table = write(tmp_path / "t.csv", f"file,says\n{rows}\n")
    words = ("data", f"csv:{table}", "--image-column", "file", "--caption-column", "says")
    says = ("image 0.png", "1 of 6 images", "--max-bad")
    refused(*words, "--check", "--workers", 0, says=says)
    kept = cli(*words, "--check", "--workers", 0, "--max-bad", 0.2)
    assert kept.status == 0 and "bad:         0.png: does not decode (not an image)" in kept.out
    refused(*words, "--size", 0, says=("--size",))
    refused("data", "coco", says=("coco:ROOT",))


@pytest.mark.parametrize(("spec", "says"), [case for case in BAD if "no such" in case[1]])
def test_a_path_that_leads_nowhere_is_refused_before_anything_is_loaded(
    spec: str, says: str, wrong: Path
) -> None:
    with pytest.raises(GeomkitError, match=says):
        find_data(spec.replace("{d}", str(wrong)))
    assert find_data("openmoji") is find_data(f"coco:{wrong}/coco") is None
