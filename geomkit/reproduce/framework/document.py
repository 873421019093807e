"""Reports from templates: Markdown, and the same text as one self-contained HTML page."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geomkit._core.files import atomic_write
from geomkit._core.shown import shown
from geomkit.plots.page import page_environment
from geomkit.reproduce.framework.claims import NOT_REPRODUCED, REPRODUCED, UNDECIDED

if TYPE_CHECKING:
    from jinja2 import Environment
    from markdown_it.renderer import RendererHTML
    from markdown_it.token import Token

__all__ = ["to_html", "write_document"]

_MARKS = {REPRODUCED: "yes", NOT_REPRODUCED: "no", UNDECIDED: "open"}
_LONG = 5
"""Code of this many lines is folded away on the page."""


def write_document(folder: Path, template: str, title: str, **values: Any) -> None:
    """Write ``report.md`` and ``report.html`` into a folder.

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
    for name, content in pages.items():
        with atomic_write(folder / name, overwrite=True) as file:
            file.write(shown(content).encode())


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
    rules = {
        "em_open": _literal, "em_close": _literal, "fence": _fence,
        "table_open": lambda *_: '<div class="wide"><table>\n',
        "table_close": lambda *_: "</table></div>\n",
    }  # fmt: skip
    for name, rule in rules.items():
        parser.add_render_rule(name, rule)
    tokens = parser.parse(markdown)
    windows = zip(tokens, tokens[1:], tokens[2:], tokens[3:], strict=False)
    for opening, inline, _, following in windows:
        if opening.type == "td_open" and inline.content in _MARKS:
            opening.attrSet("class", f"mark {_MARKS[inline.content]}")
        elif inline.children and inline.children[0].type == "image":
            opening.attrSet("class", "image")
            following.attrSet("class", "caption")
            source = str(inline.children[0].attrs["src"])
            if "/" not in source:
                data = base64.b64encode((folder / source).read_bytes()).decode()
                kind = source.rpartition(".")[2]
                inline.children[0].attrSet("src", f"data:image/{kind};base64,{data}")
    body = parser.renderer.render(tokens, parser.options, {})
    return _environment().get_template("page.html.jinja").render(title=title, body=body)


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
