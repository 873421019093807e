"""The interactive sphere and its page, without a browser: the data they hold, and how."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import clouds
from PIL import Image
from samples import numbers, picture, write

from geomkit.data import load_data
from geomkit.embeddings.embeddings import Embeddings
from geomkit.errors import GeomkitError
from geomkit.extraction.originals import pairs_of_embeddings, pairs_of_run
from geomkit.models.preprocess import Preprocess
from geomkit.plots import Labels, Stage, interactive_sphere, page, save_page, sphere_page

HOSTILE = (
    "</script><script>alert(1)</script>", "<img src=x onerror=alert(2)>", "\"a\" & 'b'",
    "$\\frac{1}{2}$ {{ 7*7 }}", "👩🏽‍🚀 cosmonaut", "קיפוד أرنب", "", "a\u202eb\x1b[31m",
)  # fmt: skip


def stages(n: int = 8, count: int = 2) -> list[Stage]:
    return [Stage(*clouds(n, 3, seed=k), f"step {k}\nloss <b>{k}</b>") for k in range(count)]


class Parts(HTMLParser):
    """The texts of a page by tag, and its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.texts: dict[str, list[str]] = {}
        self.attributes: list[tuple[str, str | None]] = []
        self.open = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open = tag
        self.attributes += attrs
        self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        self.open = ""

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts[self.open][-1] += data

    @property
    def content(self) -> dict[str, Any]:
        return json.loads(self.texts["script"][1])


def rows(part: dict[str, Any]) -> np.ndarray:
    axes = [np.frombuffer(base64.b64decode(part[a]["bdata"]), "<f4") for a in "xyz"]
    return np.stack(axes, axis=1)


def test_figure_holds_the_rows_of_each_stage() -> None:
    given = stages(6, 3)
    figure = interactive_sphere(given, pairs=5, lines=True, captions=[(c,) for c in HOSTILE])
    assert [t.name for t in figure.data] == ["body", "grid", "image", "text", "lines"]
    assert len(figure.frames) == len(figure.layout.sliders[0].steps) == 3
    for frame, stage in zip(figure.frames, given, strict=True):
        image, text, lines = (np.stack([t.x, t.y, t.z], axis=1) for t in frame.data)
        np.testing.assert_array_equal(image, stage.image[:5].astype(np.float32))
        np.testing.assert_array_equal(text, stage.text[:5].astype(np.float32))
        first = lines[:9]
        np.testing.assert_allclose(first[[0, -1]], [image[0], text[0]], atol=1e-6)
        np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1, atol=1e-6)
        assert np.isnan(lines[9]).all() and len(lines) == 50
    np.testing.assert_array_equal(figure.data[2].x, figure.frames[-1].data[0].x)
    assert "<" not in "".join(figure.data[2].hovertext)  # plotly would make a link of it
    assert not interactive_sphere(given[:1]).layout.sliders


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (([],), "at least one source"),
        ((stages(4, 61),), "1 to 60, got 61"),
        (([*stages(4, 1), *stages(5, 1)],), "same number of pairs"),
    ],
)
def test_stages_that_make_no_figure_are_refused(given: tuple, says: str) -> None:
    with pytest.raises(GeomkitError, match=says):
        interactive_sphere(*given)
    with pytest.raises(GeomkitError, match="expected captions of 4 pairs, got 1"):
        sphere_page(stages(4), title="", labels=Labels(captions=(("a",),)))


