"""Rows of controls: their metrics, the reason for missing ones, and comparisons of steps."""

from __future__ import annotations

import math
import signal
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing import active_children
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geomkit._core.parallel import end_with_parent
from geomkit.errors import GeomkitError
from geomkit.reproduce.framework.claims import Interval, MissingRows, Number, difference, mean_of
from geomkit.reproduce.framework.experiment import Context
from geomkit.reproduce.framework.grid import fresh_processes, threads_of
from geomkit.reproduce.framework.results import Rows, rows_of

if TYPE_CHECKING:
    from geomkit.reproduce.controls.control import Control

__all__ = ["at_end", "control_rows", "last_step", "rise", "run_apart"]


def run_apart(controls: Sequence[Control], context: Context) -> None:
    """Run controls as many at a time as the run has jobs, each in a process of its own.

    :func:`control_rows` then reads what they left in the folder ``work``. With one job, nothing is
    done here.

    Raises:
        GeomkitError: As :func:`geomkit.reproduce.controls.control.run_control`.
    """
    work, options = context.folder / "work", context.options
    left = [one for one in dict.fromkeys(controls) if not (work / f"{one.key}.json").exists()]
    jobs = min(context.jobs, len(left))
    if jobs < 2:
        return
    threads = threads_of(options, context.jobs)  # however many are left to run
    others = set(active_children())
    with ProcessPoolExecutor(jobs, mp_context=fresh_processes(), initializer=_start_job) as pool:
        waiting = [pool.submit(_run, one, work, options.device, threads) for one in left]
        try:
            for k, future in enumerate(as_completed(waiting), 1):
                future.result()
                context.say(f"{k} of {len(left)} controls trained")
        except BrokenProcessPool:
            raise GeomkitError(
                "a training process was killed, by the system if memory ran out; give fewer "
                "--jobs, and --resume to continue"
            ) from None
        except BaseException:
            # Controls keep what they measured last: stop at once.
            for process in set(active_children()) - others:
                process.terminate()
            raise


def _start_job() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    end_with_parent()


def _run(control: Control, work: Path, device: str, threads: int) -> None:
    from geomkit.reproduce.controls.control import run_control
    from geomkit.reproduce.controls.views import NoView

    with suppress(NoView):  # which control_rows tells
        run_control(control, work, device=device, threads=threads)


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
            control, context.folder / "work", device=options.device,
            threads=threads_of(options, context.jobs), say=context.say,
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
