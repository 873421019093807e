"""Progress over a whole grid: steps, and the time left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from geomkit.reproduce.framework.estimate import Clock, cost, model_of, steps_of
from geomkit.reproduce.framework.experiment import Cell, Experiment, Options
from geomkit.reproduce.framework.planning import Plan

__all__ = ["Event", "Progress"]


@dataclass(frozen=True)
class Event:
    """What the runner tells whoever watches.

    Attributes:
        kind: ``training`` and ``trained`` (a cell); ``measuring``, ``done``, ``skipped``,
            ``drawn`` or ``failed`` (an experiment); ``line``.
        text: for people.
        done, total: steps of all cells.
        step, steps: of the cell that trains.
        left: seconds, about, until everything is done.
    """

    kind: str
    text: str
    done: int = 0
    total: int = 0
    step: int = 0
    steps: int = 0
    left: float = 0.0


class Progress:
    """Steps and time of a run, put into events."""

    def __init__(self, planned: Plan, options: Options, watch: Callable[[Event], None]) -> None:
        self.watch = watch
        speeds = dict(planned.speeds)
        typical = sum(speeds.values()) / len(speeds) if speeds else 1.0
        work: dict[object, float] = {
            cell: cost(cell) * speeds.get(model_of(cell), typical) for cell in planned.left
        }
        for e in planned.experiments:
            if e.name not in planned.done:
                work[e.name] = e.seconds(options) * typical
        self.clock = Clock(work)
        self.steps = {cell: (0, steps_of(cell.config)) for cell in planned.left}

    def cell(self, cell: Cell, step: int, steps: int) -> None:
        """A training has done a step."""
        before = self.steps.get(cell, (0, steps))[0]
        self.steps[cell] = step, steps
        self.clock.tell(cell, step / steps)
        self.say("training", cell.label, step=step, steps=steps)
        if step == steps and before < step:
            self.say("trained", cell.label, step=step, steps=steps)

    def measured(self, experiment: Experiment) -> None:
        """An experiment is done, and so are its cells, whoever trained them."""
        self.clock.tell(experiment.name, 1.0)
        self.say("done", experiment.name)

    def say(self, kind: str, text: str, *, step: int = 0, steps: int = 0) -> None:
        done = sum(step for step, _ in self.steps.values())
        total = sum(steps for _, steps in self.steps.values())
        self.watch(Event(kind, text, done, total, step, steps, self.clock.left))
