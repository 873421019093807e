"""Where words go: data to stdout, everything else to stderr, one line for an error."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from geomkit._core.shown import shown
from geomkit._core.table import Table
from geomkit.errors import GeomkitError, reason, unknown_name

from . import waiting

__all__ = [
    "Settings", "check_form", "explained", "fail", "finished", "flush", "interactive",
    "line", "mute", "notes", "open_streams", "out", "settings", "table", "words", "wrote",
]  # fmt: skip


@dataclass
class Settings:
    """What the options before the command set, and the words of the command line."""

    debug: bool = False
    quiet: bool = False
    words: tuple[str, ...] = ()
    said: set[str] = field(default_factory=set)


settings = Settings()
_MEMORY = re.compile("can't allocate memory|CUDA out of memory|MPS backend out of memory")
"""What torch says in a RuntimeError when memory ends."""


def interactive() -> bool:
    """Whether somebody watches: nothing moves off a terminal or when asked to be quiet."""
    return sys.stderr.isatty() and not settings.quiet


def open_streams() -> None:
    """Give closed standard streams a place, so that no file of ours gets their number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:  # what is written to stdout is to fail, what is logged is not
            os.open(os.devnull, os.O_WRONLY if name == "stderr" else os.O_RDONLY)
        if getattr(sys, name) is None:
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


def flush() -> None:
    """Write what the streams still hold, or drop it: the exit status is that of the command."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            mute(stream)


def mute(stream: TextIO) -> None:
    """Let a stream that cannot be written lead nowhere, for the interpreter flushes it at exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def out(text: str, *, end: str = "\n") -> None:
    """A line of data.

    Raises:
        GeomkitError: If it cannot be written, except where its reader has gone.
    """
    waiting.stop()
    _lenient(sys.stdout)
    try:
        print(shown(text), end=end, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        mute(sys.stdout)
        raise GeomkitError(f"standard output: cannot be written ({reason(error)})") from None


def check_form(form: str, forms: Sequence[str]) -> None:
    """Refuse a form of a table that a command does not print.

    Raises:
        GeomkitError: If it is not one of the forms.
    """
    if form not in forms:
        raise unknown_name("format", form, forms)


def table(whole: Table, form: str = "text") -> None:
    """A table of data: on a terminal within its width, elsewhere as wide as it needs.

    Args:
        whole: The table.
        form: Form of the table: text, markdown, latex or csv.
    """
    if form != "text":
        out(getattr(whole, form)())
        return
    if not sys.stdout.isatty():
        out(whole.plain())
        return
    from rich.console import Console

    waiting.stop()
    terminal = Console(highlight=False)
    tables, left_out = whole.fitted(terminal.width)
    for number, part in enumerate(tables):
        if number:
            terminal.print()
        terminal.print(part.rich())
    if left_out:
        line(f"left out for the terminal's width: {', '.join(left_out)}; a pipe or --json has all")


@contextlib.contextmanager
def finished(made: object) -> Iterator[None]:
    """Within it, data that cannot be written is no error: the work is done and on disk."""
    try:
        yield
    except BrokenPipeError:
        mute(sys.stdout)
    except GeomkitError as error:
        line(f"{made}: written; {error}")


def words(text: str, *, indent: int = 0) -> None:
    """A sentence of data: on a terminal in lines of its width, elsewhere in one.

    Args:
        text: The sentence.
        indent: Spaces before each line but the first.
    """
    out(_folded(text, sys.stdout, indent))


def _folded(text: str, stream: TextIO, indent: int = 0) -> str:
    """A text in lines of a terminal's width, broken at spaces; elsewhere as it is."""
    from textwrap import fill

    if not stream.isatty():
        return text
    width = shutil.get_terminal_size().columns
    lines = (
        fill(
            line,
            width,
            subsequent_indent=" " * indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
        if len(line) > width
        else line
        for line in text.split("\n")
    )
    return "\n".join(lines)


def wrote(path: Path) -> None:
    """Print the path of what a command made."""
    with finished(path):
        out(str(path))


def line(text: str, *, even_if_quiet: bool = False, once: bool = False) -> None:
    """A line of log, unless ``--quiet``; a log that cannot be written stops no work.

    Args:
        text: The line.
        even_if_quiet: Whether ``--quiet`` does not keep it back.
        once: Whether a command that says it again says it only once.
    """
    if once and text in settings.said:
        return
    settings.said.add(text)
    if even_if_quiet or not settings.quiet:
        waiting.stop()
        _lenient(sys.stderr)
        with contextlib.suppress(OSError):
            print(_folded(shown(text), sys.stderr), file=sys.stderr, flush=True)


def _lenient(stream: TextIO) -> None:
    """Let a stream escape what its encoding lacks, as ``≤`` in Latin-1."""
    if isinstance(stream, io.TextIOWrapper) and stream.errors != "backslashreplace":
        stream.reconfigure(errors="backslashreplace")


def notes(source: str, said: Iterable[str]) -> None:
    """Write what was assumed about a SOURCE, or left out of it, a line each."""
    for note in said:
        line(" ".join(f"{source}{source and ': '}{note}".split()))


def fail(error: Exception) -> int:
    """Say in one line what went wrong and return the exit status for it."""
    line(f"geomkit: {explained(error)}", even_if_quiet=True)
    return 2


def explained(error: Exception) -> str:
    """Return in one line what went wrong."""
    if hasattr(error, "format_message"):  # a usage error, of typer's or of click's
        text = error.format_message()
        command = getattr(getattr(error, "ctx", None), "command_path", "geomkit")
        text = f"{text.strip().rstrip('.')}; see {command} --help"
    elif type(error).__name__ == "Abort":
        text = "aborted"
    elif isinstance(error, GeomkitError):
        text = str(error)
    elif isinstance(error, FileNotFoundError) and error.filename is None:
        text = "the current folder no longer exists; change to one that does"
    elif isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        text = f"{where}{error.strerror or error}"
    elif isinstance(error, MemoryError) or _MEMORY.search(str(error)):
        text = "out of memory; try fewer rows or a smaller batch"
    elif type(error).__name__ == "BrokenProcessPool" or "DataLoader worker" in str(error):
        text = (
            "a process of this command was killed, by the system if memory ran out; give fewer "
            "--workers (0: none) or --jobs; train, extract and reproduce continue with --resume"
        )
    else:
        first = (str(error).splitlines() or [""])[0]
        text = f"unexpected {type(error).__name__}: {first} (--debug shows where)"
    return " ".join(text.split())
