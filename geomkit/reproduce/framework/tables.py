"""Our numbers beside the published ones, as tables for a report."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from geomkit.reproduce.framework.document import Table
from geomkit.reproduce.framework.results import Row, Rows

__all__ = ["comparison", "spread"]

MAX_GROUPS, MAX_CONDITIONS, MAX_COLUMNS, MAX_LINES, MAX_CURVE = 6, 2, 7, 48, 8
NOTHING = "–"


def spread(values: Sequence[float], errors: Sequence[float] = ()) -> str:
    """A mean with what it is uncertain by: the SD over several seeds, the error over pairs of one.

    >>> spread([1.0, 2.0, 3.0]), spread([0.5], [0.01]), spread([float("nan")])
    ('2.000 ± 1.000', '0.500 ± 0.010', '–')
    """
    found = [v for v in values if math.isfinite(v)]
    if not found:
        return NOTHING
    mean = _number(float(np.mean(found)))
    if len(found) > 1:
        return f"{mean} ± {_number(float(np.std(found, ddof=1)))}"
    error = next((e for e in errors if math.isfinite(e)), None)
    return mean if error is None else f"{mean} ± {_number(error)}"


def _number(value: float) -> str:
    text = f"{value:.3f}" if abs(value) < 100 else f"{value:.1f}"
    return text.replace("-", "−")


def comparison(rows: Rows, published: Rows) -> tuple[list[Table], bool]:
    """Tables of our numbers, each beside the paper's where it has one for that loss and dimension.

    A table a data set, dimension and condition with a line a metric; where that would be many, one
    table with a line each and a column a metric. Where the paper has none for any of ours, all its
    numbers come last.

    Args:
        rows: ours.
        published: the paper's, of this experiment.

    Returns:
        The tables, and whether they hold everything: long ones are cut short.
    """
    curves = _curves(rows) - set(published.values("metric"))
    shown = Rows(row for row in rows if row.metric not in curves)
    complete = len(shown) == len(rows)
    theirs = _published(published)
    used: set[tuple[int, str, str]] = set()
    tables = []
    # What stands under a condition has no counterpart in the paper, and may be a long series.
    plain = Rows(row for row in shown if not row.condition)
    for found in (plain, Rows(row for row in shown if row.condition)):
        groups: dict[tuple[str, int, str], Rows] = defaultdict(Rows)
        for row in found:
            groups[row.data, row.dim, row.condition].append(row)
        if len(groups) <= (MAX_GROUPS if found is plain else MAX_CONDITIONS):
            for (data, dim, condition), group in groups.items():
                mine = {} if condition else theirs
                tables.append(_pivot(group, mine, _title(data, dim, condition)))
                used |= {(row.dim, row.loss, row.metric) for row in group} & set(mine)
        else:
            table, whole = _long(found)
            tables.append(table)
            complete &= whole
    if published and not used:
        table, whole = _rest(published)
        tables.append(table)
        complete &= whole
    return tables, complete


def _curves(rows: Rows) -> set[str]:
    """Metrics that are points of a curve, ``name@k…`` for many k: for a figure, not a table."""
    points: dict[str, set[str]] = defaultdict(set)
    for name in rows.values("metric"):
        points[name.partition("@")[0]].add(name)
    return {name for names in points.values() if len(names) > MAX_CURVE for name in names}


def _published(rows: Rows) -> dict[tuple[int, str, str], str]:
    """By dimension, loss and metric, where that says which of the paper's numbers is meant."""
    found: dict[tuple[int, str, str], list[Row]] = defaultdict(list)
    for row in rows:
        found[row.dim, row.loss, row.metric].append(row)
    texts = {}
    for key, same in found.items():
        if len({row.data for row in same}) > 1:
            continue
        mean = [row for row in same if row.seed == -1]
        if mean:
            texts[key] = spread([mean[0].value], [_deviation(mean[0])])
        else:
            texts[key] = spread([row.value for row in same])
    for dim, loss, metric in list(found):
        sides = [found.get((dim, loss, f"uniformity_{side}"), []) for side in ("image", "text")]
        if metric == "uniformity_image" and all(len(side) == 1 for side in sides):
            # The paper gives it by modality; the mean is ours, and has no deviation.
            texts.setdefault(
                (dim, loss, "uniformity"), spread([sum(s[0].value for s in sides) / 2])
            )
    return texts


def _deviation(row: Row) -> float:
    """The paper's deviation over its three seeds is the population's; ours is the sample's."""
    return row.stderr * math.sqrt(3 / 2) if row.seed == -1 else row.stderr


def _title(data: str, dim: int, condition: str) -> str:
    parts = [data, f"d = {dim}" if dim else "", condition.replace(";", ", ").replace("=", " = ")]
    return ", ".join(part for part in parts if part)


def _values(rows: Iterable[Row]) -> str:
    found = list(rows)
    return spread([r.value for r in found], [r.stderr for r in found])


def _pivot(rows: Rows, theirs: dict[tuple[int, str, str], str], title: str) -> Table:
    losses = rows.values("loss")
    beside = {x for x in losses if any((r.dim, x, r.metric) in theirs for r in rows)}
    head = ["metric"]
    for name in losses:
        head += [name or "value", f"{name}, paper"] if name in beside else [name or "value"]
    lines = []
    for metric in rows.values("metric"):
        line = [f"`{metric}`"]
        for name in losses:
            line.append(_values(rows.where(metric=metric, loss=name)))
            if name in beside:
                line.append(theirs.get((rows[0].dim, name, metric), NOTHING))
        lines.append(tuple(line))
    return Table(tuple(head), tuple(lines), title)


def _long(rows: Rows) -> tuple[Table, bool]:
    metrics = rows.values("metric")
    columns = metrics[:MAX_COLUMNS]
    keyed: dict[tuple[str, int, str, str], dict[str, Rows]] = defaultdict(lambda: defaultdict(Rows))
    for row in rows:
        keyed[row.data, row.dim, row.loss, row.condition][row.metric].append(row)
    several = len(rows.values("data")) > 1
    lines = []
    for (data, dim, loss, condition), found in list(keyed.items())[:MAX_LINES]:
        start = [data] if several else []
        start += [str(dim or NOTHING), loss or NOTHING, condition.replace(";", ", ") or NOTHING]
        lines.append((*start, *(_values(found[m]) if m in found else NOTHING for m in columns)))
    head = (*(["data"] if several else []), "d", "loss", "condition", *(f"`{m}`" for m in columns))
    whole = len(metrics) <= MAX_COLUMNS and len(keyed) <= MAX_LINES
    return Table(head, tuple(lines), "" if several else rows[0].data), whole


def _rest(rows: Rows) -> tuple[Table, bool]:
    keyed: dict[tuple[str, int, str, str], list[Row]] = defaultdict(list)
    for row in rows:
        keyed[row.data, row.dim, row.loss, row.metric].append(row)
    lines = []
    for (data, dim, loss, metric), found in list(keyed.items())[:MAX_LINES]:
        mean = [row for row in found if row.seed == -1] or found
        shown = spread([r.value for r in mean], [_deviation(r) for r in mean])
        lines.append((data, str(dim or NOTHING), loss or NOTHING, f"`{metric}`", shown))
    title = "The paper's numbers, measured otherwise than any of ours"
    head = ("data", "d", "loss", "metric", "value")
    return Table(head, tuple(lines), title), len(keyed) <= MAX_LINES
