"""A table of text cells, drawn on a terminal, as plain text or as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from geomkit._core.shown import shown

if TYPE_CHECKING:
    import rich.table

__all__ = ["Table"]


@dataclass(frozen=True)
class Table:
    """Text cells in rows and sections.

    Attributes:
        headings: Headings of the columns.
        sections: Rows of each section; a row has a cell for each heading.
        remarks: Whether the last column holds remarks: to the left, dim, folded where it must be.
    """

    headings: Sequence[str]
    sections: Sequence[Sequence[Sequence[str]]]
    remarks: bool = False

    def rich(self) -> rich.table.Table:
        """Return the table as rich draws it on a terminal."""
        from rich import box
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        last = len(self.headings) - 1
        for i, heading in enumerate(Text(shown(heading)) for heading in self.headings):
            if self.remarks and i == last:
                table.add_column(heading, style="dim")
            else:
                table.add_column(heading, justify="right" if i else "left", no_wrap=True)
        for section in self.sections:
            table.add_section()
            for row in section:
                # As text: names from files may look like markup.
                table.add_row(*(Text(shown(cell)) for cell in row))
        return table

    def plain(self) -> str:
        """Return the table as text, as wide as it needs."""
        import io

        from rich.console import Console

        out = io.StringIO()
        Console(file=out, width=10_000, highlight=False).print(self.rich())
        return "\n".join(line.rstrip() for line in out.getvalue().splitlines())

    def html(self) -> str:
        """Return the table as HTML, for a notebook."""
        head = "".join(f"<th>{escape(h).replace(chr(10), '<br>')}</th>" for h in self.headings)
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
            for section in self.sections
            for row in section
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
