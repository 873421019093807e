"""The generated pages of the documentation, without building them."""

from __future__ import annotations

import re
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from geomkit.losses import PRESETS, TERMS
from geomkit.metrics import METRICS

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def pages() -> ModuleType:
    sys.path.insert(0, str(ROOT / "docs" / "_ext"))
    try:
        return import_module("pages")
    finally:
        sys.path.pop(0)


@pytest.fixture(scope="module")
def built(pages: ModuleType) -> dict[str, str]:
    with pytest.MonkeyPatch.context() as patch:  # drawing them all takes seconds
        patch.setattr(pages.toys, "figure_of", lambda curves, names, ideal: f"<svg of {names[0]}>")
        patch.setattr(pages.toys, "example", lambda name: f"<img of {name}>")
        return pages.pages()


def test_every_public_name_has_a_page_that_says_what_it_is(
    pages: ModuleType, built: dict[str, str]
) -> None:
    assert {"geomkit", "geomkit.metrics", "geomkit.functional"} <= set(pages.rooms())
    for room in pages.rooms():
        for name in import_module(room).__all__:
            found = pages.public_names()[f"{room}.{name}"]
            assert found.page in built and (found.kind == "room" or found.name in built[found.page])
            assert found.doc or name == "__version__", f"{found.full} has no docstring"
            assert f"</generated/{found.page}>" in built[f"api/{room}"] or found.kind == "room"


def test_every_page_is_in_a_table_of_contents(built: dict[str, str]) -> None:
    listed = {
        line.strip().removeprefix("/generated/")
        for text in built.values()
        for block in re.findall(r"\.\. toctree::\n   :hidden:\n\n((?:   .*\n)*)", text)
        for line in block.splitlines()
    }
    assert set(built) - listed == {"api/index", "metrics/index", "losses/index", "commands/index"}
    assert listed <= set(built)


def test_every_metric_has_a_page_with_formula_figure_and_pitfalls(built: dict[str, str]) -> None:
    text = {n: page for n, page in built.items() if n.startswith("metrics/") and "index" not in n}
    for metric in METRICS.values():
        (page,) = [page for page in text.values() if f".. _metric-{metric.name}:" in page]
        assert f"``{metric.name}``" in page and ".. math::" in page and "<svg" in page
        assert metric.pitfalls and metric.pitfalls.endswith(".") and "Pitfalls" in page
        assert "moves" in page


def test_every_loss_has_a_page_that_says_when_to_use_it(built: dict[str, str]) -> None:
    for prefix, losses in (("term-", TERMS), ("", PRESETS)):
        for loss in losses.values():
            page = built[f"losses/{prefix}{loss.name}"]
            assert ".. math::" in page and "<svg" in page and "Cost: " in page
            assert loss.use.endswith(".") and loss.use in page.replace("`__", "")


def test_the_toy_clouds_move_what_they_are_meant_to(pages: ModuleType) -> None:
    toys = pages.toys
    curves = toys.metric_curves()
    assert toys.most(curves, "centroid_distance") == "distance"
    assert toys.most(curves, "uniformity_image") == "width"
    assert toys.most(curves, "mutual_knn") == "wrong"
    assert "wrong captions does not move it" in toys.sentence(curves, "centroid_distance")
    drawn = toys.figure_of(curves, ["mmd"], {"mmd": 0.0})
    assert drawn.startswith("<svg") and "currentColor" in drawn and toys.INK not in drawn


def test_every_command_has_a_page_with_its_options(built: dict[str, str]) -> None:
    from geomkit_cli.app import app

    names = {command.callback.__name__.replace("_", "-") for command in app.registered_commands}
    assert all(f"commands/{name}" in built for name in names)
    assert ".. option:: --loss <str>" in built["commands/train"]
    assert "$ geomkit gap ckpt.pt" in built["commands/gap"]


def test_what_reproduces_is_written_by_the_report() -> None:
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        claims = import_module("claims")
    finally:
        sys.path.pop(0)
    for document in claims.DOCUMENTS:
        text = (ROOT / document).read_text(encoding="utf-8")
        assert claims.filled(document) == text, f"{document}: run make claims"
    for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        typed = claims._BLOCK.sub("", path.read_text(encoding="utf-8"))
        assert not re.search(r"\d+ (claims|(are )?(not )?(reproduced|undecided))", typed), path


def test_the_stored_report_belongs_together() -> None:
    from geomkit.reproduce.framework.verify import check_report

    assert not check_report(ROOT / "reports" / "openmoji").failures


def test_links_between_documents_lead_to_files() -> None:
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        text = path.read_text(encoding="utf-8")
        for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", text):
            assert (path.parent / target).exists(), f"{path.name}: {target}"


def test_functions_that_draw_have_a_picture_on_their_page(
    pages: ModuleType, built: dict[str, str]
) -> None:
    from geomkit.plots import figures

    names = [f"geomkit.plots.{name}" for name in figures.__all__ if name.islower()]
    assert sorted(pages.toys.EXAMPLES) == sorted(names)
    for name in names:
        assert f"<img of {name}>" in built[pages.public_names()[name].page]
    picture = pages.toys.example("geomkit.plots.spectrum")
    assert picture.count("data:image/png;base64,") == 2 and "only-dark" in picture
