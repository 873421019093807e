"""Reports from templates: Markdown, and the same text as one self-contained HTML page."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geomkit._core.files import atomic_write
from geomkit._core.shown import shown
from geomkit.plots.page import page_environment
from geomkit.reproduce.framework.claims import (
    NO_DIFFERENCE,
    NOT_REPRODUCED,
    REPRODUCED,
    UNDECIDED,
)

if TYPE_CHECKING:
    from jinja2 import Environment
    from markdown_it.renderer import RendererHTML
    from markdown_it.token import Token

__all__ = ["DARK", "document", "to_html", "write_pages"]

_MARKS = {REPRODUCED: "yes", NO_DIFFERENCE: "no", NOT_REPRODUCED: "no", UNDECIDED: "open"}
DARK = "-dark"
"""End of the name of a figure's dark version."""
PAPER = "arXiv 2405.18570"
_LONG = 5
"""Code of this many lines is folded away on the page."""


def document(folder: Path, template: str, title: str, **values: Any) -> dict[str, bytes]:
    """Content of ``report.md`` and ``report.html``, by name.

    Args:
        folder: Folder of the report and of the images that it embeds.
        template: Name of the Markdown template.
        title: Title of the HTML page.
        values: Values for the template.
    """
    text = _environment().get_template(template).render(**values)
    lines = [line.rstrip() for line in text.splitlines()]
    kept = [line for k, line in enumerate(lines) if line or (k and lines[k - 1])]
    text = "\n".join(kept).strip() + "\n"
    pages = {
        "report.md": text,
        # Each kind of page links to pages of its own kind.
        "report.html": to_html(text.replace("/report.md)", "/report.html)"), folder, title=title),
    }
    return {name: shown(content).encode() for name, content in pages.items()}


def write_pages(folder: Path, pages: Mapping[str, bytes]) -> None:
    """Write pages into a folder, atomically."""
    for name, content in pages.items():
        with atomic_write(folder / name, overwrite=True) as file:
            file.write(content)


@cache
def _environment() -> Environment:
    environment = page_environment("geomkit.reproduce.framework", escape=False)
    environment.filters["duration"] = _duration
    return environment


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} minutes"


def to_html(markdown: str, folder: Path, *, title: str) -> str:
    """HTML page of Markdown text that needs no other file.

    Args:
        markdown: Text; its HTML is escaped, and single ``*`` and ``_`` are no emphasis.
        folder: Folder of the images. Those that lie in it are embedded; others are linked.
        title: Title of the page.
    """
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": False, "xhtmlOut": False}).enable("table")
    rules: dict[str, Callable[..., str]] = {
        "em_open": _literal, "em_close": _literal, "fence": _fence, "image": _image,
        "table_open": lambda *_: '<div class="wide"><table>\n',
        "table_close": lambda *_: "</table></div>\n",
    }  # fmt: skip
    for name, rule in rules.items():
        parser.add_render_rule(name, rule)
    tokens = parser.parse(markdown)
    contents = _headings(tokens)
    _label_cells(tokens)
    for k, (opening, inline) in enumerate(pairwise(tokens)):
        if opening.type == "td_open" and inline.content in _MARKS:
            opening.attrSet("class", f"mark {_MARKS[inline.content]}")
        elif inline.children and inline.children[0].type == "image":
            # The details of an animation may not lie in a paragraph.
            opening.tag = tokens[k + 2].tag = "div"
            opening.attrSet("class", "image")
            if tokens[k + 3 :] and tokens[k + 3].type == "paragraph_open":
                tokens[k + 3].attrSet("class", "caption")
    body = parser.renderer.render(tokens, parser.options, {"folder": folder})
    head, end, rest = body.partition("</h1>\n") if "</h1>" in body else ("", "", body)
    return (
        _environment()
        .get_template("page.html.jinja")
        .render(
            title=f"{title} · geomkit on {PAPER}", head=head + end, contents=contents, body=rest
        )
    )


def _headings(tokens: Sequence[Token]) -> list[tuple[str, str]]:
    """Give each heading under the title a name to link to; return the names and the words."""
    found: list[tuple[str, str]] = []
    for opening, inline in pairwise(tokens):
        if opening.type == "heading_open" and opening.tag in ("h2", "h3"):
            name = f"s{len(found) + 1}"
            opening.attrSet("id", name)
            found.append((name, inline.content))
    return found


def _label_cells(tokens: Sequence[Token]) -> None:
    """Give each cell the heading of its column, which a narrow screen shows beside it."""
    heads: list[str] = []
    column = 0
    for opening, inline in pairwise(tokens):
        if opening.type == "thead_open":
            heads = []
        elif opening.type == "tr_open":
            column = 0
        elif opening.type == "th_open":
            heads.append(inline.content.strip("`"))
        elif opening.type == "td_open":
            opening.attrSet("data-label", heads[column])
            column += 1


def _image(self: RendererHTML, tokens: Sequence[Token], k: int, options: Any, given: Any) -> str:
    """An image that links to its file, with its dark version where there is one.

    Images that lie in the folder are embedded. An animation is folded away: closed, it stands.
    """
    from markdown_it.common.utils import escapeHtml

    folder, source = given["folder"], str(tokens[k].attrs["src"])
    dark = source.removesuffix(".png") + f"{DARK}.png"
    words = escapeHtml(self.renderInlineAsText(tokens[k].children or [], options, given))

    def place(name: str) -> str:
        if "/" in name:
            return escapeHtml(name)
        data = base64.b64encode((folder / name).read_bytes()).decode()
        return f"data:image/{name.rpartition('.')[2]};base64,{data}"

    both = (folder / dark).exists()
    other = f'<source srcset="{place(dark)}" media="(prefers-color-scheme: dark)">' if both else ""
    look = "" if both else ' class="plain"'
    shown = f'<picture>{other}<img{look} src="{place(source)}" alt="{words}"></picture>'
    if source.endswith(".gif"):
        return (
            f"<details><summary>Animation: open to play, close to stop</summary>{shown}</details>"
        )
    return f'<a href="{escapeHtml(source)}">{shown}</a>'


def _literal(_: RendererHTML, tokens: Sequence[Token], k: int, *more: Any) -> str:
    """A single mark as it is: in ``0.1*uniformity + 0.1*alignment`` it is a product."""
    return tokens[k].markup


def _fence(_: RendererHTML, tokens: Sequence[Token], k: int, *more: Any) -> str:
    from markdown_it.common.utils import escapeHtml

    code = f"<pre><code>{escapeHtml(tokens[k].content)}</code></pre>\n"
    count = tokens[k].content.count("\n")
    if count < _LONG:
        return code
    return f"<details><summary>{count} commands</summary>\n{code}</details>\n"
