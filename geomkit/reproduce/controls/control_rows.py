"""Rows of controls: their metrics, the reason for missing ones, and comparisons of steps."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from geomkit.reproduce.framework.claims import (
    Interval,
    MissingRows,
    Number,
    average,
    difference,
    mean_of,
)
from geomkit.reproduce.framework.experiment import Context
from geomkit.reproduce.framework.results import Row, Rows, rows_of
from geomkit.training.config import TrainConfig

if TYPE_CHECKING:
    from geomkit.reproduce.controls.control import Control

__all__ = ["at_end", "at_start", "control_rows", "last_step", "left_out", "rise"]


def control_rows(experiment: str, control: Control, context: Context, condition: str) -> Rows:
    """Train a control and return its metrics, one row per metric, step and split.

    Args:
        experiment: Name of the experiment.
        control: Control to run or to continue.
        context: Context of the experiment; its folder ``work`` keeps the control.
        condition: Conditions whose keys precede ``step`` in the alphabet.

    Raises:
        GeomkitError: As :func:`geomkit.reproduce.controls.control.run_control`.
    """
    from geomkit.reproduce.controls.control import run_control

    options, c = context.options, control.config
    records = run_control(
        control, context.folder / "work", device=options.device, threads=options.threads,
        say=context.say,
    )  # fmt: skip
    rows = Rows()
    for record in records:
        for split, found in (("train", record.train), ("val", record.val)):
            when = f"{condition};step={record.step}"
            rows += rows_of(experiment, c, split, found.metrics, found.stderr, when)
    return rows


def left_out(
    experiment: str, config: TrainConfig, condition: str, why: str, context: Context
) -> Row:
    """Row that gives the reason why a control has no other rows."""
    context.say(f"left out: {why}")
    reason = why.replace(";", ",").replace("=", " ")
    words = f"{condition};reason={reason}"
    data = f"{config.data} train"
    return Row(experiment, data, config.dim, config.loss, config.seed, "left_out", math.nan,
               condition=words)  # fmt: skip


def last_step(rows: Rows) -> str:
    """Last step of the rows, as their condition spells it.

    Raises:
        MissingRows: If no row has a step.
    """
    steps = [int(step) for step in rows.values("step") if step is not None]
    if not steps:
        raise MissingRows("no row with a step")
    return str(max(steps))


def at_start(metric: str, **chosen: Any) -> Number:
    """A metric of the chosen rows before training."""
    return average(metric=metric, step="0", **chosen)


def at_end(metric: str, **chosen: Any) -> Number:
    """A metric of the chosen rows at the last step that any of them has."""

    def number(rows: Rows) -> Interval:
        found = rows.where(**chosen)
        return mean_of(found.where(metric=metric, step=last_step(found)))

    return number


def rise(metric: str, **chosen: Any) -> Number:
    """A metric of the chosen rows at the end of training minus at its start, paired by seed."""

    def number(rows: Rows) -> Interval:
        found = rows.where(**chosen)
        return difference(found, {"step": last_step(found)}, {"step": "0"}, metric=metric)

    return number
