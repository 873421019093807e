"""The page of ``geomkit report`` in headless Chromium, where ``GEOMKIT_BROWSER=1`` is set."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import clouds
from test_report import HOSTILE, pictured

from geomkit.embeddings import Embeddings
from geomkit.interventions.closing import close
from geomkit.reporting import Reported, report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = (
    "--no-sandbox", "--headless", "--disable-gpu", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-first-run",
)  # fmt: skip
LONG = HOSTILE[0] + "a_name_without_spaces" * 3

pytestmark = pytest.mark.skipif(
    os.environ.get("GEOMKIT_BROWSER") != "1" or CHROMIUM is None,
    reason="needs GEOMKIT_BROWSER=1 and Chromium",
)

CONTRAST = """() => {
  const channel = c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => .2126 * channel(r) + .7152 * channel(g) + .0722 * channel(b);
  const parse = text => text.match(/[\\d.]+/g).map(Number);
  const behind = element => {
    for (; element; element = element.parentElement) {
      const found = parse(getComputedStyle(element).backgroundColor);
      if (found.length < 4 || found[3] > 0) return found;
    }
    return [255, 255, 255];
  };
  const low = [];
  for (const element of document.querySelectorAll("main *")) {
    const own = [...element.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (!own || element.closest(".hidden")) continue;
    const style = getComputedStyle(element);
    const colour = element.closest("svg") ? style.fill : style.color;
    const pair = [light(parse(colour)), light(behind(element))].sort((a, b) => b - a);
    const ratio = (pair[0] + 0.05) / (pair[1] + 0.05);
    if (ratio < 4.5) low.push([ratio, element.outerHTML.slice(0, 200)]);
  }
  return low;
}"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Pages of one source and of several, with hostile names and captions."""
    folder = tmp_path_factory.mktemp("pages")
    one = pictured(folder / "images")
    pairs = Embeddings.of(*clouds(60, 8))
    closed = Reported(pairs, closing=close(pairs, ["centre", "translate"]))
    several = {LONG: one, HOSTILE[5]: closed, "c": one, HOSTILE[3] * 6: one}
    pages = [
        report(one, title=HOSTILE[5], command="geomkit " + LONG * 3),
        report(several, title=LONG, projection="pca"),
    ]
    paths = [folder / f'{k} "<b>" $x$.html' for k in range(len(pages))]
    for path, text in zip(paths, pages, strict=True):
        path.write_text(text, "utf-8")
    return paths


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        yield found
        found.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_pages_are_readable_and_ask_for_nothing(
    browser: Any, files: list[Path], width: int, theme: str
) -> None:
    for file in files:
        context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=theme)
        tab, wrong = context.new_page(), []
        tab.on("console", lambda message, wrong=wrong: wrong.append(message.text))
        tab.on("pageerror", lambda error, wrong=wrong: wrong.append(str(error)))
        tab.on("dialog", lambda dialog, wrong=wrong: (wrong.append("dialog"), dialog.dismiss()))
        tab.on(
            "request",
            lambda r, wrong=wrong: (
                None if r.url.startswith(("file:", "data:")) else wrong.append(r.url)
            ),
        )
        tab.goto(file.as_uri())
        tab.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        assert tab.evaluate(CONTRAST) == []
        shown = tab.locator("main").inner_text()
        for caption in HOSTILE:
            assert caption.replace("\u202e", "\\u202e") in shown
        assert tab.evaluate("[...document.images].every(i => i.complete && i.naturalWidth)")
        assert tab.locator("h1").inner_text() in (HOSTILE[5], LONG)
        assert not wrong
        context.close()


def test_page_is_used_by_keyboard(browser: Any, files: list[Path]) -> None:
    tab = browser.new_page(viewport={"width": 1280, "height": 844})
    tab.goto(files[0].as_uri())
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.getAttribute('href')") == "#verdict"
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert tab.evaluate(outline) == "solid"
    tab.locator("summary").first.focus()
    tab.keyboard.press("Enter")
    assert tab.evaluate("document.querySelector('details').open")
    tab.close()
