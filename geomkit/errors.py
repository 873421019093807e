"""The one exception that means: the user can mend this."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["GeomkitError", "unknown_name"]


class GeomkitError(ValueError):
    """Bad input, configuration or file; the message is one line: what, where, how to mend it."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> GeomkitError:
    """An error for a name that is not among the known ones, with the nearest that is.

    >>> print(unknown_name("loss", "cuxau", ["clip", "cua", "cuaxu"]))
    unknown loss 'cuxau'; did you mean 'cuaxu'? (known: clip, cua, cuaxu)
    """
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    return GeomkitError(f"unknown {kind} '{name}'{hint} (known: {', '.join(names)})")