def test_page_holds_rows_captions_and_pictures_as_they_are(tmp_path: Path) -> None:
    given = stages()
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (200, 200, 3), dtype=np.uint8)
    pictures = (*(np.full((40, 40, 3), 25 * k, np.uint8) for k in range(7)), noise)
    labels = Labels(HOSTILE, tuple((c, "second") for c in HOSTILE), pictures, "by <whom>")
    made = sphere_page(given, title=HOSTILE[0], labels=labels, notes=[HOSTILE[1]])
    found = Parts(made)
    assert len(made.encode()) < 8_000_000
    for frame, stage in zip(found.content["figure"]["frames"], given, strict=True):
        for part, wanted in zip(frame["data"], (stage.image, stage.text), strict=True):
            np.testing.assert_array_equal(rows(part), wanted.astype(np.float32))
    shown = [*HOSTILE[:-1], "a\\u202eb\\u001b[31m"]
    assert found.content["captions"] == [[c, "second"] for c in shown]
    assert found.content["titles"][1] == ["step 1", "loss <b>1</b>"]
    sides = []
    for encoded, pixels in zip(found.content["pictures"], pictures, strict=True):
        with Image.open(io.BytesIO(base64.b64decode(encoded))) as image:
            sides.append(image.size[0])
            if len(pixels) == 40:
                assert np.abs(np.asarray(image).astype(int) - pixels).max() < 8
    assert sides == [40] * 7 + [96]
    # What is no script of the page is text.
    assert len(found.texts["script"]) == 3 and "img" not in found.texts
    assert found.texts["title"] == found.texts["h1"] == [HOSTILE[0]]
    assert HOSTILE[1] in found.texts["p"] and "by <whom>" in found.texts["p"]
    names = {name for name, _ in found.attributes}
    assert not {name for name in names if name.startswith("on")} | names & {"src", "href"}
    save_page(made, tmp_path / "s.html")
    assert (tmp_path / "s.html").read_text("utf-8") == made
    with pytest.raises(GeomkitError, match="exists already"):
        save_page(made, tmp_path / "s.html")


def test_pictures_shrink_until_the_page_is_small_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (8, 96, 96, 3), dtype=np.uint8)
    whole = len(sphere_page(stages(), title=""))
    labels = Labels(pictures=tuple(noise), attribution="by them")

    def made(room: int) -> Parts:
        monkeypatch.setattr(page, "SIZE", whole + room)
        text = sphere_page(stages(), title="", labels=labels)
        assert len(text) <= whole + room + 500
        return Parts(text)

    large, small = ("".join(made(room).content["pictures"]) for room in (100_000, 20_000))
    assert len(large) > len(small) > 0
    none = made(500)
    assert not none.content["pictures"] and "by them" not in none.texts["p"]
    assert any("no pictures: those of 8 pairs" in text for text in none.texts["p"])


def table(folder: Path, count: int = 6, broken: int | None = None) -> str:
    lines = ["filepath,title"]
    for k in range(count):
        write(folder / f"{k}.png", b"\x89PNG no" if k == broken else picture(k))
        lines.append(f"{k}.png,caption {k}")
    return f"csv:{write(folder / 'table.csv', chr(10).join(lines))},max_bad=1"


def a_run(spec: str, pairs: int, split: str = "all") -> Any:
    trained = load_data(spec, preprocess=Preprocess(32))
    held = {"spec": spec, "n": None, "split": split, "fingerprint": trained.fingerprint}
    snapshot = SimpleNamespace(image=np.zeros((pairs, 3)))
    return SimpleNamespace(
        data=held, preprocess=Preprocess(32), snapshots=[snapshot],
        history=[SimpleNamespace(pairs=pairs)],
    )  # fmt: skip


def test_pairs_of_a_run_are_those_of_its_rows(tmp_path: Path) -> None:
    spec = table(tmp_path)
    source = str(tmp_path / "ckpt.pt")
    assert numbers(pairs_of_run(a_run(spec, 6), source, 4)) == [0, 1, 2, 3]
    whole = a_run(spec, 6)
    with pytest.raises(GeomkitError, match="lie outside its folder"):
        pairs_of_run(whole, str(tmp_path.parent / "x" / "ckpt.pt"), 4)
    with pytest.raises(GeomkitError, match="not the all pairs"):
        pairs_of_run(a_run(spec, 7), source, 4)
    broken = table(tmp_path / "b", broken=1)
    found = pairs_of_run(a_run(broken, 5), str(tmp_path / "b" / "ckpt.pt"), 3)
    assert numbers(found) == [0, 2, 3] and found.names[1] == "caption 2"
    write(tmp_path / "table.csv", "filepath,title\n0.png,another\n1.png,b\n2.png,c\n3.png,d")
    with pytest.raises(GeomkitError, match=r"not the pairs that .* was trained on"):
        pairs_of_run(whole, source, 4)


