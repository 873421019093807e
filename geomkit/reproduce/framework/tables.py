"""Tables of a report: geomkit's numbers beside the published ones."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from geomkit.reproduce.framework.numbers import number
from geomkit.reproduce.framework.results import Row, Rows, with_uniformity

__all__ = ["Table", "comparison", "spread"]

MAX_GROUPS, MAX_CONDITIONS, MAX_COLUMNS, MAX_LINES, MAX_CURVE = 6, 2, 7, 72, 8
NOTHING = "–"
_NUMBER = re.compile(r"[−+-]?[\d.,]+( ± [\d.,]+)?%?|–?")

Key = tuple[int, str, str]
"""Dimension, loss and metric of a published number."""


@dataclass(frozen=True)
class Table:
    """Text cells under a head.

    Attributes:
        head: Names of the columns.
        rows: Cells, row by row.
        title: Line above the table.
    """

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""

    @property
    def lines(self) -> list[str]:
        """Lines of Markdown; columns that hold only numbers are aligned to the right."""
        rules = [
            "--:" if any(column) and all(map(_NUMBER.fullmatch, column)) else "---"
            for column in (zip(*self.rows, strict=True) if self.rows else [()] * len(self.head))
        ]
        cells = [[c.replace("|", "\\|").replace("\n", " ") for c in row] for row in self.rows]
        return [f"| {' | '.join(line)} |" for line in (self.head, rules, *cells)]


def spread(values: Sequence[float], errors: Sequence[float] = ()) -> str:
    """Mean ± standard deviation of several values; of a single value ± its standard error.

    >>> spread([1.0, 2.0, 3.0]), spread([0.5], [0.01]), spread([float("nan")])
    ('2 ± 1', '0.500 ± 0.010', '–')
    """
    found = [v for v in values if math.isfinite(v)]
    if not found:
        return NOTHING
    mean = float(np.mean(found))
    error = next((e for e in errors if math.isfinite(e)), None)
    if len(found) > 1:
        error = float(np.std(found, ddof=1))
    return number(mean) if error is None else f"{number(mean, error)} ± {number(error, mean)}"


def _values(rows: Sequence[Row]) -> str:
    return spread([r.value for r in rows], [r.stderr for r in rows])


def comparison(rows: Rows, published: Rows) -> tuple[list[Table], bool]:
    """Tables of an experiment's numbers, each beside the paper's for that loss and dimension.

    There is one table per data set, dimension and condition, with one line per metric. Where that
    would be many tables, there is one with a line per group and a column per metric. Published
    numbers without any counterpart come last.

    Args:
        rows: Measured numbers.
        published: The paper's numbers of this experiment.

    Returns:
        The tables, and whether they are complete: long ones are cut.
    """
    curves = _curves(rows) - set(published.values("metric"))
    shown = Rows(row for row in rows if row.metric not in curves)
    complete = len(shown) == len(rows)
    paper = _published(published)
    used: set[Key] = set()
    tables = []
    # Rows under a condition have no counterpart in the paper, and may be a long series.
    for conditional, limit in ((False, MAX_GROUPS), (True, MAX_CONDITIONS)):
        found = Rows(row for row in shown if bool(row.condition) is conditional)
        groups = found.by("data", "dim", "condition")
        if len(groups) <= limit:
            for (data, dim, condition), group in groups.items():
                beside = {} if condition else paper
                tables.append(_pivot(group, beside, _title(data, dim, condition)))
                used |= {(row.dim, row.loss, row.metric) for row in group} & set(beside)
        else:
            tables.append(_by_metric(found))
            complete &= len(found.values("metric")) <= MAX_COLUMNS
            complete &= len(found.by("data", "dim", "loss", "condition")) <= MAX_LINES
    if published and not used:
        tables.append(_rest(published))
        complete &= len(published.by("data", "dim", "loss", "metric")) <= MAX_LINES
    return tables, complete


def _curves(rows: Rows) -> set[str]:
    """Metrics that are points of a curve, ``name@k…`` for many k: for a figure, not a table."""
    names = rows.values("metric")
    points = Counter(name.partition("@")[0] for name in names)
    return {name for name in names if points[name.partition("@")[0]] > MAX_CURVE}


def _published(rows: Rows) -> dict[Key, str]:
    """Published numbers as text, where dimension, loss and metric identify them."""
    return {
        key: _paper(same)
        for key, same in with_uniformity(rows).by("dim", "loss", "metric").items()
        if len(same.values("data")) == 1
    }


def _paper(rows: Rows) -> str:
    """The paper's mean over its seeds where it gives one, else the spread of its single seeds.

    The published deviation over three seeds is the population's; the sample's is larger by √1.5.
    """
    mean = rows.where(seed=-1)[:1]
    if mean:
        return spread([mean[0].value], [mean[0].stderr * math.sqrt(3 / 2)])
    return _values(rows)


def _title(data: str, dim: int, condition: str) -> str:
    parts = [data, f"d = {dim}" if dim else "", condition.replace(";", ", ").replace("=", " = ")]
    return ", ".join(filter(None, parts))


def _pivot(rows: Rows, paper: dict[Key, str], title: str) -> Table:
    """A line per metric and a column per loss, with the paper's beside it where it has any."""
    metrics, losses, dim = rows.values("metric"), rows.values("loss"), rows[0].dim
    beside = {loss for loss in losses if any((dim, loss, m) in paper for m in metrics)}
    columns = [(x, of_paper) for x in losses for of_paper in (False, True)[: 1 + (x in beside)]]

    def cell(metric: str, loss: str, of_paper: bool) -> str:
        if of_paper:
            return paper.get((dim, loss, metric), NOTHING)
        return _values(rows.where(metric=metric, loss=loss))

    head = (f"{x}, paper" if of_paper else x or "value" for x, of_paper in columns)
    lines = tuple((f"`{m}`", *(cell(m, *column) for column in columns)) for m in metrics)
    return Table(("metric", *head), lines, title)


def _by_metric(rows: Rows) -> Table:
    """A line per data set, dimension, loss and condition, and a column per metric."""
    metrics = rows.values("metric")[:MAX_COLUMNS]
    several = len(rows.values("data")) > 1
    lines = []
    for key, found in list(rows.by("data", "dim", "loss", "condition").items())[:MAX_LINES]:
        data, dim, loss, condition = key
        names = (str(dim or NOTHING), loss or NOTHING, condition.replace(";", ", ") or NOTHING)
        by_metric = found.by("metric")
        values = (_values(by_metric.get((m,), ())) for m in metrics)
        lines.append((*([data] if several else []), *names, *values))
    head = (*(["data"] if several else []), "d", "loss", "condition", *(f"`{m}`" for m in metrics))
    return Table(head, tuple(lines), "" if several else rows[0].data)


def _rest(rows: Rows) -> Table:
    """Published numbers, one per line."""
    groups = list(rows.by("data", "dim", "loss", "metric").items())[:MAX_LINES]
    lines = tuple(
        (data, str(dim or NOTHING), loss or NOTHING, f"`{metric}`", _paper(found))
        for (data, dim, loss, metric), found in groups
    )
    title = "The paper's numbers, measured otherwise than any of ours"
    return Table(("data", "d", "loss", "metric", "value"), lines, title)
