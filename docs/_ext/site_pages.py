"""Sphinx extension: writes the generated pages, resolves references, typesets formulas.

A reference to a public name leads to its page. One to another name that exists, of geomkit or of a
library, is shown without a link. One to a name that does not exist is a warning, and so an error of
the build.
"""

from __future__ import annotations

import builtins
import inspect
import os
import re
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pages
from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.nodes import make_refnode

GENERATED = "generated"
_log = logging.getLogger(__name__)


def write_pages(app: Sphinx) -> None:
    """Write the generated pages whose text has changed, and remove those that are no more."""
    folder = Path(app.srcdir) / GENERATED
    written = set()
    for name, text in pages.pages().items():
        path = folder / f"{name}.rst"
        written.add(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
    for path in set(folder.rglob("*.rst")) - written:
        path.unlink()


# -- documents of the repository outside docs/ ---------------------------------------------------

ROOT = Path(__file__).parents[2]
OUTSIDE = [
    path.relative_to(ROOT)
    for pattern in ("CONTRIBUTING.md", "CHANGELOG.md", "examples/README.md", "reports/**/*.md")
    for path in sorted(ROOT.glob(pattern))
]
"""Documents that are pages too; links to them lead to the page."""
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?!https?:|mailto:|#)([^)\s]+)\)")


def relinked(text: str, folder: Path) -> str:
    """Return a document whose relative links hold in the site.

    Args:
        text: Markdown.
        folder: Folder of the document, relative to the repository.
    """

    def link(found: re.Match[str]) -> str:
        mark, words, target = found.groups()
        path, hash_, anchor = target.partition("#")
        place = Path(os.path.normpath(folder / path))
        if place in OUTSIDE:
            return f"[{words}](/{GENERATED}/outside/{place.as_posix()}{hash_}{anchor})"
        inside = folder.parts[:1] == place.parts[:1] == ("docs",)
        if inside or place.parts[0] == "..":
            return found[0]
        if not (ROOT / place).is_file():
            return words
        return f"{mark}[{words}](/../{place.as_posix()})"

    return _LINK.sub(link, text)


def write_outside(app: Sphinx) -> None:
    """Write a copy of each document outside docs/ with links that hold in the site."""
    for path in OUTSIDE:
        text = relinked((ROOT / path).read_text(encoding="utf-8"), path.parent)
        target = Path(app.srcdir) / GENERATED / "outside" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists() or target.read_text(encoding="utf-8") != text:
            target.write_text(text, encoding="utf-8")


def read(app: Sphinx, docname: str, source: list[str]) -> None:
    """Turn links of a hand-written page to documents outside docs/."""
    if not docname.startswith(GENERATED) and Path(app.env.doc2path(docname, False)).suffix == ".md":
        source[0] = relinked(source[0], (Path("docs") / docname).parent)


# -- references ---------------------------------------------------------------------------------


@cache
def _documented() -> dict[int, tuple[str, str]]:
    """Page and dotted name of what has a page, by identity."""
    found = {
        id(name.value): (f"{GENERATED}/{name.page}", name.documented)
        for name in reversed(pages.public_names().values())
        if not isinstance(name.value, (int, str, tuple))
    }
    for family in pages.families():
        found.setdefault(id(family.formula), (f"{GENERATED}/{family.page}", ""))
    return found


@cache
def _contexts() -> dict[str, list[str]]:
    """Modules in which the names of a page's docstrings are meant, by page."""
    found = {}
    for name in pages.public_names().values():
        home = getattr(name.value, "__module__", None) if name.kind != "data" else None
        if name.kind == "data" and (place := pages.assignment(name.room, name.name)):
            home = place[0]
        bases = [base.__module__ for base in getattr(name.value, "__mro__", ())]
        found[f"{GENERATED}/{name.page}"] = [m for m in (home, *bases, name.room) if m]
    for family in pages.families():
        found[f"{GENERATED}/{family.page}"] = [family.formula.__module__]
    return found


def _named_in(module: str, name: str) -> Any:
    """What a name means in a module, imports for type checkers included; raises if nothing."""
    space = import_module(module)
    if hasattr(space, name):
        return getattr(space, name)
    for line in re.findall(r"^ +from ([\w.]+) import (.+)$", inspect.getsource(space), re.M):
        if name in re.split(r"[,\s]+", line[1]):
            return getattr(import_module(line[0]), name)
    found = re.search(rf"^ +import (?:(\S+) as )?{name}$", inspect.getsource(space), re.M)
    if found:
        return import_module(found[1] or name)
    raise AttributeError(name)


def find(target: str, contexts: list[str], owner: str | None = None) -> Any:
    """Return the object that a reference names.

    Args:
        target: Name as written.
        contexts: Modules in which it may be meant.
        owner: Class whose docstring it is in, if any.

    Raises:
        LookupError: If there is none.
    """
    if not all(word.isidentifier() for word in target.split(".")):
        raise LookupError(target)
    first, *rest = target.split(".")
    for context in contexts:
        for words in ([first, *rest], [owner.rpartition(".")[2], first, *rest] if owner else []):
            try:
                found = _named_in(context, words[0]) if words else None
                for word in words[1:]:
                    found = _member(found, word)
            except (AttributeError, TypeError, OSError):
                continue
            if words:
                return found
    if hasattr(builtins, first):
        return getattr(builtins, first)
    words = target.split(".")
    for k in range(len(words), 0, -1):
        try:
            found = import_module(".".join(words[:k]))
            for word in words[k:]:
                found = _member(found, word)
        except (ImportError, AttributeError):
            continue
        return found
    raise LookupError(target)


def _member(found: Any, name: str) -> Any:
    """An attribute; a field of a dataclass without a default is none of its class."""
    if name in getattr(found, "__dataclass_fields__", ()) or name in _annotations(found):
        return None
    return getattr(found, name)


def _annotations(found: Any) -> dict[str, Any]:
    return getattr(found, "__annotations__", {}) if inspect.isclass(found) else {}


def resolve(app: Sphinx, env: Any, node: Any, contnode: Any) -> Any:
    """Return the node for a reference to a Python name that Sphinx does not know."""
    if node.get("refdomain") != "py":
        return None
    page = node.get("refdoc", env.docname)
    contexts = [*_contexts().get(page, ()), *filter(None, [node.get("py:module")]), "geomkit"]
    try:
        found = find(node["reftarget"], contexts, node.get("py:class"))
    except LookupError:
        return None
    place = _documented().get(id(found))
    if place is None and hasattr(found, "__qualname__") and "." in found.__qualname__:
        owner, _, member = found.__qualname__.rpartition(".")
        home = getattr(import_module(found.__module__), owner, None)
        if id(home) in _documented():
            document, name = _documented()[id(home)]
            if f"{name}.{member}" in env.domains["py"].objects:
                place = document, f"{name}.{member}"
    if place is None or place[0] == page:
        return contnode
    return make_refnode(app.builder, page, place[0], place[1], contnode)


def prepare(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Link the numbers of arXiv in a docstring, and write it as Napoleon reads it.

    Napoleon would take the words of what is returned before a colon as a type, and of two
    attributes in one entry the first as the type of the second.
    """
    text = pages.linked("\n".join(lines))
    text = re.sub(r"^Returns:\n +(\S.*(?:\n +.*)*)", r":returns: \1", text, flags=re.M)
    lines[:] = _SEVERAL.sub(_apart, text).split("\n")


_SEVERAL = re.compile(r"^    ([a-z]\w*(?:, [a-z]\w*)+): (.*(?:\n {8}.*)*)", re.M)


def _apart(entry: re.Match[str]) -> str:
    """Entries of several attributes, one each."""
    return "\n".join(f"    {name}: {entry[2]}" for name in entry[1].split(", "))


def set_dashes(app: Sphinx, doctree: nodes.document) -> None:
    """Set a dash after the name of a parameter; the hyphens of options stay."""
    for text in list(doctree.findall(nodes.Text)):
        if text.astext() == " -- ":
            text.parent.replace(text, nodes.Text(" – "))


def shorten(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str, returns: str
) -> tuple[str, str] | None:
    """Show ``...`` for a default that is no Python, such as a factory's."""
    if not signature:
        return None
    return re.sub(r"=( ?)<[^<>]*>", r"=\1...", signature), returns


# -- formulas -----------------------------------------------------------------------------------


_LETTERS = {"⊤": "top", "·": "cdot", "↦": "mapsto"}


def _mathml(visitor: Any, node: Any) -> None:
    inline = isinstance(node, nodes.math)
    tex = node.astext()
    tex = re.sub(r"\\frac(\w)(\w)", r"\\frac{\1}{\2}", tex)  # docutils takes 12 for one number
    for letter, name in _LETTERS.items():
        tex = tex.replace(letter, f"\\{name} ")
    try:
        formula = tex2mathml(tex, as_block=not inline)
    except MathError as error:
        _log.warning("formula '%s': %s", node.astext(), error, location=node)
        formula = f"<code>{node.astext()}</code>"
    formula = re.sub(r">\s+<", "><", formula)
    # Bars and braces would grow to the height of fractions and indices beside them.
    formula = re.sub(r"<mo([^>]*)>([‖|{}])</mo>", r'<mo\1 stretchy="false">\2</mo>', formula)
    visitor.body.append(formula if inline else f'<div class="formula">{formula}</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the extension."""
    app.add_html_math_renderer("mathml", (_mathml, None), (_mathml, None))
    app.connect("builder-inited", write_pages)
    app.connect("builder-inited", write_outside)
    app.connect("source-read", read)
    app.connect("missing-reference", resolve)
    app.connect("autodoc-process-docstring", prepare, priority=400)  # before napoleon
    app.connect("autodoc-process-signature", shorten)
    app.connect("doctree-read", set_dashes)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
