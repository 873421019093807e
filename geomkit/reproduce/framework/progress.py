"""Progress of a run: steps of its trainings, and the time left from the work done."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from geomkit.reproduce.framework.experiment import Cell, Experiment
from geomkit.reproduce.framework.planning import Plan, steps_of

__all__ = ["Clock", "Event", "Progress"]


@dataclass(frozen=True)
class Event:
    """One report of progress.

    Attributes:
        kind: ``training`` or ``trained`` (a cell); ``measuring``, ``done``, ``skipped``,
            ``drawn`` or ``failed`` (an experiment); ``line`` (a text).
        text: Text of the report.
        done: Steps done, over all cells.
        total: Steps of all cells.
        step: Steps done by the current training.
        steps: Steps of the current training.
        left: Estimated seconds until everything is done.
    """

    kind: str
    text: str
    done: int = 0
    total: int = 0
    step: int = 0
    steps: int = 0
    left: float = 0.0


class Progress:
    """Counts the steps and the time of a run, and reports them as events.

    Args:
        planned: Plan of the run.
        watch: Receives the events.
        seconds: Seconds after which only the first look of every experiment is made.
    """

    def __init__(
        self, planned: Plan, watch: Callable[[Event], None], seconds: float = math.inf
    ) -> None:
        """Start the clock of a planned run."""
        self.watch = watch
        self.clock = Clock(dict(planned.work))
        self.first, self.until = planned.first, self.clock.started + seconds
        self._left = -math.inf, 0.0
        self.steps = {cell: (0, steps_of(cell.config)) for cell in planned.left}

    def cell(self, cell: Cell, step: int, steps: int) -> None:
        """Report a step of a training."""
        before = self.steps.get(cell, (0, steps))[0]
        self.steps[cell] = step, steps
        self.clock.advance(cell, step / steps)
        self.say("training", cell.label, step=step, steps=steps)
        if step == steps and before < step:
            self.say("trained", cell.label, step=step, steps=steps)

    @property
    def left(self) -> float:
        """Estimated seconds until the run ends: no seeds are added when its time is spent."""
        more = min(self.clock.left, self.until - self.clock.now())
        return max(more, self.clock.seconds_of(self.first, self.first))

    def fits(self, pieces: Iterable[Cell | str]) -> bool:
        """Whether further work fits into the time of the run."""
        return self.clock.now() + self.clock.seconds_of(pieces) < self.until

    def finished(self, experiment: Experiment, needed: Collection[Cell]) -> None:
        """Report that an experiment is finished.

        Args:
            experiment: The experiment.
            needed: Cells that others can still need: the rest has been decided without them.
        """
        self.clock.advance(experiment.name, 1.0)
        for cell, (step, steps) in list(self.steps.items()):
            if step < steps and cell not in needed:
                del self.steps[cell]
                self.clock.work.pop(cell, None)
        self.say("done", experiment.name)

    def say(self, kind: str, text: str, *, step: int = 0, steps: int = 0) -> None:
        """Report an event of some kind."""
        done, total = (sum(pair[k] for pair in self.steps.values()) for k in (0, 1))
        # Steps of small models take less time than the estimate.
        now = self.clock.now()
        if kind != "training" or now - self._left[0] > 1.0:
            self._left = now, self.left
        self.watch(Event(kind, text, done, total, step, steps, self._left[1]))


class Clock:
    """Estimates the time left from the work done and the time that it took.

    Args:
        work: Estimated seconds of each piece of work.
        now: Clock, for tests.
    """

    def __init__(
        self, work: Mapping[Cell | str, float], now: Callable[[], float] = time.perf_counter
    ) -> None:
        """Start the clock."""
        self.work, self.now = dict(work), now
        self.shares = dict.fromkeys(self.work, 0.0)
        self.before = dict.fromkeys(self.work, 0.0)
        self.started = now()

    def advance(self, piece: Cell | str, share: float) -> None:
        """Record the share of a piece that is done, 0 to 1; unknown pieces are ignored.

        The first share of a training is what an earlier run did: it took no time of this one.
        """
        if piece not in self.work:
            return
        if self.shares[piece] == 0.0 and share < 1.0 and not isinstance(piece, str):
            self.before[piece] = share
        self.shares[piece] = share

    @property
    def left(self) -> float:
        """Estimated seconds until all work is done."""
        return self.seconds_of(self.work)

    def seconds_of(
        self, pieces: Iterable[Cell | str], parts: Mapping[Cell | str, float] = MappingProxyType({})
    ) -> float:
        """Estimated seconds until some of the work is done.

        Args:
            pieces: Pieces of work.
            parts: Share of a piece after which it is done, where it is not 1.
        """
        todo = sum(
            self.work[p] * max(0.0, parts.get(p, 1.0) - self.shares[p])
            for p in set(pieces)
            if p in self.work
        )
        done = sum(w * max(0.0, self.shares[p] - self.before[p]) for p, w in self.work.items())
        # Until a twentieth is done, the estimate weighs more than the little that was observed.
        total = sum(self.work.values())
        guess = 0.05 * total
        elapsed = self.now() - self.started
        return todo * (elapsed + guess) / (done + guess) if total else 0.0
