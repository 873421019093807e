"""What a run of experiments does, what of it is done already, and about how long the rest takes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from geomkit.reproduce.framework import catalogue
from geomkit.reproduce.framework.cells import training_pairs
from geomkit.reproduce.framework.experiment import Cell, Experiment, Options
from geomkit.reproduce.framework.grid import finished, seconds_of
from geomkit.reproduce.framework.record import is_done
from geomkit.training.config import TrainConfig, evaluation_steps

__all__ = ["CELLS", "Plan", "cost", "measured_share", "model_of", "plan", "plan_of", "steps_of"]

CELLS = "cells"
"""Folder of the trained models, within the folder of results."""
_PAIR = {"nano": 0.1e-3}
_PAIR_OF_TINY = 1.2e-3
_STEP, _EVALUATION, _START = 8e-3, 0.7, 2.0
"""Seconds on a machine with two cores; other machines show their speed while they train."""


@dataclass(frozen=True)
class Plan:
    """What a run does.

    Attributes:
        experiments: Experiments in order.
        cells: Different cells of all experiments, should every seed be needed.
        left: Cells to train.
        trained: Number of cells that are trained already.
        done: Names of experiments that are finished and stay as they are.
        work: Estimated seconds of each cell to train and of each experiment (by name) to measure.
        most: Whether that is an upper bound: seeds are added only while claims are undecided.
        first: Share of each of these pieces that the first look of every experiment needs.
    """

    experiments: tuple[Experiment, ...]
    cells: tuple[Cell, ...]
    left: tuple[Cell, ...]
    trained: int
    done: tuple[str, ...]
    work: tuple[tuple[Cell | str, float], ...]
    most: bool = False
    first: Mapping[Cell | str, float] = field(default_factory=dict, hash=False)

    def seconds(self, limit: float = math.inf) -> float:
        """Estimated seconds of all the work, if no seeds are added after a limit."""
        needed = sum(seconds * self.first.get(piece, 0.0) for piece, seconds in self.work)
        return max(needed, min(limit, sum(seconds for _, seconds in self.work)))


def plan(names: Sequence[str], options: Options, out: Path, *, overwrite: bool = False) -> Plan:
    """Plan of running the experiments of these names, or of ``all``.

    Arguments are those of :func:`plan_of`.

    Raises:
        GeomkitError: For an unknown name, or as :func:`plan_of`.
    """
    return plan_of(catalogue.chosen(names), options, out, overwrite=overwrite)


def plan_of(
    chosen: Sequence[Experiment], options: Options, out: Path, *, overwrite: bool = False
) -> Plan:
    """Plan of running these experiments.

    Args:
        chosen: Experiments in order.
        options: Options of the run.
        out: Folder of results; cells trained there already are counted.
        overwrite: Whether finished experiments are measured again.

    Raises:
        GeomkitError: For options that a cell cannot be trained with.
    """
    by_experiment = [(e, e.every_cell(options)) for e in chosen]
    done = tuple(e.name for e in chosen if not overwrite and is_done(e, options, out / e.name))
    cells = tuple(dict.fromkeys(cell for _, found in by_experiment for cell in found))
    needed = {cell for e, found in by_experiment if e.name not in done for cell in found}
    trained = {cell for cell in cells if finished(out / CELLS, cell)}
    left = tuple(cell for cell in cells if cell in needed and cell not in trained)
    speeds = _speeds(trained, out / CELLS)
    typical = sum(speeds.values()) / len(speeds) if speeds else 1.0
    work: list[tuple[Cell | str, float]] = [
        *((cell, cost(cell) * speeds.get(model_of(cell), typical)) for cell in left),
        *((e.name, _measuring(e, options) * typical) for e in chosen if e.name not in done),
    ]
    most = any(e.name not in done and len(e.stages(options)) > 1 for e in chosen)
    first: dict[Cell | str, float] = {}
    for e in (e for e in chosen if e.name not in done):
        look = e.stages(options)[0]
        first |= dict.fromkeys(e.every_cell(options, len(look.seeds), beside=False), 1.0)
        first[e.name] = measured_share(e, options, look)
    return Plan(tuple(chosen), cells, left, len(trained), done, tuple(work), most, first)


def measured_share(experiment: Experiment, options: Options, look: Options) -> float:
    """Estimated share of an experiment's measuring that a look is."""
    return experiment.seconds(look) / (_measuring(experiment, options) or 1.0)


def _measuring(experiment: Experiment, options: Options) -> float:
    scratch = experiment.from_scratch(options)
    main = experiment.seconds(experiment.stages(options)[-1])
    return main + (experiment.seconds(scratch) if scratch else 0.0)


def model_of(cell: Cell) -> str:
    """Model of a cell, which decides its speed."""
    return cell.config.pretrained or cell.config.model


def steps_of(config: TrainConfig) -> int:
    """Number of optimizer steps of a training, computed from its epochs where these are given."""
    if config.epochs is None:
        return config.steps
    return config.epochs * max(1, training_pairs(config.data) // config.batch_size)


def cost(cell: Cell) -> float:
    """Estimated seconds of training a cell on a machine with two cores."""
    c = cell.config
    evaluations = len(evaluation_steps(c)) if c.eval_every else c.epochs or 1
    step = _STEP + c.batch_size * _PAIR.get(c.model, _PAIR_OF_TINY)
    return steps_of(c) * step + evaluations * _EVALUATION + _START


def _speeds(cells: Iterable[Cell], folder: Path) -> dict[str, float]:
    """Seconds that trained cells took relative to their cost, by model where known."""
    took: dict[str, list[tuple[float, float]]] = {}
    for cell in cells:
        seconds = seconds_of(folder, cell)
        if seconds is not None:
            took.setdefault(model_of(cell), []).append((seconds, cost(cell)))
    return {
        model: sum(s for s, _ in found) / sum(c for _, c in found) for model, found in took.items()
    }
