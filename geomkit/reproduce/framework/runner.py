"""From names of experiments to folders of results: train, measure, judge, write."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from geomkit._core.files import atomic_write
from geomkit.errors import GeomkitError
from geomkit.reproduce.framework.claims import Verdict
from geomkit.reproduce.framework.experiment import Cell, Context, Experiment, Options
from geomkit.reproduce.framework.grid import cell_path, train_cells
from geomkit.reproduce.framework.planning import (
    CELLS,
    Plan,
    experiments,
    is_done,
    plain_options,
    plan,
)
from geomkit.reproduce.framework.progress import Event, Progress
from geomkit.reproduce.framework.results import Rows, read_rows, write_rows

__all__ = ["CELLS", "Event", "Outcome", "Plan", "experiments", "plan", "run"]


@dataclass(frozen=True)
class Outcome:
    """What an experiment came to.

    Attributes:
        experiment: which.
        rows: measured.
        verdicts: one a claim.
        folder: where it is written.
    """

    experiment: Experiment
    rows: Rows
    verdicts: tuple[Verdict, ...]
    folder: Path


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
    watch: Callable[[Event], None] = lambda event: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[Outcome]:
    """Run the experiments of a plan and write a folder for each.

    An experiment that fails does not keep the others from being made: what went wrong is raised
    at the end.

    Args:
        planned: see :func:`plan`.
        options: as asked for.
        out: the folder of results; cells are kept in ``out/cells``.
        command: that makes all this again, for the reports.
        jobs: trainings at a time.
        resume: finished experiments stay as they are, others go on.
        overwrite: measure finished experiments anew (their cells stay trained).
        redraw: draw and judge finished experiments again from their results, and make no other;
            those that draw what no row holds (spheres, pictures) need their trained cells.
        watch: told of progress.
        should_stop: asked after each training step, and between experiments.

    Raises:
        GeomkitError: for a finished experiment without ``resume``, ``overwrite`` or ``redraw``,
            one that was made with other options, an unfinished one with ``redraw``, or whatever
            training and measuring raise.
        Interrupted: if ``should_stop`` said so.
    """
    from geomkit.reproduce.framework.report import write_index

    if resume + overwrite + redraw > 1:
        raise GeomkitError("--resume, --overwrite and --redraw exclude one another; give one")
    if jobs < 1:
        raise GeomkitError(f"jobs: expected 1 or more, got {jobs}")
    for experiment in planned.experiments:
        folder = out / experiment.name
        finished = (folder / "run.json").exists()
        if finished and not (resume or overwrite or redraw):
            raise GeomkitError(
                f"{folder}: exists already; give --resume to keep it, --overwrite to measure anew, "
                "--redraw to draw it again, or another --out"
            )
        if finished and not overwrite and experiment.name not in planned.done:
            raise GeomkitError(
                f"{folder}: was made with {_other(folder, options)}; give --overwrite to make it "
                "anew, or another --out"
            )
        if redraw and not finished:
            raise GeomkitError(f"{folder}: no finished run to draw again")
    try:
        (out / CELLS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GeomkitError(f"{out}: no folder can be made there ({error.strerror})") from None
    # Results are small and worth keeping under version control; models are neither.
    with atomic_write(out / CELLS / ".gitignore", overwrite=True) as file:
        file.write(b"*\n")
    progress = Progress(planned, options, watch)
    outcomes, failures = [], []
    for experiment in planned.experiments:
        folder = out / experiment.name
        cells = list(dict.fromkeys(experiment.cells(options)))
        if not (overwrite or redraw) and is_done(experiment, options, folder, cells):
            progress.say("skipped", experiment.name)
            outcomes.append(_stored(experiment, options, folder))
            continue
        _check_stop(should_stop)
        try:
            if redraw:
                outcome = _redrawn(experiment, options, out, progress)
            else:
                outcome = _make(
                    experiment, cells, options, out, command, jobs, overwrite, progress, should_stop
                )
        except GeomkitError as error:
            if len(planned.experiments) == 1:
                raise
            progress.say("failed", f"{experiment.name}: {error}")
            failures.append(f"{experiment.name}: {error}")
            continue
        outcomes.append(outcome)
        if redraw:
            progress.say("drawn", experiment.name)
        else:
            progress.measured(experiment)
    if outcomes:
        write_index(out)
    if failures:
        raise GeomkitError(
            f"{len(failures)} of {len(planned.experiments)} experiments failed, the others are in "
            f"{out}: {'; '.join(failures)}"
        )
    return outcomes


def _make(
    experiment: Experiment,
    cells: list[Cell],
    options: Options,
    out: Path,
    command: str,
    jobs: int,
    overwrite: bool,
    progress: Progress,
    should_stop: Callable[[], bool],
) -> Outcome:
    """Train, measure, judge and write one experiment."""
    from geomkit.reproduce.framework.report import write_report

    folder = out / experiment.name
    started = time.perf_counter()
    train_cells(
        cells, out / CELLS, options, jobs=jobs, progress=progress.cell, should_stop=should_stop
    )
    _check_stop(should_stop)
    trained = time.perf_counter()
    progress.say("measuring", experiment.name)
    if folder.exists() and not folder.is_dir():
        raise GeomkitError(f"{folder}: is a file; name another --out")
    folder.mkdir(parents=True, exist_ok=True)
    _prepare_work(folder, options, cells, anew=overwrite)
    context = _context(options, folder, out / CELLS, progress)
    rows = experiment.measure(context)
    figures = experiment.draw(rows, context)
    verdicts = tuple(c.verdict(rows, quick=options.quick) for c in experiment.claims)
    write_rows(folder / "results.csv", rows, overwrite=True)
    outcome = Outcome(experiment, rows, verdicts, folder)
    details = {
        "format": "geomkit-experiment",
        "schema_version": 1,
        "experiment": experiment.name,
        "title": experiment.title,
        "options": plain_options(options),
        "command": command,
        "cells": [{"key": cell.key, **asdict(cell.config)} for cell in cells],
        "seconds": {
            "training": round(trained - started, 1),
            "measuring": round(time.perf_counter() - trained, 1),
        },
        "verdicts": _plain(experiment, verdicts),
        "versions": _versions(),
    }
    write_report(outcome, figures, details, options)
    # Written last: what says that all the rest is there.
    with atomic_write(folder / "run.json", overwrite=True) as file:
        file.write(json.dumps(details, indent=1).encode())
    return outcome


def _plain(experiment: Experiment, verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    return [
        {"claim": claim.text, "published": claim.published, "otherwise": claim.otherwise}
        | asdict(verdict)
        for claim, verdict in zip(experiment.claims, verdicts, strict=True)
    ]


def _redrawn(experiment: Experiment, options: Options, out: Path, progress: Progress) -> Outcome:
    """A finished experiment's figures, verdicts and report, from the numbers it holds."""
    from geomkit.reproduce.framework.report import write_report

    folder = out / experiment.name
    outcome = _stored(experiment, options, folder)
    figures = experiment.draw(outcome.rows, _context(options, folder, out / CELLS, progress))
    details = json.loads((folder / "run.json").read_text("utf-8"))
    details |= {"title": experiment.title, "verdicts": _plain(experiment, outcome.verdicts)}
    write_report(outcome, figures, details, options)
    with atomic_write(folder / "run.json", overwrite=True) as file:
        file.write(json.dumps(details, indent=1).encode())
    return outcome


