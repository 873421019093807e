"""Figures as SVG inside a page, in the colours of its light or dark theme."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING

from markupsafe import Markup

from geomkit._core.shown import shown
from geomkit.plots.style import IMAGE_COLOUR, INK, TEXT_COLOUR, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["inline_svg"]

_THEMED = {
    INK: "currentColor",
    IMAGE_COLOUR: "var(--image)",
    TEXT_COLOUR: "var(--text)",
    "#2e8b57": "var(--pairs)",
    "#ffffff": "var(--paper)",
    **dict.fromkeys(["#dddddd", "#bbbbbb"], "var(--line)"),
    **dict.fromkeys(["#666666", "#777777", "#8a8a8a", "#999999", "#9a9a9a"], "var(--soft)"),
}
"""Colours of figures that a page has in two themes."""
_NUMBER = re.compile(r"-?\d+\.\d+")
_PLACES = re.compile(r' (?:d|x|y|transform|width|height|points)="[^"]*"', re.DOTALL)
_IDS = re.compile(r' id="([^"]*)"')
_USED = re.compile(r"""(?:url\(#|href="#)([^")]*)""")


def inline_svg(figure: Figure, label: str, name: str) -> Markup:
    """Return a figure as an SVG element.

    Its colours are those of the page, its background is the page's, its letters are text.

    Args:
        figure: Figure to draw.
        label: What it shows, for readers who do not see it.
        name: Start of the ids in it, which are unique in a page.

    >>> from geomkit.plots.style import axes_grid
    >>> figure, _ = axes_grid(1, 1, columns=1)
    >>> inline_svg(figure, 'a "b"', "f0")[:40]
    Markup('<svg role="img" aria-label="a &#34;b&#34')
    """
    import matplotlib
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_text(shown(text.get_text()))
    out = io.StringIO()
    with style(), matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    whole = out.getvalue()
    body = whole[whole.index("<defs>", whole.index("</metadata>")) : whole.rindex("</svg>")]
    # A style element would hold for the whole page: the page's own says the same of its figures.
    body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", body, flags=re.DOTALL)
    for colour, themed in _THEMED.items():
        body = body.replace(f": {colour}", f": {themed}")
    body = _PLACES.sub(lambda place: _NUMBER.sub(_shorter, place[0]), body)
    used = set(_USED.findall(body))
    body = _IDS.sub(lambda one: f' id="{name}-{one[1]}"' if one[1] in used else "", body)
    body = _USED.sub(lambda one: one[0].replace(one[1], f"{name}-{one[1]}"), body)
    body = re.sub(r">\s+<", "><", body.replace("xlink:href", "href"))
    width, height = (72 * side for side in figure.get_size_inches())
    return Markup('<svg role="img" aria-label="{}" viewBox="0 0 {:g} {:g}">{}</svg>').format(
        label,
        width,
        height,
        Markup(body),
    )


def _shorter(number: re.Match[str]) -> str:
    return f"{float(number[0]):.2f}".rstrip("0").rstrip(".")
