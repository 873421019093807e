"""Files that are made to run, hang or flood: each ends in one line, or is left out and counted."""

from __future__ import annotations

import io
import json
import os
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from extraction_samples import CALM, fresh
from PIL import EpsImagePlugin, Image
from samples import annotations, layout, picture, write

from geomkit._core import memory
from geomkit.data import cached, load_data
from geomkit.data import decode as decoding
from geomkit.data import shards as tars
from geomkit.data.decode import decode
from geomkit.data.labelled.prompts import read_classnames, read_templates
from geomkit.errors import GeomkitError
from geomkit.extraction import extract
from geomkit.models.preprocess import Preprocess

PLAIN = Preprocess(8)
DEEP = "[" * 100_000


def pairs(folder: Path, count: int = 4) -> Path:
    for i in range(count):
        write(folder / f"{i}.png", picture(i))
        write(folder / f"{i}.txt", f"text {i}")
    return folder


def png_head(width: int, height: int, kind: int) -> bytes:
    """A PNG that declares a size and has no pixels."""
    held = b"\x89PNG\r\n\x1a\n"
    for body in (
        b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0),
        b"IDAT" + zlib.compress(b""),
    ):
        held += struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return held


def test_postscript_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: object, **__: object) -> None:
        raise AssertionError("Ghostscript was started")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", run)
    content = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(x) run\n%%EOF\n"
    with pytest.raises(GeomkitError, match=r"does not decode \(not an image\)"):
        decode(content, PLAIN)


def test_named_pipes_do_not_hang(tmp_path: Path) -> None:
    folder = pairs(tmp_path / "a")
    os.mkfifo(folder / "4.png")
    write(folder / "4.txt", "a pipe")
    write(folder / "5.png", picture(5))
    os.mkfifo(folder / "5.txt")
    data = load_data(f"imagefolder:{folder},max_bad=0.5", split="all", size=8)
    assert data.ids == ("0.png", "1.png", "2.png", "3.png", "4.png")
    assert "5.txt is no regular file" in data.remarks
    assert [bad.reason for bad in data.read()[2]] == ["is no regular file"]
    os.mkfifo(tmp_path / "names.txt")
    with pytest.raises(GeomkitError, match=r"names.txt: no such file"):
        read_classnames(tmp_path / "names.txt", ["a"])
    layout(tmp_path / "coco", "2017", {"train": 2})
    (tmp_path / "coco" / "annotations" / "captions_train2017.json").unlink()
    os.mkfifo(tmp_path / "coco" / "annotations" / "captions_train2017.json")
    with pytest.raises(GeomkitError, match=r"no captions_train2017.json"):
        load_data(f"coco:{tmp_path / 'coco'}", size=8)


@pytest.mark.parametrize(("width", "height", "kind"), [(13_300, 13_300, 6), (150_000, 1000, 6)])
def test_images_that_would_take_gigabytes_are_refused(width: int, height: int, kind: int) -> None:
    with pytest.raises(GeomkitError, match=f"too large to decode .{width:,} × {height:,} px, 4"):
        decode(png_head(width, height, kind), PLAIN)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "CMYK", "I;16"])
def test_conversion_by_strips_equals_that_of_the_whole(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (23, 37, 4), np.uint8)
    image = Image.fromarray(pixels, "RGBA")
    if mode == "I;16":
        image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 256 + pixels[..., 1])
    elif mode != "RGBA":
        image = image.convert(mode)
    whole = np.asarray(decoding._rgb(image))
    monkeypatch.setattr(decoding, "_LARGE", 5 * 37)
    assert np.array_equal(decoding._rgb(image), whole)


def test_zip_members_that_unpack_to_gigabytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_SMALL", 1 << 20)
    layout(tmp_path, "2017", {"train": 2})
    names = sorted(file.name for file in (tmp_path / "train2017").iterdir())
    with zipfile.ZipFile(tmp_path / "train2017.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"train2017/{names[0]}", bytes(1 << 21))
        archive.write(tmp_path / "train2017" / names[1], f"train2017/{names[1]}")
    for name in names:
        (tmp_path / "train2017" / name).unlink()
    (tmp_path / "train2017").rmdir()
    bad = load_data(f"coco:{tmp_path},max_bad=1", split="all", size=8).read()[2]
    assert [image.reason.partition(" from")[0] for image in bad] == ["unpacks to 2,097,152 bytes"]
    with zipfile.ZipFile(
        tmp_path / "annotations_trainval2017.zip", "w", zipfile.ZIP_DEFLATED
    ) as archive:
        archive.writestr("annotations/captions_train2017.json", bytes(1 << 21))
    for file in (tmp_path / "annotations").iterdir():
        file.unlink()
    with pytest.raises(GeomkitError, match="unpacks to 2,097,152 bytes"):
        load_data(f"coco:{tmp_path}", split="all", size=8)


def sparse(name: str, declared: int) -> bytes:
    """The head of a member that declares far more bytes than the tar file holds."""
    entry = tarfile.TarInfo(name)
    head = bytearray(entry.tobuf(tarfile.GNU_FORMAT))
    head[156:157] = b"S"
    head[386 : 386 + 24] = b"%011o\0%011o\0" % (0, 0)
    head[483:495] = b"%011o\0" % declared
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head)


