"""A table keeps every number whole in the width that a terminal has."""

import io
import re

import pytest
from rich.cells import cell_len
from rich.console import Console

from geomkit._core.table import Table
from geomkit.metrics import METRICS, GapResult
from geomkit.metrics.result import table

LONG = "laion2b_s34b_b79k-fine-tuned-with-cua-on-all-pairs-of-the-run"


def results(count: int, name: str = LONG) -> list[GapResult]:
    values = {metric: 0.1234 + i / 1000 for i, metric in enumerate(METRICS)}
    errors = dict.fromkeys(values, 0.0123)
    return [
        GapResult(
            {k: v + j / 7 for k, v in values.items()}, n=12_345, dim=512, source=f"{name}-{j}.npy",
            stderr=errors, null=errors, ideal=errors, p_value=errors, meta={"texts": 61_725},
        )
        for j in range(count)
    ]  # fmt: skip


def drawn(whole: Table, width: int) -> tuple[list[str], list[str]]:
    out = io.StringIO()
    tables, left_out = whole.fitted(width)
    for part in tables:
        Console(file=out, width=width, highlight=False).print(part.rich())
    return out.getvalue().splitlines(), left_out


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("count", [1, 2, 3, 8, 12])
def test_no_number_is_cut(width: int, count: int) -> None:
    whole = table(results(count))
    lines, left_out = drawn(whole, width)
    text = "\n".join(lines)
    assert max(map(cell_len, lines)) <= width
    cells = [row[1 : count + 1] for section in whole.sections for row in section]
    words = [cell for row in cells for cell in row]
    assert len(words) == len(METRICS) * count
    assert all(len(re.findall(rf"(?<!\S){re.escape(word)}(?!\S)", text)) for word in words)
    assert all(re.search(rf"(?<!\S){re.escape(name)}(?!\S)", text) for name in METRICS)
    assert left_out[:1] == ["interpretation"] or (width == 120 and count < 3)


def test_columns_go_in_order() -> None:
    whole = table(results(1, "short"))
    widths = range(130, 50, -1)
    dropped = [drawn(whole, width)[1] for width in widths]
    order = ["interpretation", "ideal", "null", "p"]
    assert [some for i, some in enumerate(dropped) if i == 0 or some != dropped[i - 1]] == [
        order[:i] for i in range(5)
    ]


def test_a_remark_is_no_tower() -> None:
    lines, left_out = drawn(table(results(1, "short")), 120)
    assert not left_out
    assert len(lines) < 3 * len(METRICS)


def test_shortened_names_stay_apart() -> None:
    """Two names that differ in the middle only are numbered."""
    two = Table(
        ["metric", "a" * 40 + "1" + "b" * 40, "a" * 40 + "2" + "b" * 40], [[["gap", "1", "2"]]],
        exchanged=True,
    )  # fmt: skip
    lines, _ = drawn(two, 60)
    assert re.findall(r"\d a+…b+", lines[0])[0] != re.findall(r"\d a+…b+", lines[0])[1]


def test_wide_characters_are_counted_twice() -> None:
    lines, _ = drawn(Table(["metric", "猫" * 30], [[["gap", "0.1234"]]]), 60)
    assert max(map(cell_len, lines)) <= 60
    assert "0.1234" in "\n".join(lines)


def test_numbers_have_one_minus_sign_for_readers_and_another_for_programs() -> None:
    whole = Table(["metric", "a", "says"], [[["x-1", "~-1.5 ± 0.1", "−8 = poles, n−1"]]], True)
    for text in (whole.markdown(), whole.html(), "\n".join(drawn(whole, 80)[0])):
        assert "~−1.5" in text and "−8 = poles, n−1" in text and "x-1" in text
    assert "~-1.5 ± 0.1   -8 = poles, n-1" in whole.plain() and "~-1.5" in whole.csv()
