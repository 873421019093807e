"""How long a grid takes: a rough cost of each cell, times what this machine was measured at."""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from geomkit.errors import GeomkitError
from geomkit.reproduce.framework.common import training_pairs
from geomkit.reproduce.framework.experiment import Cell, Options
from geomkit.reproduce.framework.grid import seconds_of
from geomkit.training.config import TrainConfig, evaluation_steps

__all__ = ["Clock", "Speeds", "calibrate", "cost", "model_of", "speeds_of", "steps_of", "timed"]

Speeds = Mapping[str, float]
"""By model: how many times the seconds of :func:`cost` it takes here."""

_PAIR = {"nano": 0.5e-3}
_PAIR_OF_TINY = 1.2e-3
_STEP, _EVALUATION, _START = 8e-3, 1.0, 2.0
"""Seconds on the two cores that this was written on; :func:`calibrate` finds out about others."""
_TIMED_STEPS, _PATIENCE = 5, 10.0


def model_of(cell: Cell) -> str:
    """What a cell's speed depends on."""
    return cell.config.pretrained or cell.config.model


def steps_of(config: TrainConfig) -> int:
    """How many steps a training takes; from its epochs, where it is these that are given."""
    if config.epochs is None:
        return config.steps
    return config.epochs * max(1, training_pairs(config.data) // config.batch_size)


def cost(cell: Cell) -> float:
    """Seconds of training a cell, about, on the reference machine."""
    c = cell.config
    evaluations = len(evaluation_steps(c)) if c.eval_every else c.epochs or 1
    return steps_of(c) * _step_cost(c) + evaluations * _EVALUATION + _START


def _step_cost(config: TrainConfig) -> float:
    return _STEP + config.batch_size * _PAIR.get(config.model, _PAIR_OF_TINY)


def speeds_of(cells: Iterable[Cell], folder: Path) -> dict[str, float]:
    """What cells trained already took, beside their cost; models of none are missing."""
    took: dict[str, list[tuple[float, float]]] = {}
    for cell in cells:
        seconds = seconds_of(folder, cell)
        if seconds is not None:
            took.setdefault(model_of(cell), []).append((seconds, cost(cell)))
    return {
        model: sum(s for s, _ in found) / sum(c for _, c in found) for model, found in took.items()
    }


def calibrate(
    cells: Iterable[Cell], options: Options, *, known: Speeds | None = None
) -> dict[str, float]:
    """Speeds of the models that these cells train, by a few steps of each that is not known yet.

    Args:
        cells: to be trained.
        options: device, workers and threads.
        known: speeds measured before, kept.
    """
    speeds = dict(known or {})
    for cell in cells:
        model = model_of(cell)
        if model in speeds:
            continue
        seconds = timed(cell, options)
        if seconds is not None:
            speeds[model] = seconds / _step_cost(cell.config)
    return speeds


def timed(cell: Cell, options: Options) -> float | None:
    """Seconds of one training step, from a few of them; ``None`` if none could be made."""
    from geomkit.training.loop import Event, Interrupted, train

    c = cell.config
    few = replace(
        c,
        pairs=2 * c.batch_size, eval_split="train",  # evaluating costs next to nothing then
        steps=_TIMED_STEPS, epochs=None, warmup=0, eval_every=_TIMED_STEPS,
        distinct_captions=False, threads=options.threads,
    )  # fmt: skip
    took: list[float] = []
    started = time.perf_counter()

    def watch(event: Event) -> None:
        if event.kind == "step":
            took.append(event.seconds[0])

    def patience_over() -> bool:
        return len(took) > 1 and time.perf_counter() - started > _PATIENCE

    # What is wrong is said when it is trained in earnest.
    with (
        tempfile.TemporaryDirectory(prefix="geomkit-") as folder,
        contextlib.suppress(GeomkitError, Interrupted),
    ):
        train(
            few, Path(folder) / "timing.pt", device=options.device, workers=options.workers,
            download=options.download, watch=watch, should_stop=patience_over,
        )  # fmt: skip
    # The first step pays for what is set up once.
    return statistics.median(took[1:]) if len(took) > 1 else None


class Clock:
    """Time left, from the work done so far and the time it took.

    Args:
        work: seconds that each piece is thought to take.
        now: a clock, for tests.
    """

    def __init__(
        self, work: Mapping[object, float], now: Callable[[], float] = time.perf_counter
    ) -> None:
        self.work, self.now = dict(work), now
        self.shares = dict.fromkeys(self.work, 0.0)
        self.before = dict.fromkeys(self.work, 0.0)
        self.started = now()

    def tell(self, piece: object, share: float) -> None:
        """How much of a piece is done, 0 to 1; what was done before its start counts for nothing.

        The first word of a piece says what was there when this run took it up.
        """
        if piece not in self.work:
            return
        if self.shares[piece] == 0.0 and share < 1.0:
            self.before[piece] = share
        self.shares[piece] = share

    @property
    def left(self) -> float:
        """Seconds, about."""
        todo = sum(w * (1 - self.shares[p]) for p, w in self.work.items())
        done = sum(w * max(0.0, self.shares[p] - self.before[p]) for p, w in self.work.items())
        # Until a twentieth is done the guess weighs more than the little that was seen.
        total = sum(self.work.values())
        guess = 0.05 * total
        elapsed = self.now() - self.started
        return todo * (elapsed + guess) / (done + guess) if total else 0.0
