"""Text from files as it may be shown: without what a terminal would obey or cannot encode."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["distinct", "in_markdown", "one_minus", "shown"]

_HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but tab and newline, marks that reverse a line, and halves of surrogates."""
_MINUS = re.compile(r"(?<![\w.)-])-(?=\.?\d)")


def shown(text: str) -> str:
    r"""Return a text with its control characters, and bytes that are no UTF-8, as ``\uXXXX``.

    JSON stays the same JSON: there the escape means the character.

    >>> shown("a\x1b[31mb")
    'a\\u001b[31mb'
    """
    return _HIDDEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def in_markdown(text: str) -> str:
    r"""Return a text for one place in Markdown, where it makes no link, HTML or new line.

    >>> in_markdown("a <b>, [c](javascript:d)")
    'a &lt;b>, [c]\\(javascript:d)'
    """
    text = re.sub(r"<(?=[A-Za-z/!?])", "&lt;", " ".join(shown(text).split()))
    return re.sub(r"](?=[(:])", r"]\\", text).replace("```", "'''")


def one_minus(text: str) -> str:
    """Return a text whose negative numbers have a minus sign and no hyphen.

    >>> one_minus("-1.5 to -3 at ViT-B-32")
    '−1.5 to −3 at ViT-B-32'
    """
    return _MINUS.sub("−", text)


def distinct(names: Sequence[str], widths: Sequence[int]) -> list[str]:
    """Return names shortened in the middle; numbered where two would look the same.

    Args:
        names: The names.
        widths: Number of characters that each may have.

    >>> distinct(["model-a-of-the-first-run", "b"], [12, 12])
    ['model…st-run', 'b']
    """
    short = [_middle(name, width) for name, width in zip(names, widths, strict=True)]
    if len(set(short)) == len(set(names)):
        return short
    signs = [f"{number} " for number in range(1, len(names) + 1)]
    return [
        sign + _middle(name, width - len(sign))
        for sign, name, width in zip(signs, names, widths, strict=True)
    ]


def _middle(name: str, width: int) -> str:
    """A name of at most that many characters, with ``…`` for what its middle lost."""
    if len(name) <= width:
        return name
    end = width // 2
    return f"{name[: width - end - 1]}…{name[-end:]}"
