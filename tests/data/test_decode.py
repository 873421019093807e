"""Decoding: open_clip's own transform as oracle, and every kind of file a folder may hold."""

from __future__ import annotations

import io
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from geomkit.data.decode import INTERPOLATIONS, decode, prepare
from geomkit.errors import GeomkitError
from geomkit.models.preprocess import Preprocess

PLAIN = Preprocess(32)
SQUASH = Preprocess(2, interpolation="nearest", resize_mode="squash")


def noise(width: int, height: int, *, channels: int = 3, seed: int = 0) -> np.ndarray:
    shape = (height, width, channels)[: 2 if channels == 1 else 3]
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def saved(image: Image.Image, kind: str, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


SIZES = [(64, 48), (37, 91), (91, 37), (7, 5), (1, 1), (1, 50), (33, 32), (31, 32), (65, 64)]
SIZES += [(640, 427), (32, 32), (200, 3), (13, 29), (127, 33)]


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "random"])
@pytest.mark.parametrize("size", [15, 32])
def test_pixels_equal_open_clip(mode: str, interpolation: str, size: int) -> None:
    from open_clip import image_transform

    theirs = image_transform(
        size,
        is_train=False,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        resize_mode=mode,
        interpolation=interpolation,
        fill_color=9,
    )
    ours = Preprocess(size, interpolation=interpolation, resize_mode=mode, fill_color=9)
    for width, height in SIZES:
        if mode == "longest" and round(min(width, height) * size / max(width, height)) == 0:
            continue  # a side of no pixels: there is nothing to compare with
        image = Image.fromarray(noise(width, height))
        expected = (theirs(image).numpy().transpose(1, 2, 0) * 255).round().astype(np.uint8)
        assert np.array_equal(prepare(image, ours), expected), (width, height)


def test_a_side_may_vanish_when_the_longest_is_fitted() -> None:
    got = prepare(
        Image.new("RGB", (500, 1), (200, 0, 0)),
        Preprocess(8, resize_mode="longest"),
    )
    assert (got.sum(axis=(1, 2)) > 0).sum() == 1  # one row of the picture, the rest filled


def test_grey_palette_and_transparency() -> None:
    grey = noise(40, 40, channels=1)
    wanted = prepare(Image.fromarray(np.stack([grey] * 3, -1)), PLAIN)
    assert np.array_equal(decode(saved(Image.fromarray(grey), "PNG"), PLAIN), wanted)
    # A palette of 8 colours, no resizing, so that exact values can be told.
    colours = np.array([[i * 30, 255 - i * 30, 7] for i in range(8)], np.uint8)
    indices = np.arange(1024, dtype=np.uint8).reshape(32, 32) % 8
    palette = Image.frombytes("P", (32, 32), indices.tobytes())
    palette.putpalette(colours.ravel().tolist())
    assert np.array_equal(decode(saved(palette, "PNG"), PLAIN), colours[indices])
    clear = decode(saved(palette, "PNG", transparency=3), PLAIN)
    colours[3] = 255
    assert np.array_equal(clear, colours[indices])


def test_transparency_is_laid_on_white() -> None:
    pixels = np.zeros((32, 32, 4), np.uint8)
    pixels[:, 16:] = (10, 20, 30, 255)
    got = decode(saved(Image.fromarray(pixels), "PNG"), PLAIN)
    assert (got[:, :16] == 255).all() and (got[:, 16:] == (10, 20, 30)).all()
    half = np.full((32, 32, 4), (0, 0, 0, 51), np.uint8)
    assert (decode(saved(Image.fromarray(half), "PNG"), PLAIN) == 204).all()


def test_cmyk() -> None:
    cmyk = Image.new("CMYK", (40, 40), (255, 0, 0, 0))
    got = decode(saved(cmyk, "JPEG", quality=100), PLAIN).reshape(-1, 3).mean(axis=0)
    assert np.allclose(got, [0, 255, 255], atol=3)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_keep_their_scale(kind: str) -> None:
    deep = np.linspace(0, 65535, 1024).astype(np.uint16).reshape(32, 32)
    got = decode(saved(Image.fromarray(deep), kind), PLAIN)
    assert np.array_equal(got[..., 0], np.round(deep / 257.0))
    dark = np.full((32, 32), 200, np.uint16)  # nearly black, and not 8 bits in disguise
    assert (decode(saved(Image.fromarray(dark), kind), PLAIN) == 1).all()


def test_pixels_of_unknown_scale_are_refused() -> None:
    image = Image.fromarray(np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8))
    with pytest.raises(GeomkitError, match="floating-point pixels; save it with 8 or 16 bits"):
        decode(saved(image, "TIFF"), PLAIN)


