"""Text from files as it may be shown: without what a terminal would obey or cannot encode."""

from __future__ import annotations

import re

__all__ = ["in_markdown", "shown"]

_HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but tab and newline, marks that reverse a line, and halves of surrogates."""


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