def _other(folder: Path, options: Options) -> str:
    """How the options of a finished run differ from those asked for."""
    try:
        stored = json.loads((folder / "run.json").read_text("utf-8"))["options"]
    except (OSError, ValueError, KeyError, TypeError):
        return "other options"
    mine = plain_options(options)
    names = sorted(k for k in mine.keys() | stored.keys() if mine.get(k) != stored.get(k))
    told = ", ".join(f"{k} {stored.get(k)} (now {mine.get(k)})" for k in names)
    return told or "another version's settings"


def _check_stop(should_stop: Callable[[], bool]) -> None:
    if should_stop():
        from geomkit.training.loop import Interrupted

        raise Interrupted(
            "stopped between experiments; what is done is kept, the same command with --resume "
            "goes on"
        )


def _prepare_work(folder: Path, options: Options, cells: list[Cell], *, anew: bool) -> None:
    """Throw away parts that were measured with other options or of other cells.

    What a run that is being made anew left there goes as well, and what says that it is finished
    first: killed now, the run is one that goes on.
    """
    work, stamp = folder / "work", folder / "work" / "made-with.json"
    mine = {"options": plain_options(options), "cells": sorted(cell.key for cell in cells)}
    finished_before = (folder / "run.json").exists()
    (folder / "run.json").unlink(missing_ok=True)
    try:
        same = json.loads(stamp.read_text("utf-8")) == mine
    except (OSError, ValueError):
        same = False
    if work.exists() and (not same or (anew and finished_before)):
        shutil.rmtree(work)
    work.mkdir(exist_ok=True)
    with atomic_write(work / ".gitignore", overwrite=True) as file:
        file.write(b"*\n")
    with atomic_write(stamp, overwrite=True) as file:
        file.write(json.dumps(mine).encode())


def _context(options: Options, folder: Path, cells: Path, progress: Progress) -> Context:
    from geomkit.embeddings.embeddings import Embeddings, read_embeddings, write_embeddings
    from geomkit.models.checkpoints import load_run
    from geomkit.sources import load_source

    def embeddings(cell: Cell, split: str) -> Embeddings:
        path = cells / f"{cell.key}.{split}.npz"
        trained = cell_path(cells, cell)
        if not path.exists() or path.stat().st_mtime < trained.stat().st_mtime:
            found, _ = load_source(
                trained,
                split=split,
                device=options.device,
                workers=options.workers,
            )
            write_embeddings(path, found, overwrite=True)
        return read_embeddings(path)

    return Context(
        options,
        folder,
        checkpoint=lambda cell: load_run(cell_path(cells, cell)),
        embeddings=embeddings,
        say=lambda text: progress.say("line", text),
    )


def _stored(experiment: Experiment, options: Options, folder: Path) -> Outcome:
    rows = read_rows(folder / "results.csv")
    verdicts = tuple(c.verdict(rows, quick=options.quick) for c in experiment.claims)
    return Outcome(experiment, rows, verdicts, folder)


def _versions() -> dict[str, str]:
    from geomkit._core.runtime import versions

    return versions()
