"""What closing the gap after training gains and costs: a point a method, and curves of a shift."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from geomkit.errors import GeomkitError
from geomkit.plots.labels import axis_label, value_range
from geomkit.plots.multiples import Panel, Series, small_multiples

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Point", "closing_panels"]

_COLOURS = ("#d1342f", "#2464b4", "#2e8b57", "#8e44ad", "#e08a00", "#5f8f9f")
_MARKERS = "os^Dv<>"
Point = tuple[float, float]
"""A value and its standard error, or NaN for none."""


def closing_panels(
    methods: Mapping[str, Mapping[str, Point]],
    *,
    gap: str,
    against: Sequence[str],
    strengths: Sequence[float] = (),
    curves: Mapping[str, Sequence[float]] | None = None,
    note: str = "",
) -> Figure:
    """Return a figure: metrics against the gap, a point a method, and curves of a translation.

    Bars are 95% intervals of the change from no method. A dotted line is at no method.

    Args:
        methods: Metrics after each method by its name, with the errors of the changes; the first
            one is ``none``.
        gap: Metric of the horizontal axis.
        against: Metrics of the vertical axes, a panel each.
        strengths: Fractions of the gap vector that the curves are over.
        curves: Values at the strengths, by what they are.
        note: Words below the curves, such as the number of pairs.

    Raises:
        GeomkitError: If there is no method.

    >>> none, centred = {"a": (0.8, 0.0), "b": (0.6, 0.0)}, {"a": (0.1, 0.01), "b": (0.5, 0.02)}
    >>> figure = closing_panels({"none": none, "centre": centred}, gap="a", against=["b"])
    >>> figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()
    ('A', 'B')
    """
    if len(methods) < 2:
        raise GeomkitError("nothing to draw: expected at least one method beside none")
    none = next(iter(methods.values()))
    panels = []
    for metric in against:
        series = []
        for number, (name, found) in enumerate(methods.items()):
            value, error = found[metric]
            least, most = value_range(metric)
            low, high = max(value - 1.96 * error, least), min(value + 1.96 * error, most)
            colour = "#333333" if number == 0 else _COLOURS[(number - 1) % len(_COLOURS)]
            marker = "*" if number == 0 else _MARKERS[(number - 1) % len(_MARKERS)]
            series.append(
                Series(name, [found[gap][0]], [value], [low], [high],
                       colour=colour, marker=marker, line="", size=6.5 if number == 0 else 4.2)
            )  # fmt: skip
        panels.append(
            Panel(series, x=axis_label(gap), y=axis_label(metric),
                  references={none[metric][0]: "no method"}, grid="both")
        )  # fmt: skip
    for number, (name, values) in enumerate((curves or {}).items()):
        line = Series("", strengths, values, colour=_COLOURS[number % len(_COLOURS)], marker="o",
                      size=2.4)  # fmt: skip
        label = "Shift (1: fitted centroids meet)" + (f"\n{note}" if note else "")
        panels.append(Panel([line], x=label, y=name, grid="both"))
    return small_multiples(panels, across=min(3, len(against)), columns=2, height=2.2)
