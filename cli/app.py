"""The Typer application: its commands, and what happens when one fails."""

from __future__ import annotations

import errno
import gc
import os
import sys
from typing import Annotated

import typer

from geomkit.errors import GeomkitError

from . import console, waiting
from .arithmetic import arithmetic
from .close import close
from .data import data
from .export import export
from .extract import extract
from .gap import gap
from .inspect import inspect
from .losses import losses
from .metrics import metrics
from .options import add_command
from .plot_close import plot_close
from .plot_gap import plot_gap
from .plot_pca import plot_pca
from .plot_sphere import plot_sphere
from .plot_umap import plot_umap
from .probe import probe
from .recipes import recipes
from .report import report
from .reproduce import reproduce
from .train import train
from .zeroshot import zeroshot

__all__ = ["app", "main"]

app = typer.Typer(
    name="geomkit",
    help="Train, measure and see the embedding geometry of CLIP-like models.",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        console.out(f"geomkit {version('geomkit')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", "-V", help="Print the version.", callback=_version, is_eager=True
        ),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no logs.")] = False,
) -> None:
    console.settings.debug = debug
    console.settings.quiet = quiet


# Any metric of gap can have a limit: an option that is not declared.
_UNDECLARED = {"allow_extra_args": True, "ignore_unknown_options": True}
for _command in (train, gap, close, extract, plot_sphere, plot_gap, plot_pca, plot_umap, plot_close,
                 report, export, inspect, metrics, losses, recipes, data, zeroshot, probe,
                 arithmetic, reproduce):  # fmt: skip
    add_command(
        app, _command, ranked=_command in (train, gap, extract),
        context_settings=_UNDECLARED if _command is gap else None,
    )  # fmt: skip
_AT_ONCE = {"-h", "--help", "--version", "-V", "-q", "--quiet"}
"""Options with which nothing moves while a command starts."""


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit: 0 done, 1 a threshold missed, 2 bad input, 130 interrupted."""
    console.open_streams()
    status = run(arguments)
    waiting.stop()
    console.flush()
    sys.exit(status)


def run(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit status; errors are one line on stderr.

    ``--debug`` and ``--quiet`` may stand before or after the command.
    """
    given = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    console.settings.words = tuple(given)
    console.settings.said.clear()
    front = [option for option in ("--debug", "--quiet", "-q") if option in given]
    given = front + [word for word in given if word not in front]
    try:
        _check_words(given)
        if not _AT_ONCE & set(given):
            waiting.start("geomkit")
        status = app(args=given, prog_name="geomkit", standalone_mode=False)
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except KeyboardInterrupt:
        console.line("interrupted")
        return 130
    except BrokenPipeError:
        return _reader_gone()
    except SystemExit as stop:  # how typer reports a reader that has gone
        if isinstance(stop.__context__, OSError) and stop.__context__.errno == errno.EPIPE:
            return _reader_gone()
        raise
    except Exception as error:
        if console.settings.debug:
            raise
        # torchrun gives all its processes the same words: one of them says what is wrong with them.
        if hasattr(error, "format_message") and os.environ.get("LOCAL_RANK", "0") != "0":
            return 2
        status = console.fail(error)
    processes = sys.modules.get("multiprocessing")
    if processes and processes.active_children():
        gc.collect()  # ends the workers of a command that failed, before the interpreter kills them
    return status


def _reader_gone() -> int:
    """The reader (head, less) has seen enough; leave nothing for the interpreter to flush."""
    console.mute(sys.stdout)
    return 0


def _check_words(words: list[str]) -> None:
    """Refuse an empty word: as a path it would be the current folder.

    Raises:
        GeomkitError: Naming the word before it.
    """
    for k, word in enumerate(words):
        name, equals, value = word.partition("=")
        if not word.strip() or (name.startswith("--") and equals and not value.strip()):
            where = name if word.strip() else f"word {k + 1}, after '{words[k - 1]}'"
            raise GeomkitError(f"{where}: is empty; is a variable of the shell not set?")
