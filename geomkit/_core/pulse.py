"""Signs of life between ranks: if one fails, is killed, stopped or cut off, all of them end.

They go through the store in which the ranks met, twice a second; the end of a process on the same
machine is seen at once. While each lives, the others wait for it as long as its work takes.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import time
import uuid
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any, TypeVar

__all__ = ["Pulse", "name_of_start"]

Result = TypeVar("Result")

_EVERY = 0.5
"""Seconds between signs of life."""
_NOTICE = 1.5
"""Seconds in which the others notice that a rank has failed."""
_GRACE = 5.0
"""Seconds that a rank then has to end by itself."""
_REMINDER = 300.0
"""Seconds after which a rank that is waited for is named, again and again."""


def name_of_start(store: Any, rank: int, size: int, limit: float) -> str:
    """Return a name that the ranks started together agree on, and none started before has.

    torchrun keeps its store when it starts ranks again, with the addresses of those that are gone.

    Args:
        store: Store in which the ranks meet.
        rank: Rank of this process.
        size: Number of ranks.
        limit: Seconds to wait for the others.

    Raises:
        RuntimeError: If not all ranks come.
    """
    own, until = uuid.uuid4().hex, time.monotonic() + limit
    if rank == 0:
        store.set("geomkit/start", own)
    while time.monotonic() < until:
        if store.check(["geomkit/start"]):
            name = store.get("geomkit/start").decode()
            store.set(f"geomkit/{name}/{rank}", own)
            places = [f"geomkit/{name}/{other}" for other in range(size)]
            if rank == 0 and store.check(places):
                store.set(f"geomkit/{name}", b" ".join(map(store.get, places)).decode())
            if store.check([f"geomkit/{name}"]) and own in store.get(f"geomkit/{name}").decode():
                return name
        time.sleep(0.01)
    raise RuntimeError(f"not all of them within {_words(limit)}")


class Pulse:
    """Signs of life of the ranks.

    Args:
        rank: Rank of this process.
        size: Number of ranks.
        store: Connection to the store.
        own: Another connection, for :meth:`meet`, which may wait for long.
        limit: Seconds without a sign of life after which a rank counts as lost.
        say: Function that prints a line; on all ranks together it prints one that they end.
    """

    def __init__(
        self, rank: int, size: int, store: Any, own: Any, limit: float, say: Callable[[str], None]
    ) -> None:
        """Start to give signs, and to look for those of the others."""
        self._rank, self._size, self._say = rank, size, say
        self._store, self._own, self._limit = store, own, limit
        self._meetings = 0
        self._failed, self._lock, self._closing = False, Lock(), Event()
        self._place = _place()
        self._unknown = {*range(size)} - {rank}
        """Other ranks of which it is not known where they are."""
        self._handles: dict[int, int] = {}
        """Handles of the processes of other ranks on this machine."""
        self._gone: set[int] = set()
        """Those that had ended before there was a handle."""
        # Before anything can fail: the others look for it.
        store.set(f"geomkit/place/{rank}", f"{self._place} {os.getpid()}")
        self._thread = Thread(target=self._watch, daemon=True)
        self._thread.start()

    def meet(self) -> None:
        """Wait for all ranks, as long as each of them lives.

        Raises:
            ConnectionError: If one has failed.
        """
        self._meetings += 1
        key, started, told = f"geomkit/meeting/{self._meetings}", time.monotonic(), 1
        places = [f"{key}/{rank}" for rank in range(self._size)]
        self._own.set(places[self._rank], "")
        pause = 1e-4
        while not self._own.check(places if self._rank == 0 else [key]):
            if self._failed:
                raise ConnectionError("c10d: another rank has failed")
            time.sleep(pause)
            pause = min(0.1, 1.2 * pause)
            waited = time.monotonic() - started
            if self._rank == 0 and waited > told * _REMINDER:
                told += 1
                late = [str(r) for r, place in enumerate(places) if not self._own.check([place])]
                if late:
                    self._say(f"waiting for rank {', '.join(late)} for {_words(waited)}")
        if self._rank == 0:
            self._own.set(key, "")

    def fail(self, text: str) -> None:
        """Make all ranks end, because this one does; the first one to do so prints why."""
        with self._lock:
            failed, self._failed = self._failed, True
        if failed:
            self._part(_NOTICE)
            return
        word = f"{self._rank} {text}"
        try:
            found = self._ask(partial(self._store.compare_set, "geomkit/ended", "", word), _NOTICE)
        except ConnectionError:  # the store is gone, and with it what the ranks agree by
            if not self._spoken_for():
                self._say(text)
                time.sleep(_NOTICE)  # until the others have seen that this one still lives
            return
        if found == word.encode():
            self._say(text)
        self._part(_NOTICE)

    def _spoken_for(self) -> bool:
        """Whether a rank before this one lives on this machine; the first may hold the store."""
        before = [handle for rank, handle in self._handles.items() if 0 < rank < self._rank]
        return len(_ended(before)) < len(before)

    def close(self) -> None:
        """Stop. The first rank, which may hold the store, is the last one to do so."""
        if self._rank == 0:
            self._part()
        self._closing.set()
        self._thread.join()
        if self._rank:
            self._part()

    def _part(self, seconds: float = math.inf) -> None:
        """Leave the store; the first rank waits until the others have left."""
        until = time.monotonic() + seconds
        with contextlib.suppress(RuntimeError):  # it is gone
            self._store.set(f"geomkit/left/{self._rank}", "")
            others = [f"geomkit/left/{rank}" for rank in range(1, self._size)]
            while self._rank == 0 and not self._store.check(others) and time.monotonic() < until:
                time.sleep(0.01)

    def _watch(self) -> None:
        every = min(_EVERY, self._limit / 5)
        beats: dict[int, bytes] = {}
        still: dict[int, int] = {}  # in own beats: all ranks may be suspended together
        number = 0
        while not self._closing.wait(every):
            number += 1
            try:
                ended, lost, found = self._ask(partial(self._beat, number), self._limit)
            except ConnectionError:
                self._end("rank 0 has ended or cannot be reached")
                return
            except RuntimeError:  # the interpreter is ending
                return
            if ended:
                self._leave()
            for rank in lost:
                self._end(f"rank {rank} has ended (killed, if memory ran out)")
            for rank, beat in found.items():
                still[rank] = still.get(rank, 0) + 1 if beats.get(rank) == beat else 0
                if still[rank] * every >= self._limit:
                    silent = f"rank {rank} has given no sign of life for {_words(self._limit)}"
                    self._end(silent, silent=rank)
            beats = found

    def _beat(self, number: int) -> tuple[bool, list[int], dict[int, bytes]]:
        """Give a sign of life.

        Returns:
            Whether a rank has failed; those on this machine that ended before they had left;
            others' last signs.
        """
        self._find_others()
        rank_of = {handle: rank for rank, handle in self._handles.items()}
        gone = {*self._gone, *(rank_of[handle] for handle in _ended(rank_of))}
        key = "geomkit/beat/{}".format
        self._store.set(key(self._rank), str(number))
        others = range(1, self._size) if self._rank == 0 else [0]
        found = {
            rank: self._store.get(key(rank)) if self._store.check([key(rank)]) else b""
            for rank in others
            if not self._has_left(rank)
        }
        lost = [rank for rank in sorted(gone) if not self._has_left(rank)]
        return self._store.check(["geomkit/ended"]), lost, found

    def _has_left(self, rank: int) -> bool:
        return self._store.check([f"geomkit/left/{rank}"])

    def _find_others(self) -> None:
        """Get handles of the processes of ranks on this machine, as soon as they have said so."""
        for rank in sorted(self._unknown):
            if not self._store.check([key := f"geomkit/place/{rank}"]):
                continue
            place, number = self._store.get(key).decode().split()
            self._unknown.discard(rank)
            if place == self._place and hasattr(os, "pidfd_open"):
                try:
                    self._handles[rank] = os.pidfd_open(int(number))
                except ProcessLookupError:
                    self._gone.add(rank)
                except OSError:  # not to be had; its signs of life are
                    continue

    def _ask(self, question: Callable[[], Result], seconds: float) -> Result:
        """Ask the store, which never answers if its process is stopped.

        Raises:
            ConnectionError: If it does not answer.
        """
        answers: list[Result] = []

        def ask() -> None:
            with contextlib.suppress(RuntimeError):
                answers.append(question())

        thread = Thread(target=ask, daemon=True)
        thread.start()
        thread.join(seconds)
        if not answers:
            raise ConnectionError
        return answers[0]

    def _end(self, text: str, *, silent: int = -1) -> None:
        """End this process, because another rank is lost, if its main thread does not do so.

        Args:
            text: Why.
            silent: A rank that is there and does not answer; it would stay, if on this machine.
        """
        with self._lock:
            failed = self._failed
        if not failed:
            self.fail(text)
            if silent in self._handles:
                with contextlib.suppress(OSError):
                    signal.pidfd_send_signal(self._handles[silent], signal.SIGKILL)
            os._exit(2)
        self._leave()

    def _leave(self) -> None:
        """End this process, because a rank has failed, if its main thread does not do so."""
        with self._lock:
            self._failed = True
        self._part(_NOTICE)
        time.sleep(_GRACE)
        os._exit(2)


def _ended(handles: Collection[int]) -> list[int]:
    """Those of the handles whose process has ended."""
    if not handles:
        return []  # as on systems without poll
    ends = select.poll()
    for handle in handles:
        ends.register(handle, select.POLLIN)
    return [handle for handle, _ in ends.poll(0)]


def _place() -> str:
    """Return what processes that see each other have alike: machine, and space of their numbers."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:  # not Linux
        return uuid.uuid4().hex


def _words(seconds: float) -> str:
    return f"{seconds:.0f} seconds" if seconds < 120 else f"{seconds / 60:.0f} minutes"
