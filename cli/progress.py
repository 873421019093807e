"""What long commands share: progress on stderr, and stopping on a signal."""

from __future__ import annotations

import contextlib
import signal
import time
from types import FrameType
from typing import Any, Self

from geomkit._core.shown import shown

from . import console, waiting

__all__ = ["Display", "StopSignal"]

_HANGUP = [signal.SIGHUP] if hasattr(signal, "SIGHUP") else []  # not on Windows
_COUNTED = "{task.completed:,.0f}/{task.total:,.0f} {task.fields[note]}"


class Display:
    """Progress bars on a terminal, lines of log elsewhere; a context manager.

    Args:
        remaining: Whether bars show an estimate of the time left.
    """

    def __init__(self, *, remaining: bool = True) -> None:
        """Start the clock; the bars start with the context."""
        self.remaining = remaining
        self.progress: Any = None
        self.written: set[str] = set()
        self.started = time.monotonic()

    def __enter__(self) -> Self:
        """Start the bars, on a terminal."""
        if console.interactive():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            waiting.stop()
            self.progress = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24),
                TextColumn(_COUNTED, markup=False),
                *([TimeRemainingColumn()] if self.remaining else []),
                console=Console(stderr=True),
            )
            self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the bars."""
        if self.progress:
            with contextlib.suppress(OSError):  # the terminal is gone
                self.progress.stop()

    @property
    def seconds(self) -> float:
        """Seconds since the display was made."""
        return time.monotonic() - self.started

    def show(
        self, what: str, done: float, total: float, note: str = "", *, row: int = 0, **more: Any
    ) -> None:
        """Update a bar; without a terminal, do nothing.

        Args:
            what: Name of the work.
            done: Work done.
            total: Work in all.
            note: Text behind the numbers.
            row: Number of the bar, from 0.
            more: Further properties of rich's task, such as ``visible``.
        """
        if self.progress:
            while len(self.progress.tasks) <= row:
                self.progress.add_task("", total=0, note="", visible=False)
            task = self.progress.tasks[row].id
            self.progress.update(
                task, description=shown(what), completed=done, total=total, note=shown(note),
                **{"visible": True, **more},
            )  # fmt: skip

    def once(self, *texts: str) -> None:
        """Write the lines that are neither empty nor written by this method before."""
        for text in texts:
            if text and text not in self.written:
                self.written.add(text)
                self.log(text)

    def preparing(self, done: int, total: int) -> None:
        """Show how many images have been drawn or decoded so far."""
        self.show("preparing", done, total)
        if done == total and not self.progress:
            self.log(f"prepared {total:,} images")

    def log(self, text: str) -> None:
        """Write a line, above the bars if there are any."""
        text = text.replace("\n", " ")
        if self.progress:
            with contextlib.suppress(OSError):  # a log that cannot be written stops no work
                self.progress.console.print(shown(text), highlight=False, markup=False, emoji=False)
        else:
            console.line(text)


class StopSignal:
    """Ctrl-C, SIGTERM or SIGHUP: the first asks for a graceful stop, the second stops at once.

    A context manager that catches these signals, but for a SIGHUP that is ignored, as under nohup;
    called, it says whether one came.

    Args:
        announcement: Line to write when the first signal comes.
        patient: Whether a second signal changes nothing and the first writes no line: torchrun
            sends its own signal after the user's.
        graceful: Whether a graceful stop is possible; while it is false, the first signal already
            stops at once.
    """

    def __init__(self, announcement: str, *, patient: bool = False, graceful: bool = True) -> None:
        """Catch nothing yet."""
        self.number = 0
        self.announcement, self.patient, self.graceful = announcement, patient, graceful

    def __enter__(self) -> Self:
        """Catch the signals."""
        hangup = [n for n in _HANGUP if signal.getsignal(n) is not signal.SIG_IGN]
        self.before = {
            number: signal.signal(number, self._received)
            for number in (signal.SIGINT, signal.SIGTERM, *hangup)
        }
        return self

    def __exit__(self, *_: object) -> None:
        """Restore the handlers from before."""
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def __call__(self) -> bool:
        """Return whether a signal came."""
        return self.number != 0

    def _received(self, number: int, frame: FrameType | None) -> None:
        if self.patient and self.number:
            return
        if self.number or not self.graceful:
            raise KeyboardInterrupt
        self.number = number
        if not self.patient:
            console.line(f"\ngeomkit: {self.announcement} (again: at once)")
