"""A table of text cells, drawn on a terminal, as plain text or as HTML."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from html import escape
from itertools import pairwise
from textwrap import wrap
from typing import TYPE_CHECKING

from geomkit._core.shown import distinct, one_minus, shown

if TYPE_CHECKING:
    import rich.table

__all__ = ["Table"]

_REMARK = 32
"""Least width of a column of remarks: below it a remark is a tower of short lines."""
_NAMES = (24, 0)
"""Widths that long names of columns may keep, at first and where that is too wide."""
_LEAST = 12
"""Least width of a name."""
_BETWEEN = 3
"""Width between two columns."""
_RULE = "border-top:1px solid rgba(128,128,128,.5)"
_LOOK = (
    "padding:2px 8px;text-align:left;font-weight:normal;white-space:nowrap",
    "padding:2px 8px;text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums",
    "padding:2px 8px;text-align:left;opacity:.75",
)
"""Look of the cells of the first column, of numbers and of remarks, whatever the page's colours."""
_LATEX = str.maketrans(
    {c: f"\\{c}" for c in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"<": "$<$", ">": "$>$", "±": r"$\pm$", "−": "$-$", "–": "--", "…": r"\dots{}"}
    | {"→": r"$\to$", "·": r"$\cdot$", "²": "$^2$", "τ": r"$\tau$"}
)
"""What LaTeX reads otherwise, or not at all."""


