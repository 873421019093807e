"""The page of the interactive sphere in headless Chromium.

It takes twenty seconds, so it runs where ``GEOMKIT_BROWSER=1`` is set, with playwright's Python
package and the system's Chromium.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import clouds
from test_interactive import HOSTILE

from geomkit.plots import Labels, Stage, sphere_page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = (
    "--no-sandbox", "--headless", "--disable-gpu", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-first-run",
)  # fmt: skip
N = 40
CAPTIONS = [*((c,) for c in HOSTILE), *((f"caption {k}", "its second") for k in range(8, N))]

pytestmark = pytest.mark.skipif(
    os.environ.get("GEOMKIT_BROWSER") != "1" or CHROMIUM is None,
    reason="needs GEOMKIT_BROWSER=1 and Chromium",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        yield found
        found.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    stages = [Stage(*clouds(N, 3, seed=k), f"step {k}\nloss {HOSTILE[0]}") for k in range(3)]
    # The first image lies in front of all.
    stages[2].image[0] = stages[2].text[0] = [0, 0, 1]
    pixels = np.zeros((N, 24, 24, 3), np.uint8) + np.arange(N, dtype=np.uint8)[:, None, None, None]
    labels = Labels(captions=tuple(CAPTIONS), pictures=tuple(pixels))
    path = tmp_path_factory.mktemp("page") / 'a "<b>" $x$.html'
    path.write_text(sphere_page(stages, title=HOSTILE[1], labels=labels), "utf-8")
    return path


@pytest.fixture
def opened(browser: Any, file: Path) -> Iterator[Any]:
    """The page at the width of a laptop; it must not fail, and must not ask for anything."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    tab, wrong = context.new_page(), []
    tab.on("console", lambda m: wrong.append(m.text) if m.type == "error" else None)
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
    own = ("file:", "data:", "blob:")
    tab.on("request", lambda r: None if r.url.startswith(own) else wrong.append(r.url))
    tab.goto(file.as_uri())
    tab.wait_for_selector("html[data-ready=yes]", timeout=60_000)
    yield tab
    assert not wrong
    context.close()


def drawn(tab: Any, trace: int) -> list[float]:
    """The x coordinates of a trace."""
    return tab.evaluate(f"Array.from(document.getElementById('plot').data[{trace}].x)")


def wait(tab: Any, expression: str) -> None:
    """Wait until an expression holds. Playwright's own wait needs ``eval``: the page forbids it."""
    for _ in range(100):
        if tab.evaluate(expression):
            return
        tab.wait_for_timeout(100)
    raise AssertionError(expression)


def test_sphere_is_used_as_a_reader_would(opened: Any) -> None:
    tab = opened
    assert tab.title() == tab.locator("h1").inner_text() == HOSTILE[1]
    assert tab.locator("h1 *").count() == 0
    # the slider
    last = drawn(tab, 2)
    tab.locator("#slider").focus()
    tab.keyboard.press("ArrowLeft")
    assert tab.locator("#stage").inner_text() == f"step 1 · loss {HOSTILE[0]}"
    np.testing.assert_allclose(drawn(tab, 2), clouds(N, 3, seed=1)[0][:, 0], atol=1e-6)
    # play: from the last stage it starts again, and stops at the end
    tab.keyboard.press("ArrowRight")
    tab.locator("#play").click()
    assert tab.locator("#play").inner_text() == "Pause"
    assert tab.locator("#stage").inner_text().startswith("step 0")
    wait(tab, "document.getElementById('play').textContent === 'Play'")
    assert tab.locator("#stage").inner_text().startswith("step 2") and drawn(tab, 2) == last
    # lines between pairs
    assert not drawn(tab, 4)
    tab.locator("#lines").click()
    assert len(drawn(tab, 4)) == 10 * N
    tab.locator("#lines").click()
    assert not drawn(tab, 4)


def test_pointer_shows_the_picture_and_its_captions(opened: Any) -> None:
    tab = opened
    view = {"eye": {"x": 0, "y": 0, "z": 1.5}, "up": {"x": 0, "y": 1, "z": 0}}
    tab.evaluate("view => Plotly.relayout('plot', {'scene.camera': view})", view)
    box = tab.locator("#plot").bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    card = tab.locator("#card")
    for k in range(40):  # software draws a few frames a second
        tab.mouse.move(middle[0] + k % 2, middle[1])
        tab.wait_for_timeout(100)
        if card.is_visible():
            break
    assert card.locator("p").first.inner_text() == HOSTILE[0]
    source = card.locator("img").get_attribute("src")
    assert source.startswith("data:image/webp;base64,")
    size = tab.evaluate("document.querySelector('#card img').decode().then(() => "
                        "document.querySelector('#card img').naturalWidth)")  # fmt: skip
    assert size == 24


def test_search_finds_points_and_shows_texts_as_texts(opened: Any) -> None:
    tab, results = opened, opened.locator("#results button")
    for k, text in enumerate(HOSTILE[:6]):
        tab.locator("#search").fill(text.upper())
        assert results.all_inner_texts() == [text]
        assert tab.locator("#results span :not(bdi)").count() == 0
        assert drawn(tab, 5) == [drawn(tab, 2)[k], drawn(tab, 3)[k]]
    tab.locator("#search").fill("caption 1")
    assert results.count() == 10
    assert tab.locator("#found").inner_text() == f"10 of {N} pairs"
    results.nth(2).click()
    assert tab.locator("#card p").all_inner_texts() == ["caption 12", "its second"]
    tab.locator("#search").fill("")
    assert results.count() == 0 and not drawn(tab, 5)


def test_page_fits_narrow_and_wide_windows_and_both_themes(opened: Any) -> None:
    tab, colour = opened, "document.getElementById('plot').data[2].marker.color"
    for width in (1280, 390):
        tab.set_viewport_size({"width": width, "height": 844})
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
    for theme, image in (("dark", "#ff756e"), ("light", "#d1342f")):
        tab.emulate_media(color_scheme=theme)
        wait(tab, f"{colour} === '{image}'")


def test_arrow_keys_turn_the_sphere_and_plus_comes_nearer(opened: Any) -> None:
    camera = "() => { const c = plot._fullLayout.scene._scene.getCamera(); return [c.eye, c.up]; }"

    def seen() -> np.ndarray:
        return np.array([[v["x"], v["y"], v["z"]] for v in opened.evaluate(camera)])

    opened.focus("#view")
    start = seen()
    for key in ("ArrowLeft", "ArrowUp"):
        opened.keyboard.press(key)
        opened.wait_for_timeout(300)
    eye, _ = seen()
    near = [np.linalg.norm(start[0]), np.linalg.norm(eye)]
    assert near[0] == pytest.approx(near[1], rel=1e-3) and not np.allclose(eye, start[0], atol=0.05)
    for key in ("ArrowDown", "ArrowRight"):
        opened.keyboard.press(key)
        opened.wait_for_timeout(300)
    np.testing.assert_allclose(seen(), start, atol=0.03)
    opened.keyboard.press("+")
    opened.wait_for_timeout(300)
    assert np.linalg.norm(seen()[0]) == pytest.approx(0.9 * near[0], rel=1e-2)
