"""From names of experiments to folders of results: plan, train, measure, judge, write."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from geomkit._io import atomic_write
from geomkit.errors import GeomkitError, unknown_name
from geomkit.reproduce.claims import Verdict
from geomkit.reproduce.experiment import Cell, Context, Experiment, Options
from geomkit.reproduce.grid import cell_path, finished, train_cells
from geomkit.reproduce.results import Rows, read_rows, write_rows

__all__ = ["Event", "Outcome", "Plan", "experiments", "plan", "run"]

CELLS = "cells"
SECONDS_A_PAIR = 1.6e-3
"""What a pair of 32 px costs ``tiny`` in training, on two cores: for the estimate alone."""


@dataclass(frozen=True)
class Plan:
    """What a run is going to do.

    Attributes:
        experiments: in order.
        cells: different ones, of all experiments.
        trained: how many of them are trained already.
        seconds: left, about, on two cores.
    """

    experiments: tuple[Experiment, ...]
    cells: tuple[Cell, ...]
    trained: int
    seconds: float


@dataclass(frozen=True)
class Event:
    """What the runner tells whoever watches.

    Attributes:
        kind: ``training``, ``measuring``, ``done`` or ``skipped`` (an experiment), ``line``.
        text: for people.
        done, total: steps of all cells.
    """

    kind: str
    text: str
    done: int = 0
    total: int = 0


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


def experiments() -> dict[str, Experiment]:
    """Every experiment by name, in the order of a report."""
    from geomkit.reproduce.catalogue import EXPERIMENTS

    return EXPERIMENTS


def plan(names: Sequence[str], options: Options, out: Path) -> Plan:
    """What running these experiments takes.

    Args:
        names: of experiments; ``all`` for every one.
        options: as asked for.
        out: the folder of results; cells trained there already are counted.

    Raises:
        GeomkitError: for an unknown name.
    """
    known = experiments()
    if "all" in names:
        names = list(known)
    for name in names:
        if name not in known:
            raise unknown_name("experiment", name, ["all", *known])
    chosen = tuple(known[name] for name in dict.fromkeys(names))
    cells = tuple(dict.fromkeys(cell for e in chosen for cell in e.cells(options)))
    left = [cell for cell in cells if not finished(out / CELLS, cell)]
    training = sum(_pairs(cell) * SECONDS_A_PAIR + 8.0 for cell in left)
    measuring = sum(
        e.seconds(options) for e in chosen if not _is_done(e, options, out / e.name)
    )
    return Plan(chosen, cells, len(cells) - len(left), training + measuring)


def _pairs(cell: Cell) -> int:
    width = 0.25 if cell.config.model == "nano" else 1.0
    return int(cell.config.steps * cell.config.batch_size * width)


def run(
    planned: Plan,
    options: Options,
    out: Path,
    *,
    command: str,
    jobs: int = 1,
    resume: bool = False,
    overwrite: bool = False,
    watch: Callable[[Event], None] = lambda event: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[Outcome]:
    """Run the experiments of a plan and write a folder for each.

    Args:
        planned: see :func:`plan`.
        options: as asked for.
        out: the folder of results; cells are kept in ``out/cells``.
        command: that makes all this again, for the reports.
        jobs: trainings at a time.
        resume: finished experiments stay as they are, others go on.
        overwrite: measure finished experiments anew (their cells stay trained).
        watch: told of progress.
        should_stop: asked after each training step.

    Raises:
        GeomkitError: for a finished experiment without ``resume`` or ``overwrite``, or whatever
            training and measuring raise.
        Interrupted: if ``should_stop`` said so.
    """
    from geomkit.reproduce.report import write_index, write_report

    for experiment in planned.experiments:
        folder = out / experiment.name
        if (folder / "run.json").exists() and not (resume or overwrite):
            raise GeomkitError(
                f"{folder}: exists already; give --resume to keep it, --overwrite to measure anew, "
                "or another --out"
            )
    out.mkdir(parents=True, exist_ok=True)
    steps = {cell: 0 for cell in planned.cells}
    total = sum(cell.config.steps for cell in planned.cells)

    def progress(cell: Cell, step: int) -> None:
        steps[cell] = step
        watch(Event("training", cell.label, sum(steps.values()), total))

    outcomes = []
    for experiment in planned.experiments:
        folder = out / experiment.name
        if not overwrite and _is_done(experiment, options, folder):
            watch(Event("skipped", experiment.name))
            outcomes.append(_stored(experiment, options, folder))
            continue
        started = time.perf_counter()
        cells = experiment.cells(options)
        train_cells(
            cells, out / CELLS, options, jobs=jobs, progress=progress, should_stop=should_stop
        )
        for cell in cells:
            steps[cell] = cell.config.steps
        trained = time.perf_counter()
        watch(Event("measuring", experiment.name, sum(steps.values()), total))
        folder.mkdir(parents=True, exist_ok=True)
        context = _context(options, folder, out / CELLS, watch)
        rows = experiment.measure(context)
        figures = experiment.draw(rows, context)
        verdicts = tuple(c.verdict(rows, quick=options.quick) for c in experiment.claims)
        write_rows(folder / "results.csv", rows, overwrite=True)
        outcome = Outcome(experiment, rows, verdicts, folder)
        details = {
            "format": "geomkit-experiment",
            "schema_version": 1,
            "experiment": experiment.name,
            "options": _plain(options),
            "command": command,
            "cells": [{"key": cell.key, **asdict(cell.config)} for cell in cells],
            "seconds": {
                "training": round(trained - started, 1),
                "measuring": round(time.perf_counter() - trained, 1),
            },
            "verdicts": [asdict(verdict) for verdict in verdicts],
            "versions": _versions(),
        }
        write_report(outcome, figures, details, options)
        # Written last: what says that all the rest is there.
        with atomic_write(folder / "run.json", overwrite=True) as file:
            file.write(json.dumps(details, indent=1).encode())
        outcomes.append(outcome)
        watch(Event("done", experiment.name, sum(steps.values()), total))
    write_index(outcomes, out, command=command, options=options)
    return outcomes


def _context(
    options: Options, folder: Path, cells: Path, watch: Callable[[Event], None]
) -> Context:
    from geomkit.checkpoints import load_checkpoint
    from geomkit.embeddings import Embeddings, read_embeddings, write_embeddings
    from geomkit.sources import load_source

    def embeddings(cell: Cell, split: str) -> Embeddings:
        path = cells / f"{cell.key}.{split}.npz"
        if not path.exists():
            found, _ = load_source(cell_path(cells, cell), split=split, device=options.device)
            write_embeddings(path, found)
        return read_embeddings(path)

    return Context(
        options,
        folder,
        checkpoint=lambda cell: load_checkpoint(cell_path(cells, cell)),
        embeddings=embeddings,
        say=lambda text: watch(Event("line", text)),
    )


def _plain(options: Options) -> dict[str, Any]:
    """Options that decide what is measured."""
    plain = asdict(replace(options, device="auto", workers=None, threads=0))
    return json.loads(json.dumps(plain))


def _is_done(experiment: Experiment, options: Options, folder: Path) -> bool:
    """Whether a folder holds this experiment with these options and these cells."""
    path = folder / "run.json"
    if not path.exists():
        return False
    try:
        stored = json.loads(path.read_text("utf-8"))
    except ValueError:
        return False
    keys = sorted(cell.key for cell in experiment.cells(options))
    return bool(
        stored.get("options") == _plain(options)
        and sorted(cell["key"] for cell in stored.get("cells", [])) == keys
    )


def _stored(experiment: Experiment, options: Options, folder: Path) -> Outcome:
    rows = read_rows(folder / "results.csv")
    verdicts = tuple(c.verdict(rows, quick=options.quick) for c in experiment.claims)
    return Outcome(experiment, rows, verdicts, folder)


def _versions() -> dict[str, str]:
    from geomkit._runtime import versions

    return versions()


