"""What is assumed of data, mixed or not used is said, whatever the data are stored in."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from samples import numbers, picture, write
from test_tars import shard

from geomkit.data import load_data
from geomkit.errors import GeomkitError


def captioned(folder: Path, count: int = 4, *, suffix: str = ".txt", first: int = 0) -> Path:
    for i in range(first, first + count):
        write(folder / f"{i}.png", picture(i))
        write(folder / f"{i}{suffix}", f"text {i}")
    return folder


def samples(count: int = 4, *, image: str = "png", text: str = "txt") -> dict[str, bytes | str]:
    members: dict[str, bytes | str] = {}
    for i in range(count):
        members |= {f"{i}.{image}": picture(i), f"{i}.{text}": f"text {i}"}
    return members


def table(folder: Path, header: str, rows: list[str], **options: str):
    captioned(folder, len(rows))
    spec = f"csv:{write(folder / 'a.csv', chr(10).join([header, *rows]))}"
    return load_data(",".join([spec, *(f"{k}={v}" for k, v in options.items())]), split="all")


# Splits


def test_folders_may_have_a_year(tmp_path: Path) -> None:
    captioned(tmp_path / "train2017")
    captioned(tmp_path / "val2017", first=4)
    assert numbers(load_data(f"imagefolder:{tmp_path}", split="val")) == [4, 5, 6, 7]
    with pytest.raises(GeomkitError, match="has no split test; it has train, val"):
        load_data(f"imagefolder:{tmp_path}", split="test")


def test_splits_that_are_mixed_are_said(tmp_path: Path) -> None:
    says = "of train and val are read as one data set"
    for i, split in enumerate(("train", "val")):
        captioned(tmp_path / "f" / "images" / split, first=4 * i)
        write(tmp_path / "c" / "x" / split / "1.png", picture(i))
        shard(tmp_path / "test" / f"{split}-0.tar", samples())
    assert f"images {says}" in load_data(f"imagefolder:{tmp_path / 'f'}", split="all").note
    assert f"images {says}" in load_data(f"imagefolder:{tmp_path / 'c'}", split="all").note
    assert f"tar files {says}" in load_data(f"webdataset:{tmp_path / 'test'}", split="all").note
    one = load_data(f"webdataset:{tmp_path / 'test' / 'train-0.tar'}", split="all")
    assert one.note == ""
    names = [f"f/images/{split}/{4 * i}.png,text" for i, split in enumerate(("train", "val"))]
    assert f"images {says}" in table(tmp_path, "filepath,title", names).note


def test_splits_in_a_column(tmp_path: Path) -> None:
    words = ["train", "Testing", " valid", "", "3"]
    rows = [f"{i}.png,text {i},{word}" for i, word in enumerate(words)]
    data = table(tmp_path, "filepath,title,split", rows, split_column="split")
    assert "1 images of a split '', which only all has" in data.note
    assert "1 images of a split '3', which only all has" in data.note
    for split, expected in (("train", [0]), ("test", [1]), ("val", [2])):
        assert numbers(load_data(data.spec, split=split)) == expected


def test_a_column_of_splits_that_is_not_used_is_said(tmp_path: Path) -> None:
    rows = [f"{i}.png,text {i},train" for i in range(4)]
    data = table(tmp_path, "filepath,title,Split", rows)
    assert data.note == "column 'Split' is not used; give split_column=Split"
    assert table(tmp_path, "filepath,title,Split", rows, split_column="Split").note == ""


def test_images_left_out_as_not_distinct_are_counted(tmp_path: Path) -> None:
    rows = [f"{i}.png,text {i // 2}" for i in range(4)]
    data = table(tmp_path, "filepath,title", rows, distinct="true")
    assert (len(data), data.given) == (2, 4)
    assert "2 images with the main caption of another (1.png, 3.png)" in data.remarks


# Captions


@pytest.mark.parametrize("write_list", [json.dumps, str])
def test_lists_in_text_are_several_captions(tmp_path: Path, write_list) -> None:
    cells = [write_list([f"a {i}", f"it's {i}"]).replace('"', '""') for i in range(4)]
    rows = [f'{i}.png,"{cell}"' for i, cell in enumerate(cells)]
    data = table(tmp_path, "filepath,title", rows)
    assert data.captions == tuple((f"a {i}", f"it's {i}") for i in range(4))
    assert "captions that are lists in a text: read as several" in data.note
    assert "2 captions per image" in data.reading
    rows[2] = '2.png,"[a] sign"'
    assert len(table(tmp_path, "filepath,title", rows).captions[0]) == 1


def test_empty_captions_are_counted(tmp_path: Path) -> None:
    data = table(tmp_path, "filepath,title", ["0.png,", "1.png, ", "2.png,nan", "3.png,x"])
    assert data.note == "captions that are empty, nan, none or null: 3"


def test_cells_of_several_lines_are_counted(tmp_path: Path) -> None:
    rows = ["0,text", '1,"one', "2,two", '3,5"', "4,text"]  # no suffixes, which would tell
    for name in "01234":
        write(tmp_path / name, picture(1))
    data = table(tmp_path, "filepath,title", rows)
    assert "1 rows have a cell of several lines, such as row 2" in data.note


def test_a_column_in_quotes_between_tabs(tmp_path: Path) -> None:
    rows = [f'{i}.png\t"text {i}"' for i in range(4)]
    captioned(tmp_path)
    write(tmp_path / "a.tsv", "\n".join(["filepath\ttitle", *rows]))
    data = load_data(f"csv:{tmp_path / 'a.tsv'}", split="all")
    assert data.names[3] == "text 3" and data.note == "cells in quotes"


@pytest.mark.parametrize("suffix", [".json", ".caption", ".png.txt"])
def test_files_beside_images_of_classes_are_not_dropped_in_silence(
    tmp_path: Path, suffix: str
) -> None:
    for name in ("x", "y"):
        captioned(tmp_path / name, suffix=suffix)
    data = load_data(f"imagefolder:{tmp_path}", split="all")
    assert f"8 files skipped: 8 .{suffix.rpartition('.')[2]}" in data.note


def test_texts_in_capitals_and_for_two_images(tmp_path: Path) -> None:
    captioned(tmp_path / "x", suffix=".TXT")
    write(tmp_path / "x" / "0.jpg", picture(9))
    data = load_data(f"imagefolder:{tmp_path}", split="all")
    assert data.names == ["text 0", "text 0", "text 1", "text 2", "text 3"]
    assert data.note == "1 images have the .txt of another"


# Tar files


def test_suffixes_with_dots(tmp_path: Path) -> None:
    members = samples(image="in.png", text="caption.txt")
    members |= {f"{i}.mask.png": picture(9) for i in range(4)}
    spec = f"webdataset:{shard(tmp_path / 'a.tar', members)}"
    with pytest.raises(GeomkitError, match=r"keys such as '0\.in' of images, '0\.caption' of cap"):
        load_data(spec, split="all")
    data = load_data(f"{spec},image_suffix=in.png,caption_suffix=caption.txt", split="all")
    assert numbers(data) == [0, 1, 2, 3] and data.ids == ("0", "1", "2", "3")


def test_captions_that_disagree_and_members_of_no_use_are_said(tmp_path: Path) -> None:
    members = samples() | {f"{i}.json": json.dumps({"caption": f"text {i % 3}"}) for i in range(4)}
    path = shard(tmp_path / "a.tar", members | {"README": "…"})
    with tarfile.open(path, "a") as archive:
        link = tarfile.TarInfo("4.png")
        link.type, link.linkname = tarfile.LNKTYPE, "0.png"
        archive.addfile(link, io.BytesIO())
    data = load_data(f"webdataset:{path}", split="all")
    assert data.note == "1 samples with another caption in .json, not used (3)"
    assert "1 without a suffix, 1 links (not followed)" in data.reading


def test_images_of_a_parquet_file_may_be_files(tmp_path: Path) -> None:
    cells = [{"bytes": None, "path": "0.png"}, {"bytes": picture(1), "path": "x.png"}]
    write(tmp_path / "0.png", picture(0))
    pq.write_table(pa.table({"filepath": cells, "title": ["a", "b"]}), tmp_path / "a.PARQUET")
    assert numbers(load_data(f"csv:{tmp_path / 'a.PARQUET'}", split="all")) == [0, 1]
    with pytest.raises(GeomkitError, match="is a folder; name one of its files"):
        load_data(f"csv:{tmp_path}")
