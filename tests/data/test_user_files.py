"""Files as people have them: read right, or refused in one line that says what and where."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from samples import numbers, picture, write
from test_tars import shard

from geomkit.data import load_data
from geomkit.data.decode import decode
from geomkit.data.folder import class_folders
from geomkit.data.labelled.prompts import read_classnames, read_templates
from geomkit.errors import GeomkitError
from geomkit.models.preprocess import Preprocess


def rows(count: int, mark: str = ",", **captions: str) -> list[str]:
    texts = [captions.get(f"c{i}", f"text {i}") for i in range(count)]
    return [f"filepath{mark}title", *(f"{i}.png{mark}{text}" for i, text in enumerate(texts))]


def table(folder: Path, name: str, lines: list[str], **options: object):
    spec = ",".join([f"csv:{write(folder / name, chr(10).join(lines))}"]
                    + [f"{key}={value}" for key, value in options.items()])  # fmt: skip
    return load_data(spec, split="all")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for i in range(20):
        write(folder / f"{i}.png", picture(i))
    return folder


# Tables


@pytest.mark.parametrize(
    ("name", "mark", "says"),
    [("a.csv", "\t", "separator tab"), ("a.csv", ";", "separator semicolon"),
     ("a.txt", ",", "separator comma"), ("a.tsv", "|", "separator pipe"),
     ("a.csv", ", ", "spaces around cells removed")],
)  # fmt: skip
def test_the_separator_is_found_and_said(pictures: Path, name: str, mark: str, says: str) -> None:
    data = table(pictures, name, rows(4, mark))
    assert data.names == [f"text {i}" for i in range(4)] and numbers(data) == [0, 1, 2, 3]
    assert says in data.note and says in data.reading


@pytest.mark.parametrize(
    "captions",
    [{"c4": '"wide open', "c9": 'shut"'}, {"c4": '"open" sign'}, {"c3": '6" pipe'}, {"c4": '"no'}],
)
def test_quotes_between_tabs_are_text(pictures: Path, captions: dict[str, str]) -> None:
    data = table(pictures, "q.tsv", rows(20, "\t", **captions))
    assert [data.names[int(key[1:])] for key in captions] == list(captions.values())
    assert len(data) == 20


def test_quotes_between_tabs_that_a_writer_of_csv_made(pictures: Path) -> None:
    data = table(pictures, "q.tsv", rows(3, "\t", c1='"say ""hi"""'))
    assert data.names[1] == 'say "hi"' and "cells in quotes" in data.note
    assert table(pictures, "q.tsv", rows(3, "\t", c1='"a ""b"""'), quotes="no").names[1][0] == '"'


def test_stray_quotes_of_a_csv_swallow_no_row(pictures: Path) -> None:
    with pytest.raises(GeomkitError, match=r"row 5 .line 6.: .*closed in another row"):
        table(pictures, "q.csv", rows(20, c4='"wide open', c9='shut"'))
    with pytest.raises(GeomkitError, match=r"row 5 .line 6.: .*not closed"):
        table(pictures, "q.csv", rows(20, c4='"wide open'))
    with pytest.raises(GeomkitError, match=r"row 5: .line 6. text after a closing quote"):
        table(pictures, "q.csv", rows(20, c4='"open" sign'))
    with pytest.raises(GeomkitError, match=r"row 5 .line 6.: .*more than 131,072 characters"):
        table(pictures, "q.csv", rows(20, c4="a" * 140_000))


def test_rows_with_other_numbers_of_cells_count_as_bad(pictures: Path) -> None:
    lines = rows(10, c3="one, two")
    with pytest.raises(GeomkitError, match=r"row 4: .* 3 cells, the header has 2: 1 of 10"):
        table(pictures, "w.csv", lines)
    data = table(pictures, "w.csv", lines, max_bad=0.2)
    assert len(data) == 9 and data.given == 10
    assert data.remarks.startswith("left out: 1 rows that cannot be read (row 4: ")
    with pytest.raises(GeomkitError, match="twice a column 'title'"):
        table(pictures, "w.csv", ["filepath,title,title", "a,b,c"])
    with pytest.raises(GeomkitError, match="its first line must name the columns"):
        table(pictures, "w.csv", rows(3)[1:])