def test_the_number_of_a_caption_is_no_part_of_a_name(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").write_bytes(b"")
    with pytest.raises(GeomkitError, match=r"there is 1\.jpg: take #… off"):
        decode(tmp_path / "1.jpg#0", PLAIN)


def test_an_animation_gives_its_first_picture() -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "lime", "blue")]
    for kind, options in {"GIF": {}, "WEBP": {"lossless": True}, "PNG": {}}.items():
        content = saved(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert (decode(content, PLAIN) == (255, 0, 0)).all(), kind


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientations(orientation: int) -> None:
    upright = np.array([[[250, 0, 0], [0, 250, 0]], [[0, 0, 250], [250, 250, 0]]], np.uint8)
    # How a camera would have stored it, so that the orientation undoes it.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = saved(Image.fromarray(np.ascontiguousarray(stored)), "PNG", exif=exif)
    assert np.array_equal(decode(content, SQUASH), upright)


def test_one_pixel() -> None:
    assert (decode(saved(Image.new("RGB", (1, 1), (1, 2, 3)), "PNG"), PLAIN) == (1, 2, 3)).all()


def test_draft_mode_reduces_large_jpegs_and_changes_little(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from geomkit.data import decode as module

    y, x = np.mgrid[0:900, 0:1200]
    pixels = np.stack([x * 255 // 1199, y * 255 // 899, (x + y) // 10 % 256], -1).astype(np.uint8)
    content = saved(Image.fromarray(pixels), "JPEG", quality=95)
    seen = []
    real = module.prepare
    monkeypatch.setattr(module, "prepare", lambda i, p: (seen.append(i.size), real(i, p))[1])
    fast, whole = decode(content, PLAIN, draft=True), decode(content, PLAIN)
    assert seen[1] == (1200, 900)
    assert seen[0][0] < 1200 and min(seen[0]) >= 2 * PLAIN.size
    # nothing is reduced that has fewer than twice the pixels asked for
    large = Preprocess(500)
    assert np.array_equal(decode(content, large, draft=True), decode(content, large))
    assert np.abs(fast.astype(int) - whole).mean() < 1.5


def test_files_and_bytes_are_one(tmp_path: Path) -> None:
    content = saved(Image.fromarray(noise(50, 40)), "JPEG")
    (tmp_path / "a.jpg").write_bytes(content)
    assert np.array_equal(decode(tmp_path / "a.jpg", PLAIN), decode(content, PLAIN))


WHOLE = saved(Image.fromarray(noise(50, 40)), "JPEG")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no picture at all",
        WHOLE[:10],
        WHOLE[: len(WHOLE) // 2],
        WHOLE[:-40],
        saved(Image.fromarray(noise(50, 40)), "PNG")[:-60],
        b"\x89PNG\r\n\x1a\n" + b"\x00" * 50,
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "Seite nicht gefunden".encode("utf-16"),
    ],
)
def test_what_does_not_decode_is_one_line(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(content)
    for source in (content, file):
        with pytest.raises(GeomkitError, match=r"^does not decode \(.+\)$") as caught:
            decode(source, PLAIN)
        text = str(caught.value)
        assert "\n" not in text and str(tmp_path) not in text and " at 0x" not in text


def test_missing_files_folders_and_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(GeomkitError, match="no such file"):
        decode(tmp_path / "a.jpg", PLAIN)
    with pytest.raises(GeomkitError, match="is no regular file"):
        decode(tmp_path, PLAIN)
    content = saved(Image.new("1", (300, 300)), "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100 * 100)
    with pytest.raises(GeomkitError, match=r"does not decode .*90000 pixels"):
        decode(content, PLAIN)


@pytest.mark.parametrize(("there", "wanted"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_name_in_another_form_of_unicode_is_hinted_at(
    tmp_path: Path, there: str, wanted: str
) -> None:
    (tmp_path / unicodedata.normalize(there, "Café.png")).write_bytes(b"")
    missing = tmp_path / unicodedata.normalize(wanted, "Café.png")
    if missing.exists():
        pytest.skip("this file system takes both forms for one name")
    with pytest.raises(GeomkitError, match=f"with its accents in the form {there} of Unicode"):
        decode(missing, PLAIN)


def test_unknown_ways_are_named() -> None:
    image = Image.new("RGB", (4, 4))
    with pytest.raises(GeomkitError, match="unknown interpolation 'cubic'; did you mean 'bicubic'"):
        prepare(image, replace(PLAIN, interpolation="cubic"))
    with pytest.raises(GeomkitError, match="did you mean 'shortest'"):
        prepare(image, replace(PLAIN, resize_mode="short"))
    assert {"bicubic", "bilinear"} <= set(INTERPOLATIONS)