def test_pairs_of_embeddings_are_found_by_their_ids(tmp_path: Path) -> None:
    spec = table(tmp_path)
    ids = load_data(spec, split="all").ids
    meta = {"kind": "hf", "data": spec}
    e = Embeddings.of(*clouds(4, 3), ids=(ids[5], ids[0], ids[3], ids[1]), meta=meta)
    assert numbers(pairs_of_embeddings(e, "all", 3)[0]) == [5, 0, 3]
    with pytest.raises(GeomkitError, match="no ids"):
        pairs_of_embeddings(Embeddings.of(*clouds(4, 3)), None, 3)
    with pytest.raises(GeomkitError, match="do not name their data"):
        pairs_of_embeddings(replace(e, meta={}), None, 3)
    with pytest.raises(GeomkitError, match="no longer there"):
        pairs_of_embeddings(Embeddings.of(*clouds(2, 3), ids=("x", "y"), meta=meta), "all", 2)


def test_images_that_were_replaced_since_are_said(tmp_path: Path) -> None:
    spec = table(tmp_path)
    data = load_data(spec, split="all")

    def said(**meta: Any) -> str:
        meta = {"data": spec, "path": str(tmp_path), **meta}
        e = Embeddings.of(*clouds(len(data), 3), ids=data.ids, meta=meta)
        return " ".join(pairs_of_embeddings(e, "all", 2)[1])

    known = {"count": len(data), "lengths_and_times": data.state(copied=True)}
    assert said(**known) == said(kind="hf") == ""
    assert "do not say which files" in said()
    assert "it had 7 images then, 6 now" in said(**{**known, "count": 7})
    (tmp_path / "1.png").write_bytes((tmp_path / "2.png").read_bytes() + b" ")
    assert "were replaced after they were embedded" in said(**known)


def test_command_writes_the_page_and_the_figure_where_both_are_asked_for(cli) -> None:
    x, y = clouds(30, 6)
    np.savez("e.npz", image=x, text=y)
    done = cli("plot-sphere", "e.npz", "--html", "s.html", "--pairs", "20")
    assert done.status == 0 and done.out == "s.html\n", done.err
    assert "e.npz: no captions and images: these embeddings have no ids" in done.err
    assert not Path("sphere.png").exists()
    found = Parts(Path("s.html").read_text("utf-8"))
    assert "20 of 30 pairs" in found.texts["title"][0] and not found.content["captions"]
    assert "3 of 6 uncentred PCs" in found.content["titles"][0][0]
    both = ("plot-sphere", "e.npz", "--html", "s.html", "--out", "s.svg")
    assert cli(*both).status == 2 and not Path("s.svg").exists()
    done = cli(*both, "--overwrite")
    assert done.status == 0 and done.out == "s.svg\ns.html\n", done.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--html s.png", ("s.png", ".html")),
        ("--html missing/s.html", ("missing",)),
        ("--html s.html --projection pac", ("did you mean 'pca'",)),
        ("--html s.html --pairs 0", ("expected 1 or more",)),
    ],
)
def test_bad_options_are_refused(refused, words: str, says: tuple[str, ...]) -> None:
    x, y = clouds(30, 6)
    np.savez("e.npz", image=x, text=y)
    refused("plot-sphere", "e.npz", *words.split(), says=says)
    assert not Path("s.html").exists()
