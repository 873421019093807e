"""Results as a table, for a terminal, a log or a notebook."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from geomkit.metrics.registry import METRICS
from geomkit.metrics.sphere import uniform_sphere_limit

if TYPE_CHECKING:
    from rich.table import Table

    from geomkit.metrics.measure import GapResult

__all__ = ["cells", "html", "plain", "rich_table"]


def cells(results: Sequence[GapResult]) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Headings and, for each metric, its group and the cells of its row.

    One result stands with its null, ideal and p-value; several side by side, value and error each.
    """
    alone = len(results) == 1
    limits = {f"{uniform_sphere_limit(r.dim):.2f}" for r in results}
    limit = limits.pop() if len(limits) == 1 else "the sphere's limit"
    headings = ["metric", *(title(r) for r in results)]
    headings += ["null", "ideal", "p"] if alone else []
    rows = []
    names = list(dict.fromkeys(name for r in results for name in r.metrics))
    for name in names:
        metric = METRICS[name]
        row = [name, *(_value(r, name) for r in results)]
        if alone:
            r = results[0]
            row += [
                number(r.null.get(name, math.nan)),
                number(r.ideal.get(name, math.nan)),
                _p(r.p_value.get(name, math.nan)),
            ]
        rows.append((metric.group, [*row, metric.ends.replace("{limit}", limit)]))
    return [*headings, "reads"], rows


def title(r: GapResult) -> str:
    """What stands over a result's column."""
    texts = f", {r.meta['texts']:,} texts" if r.meta.get("texts", r.n) != r.n else ""
    pair = "" if r.modalities == ("image", "text") else f" {r.modalities[0]}–{r.modalities[1]}"
    name = Path(r.source).name if r.source else "value"
    split = f" {r.split}" if r.split else ""
    return f"{name}{split}{pair}\nn={r.n:,}{texts}, d={r.dim}"


def number(value: float) -> str:
    """A number to four decimals, a whole one without."""
    if math.isnan(value):
        return ""
    if value == int(value) and (abs(value) >= 2 or value == 0):
        return f"{value:.0f}"
    return f"{value:.4f}"


def _p(value: float) -> str:
    if math.isnan(value):
        return ""
    return f"{value:.3f}" if value >= 0.001 else "<0.001"


def _value(r: GapResult, name: str) -> str:
    value = r.metrics.get(name, math.nan)
    if math.isnan(value):
        return "–"
    sign = "~" if name in r.estimated else ""
    error = r.stderr.get(name, math.nan)
    if math.isnan(error):
        return f"{sign}{number(value)}"
    return f"{sign}{value:.4f} ± {error:.4f}"


def rich_table(results: Sequence[GapResult]) -> Table:
    """The table as rich draws it."""
    from rich import box
    from rich.table import Table

    headings, rows = cells(results)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column(headings[0], no_wrap=True)
    for heading in headings[1:-1]:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column(headings[-1], style="dim")
    group = ""
    for own, row in rows:
        if group and own != group:
            table.add_section()
        group = own
        table.add_row(*row)
    return table


def plain(results: Sequence[GapResult]) -> str:
    """The table as text, as wide as it needs."""
    import io

    from rich.console import Console

    out = io.StringIO()
    Console(file=out, width=200 + 30 * len(results), highlight=False).print(rich_table(results))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def html(results: Sequence[GapResult]) -> str:
    """The table as HTML, for a notebook."""
    headings, rows = cells(results)
    head = "".join(f"<th>{escape(h).replace(chr(10), '<br>')}</th>" for h in headings)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for _, row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
