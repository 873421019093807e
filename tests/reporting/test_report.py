"""The page of ``geomkit report``: what it says, shows and refuses."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import clouds
from samples import picture, write

from geomkit.data import load_data
from geomkit.embeddings import Embeddings
from geomkit.errors import GeomkitError
from geomkit.extraction.originals import Originals
from geomkit.reporting import Reported, page, report
from geomkit.reporting.examples import directions

HOSTILE = [
    "<script>alert(1)</script>", '"quoted" & \'single\'', "$x^2$ {{ 7*7 }} {% raw %}",
    "\u05e9\u05dc\u05d5\u05dd \u202eevil", "猫 🐈‍⬛",
    "</style></title><img src=x onerror=alert(2)>",
]  # fmt: skip


class Parts(HTMLParser):
    """Elements and texts of a page; every element that has to be closed is."""

    EMPTY = ("meta", "img", "br", "wbr")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags[tag] += 1
        self.attributes.append((tag, dict(attrs)))
        if tag not in self.EMPTY:
            self.open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.tags[tag] += 1

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        for tag in self.open:
            self.texts[tag][-1] += data


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages without figures, which take most of the time."""
    monkeypatch.setattr(page, "_kinds", lambda *_: [])


def made(sources: Any, **options: Any) -> Parts:
    return Parts(report(sources, projection="none", date="today", **options))


def pictured(folder: Path) -> Reported:
    """Six images with hostile captions, of which two are exchanged."""
    for k, caption in enumerate(HOSTILE):
        write(folder / f"{k}.png", picture(k))
        write(folder / f"{k}.txt", caption)
    data = load_data(f"imagefolder:{folder}", split="all")
    x, y = clouds(6, 8)
    pairs = Embeddings.of(x, x[[1, 0, 2, 3, 4, 5]] + 0.01 * y, ids=data.ids)
    return Reported(pairs, "all", Originals(tuple(data.names), data))


def test_page_is_whole_and_needs_no_script_and_no_network() -> None:
    text = report(
        Embeddings.of(*clouds(30, 4)), pairs=20, date="today", command="geomkit report 'a b'"
    )
    found = Parts(text)
    assert found.tags["html"] == found.tags["h1"] == found.tags["main"] == 1
    assert not found.tags["script"] and found.tags["svg"] == 3 and found.tags["style"] == 1
    assert re.search("default-src 'none'; style-src 'unsafe-inline'; img-src data:", text)
    assert dict(found.attributes)["html"] == {"lang": "en"}
    levels = [int(tag[1]) for tag, _ in found.attributes if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and all(b - a <= 1 for a, b in pairwise(levels))
    names = [a["id"] for _, a in found.attributes if "id" in a]
    assert len(set(names)) == len(names)
    links = [a["href"] for tag, a in found.attributes if tag == "a"]
    assert links and {link[1:] for link in links} <= set(names)
    for tag, attributes in found.attributes:
        assert tag != "svg" or (attributes["role"] == "img" and attributes["aria-label"])
        assert tag != "img" or attributes["alt"]
        assert tag != "th" or attributes["scope"] in ("row", "col")
        assert not {name for name in attributes if name.startswith("on")}
        for name in ("src", "href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:"))
    assert "geomkit report 'a b'" in found.texts["pre"][0]
    assert any("0 = centres coincide" in text for text in found.texts["details"])


def test_captions_names_and_titles_appear_as_text(tmp_path: Path) -> None:
    one = pictured(tmp_path)
    name = HOSTILE[0] + "ו" * 40
    found = made({name: replace(one, notes=(HOSTILE[5],)), "b": one}, title=HOSTILE[5])
    assert not found.tags["script"] and found.texts["title"] == found.texts["h1"] == [HOSTILE[5]]
    assert name in found.texts["h3"] and name in found.texts["bdi"]
    assert HOSTILE[5] in found.texts["li"]
    shown = "".join(found.texts["span"])
    for caption in HOSTILE:
        assert caption.replace("\u202e", "\\u202e") in shown
    images = [a for tag, a in found.attributes if tag == "img"]
    assert images and all(str(a["src"]).startswith("data:image/webp;base64,") for a in images)
    directed = [a for tag, a in found.attributes if tag == "span" and a.get("dir") == "auto"]
    assert len(directed) == len(images)


def test_examples_are_those_found_and_those_that_are_not() -> None:
    x, y = clouds(30, 6)
    pairs = Embeddings.of(x, np.concatenate([y, x[::-1]]), np.tile(np.arange(30), 2))
    cosines, owner = np.asarray(pairs.image @ pairs.text.T), pairs.image_index
    for d, scores in zip(directions(pairs, k=5), (cosines, cosines.T), strict=True):
        own = (
            owner == np.arange(30)[:, None] if d.query == 0 else (owner == np.arange(30)[:, None]).T
        )
        best, other = (np.where(mask, scores, -2).max(axis=1) for mask in (own, ~own))
        assert (d.found, d.missed) == ((best > other).sum(), (other > best).sum())
        assert all(best[e.row] > other[e.row] and e.rank == 1 for e in d.good)
        for e in d.wrong:
            assert e.rank == 1 + (scores[e.row] > best[e.row]).sum() > 1
            assert [c.row for c in e.near] == np.argsort(-scores[e.row])[:3].tolist()
            assert [c.own for c in e.near] == own[e.row][[c.row for c in e.near]].tolist()
        near = np.argsort(-scores, axis=1)[:, :5]
        counts = np.bincount(near.ravel(), minlength=scores.shape[1])
        assert [hub.count for hub in d.hubs] == np.sort(counts)[::-1][:3].tolist()
        assert d.expected == counts.mean()


