"""Rows of controls: their metrics, the reason for missing ones, and comparisons of steps."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from geomkit.reproduce.framework.claims import Interval, MissingRows, Number, difference, mean_of
from geomkit.reproduce.framework.experiment import Context
from geomkit.reproduce.framework.results import Rows, rows_of

if TYPE_CHECKING:
    from geomkit.reproduce.controls.control import Control

__all__ = ["at_end", "control_rows", "last_step", "rise"]


def control_rows(experiment: str, control: Control, context: Context, condition: str) -> Rows:
    """Train a control and return its metrics, one row per metric, step and split.

    Where the data lack a view, there is one row ``left_out``, whose condition gives the reason.

    Args:
        experiment: Name of the experiment.
        control: Control to run or to continue.
        context: Context of the experiment; its folder ``work`` keeps the control.
        condition: Conditions whose keys precede ``step`` in the alphabet.

    Raises:
        GeomkitError: As :func:`geomkit.reproduce.controls.control.run_control`.
    """
    from geomkit.reproduce.controls.control import run_control
    from geomkit.reproduce.controls.views import NoView

    options, c = context.options, control.config
    try:
        records = run_control(
            control, context.folder / "work", device=options.device, threads=options.threads,
            say=context.say,
        )  # fmt: skip
    except NoView as error:
        context.say(f"left out: {error}")
        when = f"{condition};reason={str(error).replace(';', ',').replace('=', ' ')}"
        return rows_of(experiment, c, "train", {"left_out": math.nan}, condition=when)
    rows = Rows()
    for record in records:
        for split, found in (("train", record.train), ("val", record.val)):
            when = f"{condition};step={record.step}"
            rows += rows_of(experiment, c, split, found.metrics, found.stderr, when)
    return rows


def last_step(rows: Rows) -> str:
    """Last step of the rows, as their condition spells it.

    Raises:
        MissingRows: If no row has a step.
    """
    steps = [int(step) for step in rows.values("step") if step is not None]
    if not steps:
        raise MissingRows("no row with a step")
    return str(max(steps))


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
