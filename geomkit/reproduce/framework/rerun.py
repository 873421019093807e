"""Models of a report trained and measured again, and their numbers beside the stored ones."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from geomkit.errors import GeomkitError
from geomkit.reproduce.framework import catalogue, seal
from geomkit.reproduce.framework.experiment import Cell, Context, Experiment, Options
from geomkit.reproduce.framework.grid import train_cells
from geomkit.reproduce.framework.planning import CELLS, Plan, cost, plan_of
from geomkit.reproduce.framework.progress import Event, Progress
from geomkit.reproduce.framework.record import FROM_SCRATCH, RESULTS, Record
from geomkit.reproduce.framework.results import Row, Rows, read_rows
from geomkit.reproduce.framework.runner import run
from geomkit.training.config import MAX_THREADS

__all__ = ["EXACT", "Again", "Compared", "choose", "rerun"]

EXACT = 1e-5
"""Largest difference, relative to numbers above 1, on the same machine with the same code."""
LEVEL, MOST_SPREADS = 1e-4, 6.0
"""Elsewhere a difference is allowed that two seeds exceed with this probability, of at most so many
standard deviations of their difference."""
FLOOR, ONE_SEED = 0.02, 0.25
"""Least difference that is allowed elsewhere, as a share of the number; and where it has one seed
alone."""


@dataclass(frozen=True)
class Again:
    """Models of a report that are trained again together.

    Attributes:
        options: Options of the report, with the machine's of this run.
        starting: The same, for the models that these are fine-tuned from.
        results: File of the rows that they have in each experiment.
        experiments: Cells by the name of the experiment that measures them.
        others: Differences from how they were made; empty if numbers should be the same.
    """

    options: Options
    starting: Options
    results: str
    experiments: Mapping[str, Sequence[Cell]]
    others: tuple[str, ...]


@dataclass(frozen=True)
class Compared:
    """A number of a report beside the one that was measured again.

    Attributes:
        row: Row as it was measured again.
        cell: Model.
        stored: Number of the report; NaN if it has none.
        allowed: Largest difference from it.
    """

    row: Row
    cell: Cell
    stored: float
    allowed: float

    @property
    def difference(self) -> float:
        """The new number less the stored one."""
        return self.row.value - self.stored

    @property
    def same(self) -> bool:
        """Whether the new number is the stored one, but for rounding."""
        return abs(self.difference) <= _rounding(self.stored)

    @property
    def share(self) -> float:
        """Distance from the stored number, as a share of what is allowed."""
        if math.isnan(self.row.value) and math.isnan(self.stored) and self.allowed > 0:
            return 0.0
        distance = abs(self.difference)
        return distance / self.allowed if math.isfinite(distance) else math.inf

    @property
    def agrees(self) -> bool:
        """Whether the numbers agree."""
        return self.share <= 1.0


def choose(
    records: Mapping[str, Record], share: float, *, seed: int = 0, machine: Options
) -> tuple[list[Again], list[str]]:
    """Choose trained models of a report at random.

    Args:
        records: Records by experiment.
        share: Share of the models, 0 to 1; of any share above 0, at least one model.
        seed: Random seed of the choice.
        machine: Options of the machine: device, workers, threads (0: as stored), download.

    Returns:
        Groups of models that are trained with the same options and threads; and the experiments
        that cannot be measured model by model, a line each.
    """
    known = catalogue.all_experiments()
    cells: dict[str, Cell] = {}
    users: dict[str, list[tuple[str, Options, str]]] = {}
    left_out = []
    for name, record in records.items():
        experiment = known.get(name)
        if experiment is None or experiment.of_cell is None:
            why = "trains models beside its cells" if experiment else "is not installed"
            left_out.append(f"{name}: {why}: its seals are checked, and no number measured again")
            continue
        stored = {cell["key"] for cell in record.cells}
        seeds = record.seeds or len(record.options.seeds)
        beside = bool(record.beside)
        used = {c.key for c in experiment.every_cell(record.options, seeds, beside=beside)}
        if unknown := len(stored - used):
            left_out.append(f"{name}: {unknown} models are left out: the installed geomkit "
                            "trains others")  # fmt: skip
        for options, results in _parts(experiment, record.options.first(seeds), beside=beside):
            for cell in experiment.distinct_cells(options):
                if cell.key in stored:
                    cells[cell.key] = cell
                    users.setdefault(cell.key, []).append((name, options, results))
    number = math.ceil(share * len(cells) - 1e-9)
    picked = set(random.Random(seed).sample(sorted(cells), number))
    groups: dict[tuple, dict[str, list[Cell]]] = {}
    for key in (key for key in cells if key in picked):
        for name, options, results in users[key]:
            threads = [_threads(records[name], one) for one in (cells[key].start, cells[key])]
            how = (options, results, *threads)
            groups.setdefault(how, {}).setdefault(name, []).append(cells[key])
    chosen = []
    for (options, results, before, threads), work in groups.items():
        then = [f"{n or 'unknown'} threads, here {machine.threads or n or 'the default'}"
                for n in (before, threads)
                if n == 0 or machine.threads not in (0, n)]  # fmt: skip
        for name in work:
            then += _others(records[name], seal.machine(machine.device))
        options = replace(
            options, device=machine.device, workers=machine.workers, download=machine.download,
            threads=machine.threads or threads,
        )  # fmt: skip
        starting = replace(options, threads=machine.threads or max(before, 0))
        chosen.append(Again(options, starting, results, work, tuple(dict.fromkeys(then))))
    return chosen, left_out


def _parts(experiment: Experiment, options: Options, *, beside: bool) -> list[tuple[Options, str]]:
    """Options of an experiment, and of its verdicts from scratch, with the files of their rows."""
    scratch = experiment.from_scratch(options) if beside else None
    return [(options, RESULTS), *([(scratch, FROM_SCRATCH)] if scratch else [])]


def _threads(record: Record, trained: Cell | None) -> int:
    """Threads that a model was trained with; 0 if unknown, −1 without a model."""
    if trained is None:
        return -1
    found = next((cell.get("threads") for cell in record.cells if cell["key"] == trained.key), 0)
    return found if isinstance(found, int) and 0 < found <= MAX_THREADS else 0


def _others(record: Record, here: Mapping[str, str]) -> list[str]:
    """What differs from how a record was made."""
    from geomkit._core.runtime import versions

    now = {**versions(), **here, "code": seal.code_sha256()[:12]}
    then = {**record.versions, **record.machine, "code": record.measured_by[:12]}
    return [
        f"{name} {then.get(name) or 'unknown'}, here {value}"
        for name, value in now.items() if then.get(name) != value
    ]  # fmt: skip


def rerun(
    out: Path,
    work: Sequence[Again],
    *,
    jobs: int = 1,
    planned: Callable[[Plan], None] = lambda plan: None,
    watch: Callable[[Event], None] = lambda event: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[list[Compared]]:
    """Train and measure models again, in a temporary folder, and compare their numbers.

    What several groups are fine-tuned from is trained before all of them, at the same time.

    Args:
        out: Folder of the report; nothing is written there.
        work: Groups of models, see :func:`choose`.
        jobs: Number of trainings at a time.
        planned: Receives the plan of each part of the work.
        watch: Receives events of progress.
        should_stop: Called after each training step and between experiments.

    Yields:
        The numbers of each group, as soon as they are measured.

    Raises:
        GeomkitError: As :func:`geomkit.reproduce.framework.runner.run`.
        Interrupted: If ``should_stop`` returned true.
    """
    known = catalogue.all_experiments()
    with TemporaryDirectory(prefix="geomkit-verify-") as temporary:
        folder = Path(temporary)
        for options, starts in _starts(work):
            left = tuple((cell, cost(cell)) for cell in starts)
            plan = Plan((), starts, starts, 0, (), left, first=dict.fromkeys(starts, 1.0))
            planned(plan)
            train_cells(
                starts, folder / CELLS, options, jobs=jobs, progress=Progress(plan, watch).cell,
                should_stop=should_stop,
            )  # fmt: skip
        for again in work:
            found: list[tuple[str, Cell, Rows]] = []
            chosen = [
                _only(known[name], cells, again.options, found)
                for name, cells in again.experiments.items()
            ]
            plan = plan_of(chosen, again.options, folder, overwrite=True)
            planned(plan)
            run(
                plan, again.options, folder, command="", jobs=jobs, overwrite=True, watch=watch,
                should_stop=should_stop,
            )  # fmt: skip
            stored = {
                name: _Stored(read_rows(out / name / again.results)) for name in again.experiments
            }
            tight = not again.others
            yield [
                stored[name].compared(row, cell, tight=tight)
                for name, cell, rows in found for row in rows
            ]  # fmt: skip


def _starts(work: Iterable[Again]) -> list[tuple[Options, tuple[Cell, ...]]]:
    """Models that others are fine-tuned from, those with the same number of threads together."""
    options: dict[int, Options] = {}
    starts: dict[int, dict[Cell, None]] = {}
    for again in work:
        threads = again.starting.threads
        for cell in (cell for cells in again.experiments.values() for cell in cells):
            if cell.start:
                options.setdefault(threads, again.starting)
                starts.setdefault(threads, {})[cell.start] = None
    return [(options[threads], tuple(found)) for threads, found in starts.items()]


def _only(
    experiment: Experiment,
    cells: Sequence[Cell],
    options: Options,
    found: list[tuple[str, Cell, Rows]],
) -> Experiment:
    """The experiment with some of its cells, which draws and judges nothing and adds to a list."""
    of_cell = experiment.of_cell
    assert of_cell is not None

    def measure(context: Context) -> Rows:
        for cell in cells:
            rows = of_cell(cell, replace(context, options=options))
            if not rows:
                raise GeomkitError(f"{experiment.name}: no number of {cell.label}")
            found.append((experiment.name, cell, rows))
        return Rows()

    return replace(
        experiment, cells=lambda options: list(cells), measure=measure, claims=(),
        draw=lambda rows, context: {}, sequential=False, beside=False,
    )  # fmt: skip


class _Stored:
    """Numbers of an experiment in a report, with their spread over seeds.

    Args:
        rows: Content of ``results.csv``.
    """

    def __init__(self, rows: Rows) -> None:
        self.rows = {_identity(row): row for row in rows}
        self.settings: dict[Row, dict[int, float]] = {}
        for row in rows:
            if math.isfinite(row.value):
                self.settings.setdefault(row.setting, {})[row.seed] = row.value
        # Of numbers alike: by metric, and by metrics that differ behind the @ alone.
        self.alike: dict[tuple[str, str], list[Row]] = {}
        for setting in self.settings:
            for name in {setting.metric, _family(setting)}:
                self.alike.setdefault((setting.data, name), []).append(setting)

    def compared(self, row: Row, cell: Cell, *, tight: bool) -> Compared:
        """A number that was measured again beside the stored one."""
        old = self.rows.get(_identity(row))
        if old is None:
            return Compared(row, cell, math.nan, 0.0)
        if tight or row.seed < 0 or not math.isfinite(old.value):
            return Compared(row, cell, old.value, _rounding(old.value))
        return Compared(row, cell, old.value, max(self._allowed(old, row), _rounding(old.value)))

    def _allowed(self, old: Row, new: Row) -> float:
        """Largest difference of two trainings of one model, on different machines.

        They are two draws, whose difference has √2 times the deviation over seeds: of the setting,
        or of all settings together, whichever is more, as losses differ in their spread and few
        seeds tell it badly. The stored number is left out of it: a forged one widens nothing.
        """
        mine, share = old.setting, abs(old.value)
        error = max((e for e in (old.stderr, new.stderr) if math.isfinite(e)), default=0.0)

        def spread(settings: Iterable[Row]) -> float:
            return _spread(
                [
                    value
                    for seed, value in self.settings[one].items()
                    if one != mine or seed != old.seed
                ]
                for one in settings
            )

        if len(self.settings[mine]) == 1:
            return max(4 * error, ONE_SEED * share, FLOOR)
        found = max(spread([mine]), spread(self.alike[old.data, old.metric]))
        # A rare case, such as one confusion in ten, has a spread only among others of its kind.
        found = found or spread(self.alike[old.data, _family(old)])
        return max(math.sqrt(2) * found, 2 * error, FLOOR * share)


def _spread(groups: Iterable[Sequence[float]]) -> float:
    """Distance from the mean that a further seed exceeds at :data:`LEVEL`, by pooled variance."""
    from scipy import stats

    arrays = [np.asarray(values) for values in groups if len(values)]
    freedom = sum(len(values) - 1 for values in arrays)
    if not freedom:
        return 0.0
    variance = sum(float(((values - values.mean()) ** 2).sum()) for values in arrays) / freedom
    return min(MOST_SPREADS, float(stats.t.ppf(1 - LEVEL / 2, freedom))) * math.sqrt(variance)


def _rounding(value: float) -> float:
    return EXACT * max(1.0, abs(value))


def _identity(row: Row) -> Row:
    return replace(row, value=0.0, stderr=0.0)


def _family(row: Row) -> str:
    return f"{row.metric.partition('@')[0]}@"
