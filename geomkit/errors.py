"""The exception for everything that the user can fix."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["GeomkitError", "NotConvergedError", "reason", "unknown_name"]


class GeomkitError(ValueError):
    """Bad input, configuration or file; one line says what was found, where, and how to fix it."""


class NotConvergedError(GeomkitError):
    """An iteration that did not converge: one number is undefined, others are not."""


_MANY = 12
"""Known names that an error lists; of more, it names the nearest."""


def unknown_name(kind: str, name: str, known: Iterable[str], *, see: str = "") -> GeomkitError:
    """Return an error for an unknown name that suggests the most similar known one.

    Args:
        kind: Kind of thing that the name should be one of.
        name: Name found.
        known: Known names.
        see: What lists them, where they are too many for one line.

    Example:
        >>> print(unknown_name("loss", "cuxau", ["clip", "cua", "cuaxu"]))
        unknown loss 'cuxau'; did you mean 'cuaxu'? (known: clip, cua, cuaxu)
    """
    names = list(known)
    if len(names) > _MANY:
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        *first, last = [f"'{one}'" for one in near] or [""]
        guess = f"{', '.join(first)} or {last}" if first else last
        hint = f"; did you mean {guess}?" if near else ""
        where = f"{see} lists them" if see else f"{len(names)} are known"
        return GeomkitError(f"unknown {kind} '{name}'{hint} ({where})")
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    return GeomkitError(f"unknown {kind} '{name}'{hint} (known: {', '.join(names)})")


def reason(error: BaseException) -> str:
    """Return the first line of an exception's message, or its type's name if it has none.

    For an error of the system it is the system's own words.

    >>> reason(KeyError()), reason(OSError(2, "No such file or directory"))
    ('KeyError', 'No such file or directory')
    """
    text = str(getattr(error, "strerror", None) or error)
    return (text.splitlines() or [type(error).__name__])[0]
