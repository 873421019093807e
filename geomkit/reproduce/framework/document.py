"""A report as a few kinds of blocks, written as Markdown and as one self-contained HTML page."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Block", "Code", "Heading", "Picture", "Table", "Text", "to_html", "to_markdown"]


@dataclass(frozen=True)
class Heading:
    """A heading of level 1 to 3."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Text:
    """Paragraphs and lists: blank lines part them, ``- `` starts an item; `code`, **bold** and
    [links](to) within."""

    text: str


@dataclass(frozen=True)
class Table:
    """Rows of text under a head; numbers stand to the right."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""


@dataclass(frozen=True)
class Code:
    """Lines to be typed or read as they are; folded away on the page if there are many."""

    text: str
    title: str = ""


@dataclass(frozen=True)
class Picture:
    """A picture file under the report's folder, and other forms of it that may be fetched.

    Attributes:
        path: the file, put into the page.
        title: its caption.
        others: links to other forms of it.
        link: where the report finds it, in place of its own folder: the page then points there
            and holds nothing.
    """

    path: Path
    title: str
    others: tuple[str, ...] = ()
    link: str = ""


Block = Heading | Text | Table | Code | Picture


def to_markdown(blocks: Sequence[Block]) -> str:
    """Markdown as GitHub shows it; pictures are linked."""
    return "\n\n".join(_markdown(block) for block in blocks) + "\n"


def _markdown(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"{'#' * level} {text}"
        case Text(text):
            return text.strip()
        case Code(text, title):
            return (f"{title}:\n\n" if title else "") + f"```sh\n{text}\n```"
        case Picture(path, title, others, link):
            more = "".join(f" [{Path(o).suffix[1:].upper()}]({o})" for o in others)
            return f"![{_plain(title)}]({link or path.name})\n\n{title}.{more}"
        case Table(head, rows, title):
            lines = [head, tuple("--:" if right else "---" for right in _numeric(block)), *rows]
            body = "\n".join("| " + " | ".join(_cell(c) for c in line) + " |" for line in lines)
            return (f"**{title}**\n\n" if title else "") + body


def _plain(text: str) -> str:
    """Without marks, for those who cannot see the picture."""
    return re.sub(r"[*`]", "", text)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


_NUMBER = re.compile(r"^[−+-]?[\d.,]+( ± [\d.,]+)?%?$|^–?$")


def _numeric(table: Table) -> list[bool]:
    """Which columns hold nothing but numbers."""
    columns = zip(*table.rows, strict=True) if table.rows else [()] * len(table.head)
    return [
        any(column) and all(_NUMBER.match(text) is not None for text in column)
        for column in columns
    ]


def to_html(blocks: Sequence[Block], *, title: str, marks: dict[str, str] | None = None) -> str:
    """One page that needs nothing else: pictures inside, light and dark, wide tables scroll.

    Args:
        blocks: what it holds.
        title: of the window.
        marks: text of a cell → class to show it in, of ``yes``, ``no`` and ``open``.
    """
    body = "\n".join(_html(block, marks or {}) for block in blocks)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _html(block: Block, marks: dict[str, str]) -> str:
    match block:
        case Heading(text, level):
            return f"<h{level}>{_inline(text)}</h{level}>"
        case Text(text):
            return _paragraphs(text)
        case Code(text, title):
            code = f"<pre><code>{html.escape(text)}</code></pre>"
            if not title:
                return code
            opened = "" if text.count("\n") > 3 else " open"
            return f"<details{opened}><summary>{_inline(title)}</summary>{code}</details>"
        case Picture(path, title, others, link):
            kind = {"gif": "gif", "png": "png"}[path.suffix[1:]]
            source = html.escape(link)
            if not link:
                data = base64.b64encode(path.read_bytes()).decode()
                source = f"data:image/{kind};base64,{data}"
            more = "".join(
                f' <a href="{html.escape(o)}">{Path(o).suffix[1:].upper()}</a>' for o in others
            )
            return (
                f'<figure><img alt="{html.escape(_plain(title))}" src="{source}">'
                f"<figcaption>{_inline(title)}.{more}</figcaption></figure>"
            )
        case Table(head, rows, title):
            right = _numeric(block)
            caption = f"<caption>{_inline(title)}</caption>" if title else ""
            top = "".join(
                f"<th{' class=r' if r else ''}>{_inline(c)}</th>"
                for c, r in zip(head, right, strict=True)
            )
            lines = []
            for row in rows:
                cells = []
                for text, r in zip(row, right, strict=True):
                    inner = _inline(text)
                    if text in marks:
                        inner = f'<span class="mark {marks[text]}">{inner}</span>'
                    cells.append(f"<td{' class=r' if r else ''}>{inner}</td>")
                lines.append(f"<tr>{''.join(cells)}</tr>")
            return (
                f'<div class="wide"><table>{caption}<thead><tr>{top}</tr></thead>'
                f"<tbody>{''.join(lines)}</tbody></table></div>"
            )


def _paragraphs(text: str) -> str:
    parts = []
    for part in re.split(r"\n\s*\n", text.strip()):
        lines = part.strip().splitlines()
        if lines and all(line.startswith(("- ", "  ")) for line in lines):
            items = re.split(r"(?m)^- ", part.strip())[1:]
            parts.append("<ul>" + "".join(f"<li>{_inline(item)}</li>" for item in items) + "</ul>")
        else:
            parts.append(f"<p>{_inline(part)}</p>")
    return "\n".join(parts)


def _inline(text: str) -> str:
    """The few marks that our own texts use; what is code is left as it is."""
    out = []
    for number, part in enumerate(re.split(r"`([^`]*)`", text)):
        safe = html.escape(part.strip("\n"))
        if number % 2:
            out.append(f"<code>{safe}</code>")
            continue
        safe = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", safe)
        out.append(re.sub(r"\[([^\]]+)\]\(([^)\s]+)\)", r'<a href="\2">\1</a>', safe))
    return "".join(out)


_STYLE = """
:root{--ink:#222;--soft:#666;--paper:#fff;--line:#ddd;--band:#f5f5f3;--link:#1f5fae;
--yes:#1b6e3c;--no:#b3261e;--open:#7a5d00}
@media (prefers-color-scheme:dark){:root{--ink:#e4e4e2;--soft:#a3a3a0;--paper:#191a1b;
--line:#3a3b3c;--band:#232425;--link:#8ab8f0;--yes:#7fd0a0;--no:#f2928b;--open:#e3c467}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,-apple-system,
"Segoe UI",Roboto,sans-serif}
main{max-width:56rem;margin:0 auto;padding:1.2rem 1rem 4rem}
h1{font-size:1.6rem;line-height:1.25;margin:.5rem 0 1rem}
h2{font-size:1.2rem;margin:2.2rem 0 .6rem;border-bottom:1px solid var(--line);padding-bottom:.2rem}
h3{font-size:1rem;margin:1.4rem 0 .4rem}
p,ul{margin:.6rem 0;max-width:46rem}
a{color:var(--link)}
code,pre{font:.85em/1.45 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
pre{background:var(--band);padding:.7rem .8rem;overflow-x:auto;border-radius:6px;margin:.5rem 0}
details{margin:.6rem 0}summary{cursor:pointer;color:var(--soft)}
figure{margin:1rem 0}
figure img{display:block;max-width:100%;height:auto;background:#fff;padding:.5rem;border-radius:6px}
figcaption{color:var(--soft);font-size:.88rem;margin-top:.35rem}
.wide{overflow-x:auto;margin:.8rem 0}
table{border-collapse:collapse;font-size:.88rem;line-height:1.35}
caption{text-align:left;font-weight:600;padding:.2rem 0 .4rem;white-space:nowrap}
th,td{padding:.3rem .6rem;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}
th{font-weight:600;color:var(--soft)}td:first-child,th:first-child{padding-left:0}
.r{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.mark{font-weight:600;white-space:nowrap}
.yes{color:var(--yes)}.no{color:var(--no)}.open{color:var(--open)}
@media print{details>*{display:block}}
"""