def test_ties_are_neither_found_nor_missed() -> None:
    same = np.ones((20, 3))
    image, text = directions(Embeddings.of(same, same))
    assert (image.found, image.missed, text.found, text.missed) == (0, 0, 0, 0)


@pytest.mark.usefixtures("undrawn")
def test_large_galleries_are_searched_for_some_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    import geomkit.reporting.examples as examples

    monkeypatch.setattr(examples, "_WORK", 1.0)
    monkeypatch.setattr(examples, "_FEWEST", 7)
    pairs = Embeddings.of(*clouds(30, 6))
    image, _ = directions(pairs)
    assert (image.queries, image.of) == (7, 30) and image.expected == 10 * 7 / 30
    assert "of 7 sampled images" in report(pairs, projection="none")


@pytest.mark.usefixtures("undrawn")
def test_sources_stand_side_by_side_and_at_most_eight() -> None:
    names = [f"{k}-" + "a-name-of-sixty-letters" * 3 for k in range(8)]
    pairs = Embeddings.of(*clouds(12, 3))
    found = made(dict.fromkeys(names, pairs))
    headings = [text for text in found.texts["bdi"] if text in names]
    assert headings[:8] == names
    with pytest.raises(GeomkitError, match="1 to 8 sources, got 9"):
        report(dict.fromkeys([*names, "x"], pairs))
    with pytest.raises(GeomkitError, match="did you mean 'umap'"):
        report(pairs, projection="umpa")


def test_figures_take_the_chosen_caption(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = clouds(12, 3)
    both = Embeddings.of(x, np.concatenate([y, -y]), np.arange(24) % 12)
    seen: list[np.ndarray] = []

    def drawn(e: Embeddings) -> None:
        seen.append(np.asarray(e.pairs()[1]))
        raise GeomkitError("enough")

    kind = SimpleNamespace(key="", heading="", words="", label="", make=drawn)
    monkeypatch.setattr(page, "_kinds", lambda *_: [kind])
    for index in (0, 1):
        report(both, caption_index=index)
    np.testing.assert_allclose(seen, [both.text[:12], both.text[12:]])


@pytest.mark.usefixtures("undrawn")
def test_images_shrink_until_the_page_is_small_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = pictured(tmp_path)

    def size(limit: float) -> tuple[int, int]:
        monkeypatch.setattr(page, "SIZE", limit)
        text = report(one, projection="none", date="today")
        return len(text), text.count("data:image/webp")

    large, count = size(8e6)
    small, _ = size(large - 1)
    none, left = size(100)
    assert count > left == 0 and none < small < large


def test_command_writes_a_page_with_what_methods_do(cli, refused) -> None:
    x, y = clouds(60, 4, shift=2)
    np.savez("a $x$.npz", image=x, text=y)
    np.savez("one.npz", image=x)
    words = ("report", "a $x$.npz", "one.npz", "--projection", "none", "--method", "centre")
    done = cli(*words)
    assert done.status == 0 and done.out == "report.html\n", done.err
    assert "one.npz: nothing is closed" in done.err
    found = Parts(Path("report.html").read_text("utf-8"))
    assert "geomkit report 'a $x$.npz' one.npz" in found.texts["pre"][0]
    assert any("centre" in text for text in found.texts["th"])
    assert any("One modality" in text for text in found.texts["p"])
    refused(*words, says=("report.html", "exists already"))
    refused("report", "a $x$.npz", "--out", "r.png", says=("r.png", ".html"))
    refused("report", "a $x$.npz", "--out", "r.html", "--method", "center", says=("centre",))
    refused("report", "none.npz", "--out", "r.html", "--projection", "pac", says=("'pca'",))
    refused("report", "one.npz", "--out", "r.html", "--seed", "-1", says=("seed",))
    refused("report", *["one.npz"] * 9, "--out", "r.html", says=("1 to 8",))
    assert not Path("r.html").exists()


def test_close_takes_a_method_or_a_file(cli, refused) -> None:
    x, y = clouds(40, 4)
    np.savez("e.npz", image=x + 1, text=y)
    done = cli("report", "e.npz", "--projection", "none", "--close", "centre")
    assert done.status == 0 and "closing the gap" in done.err
    assert ">centre<" in Path("report.html").read_text("utf-8")
    refused("report", "e.npz", "--out", "r.html", "--close", "centres", says=("centres",))