def test_tars_that_flood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tars, "_LARGEST_TEXT", 100)
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for i in range(3):
            text = f"text {i}".encode() if i else b"x" * 101
            for name, content in ((f"{i}.png", picture(i)), (f"{i}.txt", text)):
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    held = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(sparse("8.txt", 1 << 32) + sparse("9.png", 1 << 32) + held)
    data = load_data(f"webdataset:{tmp_path / 'a.tar'}", split="all", size=8)
    assert data.ids == ("1", "2")
    assert "1 samples with a .txt of over 0 MiB (0)" in data.remarks
    assert "samples without an image (8, 9)" in data.remarks
    with pytest.raises(GeomkitError, match=r"names 100,000,000 tar files"):
        load_data(f"webdataset:{tmp_path}/{{00000000..99999999}}.tar")


def test_captions_that_no_tokenizer_should_get(tmp_path: Path) -> None:
    content = json.loads(annotations([(i, f"{i}.jpg") for i in range(5)], per_image=1))
    content["annotations"][1]["caption"] = "half of a pair \ud800"
    content["annotations"][3]["caption"] = "x" * 100_001
    write(tmp_path / "captions_train2017.json", json.dumps(content))
    for i in range(5):
        write(tmp_path / "train2017" / f"{i}.jpg", picture(i))
    data = load_data(f"coco:{tmp_path}", split="all", size=8)
    assert data.ids == ("0", "2", "4") and data.given == 5
    assert sorted(some.what for some in data.left_out) == [
        "images with a caption of more than 100,000 characters",
        "images with a caption that is not UTF-8",
    ]


def test_json_of_any_depth_and_type_is_refused_with_its_file(tmp_path: Path) -> None:
    file = tmp_path / "captions_train2017.json"
    (tmp_path / "train2017").mkdir()
    for content in (DEEP, '{"images": [{"file_name": 7, "id": 1}], "annotations": []}'):
        write(file, content)
        with pytest.raises(GeomkitError, match=r"captions_train2017.json: not"):
            load_data(f"coco:{tmp_path}")
    file.unlink()
    write(
        tmp_path / "dataset_coco.json",
        json.dumps(
            {
                "images": [
                    {"filepath": 7, "filename": "a", "cocoid": 1, "split": "train", "sentences": []}
                ]
            }
        ),
    )
    with pytest.raises(GeomkitError, match=r"dataset_coco.json: not Karpathy's"):
        load_data(f"coco:{tmp_path}")
    prompts = tmp_path / "prompts.json"
    for content in (DEEP, '["a \\ud800 {}"]'):
        write(prompts, content)
        with pytest.raises(GeomkitError, match=r"prompts.json: not"):
            read_templates(prompts)


def test_a_table_that_declares_too_many_rows(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({name: ["a"] * 300_000 for name in ("filepath", "title")}), file)
    with pytest.raises(GeomkitError, match="declares 300,000 rows in"):
        load_data(f"csv:{file}")


def test_a_caption_packed_too_densely_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    table = pa.table({"filepath": ["a.png"], "title": ["a" * 70_000_000]})
    pq.write_table(table, file, compression="zstd")
    with pytest.raises(GeomkitError, match=r"a\.parquet unpacks to 0.1 GiB"):
        load_data(f"csv:{file}")


def test_a_key_given_twice_is_refused(tmp_path: Path) -> None:
    twice = '{"images": [], "annotations": [], "images": []}'
    write(tmp_path / "annotations" / "captions_val2017.json", twice)
    with pytest.raises(GeomkitError, match="'images' appears twice"):
        load_data(f"coco:{tmp_path}", split="val")
    names = tmp_path / "names.json"
    write(names, '{"0": "cat", "1": "dog", "0": "cow"}')
    with pytest.raises(GeomkitError, match=r"names\.json: .*'0' appears twice"):
        read_classnames(names, ("a", "b"))


