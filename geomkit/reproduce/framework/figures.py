"""From rows of results to the series and panels of figures."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from geomkit.plots.labels import axis_label, range_label, value_range
from geomkit.plots.multiples import Panel, Series, small_multiples
from geomkit.plots.style import loss_colour, loss_marker
from geomkit.reproduce.framework.claims import mean_interval
from geomkit.reproduce.framework.results import Row, Rows, with_uniformity

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Dot", "by_dimension", "by_loss", "curve", "dot_of", "over_steps", "series_of"]

REFERENCES: dict[str, dict[float, str]] = {
    "linear_separability": {0.5: ""},
    "linear_separability_auc": {0.5: ""},
}


class Dot(NamedTuple):
    """A mean with its interval.

    Attributes:
        value: Mean.
        low, high: Bounds of the interval; NaN where there is none.
        each: One value per seed.
    """

    value: float
    low: float = math.nan
    high: float = math.nan
    each: tuple[float, ...] = ()


def dot_of(rows: Sequence[Row], *, least: float = 0.0, most: float = 1.0) -> Dot | None:
    """Return the mean over seeds with its t interval at 95%; ``None`` for no finite value.

    A published mean over the paper's three seeds (seed −1) has the interval that their population
    deviation gives.

    Args:
        rows: One row per seed.
        least: Lower end of the number's range, at which intervals end.
        most: Upper end of that range.
    """
    rows = [row for row in rows if math.isfinite(row.value)]
    values = tuple(row.value for row in rows)
    if not values:
        return None
    if len(values) == 1 and rows[0].seed < 0:
        half = 4.303 * rows[0].stderr / math.sqrt(2)  # t quantile, n − 1 = 2
        return Dot(values[0], max(values[0] - half, least), min(values[0] + half, most))
    try:
        found = mean_interval(values, [row.stderr for row in rows])
    except ValueError:  # one seed without an error
        return Dot(sum(values) / len(values), each=values)
    return Dot(found.value, max(found.low, least), min(found.high, most), values)


def series_of(
    rows: Rows,
    position: str | Callable[[Row], float],
    *,
    name: str = "",
    ends: tuple[float, float] = (-math.inf, math.inf),
    **look: Any,
) -> Series:
    """Return means of rows with one position, in the order of positions.

    Args:
        rows: Rows of one metric and one series.
        position: Field or condition with the position of a row, or a function of the row.
        name: Legend entry.
        ends: Range of the number, at which intervals end.
        **look: Further fields of the series.
    """
    at = position if callable(position) else lambda row: float(row.get(position))
    groups: dict[float, list[Row]] = {}
    for row in rows:
        groups.setdefault(at(row), []).append(row)
    found = {x: dot_of(groups[x], least=ends[0], most=ends[1]) for x in sorted(groups)}
    dots = {x: dot for x, dot in found.items() if dot is not None}
    value, low, high, each = zip(*dots.values(), strict=True) if dots else ((), (), (), ())
    return Series(name, list(dots), value, low, high, each, **look)


def by_loss(
    rows: Rows,
    metric: str,
    position: str | Callable[[Row], float] = "dim",
    *,
    ends: tuple[float, float] | None = None,
    **look: Any,
) -> list[Series]:
    """Return a metric against the dimension, or another position, as a series per loss.

    Args:
        rows: Rows of this metric and of others.
        metric: Name of the metric.
        position: See :func:`series_of`.
        ends: Range of the metric. Default: that of a metric of :data:`geomkit.metrics.METRICS`.
        **look: Further fields of the series, such as ``published``.
    """
    chosen = rows.where(metric=metric)
    return [
        series_of(chosen.where(loss=loss), position, name=loss, ends=ends or value_range(metric),
                  colour=loss_colour(loss), marker=loss_marker(loss), **look)
        for loss in chosen.values("loss")
    ]  # fmt: skip


def curve(rows: Rows, name: str, colour: str, **look: Any) -> Series:
    """Return a metric over training, at the steps that all seeds have.

    Args:
        rows: Rows of one metric: one per step and seed.
        name: Legend entry.
        colour: Colour of the line.
        **look: Further fields of the series.
    """
    seeds = len(rows.values("seed"))
    steps = Counter(row.conditions["step"] for row in rows)
    shared = rows.where(lambda row: steps[row.conditions["step"]] == seeds)
    ends = value_range(rows[0].metric)
    return series_of(shared, "step", name=name, ends=ends, colour=colour, **look)


def by_dimension(rows: Rows, metrics: Sequence[str], *, published: Rows | None = None) -> Figure:
    """Return a figure of metrics against the dimension: a panel per metric, a line per loss.

    Intervals are t intervals over seeds.

    Args:
        rows: Results of geomkit.
        metrics: Names of metrics; those that no row has are left out.
        published: Numbers of the paper, drawn hollow.

    Raises:
        GeomkitError: If no row has any of the metrics.
    """
    own, paper = with_uniformity(rows), with_uniformity(published or Rows())
    panels = []
    for metric in metrics:
        lines = [*by_loss(own, metric), *by_loss(paper, metric, published=True)]
        if lines:
            panels.append(
                Panel(lines, axis_label(metric), "Embedding dimension", range_label(metric),
                      log=True, dodge=True, references=REFERENCES.get(metric, {}))
            )  # fmt: skip
    return small_multiples(panels, published="paper (ViT-B/32, COCO)")


def over_steps(
    titles: Sequence[str],
    metrics: Sequence[str],
    curves: Callable[[int, str], list[Series]],
    *,
    notes: Mapping[int, str],
    **layout: Any,
) -> Figure:
    """Return a figure of metrics over training: a column per experiment, a row per metric.

    Args:
        titles: Titles of the columns.
        metrics: Names of metrics, a row each on one scale.
        curves: Function from a column and a metric to its series.
        notes: By column, why it has no numbers.
        **layout: Further arguments of :func:`geomkit.plots.small_multiples`.

    Raises:
        GeomkitError: If there is no curve.
    """
    panels = [
        Panel(
            curves(column, metric),
            title,
            "Steps",
            axis_label(metric),
            bands=True,
            limits=(0.47, 1.02) if metric == "linear_separability" else (0.0, None),
            references=REFERENCES.get(metric, {}),
            note=notes.get(column, "not measured") if metric == metrics[0] else "",
        )
        for metric in metrics
        for column, title in enumerate(titles)
    ]
    return small_multiples(
        panels,
        across=len(titles),
        columns=2,
        sharex="col",
        sharey="row",
        **{"height": 1.3} | layout,
    )
