"""Tables of a page: metrics of several sources side by side, and what interventions do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from geomkit._core.shown import shown
from geomkit.interventions.closing import Closing, Outcome
from geomkit.metrics import METRICS, GapResult
from geomkit.metrics.result import table

__all__ = ["Row", "Rows", "closing_table", "metric_tables", "undefined"]

_KEY = (
    "centroid_distance", "linear_separability", "relative_modality_gap", "paired_cosine",
    "alignment", "uniformity", "intra_cosine_image", "intra_cosine_text", "effective_rank_image",
    "effective_rank_text", "text_retrieval_recall@1", "image_retrieval_recall@1",
    "modality_bias_image", "modality_bias_text",
)  # fmt: skip
"""Metrics that a reader looks at first."""
_GROUPS = {
    "gap": "Gap", "pairs": "Pairs", "spread": "Spread", "distribution": "Distributions",
    "spectrum": "Spectrum", "neighbours": "Neighbours", "retrieval": "Retrieval",
    "mixed": "Retrieval among both modalities",
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        name: Its name.
        cells: A cell for each heading but the first; a second line of it is smaller.
        about: What it is, a sentence each.
    """

    name: str
    cells: Sequence[str]
    about: Sequence[str] = ()


@dataclass(frozen=True)
class Rows:
    """A table.

    Attributes:
        title: Title.
        headings: Headings of the columns.
        rows: Its rows.
        notes: Remarks below it.
    """

    title: str
    headings: Sequence[str]
    rows: Sequence[Row]
    notes: Sequence[str] = ()


def metric_tables(results: Sequence[GapResult]) -> list[Rows]:
    """Return the metrics that are looked at first, then all of each group.

    >>> metric_tables([GapResult({"alignment": 1.0, "mmd": 0.0}, n=2, dim=3)])[1].rows[0].name
    'alignment'
    """
    each = [_cells(result) for result in results]
    names = [name for name in METRICS if any(name in cells for cells in each)]
    dims = {result.dim for result in results}
    rows = [
        Row(name, cells, (METRICS[name].summary, METRICS[name].interpretation(dims)))
        for name in names
        for cells in [_side_by_side([one.get(name, ("", "", "", "")) for one in each])]
    ]
    sources = [result.source or "value" for result in results]
    headings = ["Metric", *(["Value", "Null", "Ideal", "p"] if len(each) == 1 else sources)]
    if len(each) > 1:
        headings.append("Ideal")
    key = [row for name in _KEY for row in rows if row.name == name]
    found = [Rows("In short", headings, key)] if key else []
    for group, some in groupby(rows, key=lambda row: METRICS[row.name].group):
        found.append(Rows(_GROUPS.get(group, group.capitalize()), headings, list(some)))
    return found


def _cells(result: GapResult) -> dict[str, tuple[str, ...]]:
    """Value, null, ideal and p of each metric, in words."""
    sections = table([result]).sections
    return {name: tuple(cells) for section in sections for name, *cells, _ in section}


def _side_by_side(each: Sequence[tuple[str, ...]]) -> list[str]:
    """The cells of a row: of several sources, null and p are a second line of the value's."""
    if len(each) == 1:
        return list(each[0])
    ideals = {ideal for _, _, ideal, _ in each if ideal}
    cells = []
    for value, null, ideal, p in each:
        own = {"null": null, "p": p, "ideal": ideal if len(ideals) > 1 else ""}
        more = ", ".join(f"{key} {number}" for key, number in own.items() if number)
        cells.append(f"{value}\n{more}" if more else value)
    return [*cells, ideals.pop() if len(ideals) == 1 else ""]


def undefined(result: GapResult) -> list[str]:
    """Return why metrics have no value, a sentence for each reason."""
    reasons = result.meta.get("reasons", {})
    return [
        f"{', '.join(name for name in reasons if reasons[name] == reason)}: {shown(reason)}"
        for reason in dict.fromkeys(reasons.values())
    ]


def closing_table(name: str, found: Closing) -> Rows:
    """Return what interventions do to a source.

    Args:
        name: Name of the source.
        found: What was measured.
    """

    def cell(outcome: Outcome, metric: str) -> str:
        value, change = found.value(metric, outcome), found.difference(outcome, metric)
        if math.isnan(value):
            return "–"
        error = "" if math.isnan(change.stderr) else f" ± {change.stderr:.3f}"
        return f"{value:.3f}\n{round(change.value, 3) + 0.0:+.3f}{error}"

    before = [found.value(metric) for metric in found.shown]
    rows = [Row("none", ["–" if math.isnan(value) else f"{value:.3f}" for value in before])]
    rows += [Row(o.method, [cell(o, metric) for metric in found.shown]) for o in found.outcomes]
    notes = [f"Fitted on {found.fitted}; measured on {found.before.n:,} others."]
    if found.before.estimated:
        notes.append(f"Estimated from {found.before.meta['queries']:,} rows against all.")
    if found.shared:
        notes.append(
            f"{found.shared:,} of the measured images are among those fitted on too: their numbers "
            "flatter the maps."
        )
    if found.moments.n < found.before.dim:
        notes.append(
            f"{found.moments.n:,} pairs are fewer than the {found.before.dim} dimensions: maps "
            "with a whole matrix are hardly determined."
        )
    notes += [f"{method} left out: {why}." for method, why in found.left_out.items()]
    return Rows(name, ["Method", *found.shown], rows, [shown(note) for note in notes])
