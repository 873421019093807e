"""From a plan to folders of results: train, measure, judge, write."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path

from geomkit._core.files import atomic_write, clear_leftovers, sole_writer
from geomkit.errors import GeomkitError
from geomkit.reproduce.framework.experiment import Cell, Context, Experiment, Options
from geomkit.reproduce.framework.grid import (
    cell_path,
    conditions_of,
    finished,
    seconds_of,
    train_cells,
)
from geomkit.reproduce.framework.planning import CELLS, Plan, cost, measured_share
from geomkit.reproduce.framework.progress import Event, Progress
from geomkit.reproduce.framework.record import (
    FROM_SCRATCH,
    RESULTS,
    JudgedClaim,
    Outcome,
    Record,
    Seconds,
    is_intact,
    read_record,
)
from geomkit.reproduce.framework.report import write_index, write_report
from geomkit.reproduce.framework.results import read_rows, write_rows
from geomkit.reproduce.framework.seal import code_sha256, file_sha256, machine

__all__ = ["run"]


def run(
    planned: Plan,
    options: Options,
    out: Path,
    *,
    command: str,
    jobs: int = 1,
    resume: bool = False,
    overwrite: bool = False,
    redraw: bool = False,
    minutes: float | None = None,
    watch: Callable[[Event], None] = lambda event: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[Outcome]:
    """Run the experiments of a plan and write a folder for each.

    An experiment that fails does not keep the others from being made; its error is raised at the
    end.

    Args:
        planned: Plan, see :func:`geomkit.reproduce.framework.planning.plan`.
        options: Options of the run.
        out: Folder of results; trained cells are kept in ``out/cells``.
        command: Command line that makes all of this again, for the reports.
        jobs: Number of trainings at a time.
        resume: Whether to keep finished experiments and continue the others.
        overwrite: Whether to measure finished experiments again; their cells stay trained.
        redraw: Whether to draw and judge finished experiments from their results, and make no
            other. Experiments that draw what no row holds (spheres, images) need their cells.
        minutes: Time after which no seeds are added to undecided claims.
        watch: Receives events of progress.
        should_stop: Called after each training step and between experiments.

    Raises:
        GeomkitError: For a finished experiment without ``resume``, ``overwrite`` or ``redraw``,
            one that was made with other options, an unfinished one with ``redraw``, or any error
            of training and measuring.
        Interrupted: If ``should_stop`` returned true.
    """
    if resume + overwrite + redraw > 1:
        raise GeomkitError("--resume, --overwrite and --redraw exclude one another; give one")
    if jobs < 1:
        raise GeomkitError(f"jobs: expected 1 or more, got {jobs}")
    for experiment in planned.experiments:
        folder = out / experiment.name
        finished = (folder / "run.json").exists()
        if finished and not (resume or overwrite or redraw):
            raise GeomkitError(
                f"{folder}: exists already; give --resume to keep it, --overwrite to measure it "
                "again, --redraw to draw it again, or another --out"
            )
        if finished and not overwrite and experiment.name not in planned.done:
            raise GeomkitError(
                f"{folder}: was made with {_other(folder, options)}; give --overwrite to make it "
                "again, or another --out"
            )
        if redraw and not finished:
            raise GeomkitError(f"{folder}: no finished run to draw again")
    code_sha256()  # of the sources that are loaded now: they may change while this runs
    try:
        (out / CELLS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GeomkitError(f"{out}: no folder can be made there ({error.strerror})") from None
    seconds = math.inf if minutes is None else 60.0 * minutes
    current = _Run(
        options, out, command, jobs, overwrite, Progress(planned, watch, seconds), should_stop
    )
    with sole_writer(out):
        made = (folder for e in planned.experiments for folder in (out / e.name).glob("**/"))
        for folder in (out, out / CELLS, *made):
            if folder.is_dir():
                clear_leftovers(folder)
        # Results are small and worth keeping under version control; models are neither.
        _ignore(out / CELLS)
        return current.all(planned, redraw=redraw)


@dataclass(frozen=True)
class _Open:
    """An experiment that has been looked at, and is not written yet.

    Attributes:
        experiment: The experiment.
        stages: Options of the last look, and of those that can follow.
        outcome: Numbers and verdicts of the last look.
        spent: Time that it has taken.
        beside: Verdicts from scratch, if they are made.
    """

    experiment: Experiment
    stages: tuple[Options, ...]
    outcome: Outcome
    spent: Seconds
    beside: tuple[JudgedClaim, ...] = ()

    @property
    def later(self) -> tuple[Options, ...]:
        """Options of the looks that can follow, where more seeds might decide a claim."""
        return self.stages[1:] if self.outcome.undecided else ()


@dataclass(frozen=True)
class _Run:
    """A run with all that its experiments share."""

    options: Options
    out: Path
    command: str
    jobs: int
    overwrite: bool
    progress: Progress
    should_stop: Callable[[], bool]

    def all(self, planned: Plan, *, redraw: bool) -> list[Outcome]:
        """Every experiment of a plan; the error of one is raised after the others are made.

        First every experiment is made with its first seeds; their models are trained together, so
        that no job waits for another experiment. Then seeds are added where claims are
        undecided, those that test most claims a minute first, until all seeds are used or the time
        is spent. Verdicts from scratch, which stand beside the others, come last.
        """
        outcomes: dict[str, Outcome] = {}
        failures: list[tuple[str, GeomkitError]] = []
        waiting: list[_Open] = []
        todo = [e for e in planned.experiments if e.name not in planned.done]

        def attempt(experiment: Experiment, work: Callable[[], Outcome | None]) -> None:
            try:
                if outcome := work():
                    outcomes[experiment.name] = outcome
            except GeomkitError as error:
                failures.append((f"{experiment.name}: {error}", error))
                if len(planned.experiments) > 1:  # else the error itself says it
                    self.progress.say("failed", failures[-1][0])

        def looked(current: _Open) -> Outcome | None:
            if current.later or self._scratch(current):
                waiting.append(current)
                return None
            return self.finish(current, still_needed())

        def keeping(step: Callable[[_Open], _Open], current: _Open) -> _Open:
            """A further step; if it fails, the experiment is written as it was before."""
            try:
                return step(current)
            except GeomkitError:
                outcomes[current.experiment.name] = self.finish(current, still_needed())
                raise

        def end(current: _Open) -> Outcome:
            return self.finish(keeping(self.beside, current), still_needed())

        def start(experiment: Experiment) -> Outcome | None:
            return looked(self.first(experiment, spent.get(experiment.name, 0.0)))

        def extend(current: _Open) -> Outcome | None:
            return looked(keeping(self.more, current))

        def still_needed() -> set[Cell]:
            return {
                cell for e in (*todo, *(one.experiment for one in waiting))
                for cell in e.every_cell(self.options)
            }  # fmt: skip

        spent = {} if redraw else self._train_first(todo)
        for experiment in planned.experiments:
            todo = [e for e in todo if e is not experiment]
            if redraw:
                attempt(experiment, partial(self.redraw, experiment))
            elif experiment.name in planned.done:
                self.progress.say("skipped", experiment.name)
                attempt(experiment, partial(self.stored, experiment))
            else:
                attempt(experiment, partial(start, experiment))
        while waiting:
            current = self._next(waiting) or waiting[0]
            waiting.remove(current)
            name, later = current.experiment.name, current.later
            if later and self.progress.fits(self._pieces(current)):
                self.progress.say("line", f"{name}: adding seeds")
                attempt(current.experiment, partial(extend, current))
                continue
            if later:
                self.progress.say("line", f"{name}: no time is left for more seeds")
            attempt(current.experiment, partial(end, current))
        for path in write_index(self.out) if outcomes else ():
            self.progress.say("line", f"{path}: damaged or foreign; left out of the report")
        if failures and len(planned.experiments) == 1:
            raise failures[0][1]
        if failures:
            raise GeomkitError(
                f"{len(failures)} of {len(planned.experiments)} experiments failed, the others are "
                f"in {self.out}: {'; '.join(text for text, _ in failures)}"
            )
        return [outcomes[e.name] for e in planned.experiments]

    def stored(self, experiment: Experiment) -> Outcome:
        """A finished experiment as it is."""
        folder = self.out / experiment.name
        record = read_record(folder)
        assert record is not None, "a finished experiment was checked"
        rows = read_rows(folder / RESULTS)
        return Outcome.of(experiment, rows, folder, self.options, record.seeds)

    def redraw(self, experiment: Experiment) -> Outcome:
        """Figures, verdicts and report of a finished experiment, from the numbers it holds."""
        self._check_stop()
        outcome = self.stored(experiment)
        folder = outcome.folder
        record = read_record(folder)
        assert record is not None, "a finished experiment was checked"
        if record.seal and not is_intact(folder):
            raise GeomkitError(
                f"{folder / 'run.json'}: was changed after the run; restore it, or give "
                "--overwrite to measure again"
            )
        results = folder / RESULTS
        if record.files.get(RESULTS, sealed := file_sha256(results)) != sealed:
            self.progress.say("line", f"{results}: was changed after it was measured")
        options = self.options.first(record.seeds or len(self.options.seeds))
        figures = experiment.draw(outcome.rows, self._context(folder, options))
        beside: tuple[JudgedClaim, ...] = ()
        if record.beside and (scratch := experiment.from_scratch(self.options)):
            rows = read_rows(folder / FROM_SCRATCH)
            beside = Outcome.of(experiment, rows, folder, scratch).verdicts
        record = replace(
            record, title=experiment.title, verdicts=outcome.verdicts, beside=beside,
            explains=experiment.explains,
        )  # fmt: skip
        written = write_report(outcome, figures, record)
        record.sealed(folder, written, code_sha256()).write(folder)
        self.progress.say("drawn", experiment.name)
        return outcome

    def _train_first(self, todo: Sequence[Experiment]) -> dict[str, float]:
        """Train the models of all first looks; seconds of it, by the experiment that needs them."""
        asked: dict[Cell, str] = {}
        for e in todo:
            for cell in e.every_cell(self.options, len(e.stages(self.options)[0].seeds),
                                     beside=False):  # fmt: skip
                asked.setdefault(cell, e.name)
        cells, started = self.out / CELLS, time.perf_counter()
        new = [cell for cell in asked if not finished(cells, cell)]
        try:
            self._train(new)
        except GeomkitError as error:  # of one training: its experiment raises it again
            self.progress.say("line", f"{error}; going on with one experiment after the other")
        took = {cell: seconds_of(cells, cell) or 0.0 for cell in new}
        # Jobs overlap: what passed is shared as the trainings took.
        share = (time.perf_counter() - started) / (sum(took.values()) or 1.0)
        spent: dict[str, float] = {}
        for cell, seconds in took.items():
            spent[asked[cell]] = spent.get(asked[cell], 0.0) + share * seconds
        return spent

    def first(self, experiment: Experiment, training: float) -> _Open:
        """First look at an experiment, with its first seeds.

        Args:
            experiment: The experiment.
            training: Seconds that its models took before.
        """
        self._check_stop()
        folder = self.out / experiment.name
        stages = experiment.stages(self.options)
        training += self._train(experiment.distinct_cells(stages[0]))
        if folder.exists() and not folder.is_dir():
            raise GeomkitError(f"{folder}: is a file; name another --out")
        folder.mkdir(parents=True, exist_ok=True)
        self._prepare_work(folder, experiment.every_cell(self.options))
        return self._look(experiment, stages, Seconds(training, 0.0), time.perf_counter())

    def more(self, current: _Open) -> _Open:
        """The next look at an experiment whose claims are not all decided."""
        self._check_stop()
        experiment, started, stages = current.experiment, time.perf_counter(), current.later
        training = self._train(experiment.distinct_cells(stages[0]))
        spent = replace(current.spent, training=current.spent.training + training)
        return self._look(experiment, stages, spent, started + training)

    def beside(self, current: _Open) -> _Open:
        """The same with verdicts from scratch, if the experiment has them and there is time."""
        experiment, scratch = current.experiment, self._scratch(current)
        if scratch is None:
            return current
        cells = experiment.distinct_cells(scratch)
        if not self.progress.fits([experiment.name, *cells]):
            text = f"{experiment.name}: no time is left for the verdicts from scratch"
            self.progress.say("line", text)
            return current
        self._check_stop()
        folder, training = self.out / experiment.name, self._train(cells)
        started = time.perf_counter()
        self.progress.say("measuring", f"{experiment.name}, from scratch")
        rows = experiment.measure(self._context(folder / "work", scratch))
        write_rows(folder / FROM_SCRATCH, rows, overwrite=True)
        measuring = current.spent.measuring + time.perf_counter() - started
        return replace(
            current, beside=Outcome.of(experiment, rows, folder, scratch).verdicts,
            spent=Seconds(current.spent.training + training, measuring),
        )  # fmt: skip

    def _scratch(self, current: _Open) -> Options | None:
        return current.experiment.from_scratch(self.options)

    def _look(
        self, experiment: Experiment, stages: Sequence[Options], spent: Seconds, started: float
    ) -> _Open:
        """Measure and judge the trained cells of the first of these stages."""
        look, folder = stages[0], self.out / experiment.name
        self.progress.say("measuring", experiment.name)
        rows = experiment.measure(self._context(folder, look))
        outcome = Outcome.of(experiment, rows, folder, self.options, len(look.seeds))
        self.progress.clock.advance(experiment.name, measured_share(experiment, self.options, look))
        measuring = spent.measuring + time.perf_counter() - started
        spent = replace(spent, measuring=measuring)
        if outcome.undecided and len(stages) > 1:
            self.progress.say(
                "line", f"{experiment.name}: {outcome.undecided} of {len(outcome.verdicts)} claims "
                f"are undecided after {len(look.seeds)} seeds",
            )  # fmt: skip
        return _Open(experiment, tuple(stages), outcome, spent)

    def finish(self, current: _Open, still: Collection[Cell]) -> Outcome:
        """Draw and write an experiment.

        Args:
            current: Its last look.
            still: Cells that other experiments can still need.
        """
        from geomkit._core.runtime import versions

        experiment, outcome, look = current.experiment, current.outcome, current.stages[0]
        folder, started = outcome.folder, time.perf_counter()
        figures = experiment.draw(outcome.rows, self._context(folder, look))
        write_rows(folder / RESULTS, outcome.rows, overwrite=True)
        if not current.beside:  # of an earlier run
            (folder / FROM_SCRATCH).unlink(missing_ok=True)
        cells = experiment.every_cell(self.options, len(look.seeds), beside=bool(current.beside))
        measuring = current.spent.measuring + time.perf_counter() - started
        record = Record(
            experiment.name, experiment.title, self.options.decisive, self.command,
            tuple({"key": cell.key, **asdict(cell.config),
                   **conditions_of(self.out / CELLS, cell)} for cell in cells),
            Seconds(round(current.spent.training, 1), round(measuring, 1)),
            outcome.verdicts, versions(), measured_by=code_sha256(),
            machine=machine(self.options.device), seeds=len(look.seeds), beside=current.beside,
            explains=experiment.explains,
        )  # fmt: skip
        written = write_report(outcome, figures, record)
        # Last: it says that all the rest is there.
        record.sealed(folder, written, code_sha256()).write(folder)
        self.progress.finished(experiment, still)
        return outcome

    def _next(self, waiting: Sequence[_Open]) -> _Open | None:
        """The experiment where the next look tests most undecided claims a minute, if one fits."""

        def cost(current: _Open) -> float:
            seconds = self.progress.clock.seconds_of(self._pieces(current))
            return seconds / current.outcome.undecided

        fitting = [one for one in waiting if one.later and self.progress.fits(self._pieces(one))]
        return min(fitting, key=cost, default=None)

    def _pieces(self, current: _Open) -> list[Cell | str]:
        """Work of the next look at an experiment."""
        return [current.experiment.name, *current.experiment.cells(current.later[0])]

    def _train(self, cells: Sequence[Cell]) -> float:
        """Train the cells that are not trained yet; seconds that it took."""
        started = time.perf_counter()
        train_cells(
            sorted(cells, key=cost, reverse=True),  # no job is left alone with a long one
            self.out / CELLS, self.options, jobs=self.jobs, progress=self.progress.cell,
            should_stop=self.should_stop,
        )  # fmt: skip
        self._check_stop()
        return time.perf_counter() - started

    def _check_stop(self) -> None:
        if self.should_stop():
            from geomkit.training.loop import Interrupted

            raise Interrupted(
                "stopped between experiments; finished parts are kept, continue with the same "
                "command and --resume"
            )

    def _prepare_work(self, folder: Path, cells: list[Cell]) -> None:
        """Delete parts that were measured with other options, of other cells or by other code.

        With ``overwrite``, parts of a finished run are deleted as well. The mark that the run is
        finished goes first: a run that is killed now is one to be continued.
        """
        work, stamp = folder / "work", folder / "work" / "made-with.json"
        mine = {
            "options": self.options.to_json(), "cells": sorted(cell.key for cell in cells),
            "code": code_sha256(),
        }  # fmt: skip
        finished_before = (folder / "run.json").exists()
        (folder / "run.json").unlink(missing_ok=True)
        try:
            same = json.loads(stamp.read_text("utf-8")) == mine
        except (OSError, ValueError):
            same = False
        if work.exists() and (not same or (self.overwrite and finished_before)):
            shutil.rmtree(work)
            for path in (*folder.glob("*.json"), folder / FROM_SCRATCH):  # they were of those parts
                path.unlink(missing_ok=True)
        work.mkdir(exist_ok=True)
        _ignore(work)
        with atomic_write(stamp, overwrite=True) as file:
            file.write(json.dumps(mine).encode())

    def _context(self, folder: Path, options: Options) -> Context:
        from geomkit.embeddings.embeddings import Embeddings, read_embeddings, write_embeddings
        from geomkit.extraction.load import load_source
        from geomkit.models.checkpoints import load_run, weights_sha256

        cells = self.out / CELLS

        @cache
        def weights(cell: Cell) -> str:
            return weights_sha256(load_run(cell_path(cells, cell)).state_dict)[:16]

        def embeddings(cell: Cell, split: str) -> Embeddings:
            # Named by the weights: dates do not say which model a file is of.
            path = cells / f"{cell.key}.{split}.{weights(cell)}.npz"
            if not path.exists():
                found, _ = load_source(
                    cell_path(cells, cell), split=split, device=options.device,
                    workers=options.workers, trust_data=True,
                )  # fmt: skip
                for other in cells.glob(f"{cell.key}.{split}.*npz"):
                    other.unlink()
                write_embeddings(path, found)
            return read_embeddings(path)

        return Context(
            options,
            folder,
            checkpoint=lambda cell: load_run(cell_path(cells, cell)),
            embeddings=embeddings,
            jobs=self.jobs,
            say=lambda text: self.progress.say("line", text),
        )


def _other(folder: Path, options: Options) -> str:
    """Difference between the options of a finished run and those of this one."""
    record = read_record(folder)
    if record is None:
        return "a run.json that is damaged or newer"
    return record.options.differences(options) or "another version's settings"


def _ignore(folder: Path) -> None:
    with atomic_write(folder / ".gitignore", overwrite=True) as file:
        file.write(b"*\n")
