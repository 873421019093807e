"""Where words go: data to stdout, everything else to stderr, one line for an error."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass

from geomkit.errors import GeomkitError

__all__ = ["Settings", "fail", "interactive", "line", "notes", "settings"]


@dataclass
class Settings:
    """What the options before the command set."""

    debug: bool = False
    quiet: bool = False


settings = Settings()


def interactive() -> bool:
    """Whether somebody watches: nothing moves off a terminal or when asked to be quiet."""
    return sys.stderr.isatty() and not settings.quiet


def line(text: str) -> None:
    """A line of log, unless ``--quiet``."""
    if not settings.quiet:
        print(text, file=sys.stderr, flush=True)


def notes(source: str, said: Iterable[str]) -> None:
    """Write what was assumed about a SOURCE, or left out of it, a line each."""
    for note in said:
        line(f"{source}: {note}")


def fail(error: Exception) -> int:
    """Say in one line what went wrong and return the exit status for it."""
    if hasattr(error, "format_message"):  # a usage error, of typer's or of click's
        text = error.format_message()
        command = getattr(getattr(error, "ctx", None), "command_path", "geomkit")
        text = f"{text.strip().rstrip('.')}; see {command} --help"
    elif type(error).__name__ == "Abort":
        text = "aborted"
    elif isinstance(error, GeomkitError):
        text = str(error)
    elif isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        text = f"{where}{error.strerror or error}"
    elif isinstance(error, MemoryError):
        text = "out of memory; try fewer rows or a smaller batch"
    else:
        first = (str(error).splitlines() or [""])[0]
        text = f"unexpected {type(error).__name__}: {first} (--debug shows where)"
    print("geomkit: " + " ".join(text.split()), file=sys.stderr, flush=True)
    return 2