def test_empty_lines_are_no_rows_and_a_header_is_needed(pictures: Path) -> None:
    lines = rows(10)
    blank = ["", "", *lines[:5], "", *lines[5:]]
    assert table(pictures, "b.csv", blank).names == table(pictures, "w.csv", lines).names
    with pytest.raises(GeomkitError, match=r"row 6: .line 10. .* 3 cells, the header has 2"):
        table(pictures, "b.csv", [*blank[:9], "6.jpg,a,b"])
    with pytest.raises(GeomkitError, match="its first line must name the columns"):
        table(pictures, "b.csv", ["", *lines[1:]])
    with pytest.raises(GeomkitError, match=r"line 1, which names the columns: text after a clos"):
        table(pictures, "b.csv", ['"filepath"s,title', *lines[1:]])


@pytest.mark.parametrize("kind", ["text", "list", "dictionary"])
def test_a_cell_of_parquet_that_is_not_utf_8_is_named(pictures: Path, kind: str) -> None:
    texts = [f"text {i}".encode() for i in range(10)]
    texts[6] = b"caf\xe9"
    column = pa.Array.from_buffers(pa.string(), 10, pa.array(texts, pa.binary()).buffers())
    if kind == "list":
        column = pa.ListArray.from_arrays(pa.array(range(11), pa.int32()), column)
    elif kind == "dictionary":
        column = column.dictionary_encode()
    names = pa.array([f"{i}.png" for i in range(10)])
    pq.write_table(pa.table({"filepath": names, "title": column}), pictures / "b.parquet")
    with pytest.raises(GeomkitError, match=r"row 7: title is not UTF-8: 1 of 10"):
        load_data(f"csv:{pictures / 'b.parquet'}", split="all")


def test_text_that_is_not_utf_8_is_named(pictures: Path) -> None:
    content = "\n".join(rows(10, c7="café")).encode("cp1252")
    file = write(pictures / "l.csv", content)
    with pytest.raises(GeomkitError, match=r"row 8: .line 9. not UTF-8"):
        load_data(f"csv:{file}", split="all")
    assert len(load_data(f"csv:{file},max_bad=0.1", split="all")) == 9
    with pytest.raises(GeomkitError, match="not UTF-8 but UTF-16"):
        load_data(f"csv:{write(pictures / 'u.csv', 'filepath'.encode('utf-16'))}")


@pytest.mark.parametrize(
    ("name", "says"),
    [("a\\b.png", "write / for them"), ("x" * 300, "does not decode (File name too long"),
     ("a\0b.png", "does not decode"), ("1", "there is 1.png"), ("~/none.png", "no such file")],
)  # fmt: skip
def test_names_that_are_no_paths(pictures: Path, name: str, says: str) -> None:
    data = table(pictures, "n.csv", ["filepath,title", f"{name},x"])
    assert says in data.read()[2][0].reason and data.fingerprint["count"] == 1


def test_urls_are_no_paths(pictures: Path) -> None:
    for url, says in (("https://a.b/1.jpg", "downloads no"), ("file:///a.jpg", "without file://")):
        with pytest.raises(GeomkitError, match=says):
            table(pictures, "u.csv", ["filepath,title", f"{url},x"])
    with pytest.raises(GeomkitError, match="this is a URL: download it"):
        load_data("csv:https://a.b/c.csv")


def test_home_is_expanded(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(pictures))
    write(pictures / "h.csv", "filepath,title\n~/3.png,x\n")
    assert numbers(load_data("csv:~/h.csv", split="all")) == [3]