def test_braces_of_a_template_are_text(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        write(tmp_path / name / "a.png", picture(1))
    data = load_data(f"imagefolder:{tmp_path},template={{0.__class__}} {{}}", split="all")
    assert data.names == ["{0.__class__} cat", "{0.__class__} dog"]


def test_images_replaced_by_others_of_their_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEOMKIT_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "a"
    for i in range(3):
        write(folder / f"{i}.txt", f"text {i}")
        Image.fromarray(np.full((9, 9, 3), i, np.uint8)).save(folder / f"{i}.bmp")
    spec = f"imagefolder:{folder}"

    def load(**options: bool):
        return load_data(spec, split="all", size=8, **options)

    assert cached(load(), PLAIN, workers=0).pixels().max() == 2
    model = fresh()
    extract(
        model, load_data(spec, split="all", preprocess=model.preprocess), tmp_path / "e", **CALM
    )
    times = (folder / "1.bmp").stat()
    Image.fromarray(np.full((9, 9, 3), 77, np.uint8)).save(folder / "1.bmp")
    os.utime(folder / "1.bmp", ns=(times.st_atime_ns, times.st_mtime_ns))  # as cp -p would
    assert load().fingerprint == load().fingerprint
    assert cached(load(), PLAIN, workers=0).pixels().max() == 77
    os.utime(folder / "1.bmp")
    data = load_data(spec, split="all", preprocess=model.preprocess)
    with pytest.raises(GeomkitError, match=r"data.lengths_and_times: "):
        extract(model, data, tmp_path / "e", resume=True, **CALM)


def test_the_drawn_images_have_a_checksum(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    load_data("openmoji", n=2)
    (held,) = (cache / "openmoji").iterdir()
    copy = tmp_path / "openmoji" / held.name
    copy.mkdir(parents=True)
    for name in ("alike.json", "32px.npy", "32px.crc32"):
        shutil.copy(held / name, copy / name)
    monkeypatch.setenv("GEOMKIT_CACHE", str(tmp_path))
    with (copy / "32px.npy").open("r+b") as file:
        file.seek(5_000_000)
        file.write(bytes(1000))
    with pytest.raises(GeomkitError, match=r"the cache is damaged .its checksum differs.; delete"):
        load_data("openmoji", n=2)


def test_names_of_files_that_are_not_utf8(tmp_path: Path) -> None:
    name = os.fsdecode(b"a\xe9")
    pairs(tmp_path / name)
    (tmp_path / name / "0.png").rename(tmp_path / name / f"{name}.png")
    (tmp_path / name / "0.txt").rename(tmp_path / name / f"{name}.txt")
    model = fresh()
    data = load_data(f"imagefolder:{tmp_path / name}", split="all", preprocess=model.preprocess)
    assert "a\\udce9.png" in data.ids and len(data.fingerprint["sha256"]) == 64
    manifest = extract(model, data, tmp_path / "e", **CALM)
    assert manifest.images == 4
    assert json.loads((tmp_path / "e" / "manifest.json").read_bytes())["data"]["spec"] == data.spec
    classes = tmp_path / "classes"
    write(classes / "dog" / "a.png", picture(1))
    write(classes / name / "a.png", picture(2))
    with pytest.raises(GeomkitError, match=r"the class 'a\\udce9' is no text in UTF-8; rename"):
        load_data(f"imagefolder:{classes}")


def test_two_spellings_of_a_path_are_one_image(tmp_path: Path) -> None:
    pairs(tmp_path / "im", count=3)
    rows = ["./im/0.png,a", "im/1.png,b", "im/0.png,c", "im//1.png,d", "im/2.png,e"]
    write(tmp_path / "t.csv", "\n".join(["filepath,title", *rows]))
    data = load_data(f"csv:{tmp_path / 't.csv'}", split="all", size=8)
    assert data.ids == ("./im/0.png", "im/1.png", "im/2.png")
    assert data.captions == (("a", "c"), ("b", "d"), ("e",))


def test_names_of_columns_that_are_no_utf8(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({name: ["a"] for name in ("filepath", "title")}), file)
    file.write_bytes(file.read_bytes().replace(b"filepath", b"f\xe1lepath"))
    with pytest.raises(GeomkitError, match=r"a\.parquet: no parquet file, or damaged \('utf-8'"):
        load_data(f"csv:{file}")
