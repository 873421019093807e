"""Whether the files of a report belong together: seals, verdicts, pages."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path

from geomkit.errors import GeomkitError
from geomkit.reproduce.framework import catalogue
from geomkit.reproduce.framework.record import (
    FROM_SCRATCH,
    NAME,
    RESULTS,
    JudgedClaim,
    Outcome,
    Record,
    is_intact,
    read_record,
)
from geomkit.reproduce.framework.report import index_pages, report_pages
from geomkit.reproduce.framework.results import read_rows
from geomkit.reproduce.framework.seal import code_sha256, file_sha256

__all__ = ["Findings", "check_report"]

UNSEALED = (
    "made before seals existed: nothing shows that its numbers are those that were measured; "
    "make it again, in another --out"
)
_SAME = {
    "options": "options",
    "measured_by": "code that measured it",
    "written_by": "code that wrote it",
    "versions": "versions of packages",
}
"""Parts of a record that are the same in all experiments of a report, with their names."""


@dataclass
class Findings:
    """What a check of a report found.

    Attributes:
        records: Records that can be read, by experiment.
        failures: What does not belong together, a line each.
        notes: What could not be compared, a line each.
    """

    records: dict[str, Record] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def fail(self, path: Path, what: str) -> None:
        """Add what is wrong with a file."""
        self.failures.append(f"{path}: {what}")

    def note(self, path: Path, what: str) -> None:
        """Add why a file could not be compared."""
        self.notes.append(f"{path}: not comparable: {what}")

    def differs(self, path: Path, what: str, *records: Record) -> None:
        """Add what differs from what the installed code makes: a fault if that made the records."""
        if all(record.written_by == code_sha256() for record in records):
            self.fail(path, what)
        else:
            self.note(path, f"{what}, by the installed code, which is not the one that made it")


def check_report(out: Path) -> Findings:
    """Check that the files of a report are those that its runs wrote, and belong together.

    The content of each ``run.json`` is compared with its seal, and every file with its hash there.
    Verdicts, pages and the index are made again from the numbers and compared; where they differ
    and other code than the installed wrote them, that is no fault but a note.

    Args:
        out: Folder of results of ``geomkit reproduce``.

    Raises:
        GeomkitError: If there is no report in the folder.
    """
    paths = sorted(out.glob(f"*/{NAME}"))
    if not paths:
        raise GeomkitError(
            f"{out}: no report there (no */{NAME}); name the --out of a geomkit reproduce"
        )
    found = Findings()
    for path in paths:
        record = read_record(path.parent)
        if record is None:
            found.fail(path, "is damaged, or newer than this geomkit")
        elif record.experiment != path.parent.name:
            found.fail(path, f"is of the experiment {record.experiment}")
        else:
            found.records[record.experiment] = record
            _check_experiment(path.parent, record, found)
    for path in sorted(out.glob(f"*/{RESULTS}")):
        if not (path.parent / NAME).exists():
            found.fail(path, f"has no {NAME} beside it")
    _check_together(out, found)
    _check_index(out, found)
    return found


def _check_experiment(folder: Path, record: Record, found: Findings) -> None:
    if not record.seal:
        found.fail(folder / NAME, UNSEALED)
        return
    if not is_intact(folder):
        found.fail(folder / NAME, "was changed after the run: its content is not what it sealed")
    missing = _check_files(folder, record.files, found)
    _check_training(folder, record, found)
    if not missing:
        _check_verdicts_and_pages(folder, record, found)


def _check_files(folder: Path, files: Mapping[str, str], found: Findings) -> bool:
    """Compare the files with their hashes; return whether one is missing."""
    missing = False
    for name, sha256 in files.items():
        path = folder / name
        try:
            if Path(name).name != name or not path.is_file():
                missing = True
                found.fail(path, f"is missing; {NAME} lists it")
            elif file_sha256(path) != sha256:
                found.fail(path, f"was changed after the run: {NAME} holds another hash of it")
        except GeomkitError as error:
            missing = True
            found.failures.append(str(error))
    for path in sorted(folder.iterdir()):
        known = path.name in files or path.name == NAME
        if path.is_file() and not known and not path.name.startswith("."):
            found.fail(path, f"belongs to no run: {NAME} does not list it; delete it")
    return missing


def _check_training(folder: Path, record: Record, found: Findings) -> None:
    """Check that the code that measured the models trained them as well."""
    codes = [cell.get("code") for cell in record.cells]
    others = sum(code not in ("", record.measured_by) for code in codes)
    if others:
        found.fail(
            folder / NAME,
            f"{others} of {len(codes)} models were trained by other code than measured them, or "
            "before that was noted; train them again in another --out",
        )
    if unknown := codes.count(""):
        found.note(folder / NAME, f"{unknown} models continued after an interruption, perhaps by "
                   "other code")  # fmt: skip


def _check_verdicts_and_pages(folder: Path, record: Record, found: Findings) -> None:
    experiment = catalogue.all_experiments().get(record.experiment)
    if experiment is None:
        found.note(folder, "no such experiment is installed")
        return
    try:
        rows = read_rows(folder / RESULTS)
    except GeomkitError as error:
        found.failures.append(str(error))
        return
    outcome = Outcome.of(experiment, rows, folder, record.options, record.seeds)
    judged, again = list(record.verdicts), list(outcome.verdicts)
    if record.beside and (scratch := experiment.from_scratch(record.options)):
        try:
            rows = read_rows(folder / FROM_SCRATCH)
        except GeomkitError as error:
            found.failures.append(str(error))
            return
        judged += record.beside
        again += Outcome.of(experiment, rows, folder, scratch).verdicts
    for stored, here in zip_longest(judged, again):
        if not _alike(stored, here):
            says = f"'{stored.status}' ({stored.why})" if stored else "nothing"
            gives = f"'{here.status}' ({here.why})" if here else "no such claim"
            claim = (stored or here).claim
            what = f"says {says} of '{claim}'; {RESULTS} gives {gives}"
            found.differs(folder / NAME, what, record)
    try:
        pages = report_pages(outcome, record.files, record)
        seeds = record.seeds or len(record.options.seeds)
        cells = experiment.every_cell(record.options, seeds, beside=bool(record.beside))
        keys = {cell.key for cell in cells}
    except GeomkitError as error:  # data that are not on this machine
        found.note(folder, str(error))
        return
    if keys != {cell["key"] for cell in record.cells}:
        found.differs(folder / NAME, "lists other models than the experiment trains", record)
    _check_pages(folder, pages, f"{RESULTS} and {NAME} give", found, record)


def _alike(a: JudgedClaim | None, b: JudgedClaim | None) -> bool:
    """Whether two verdicts are the same, but for the last digits of p."""
    if a is None or b is None or replace(a, p=None) != replace(b, p=None):
        return False
    if a.p is None or b.p is None:
        return a.p == b.p
    return math.isclose(a.p, b.p, rel_tol=1e-6, abs_tol=1e-12)


def _check_pages(
    folder: Path, pages: Mapping[str, bytes], what: str, found: Findings, *records: Record
) -> None:
    for name, content in pages.items():
        path = folder / name
        if not path.is_file():
            found.fail(path, "is missing")
        elif path.read_bytes() != content:
            found.differs(path, f"is not what {what}", *records)


def _check_together(out: Path, found: Findings) -> None:
    """Check that one code and one command made all experiments."""
    sealed = {name: record for name, record in found.records.items() if record.seal}
    for part, words in _SAME.items():
        values = {name: getattr(record, part) for name, record in sealed.items()}
        for name, first in _others(values):
            found.fail(out / name / NAME, f"has another {words} than {first}")


def _others(values: Mapping[str, object]) -> Iterable[tuple[str, str]]:
    """Names whose value is not that of the first, with the name of the first."""
    first = next(iter(values), "")
    return [(name, first) for name, value in values.items() if value != values[first]]


def _check_index(out: Path, found: Findings) -> None:
    pages, _ = index_pages(out)
    _check_pages(out, pages, f"the {NAME} files give", found, *found.records.values())
