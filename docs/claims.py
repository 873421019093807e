"""What reproduces, in the README and the documentation, from the report in ``reports/openmoji``.

``python docs/claims.py`` (or ``make claims``) writes it between the marks of each document; a test
fails where a document and the report differ.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from geomkit.reproduce.framework.record import Record
from geomkit.reproduce.framework.report import (
    STATUSES,
    UNMET,
    claims_table,
    overview,
    stored_records,
    told,
)
from geomkit.reproduce.framework.results import published, read_rows
from geomkit.reproduce.framework.tables import Table, comparison

ROOT = Path(__file__).parents[1]
REPORT = Path("reports/openmoji")
DOCUMENTS = (Path("README.md"), Path("docs/paper.md"))
SHOWN = ("centroid_distance", "linear_separability", "uniformity", "text_retrieval_recall@1")
DIM = 128
_BLOCK = re.compile(r"(<!-- (\w+) of the report: make claims -->)\n.*?(<!-- end -->)", re.DOTALL)

Records = Mapping[str, Record]


def verdicts(records: Records, base: str) -> str:
    """A line for each verdict: the number of claims, and which experiments they are of."""
    lines = []
    for status in STATUSES:
        counts = {
            name: sum(verdict.status == status for verdict in record.verdicts)
            for name, record in records.items()
            if not record.explains
        }
        each = (f"[{name}]({base}{name}/report.md) {n}" for name, n in counts.items() if n)
        lines.append((status, str(sum(counts.values())), ", ".join(each)))
    return _text(Table(("verdict", "claims", "by experiment"), tuple(lines)))


def summary(records: Records, base: str) -> str:
    """Number of claims by verdict and experiment, and how the report was made."""
    models = len({cell["key"] for record in records.values() for cell in record.cells})
    minutes = sum(r.seconds.training + r.seconds.measuring for r in records.values()) / 60
    commands = dict.fromkeys(f"`{record.command}`" for record in records.values())
    versions = dict.fromkeys(record.made_with for record in records.values())
    return (
        f"**{told(records)}** {models} models, {minutes:.0f} minutes: {', '.join(commands)} "
        f"({'; '.join(versions)}).\n\n{_text(overview(records, base))}"
    )


def numbers(records: Records, base: str) -> str:
    """The main numbers at the largest dimension, beside the paper's."""
    rows = read_rows(ROOT / REPORT / "figure2" / "results.csv").where(dim=DIM, metric=SHOWN)
    tables, _ = comparison(rows, published("coco-finetune").where(dim=DIM))
    return "\n\n".join(f"**{table.title}**\n\n{_text(table)}" for table in tables)


def claims(records: Records, base: str) -> str:
    """Every claim with its verdict, and the likely reason where it does not hold."""
    parts = []
    for name, record in records.items():
        parts.append(f"### {record.title}\n\n{_text(claims_table(record))}")
        unmet = [verdict for verdict in record.verdicts if verdict.status in UNMET]
        parts += ["\n".join(f"- {v.claim}: *{v.status}.* {record.reason(v)}" for v in unmet)]
        parts.append(f"[Report]({base}{name}/report.md)")
    return "\n\n".join(filter(None, parts))


BLOCKS: dict[str, Callable[[Records, str], str]] = {
    block.__name__: block for block in (verdicts, summary, numbers, claims)
}


def filled(document: Path) -> str:
    """Text of a document with its blocks as the report has them now."""
    records, _ = stored_records(ROOT / REPORT)
    base = "../" * (len(document.parts) - 1) + f"{REPORT.as_posix()}/"

    def block(found: re.Match[str]) -> str:
        begin, name, end = found.groups()
        return f"{begin}\n\n{BLOCKS[name](records, base)}\n\n{end}"

    return _BLOCK.sub(block, (ROOT / document).read_text("utf-8"))


def _text(table: Table) -> str:
    return "\n".join(table.lines)


def main() -> None:
    """Write the blocks of every document."""
    for document in DOCUMENTS:
        text = filled(document)
        if text != (ROOT / document).read_text("utf-8"):
            (ROOT / document).write_text(text, "utf-8")
            sys.stdout.write(f"{document}\n")


if __name__ == "__main__":
    main()
