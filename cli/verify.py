"""``geomkit reproduce verify``: the report's files, and its numbers measured again."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from geomkit._core.table import Table

from . import console

if TYPE_CHECKING:
    from geomkit.reproduce import Options
    from geomkit.reproduce.framework.rerun import Again, Compared
    from geomkit.reproduce.framework.verify import Findings

__all__ = ["verify"]

_HEADINGS = ("model", "metric", "stored", "rerun", "difference", "verdict")


def verify(
    folder: Path,
    machine: Options,
    *,
    share: float,
    seed: int,
    form: str,
    rerun: Callable[[list[Again]], Iterable[list[Compared]]],
) -> bool:
    """Check a report, train some of its models again, and print what was found.

    Args:
        folder: Report.
        machine: Options of this machine.
        share: Share of the models to train again.
        seed: Random seed of their choice.
        form: Form of the table.
        rerun: Trains and measures groups of models again, and gives the numbers of each.

    Returns:
        Whether all belongs together and all numbers agree.
    """
    from geomkit.reproduce.framework.rerun import EXACT, choose
    from geomkit.reproduce.framework.seal import code_sha256
    from geomkit.reproduce.framework.verify import check_report

    say = console.out if form == "text" else partial(console.line, even_if_quiet=True)
    found = check_report(folder)
    here = code_sha256()
    for code in {record.written_by for record in found.records.values()} - {here, ""}:
        console.line(f"{folder}: made by other code ({code[:12]}) than the installed ({here[:12]})")
    for note in found.notes:
        console.line(note)
    for failure in found.failures:
        say(failure)
    compared: list[Compared] = []
    if share:
        work, left_out = choose(found.records, share, seed=seed, machine=machine)
        for line in left_out:
            console.line(f"{folder}/{line}")
        for again in work:
            names = ", ".join(again.experiments)
            if again.others:
                console.line(f"{names}: made otherwise ({'; '.join(again.others)}): numbers are "
                             "compared with their spread over seeds")  # fmt: skip
            else:
                console.line(f"{names}: numbers are compared one by one, to {EXACT:g}")
        try:
            for again, numbers in zip(work, rerun(work), strict=True):
                compared += numbers
                console.line(f"{', '.join(again.experiments)}: {_agreement(numbers)}")
        finally:  # a run that is stopped shows what it has measured
            if compared:
                shown = compared if form == "csv" else _worst(compared)
                console.table(Table(_HEADINGS, [[_row(n) for n in shown]], remarks=True), form)
    say(_summary(folder, found, compared))
    return not found.failures and all(number.agrees for number in compared)


def _worst(compared: Sequence[Compared]) -> list[Compared]:
    """Numbers that differ; for a model of an experiment without any, the most different one."""
    groups: dict[tuple, list[Compared]] = {}
    for number in compared:
        groups.setdefault((number.row.experiment, number.cell), []).append(number)
    shown: list[Compared] = []
    for group in groups.values():
        differ = [number for number in group if not number.agrees]
        shown += differ or [max(group, key=lambda number: abs(number.difference))]
    return shown


def _row(number: Compared) -> list[str]:
    row = number.row
    if number.agrees:
        verdict = "same" if number.same else "within the spread"
    elif math.isnan(number.stored):
        verdict = "not in results.csv"
    else:
        verdict = f"differs by more than {number.allowed:.2g}"
    return [
        f"{row.experiment}: {number.cell.label}",
        f"{row.metric} ({row.condition})" if row.condition else row.metric,
        f"{number.stored:.9g}", f"{row.value:.9g}", f"{number.difference:.2g}", verdict,
    ]  # fmt: skip


def _summary(folder: Path, found: Findings, compared: Sequence[Compared]) -> str:
    """The last line: what was checked, and what came of it."""
    count = len(found.failures)
    words = f"{count} fault{'s' * (count > 1)}" if count else "all belongs together"
    if found.notes:
        words = f"{words if count else 'no fault'}, not comparable: {len(found.notes)}"
    parts = [f"{len(found.records)} experiment{'s' * (len(found.records) != 1)}: {words}"]
    if compared:
        models = len({number.cell for number in compared})
        parts.append(f"{models} model{'s' * (models > 1)} trained again: {_agreement(compared)}")
    elif not found.failures:
        parts.append("no model was trained again")
    return f"{folder}: {'; '.join(parts)}"


def _agreement(compared: Sequence[Compared]) -> str:
    """How many numbers differ, in words."""
    differ = [number for number in compared if not number.agrees]
    same = sum(number.same for number in compared)
    largest = max((abs(number.difference) for number in compared), key=_finite)
    return (
        f"of {len(compared):,} numbers {len(differ) or 'none'} differ{'s' * (len(differ) < 2)} and "
        f"{same:,} are the same; the largest difference is {largest:.2g}"
    )


def _finite(value: float) -> float:
    return value if math.isfinite(value) else -1.0
