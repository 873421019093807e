"""A sign of life on a terminal while a command imports what it needs."""

from __future__ import annotations

import contextlib
import os
import sys
import threading

__all__ = ["start", "stop"]

_DELAY, _STEP = 0.1, 0.2
"""Seconds before the first sign, which quick commands never need, and between two."""
_DOTS = ("   ", ".  ", ".. ", "...")
_ended = threading.Event()
_thread: threading.Thread | None = None


def start(words: str) -> None:
    """Write words and moving dots to stderr from now until :func:`stop`, on a terminal.

    Args:
        words: What is being done.
    """
    global _thread
    if _thread is None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        _ended.clear()
        _thread = threading.Thread(target=_move, args=(words,), daemon=True)
        _thread.start()


def stop() -> None:
    """Erase the sign; nothing if there is none."""
    global _thread
    if _thread is not None:
        _ended.set()
        _thread.join()
        _thread = None


def _move(words: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # the terminal is gone
        count = 0
        while not _ended.wait(_STEP if count else _DELAY):
            sys.stderr.write(f"\r{words} {_DOTS[count % len(_DOTS)]}")
            sys.stderr.flush()
            count += 1
        if count:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