@dataclass(frozen=True)
class Table:
    """Text cells in rows and sections.

    Attributes:
        headings: Headings of the columns; lines after the first are details of it.
        sections: Rows of each section; a row has a cell for each heading.
        remarks: Whether the last column holds remarks: to the left, dim, folded where it must be.
        optional: Headings of the columns that a narrow terminal does without, the first to go
            first.
        exchanged: Whether rows and columns are exchanged where the columns are too many, so that
            the columns' names have room; their heading is then ``source``.
    """

    headings: Sequence[str]
    sections: Sequence[Sequence[Sequence[str]]]
    remarks: bool = False
    optional: Sequence[str] = ()
    exchanged: bool = False

    def rich(self, *, minus: str = "−") -> rich.table.Table:
        """Return the table as rich draws it on a terminal.

        Args:
            minus: The sign of negative numbers, in remarks too.
        """
        from rich import box
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        last = len(self.headings) - 1
        for i, heading in enumerate(Text(shown(heading)) for heading in self.headings):
            if self.remarks and i == last:
                table.add_column(heading, style="dim")
            else:
                table.add_column(heading, justify="right" if i else "left", overflow="fold")
        for section in self.sections:
            table.add_section()
            for row in section:
                # As text: names from files may look like markup.
                table.add_row(*(Text(shown(cell)) for cell in _signed(row, minus)))
        return table

    def fitted(self, width: int) -> tuple[list[Table], list[str]]:
        """Return the table as one or more that show every number within a width.

        Names of sources are shortened in the middle, then optional columns go, in their order.
        Where that is not enough, there are several tables, each with the first column.

        Args:
            width: Width of the terminal, in characters.

        Returns:
            The tables, and the headings of the columns left out.

        Example:
            >>> table = Table(["metric", "a", "b"], [[["gap", "0.5", "0.6"]]], optional=["b"])
            >>> [t.plain().splitlines()[0].split() for t in table.fitted(14)[0]]
            [['metric', 'a']]
        """
        whole, left_out = self, list[str]()
        for heading in self.optional:
            if whole._shortened(_NAMES[0])._width() <= width:
                break
            whole = whole._without(heading)
            left_out.append(heading)
        shortened = [whole._shortened(least) for least in _NAMES] if self.exchanged else []
        for table in (whole, *shortened):
            if table._width() <= width:
                return [table], left_out
        return list((whole._exchange(width) if self.exchanged else whole)._split(width)), left_out

    def plain(self) -> str:
        """Return the table as text, as wide as it needs, with numbers as programs read them."""
        import io

        from rich.console import Console

        out = io.StringIO()
        Console(file=out, width=10_000, highlight=False).print(self.rich(minus="-"))
        return "\n".join(line.rstrip() for line in out.getvalue().splitlines())

    def markdown(self) -> str:
        r"""Return the table as Markdown.

        >>> print(Table(["metric", "a|b"], [[["gap", "0.5"]]]).markdown())
        | metric | a\|b |
        | :-- | --: |
        | gap | 0.5 |
        """
        last = len(self.headings) - 1
        ends = [i == 0 or (self.remarks and i == last) for i in range(last + 1)]
        rules = [":--" if left else "--:" for left in ends]
        rows = [[_flat(cell).replace("|", "\\|") for cell in _signed(r)] for r in self._rows()]
        return "\n".join(f"| {' | '.join(row)} |" for row in (rows[0], rules, *rows[1:]))

    def latex(self) -> str:
        r"""Return the table as a tabular of LaTeX's package booktabs; remarks are left out.

        >>> print(Table(["metric", "a_b"], [[["gap", "0.5 ± 0.1"]]]).latex())
        \begin{tabular}{lr}
        \toprule
        metric & a\_b \\
        \midrule
        gap & 0.5 $\pm$ 0.1 \\
        \bottomrule
        \end{tabular}
        """
        count = len(self.headings) - self.remarks
        lines = []
        for k, section in enumerate([[list(self.headings)], *self.sections]):
            lines += [r"\midrule"] if k else []
            for row in section:
                cells = (_flat(cell).translate(_LATEX) for cell in _signed(row[:count]))
                lines.append(" & ".join(cells) + r" \\")
        columns = "l" + "r" * (count - 1)
        start, end = rf"\begin{{tabular}}{{{columns}}}", r"\end{tabular}"
        return "\n".join([start, r"\toprule", *lines, r"\bottomrule", end])

    def csv(self) -> str:
        r"""Return the table as CSV, without a line end after the last row.

        >>> Table(["metric", "a"], [[["gap", "0.5, or so"]]]).csv()
        'metric,a\ngap,"0.5, or so"'
        """
        import csv
        import io

        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows([_flat(c) for c in r] for r in self._rows())
        return out.getvalue().rstrip("\n")

    def _rows(self) -> list[Sequence[str]]:
        """The headings and all rows."""
        return [self.headings, *(row for section in self.sections for row in section)]

    def html(self) -> str:
        """Return the table as HTML, for a notebook of a light or a dark theme."""

        def cell(i: int, text: str, tag: str, scope: str = "") -> str:
            remark = self.remarks and i == len(self.headings) - 1
            look = _LOOK[0 if i == 0 else 2 if remark else 1]
            words = escape(shown(text)).replace("\n", "<br>")
            return f'<{tag}{scope} style="{look}">{words}</{tag}>'

        head = "".join(cell(i, h, "th", ' scope="col"') for i, h in enumerate(self.headings))
        sections = []
        for section in self.sections:
            rows = [
                cell(0, row[0], "th", ' scope="row"')
                + "".join(cell(i, text, "td") for i, text in enumerate(_signed(row)) if i)
                for row in section
            ]
            rule = f' style="{_RULE}"'  # above each section, below the headings
            sections.append(f"<tbody{rule}><tr>{'</tr><tr>'.join(rows)}</tr></tbody>")
        return (
            f'<table style="border-collapse:collapse"><thead><tr>{head}</tr></thead>'
            f"{''.join(sections)}</table>"
        )

    def _widths(self) -> list[int]:
        """Width of each column."""
        from rich.cells import cell_len

        def widest(cells: Iterable[str]) -> int:
            return max((cell_len(line) for c in cells for line in shown(c).split("\n")), default=0)

        rows = [row for section in self.sections for row in section]
        columns = [[row[i] for row in rows] for i in range(len(self.headings))]
        return [max(widest([h]), widest(c)) for h, c in zip(self.headings, columns, strict=True)]

    def _width(self) -> int:
        """Width of the table; a column of remarks may be as narrow as ``_REMARK``."""
        widths = self._widths()
        if self.remarks:
            widths[-1] = min(widths[-1], _REMARK)
        return sum(widths) + _BETWEEN * (len(widths) - 1)

    def _without(self, heading: str) -> Table:
        i = list(self.headings).index(heading)
        sections = [[[*row[:i], *row[i + 1 :]] for row in section] for section in self.sections]
        headings = [*self.headings[:i], *self.headings[i + 1 :]]
        remarks = self.remarks and i < len(headings)
        return replace(self, headings=headings, sections=sections, remarks=remarks)

    def _shortened(self, least: int) -> Table:
        """The table with headings no wider than their cells, or than ``least``."""
        bare = replace(self, headings=[""] * len(self.headings))
        widths = [max(width, least, _LEAST) for width in bare._widths()]
        names = [heading.partition("\n")[0] for heading in self.headings]
        names = distinct(names, widths)
        lines = [
            [name, *(part for line in heading.split("\n")[1:] for part in wrap(line, width))]
            for name, heading, width in zip(names, self.headings, widths, strict=True)
        ]
        return replace(self, headings=["\n".join(some) for some in lines])

    def _exchange(self, width: int) -> Table:
        """The table with a row for each column but the first, and a column for each row."""
        headings = self.headings
        names = [heading.partition("\n")[0] for heading in headings[1:]]
        names = distinct(names, [max(width // 3, _LEAST)] * len(names))
        details = [heading.partition("\n")[2].replace("\n", ", ") for heading in headings[1:]]
        rows = [row for section in self.sections for row in section]
        what = "source" if headings[0] == "metric" else headings[0]
        columns = [[what, *names], ["rows", *details], *rows]
        if not any(details):
            del columns[1]
        first, *others = (list(cells) for cells in zip(*columns, strict=True))
        return Table(first, [others])

    def _split(self, width: int) -> Iterator[Table]:
        """Tables of the first column and as many others as the width holds."""
        *ends, last = 1, len(self.headings)
        widths = self._widths()
        used = widths[0]
        for i, own in enumerate(widths[1:], 1):
            if i > ends[-1] and used + _BETWEEN + own > width:
                ends.append(i)
                used = widths[0]
            used += _BETWEEN + own
        for start, end in pairwise([*ends, last]):
            sections = [[[row[0], *row[start:end]] for row in part] for part in self.sections]
            yield Table([self.headings[0], *self.headings[start:end]], sections)


def _signed(row: Sequence[str], minus: str = "−") -> list[str]:
    """A row whose numbers, which are not in the first cell, all have one minus sign."""
    return [*row[:1], *(re.sub(r"−(?=\.?\d)", minus, one_minus(cell)) for cell in row[1:])]


def _flat(cell: str) -> str:
    """A cell in one line."""
    return " ".join(shown(cell).split())