def test_parquet_with_pictures_and_lists_of_captions(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    content = [picture(i) for i in range(7)]
    lists = [[f"a {i}", f"b {i}"][: 1 + i % 2] for i in range(7)]
    image = pa.array([{"bytes": b, "path": None} for b in content])
    pq.write_table(
        pa.table({"image": image, "jpg": content, "title": lists}), tmp_path / "t.parquet",
        row_group_size=3,
    )  # fmt: skip
    for column in ("image", "jpg"):
        data = load_data(f"csv:{tmp_path}/t.parquet,image_column={column}", split="all")
        assert numbers(data) == list(range(7)) and data.captions == tuple(map(tuple, lists))
        assert "bytes of images" in data.reading and "1 to 2 captions per image" in data.reading


# Tars


def test_names_with_dots_and_captions_of_several_lines(tmp_path: Path) -> None:
    file = shard(
        tmp_path / "a.tar",
        {"lot-1.v2.png": picture(1), "lot-1.v2.txt": "one\ntwo\n", "._x.png": b"", "2.png":
         picture(2), "2.json": json.dumps({"caption": ["a", "b"]}), "2.gif": picture(9), "3.png":
         picture(3), "3.txt": "caf\xe9".encode("latin-1")},
    )  # fmt: skip
    data = load_data(f"webdataset:{file}", split="all")
    assert data.ids == ("lot-1.v2", "2") and data.captions == (("one", "two"), ("a", "b"))
    assert "1 samples with a caption that is not UTF-8 (3)" in data.remarks
    assert "not used: 1 members for a sample that has one (2.gif)" in data.remarks


def test_own_suffixes_and_fields(tmp_path: Path) -> None:
    own = shard(tmp_path / "a.tar", {"1.img": picture(1), "1.cap": "x"})
    with pytest.raises(GeomkitError, match=r"1 \.img, 1 \.cap .choose with image_suffix="):
        load_data(f"webdataset:{own}")
    data = load_data(f"webdataset:{own},image_suffix=img,caption_suffix=.cap", split="all")
    assert data.names == ["x"] and numbers(data) == [1]
    named = shard(tmp_path / "b.tar", {"1.png": picture(1), "1.json": '{"text": "y"}'})
    with pytest.raises(GeomkitError, match=r"\.json with 'text' .*caption_field="):
        load_data(f"webdataset:{named}")
    assert load_data(f"webdataset:{named},caption_field=text", split="all").names == ["y"]


def test_tars_that_are_compressed_are_named(tmp_path: Path) -> None:
    write(tmp_path / "a" / "0.tar.gz", b"\x1f\x8b\x08 and more")
    for path, says in ((tmp_path / "a" / "0.tar.gz", "compressed with gzip"),
                       (tmp_path / "a", "no .tar in it but 1 like 0.tar.gz")):  # fmt: skip
        with pytest.raises(GeomkitError, match=says):
            load_data(f"webdataset:{path}")


# Folders


def test_folders_with_captions_keep_their_splits(tmp_path: Path) -> None:
    for i, split in enumerate(["train", "train", "Val", "test", "other"]):
        write(tmp_path / split / f"{i}.jpe", picture(i))
        write(tmp_path / split / f"{i}.txt", f"\ufefftext {i}")
    spec = f"imagefolder:{tmp_path}"
    found = {s: numbers(load_data(spec, split=s)) for s in ("train", "val", "test")}
    assert found == {"train": [0, 1], "val": [2], "test": [3]}
    data = load_data(spec, split="all")
    assert "1 images outside of train, Val, test (other/4.jpe)" in data.remarks and data.given == 5
    assert sorted(data.names) == ["text 0", "text 1", "text 2", "text 3"]


def test_a_flat_folder_has_no_test(pictures: Path, tmp_path: Path) -> None:
    for i in range(3):
        write(tmp_path / f"{i}.png", picture(i))
        write(tmp_path / f"{i}.txt", "x")
    with pytest.raises(GeomkitError, match="has no split test"):
        load_data(f"imagefolder:{tmp_path}", split="test")


def test_what_is_hidden_is_no_class_and_what_is_empty_is_said(tmp_path: Path) -> None:
    for name in ("cat/1.jpg", "dog/2.jfif", "owl/3.ppm", ".ipynb_checkpoints/4.jpg", "cat/._1.jpg",
                 "__MACOSX/5.jpg", "cat/.DS_Store", "owl/6.heic"):  # fmt: skip
        write(tmp_path / name, picture(1))
    (tmp_path / "empty").mkdir()
    (tmp_path / "cat" / "again").symlink_to(tmp_path)
    found = class_folders(tmp_path)
    assert found.names == ("cat", "dog", "owl") and len(found.files) == 3
    assert found.notes == ("1 folders without an image (empty)", "1 files skipped: 1 .heic")
    write(tmp_path / "heic" / "a.heic", b"x")
    with pytest.raises(GeomkitError, match=r"no images in it; it holds 1 \.heic"):
        load_data(f"imagefolder:{tmp_path / 'heic'}")


def test_few_images_have_both_splits(pictures: Path) -> None:
    for count in range(2, 8):
        spec = f"csv:{write(pictures / 'few.csv', chr(10).join(rows(count)))}"
        parts = [load_data(spec, split=split).ids for split in ("train", "val")]
        assert min(map(len, parts)) >= min(2, count // 2) and sum(map(len, parts)) == count


def test_a_single_pair_is_not_evaluated(cli, refused, pictures: Path) -> None:
    spec = f"csv:{write(pictures / 'two.csv', chr(10).join(rows(3)))}"
    words = ("train", "--loss", "clip", "--model", "nano", "--dim", 8, "--data", spec)
    refused(*words, says=("one pair in val", "--eval-split train"))
    equal = ["filepath,title", *(f"{i}.png,x" for i in range(8))]
    one = f"csv:{write(pictures / 'one.csv', chr(10).join(equal))}"
    refused(*words[:-1], one, says=("has 1; give --repeat-captions",))


def test_a_thin_picture_needs_no_large_one() -> None:
    from io import BytesIO

    from PIL import Image

    out = BytesIO()
    Image.fromarray(np.full((3000, 1, 3), 9, np.uint8)).save(out, "PNG")
    assert (decode(out.getvalue(), Preprocess(224)) == 9).all()


# Karpathy's split in a file for each part; prompts and names


def test_karpathys_split_of_blip_and_of_clip_benchmark(tmp_path: Path) -> None:
    for i, folder in ((1, "train2014"), (2, "val2014"), (3, "val2014")):
        write(tmp_path / folder / f"COCO_{folder}_{i:012d}.jpg", picture(i))
    named = [f"{f}/COCO_{f}_{i:012d}.jpg" for i, f in ((1, "train2014"), (2, "val2014"))]
    blip = [{"image": name, "caption": c} for name in named for c in ("a", "b ")]
    write(tmp_path / "coco_karpathy_train.json", json.dumps(blip))
    third = "COCO_val2014_000000000003.jpg"
    coco = {"images": [{"id": 7, "file_name": third}],
            "annotations": [{"id": 1, "image_id": 7, "caption": "c"}]}  # fmt: skip
    write(tmp_path / "coco_test_karpathy.json", json.dumps(coco))
    data = load_data(f"coco:{tmp_path}", split="train")
    assert numbers(data) == [1, 2] and data.captions == (("a", "b"),) * 2
    test = load_data(f"coco:{tmp_path},year=karpathy", split="test")
    assert numbers(test) == [3] and test.ids == ("3",) and test.names == ["c"]
    with pytest.raises(GeomkitError, match="no image with a caption in val"):
        load_data(f"coco:{tmp_path}", split="val")


def test_names_and_prompts_as_dictionaries(tmp_path: Path) -> None:
    def saved(content: object) -> Path:
        return write(tmp_path / "f.json", "\ufeff" + json.dumps(content))

    expected = ("cat", "big dog")
    for content in ({"1": "DOG", "0": "CAT"}, {"big_dog": "DOG", "cat": "CAT"},
                    {"mine": ["CAT", "DOG"]}, {"x": ["a"], "y": ["CAT", "DOG"]}):  # fmt: skip
        assert read_classnames(saved(content), expected) == ("CAT", "DOG")
    assert read_templates(saved({"mine": ["a {}"]})) == ("a {}",)
    with pytest.raises(GeomkitError, match=r"dictionary with 2 keys .x, y."):
        read_templates(saved({"x": ["a {}"], "y": ["b {}"]}))
