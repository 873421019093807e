"""Figures of the sweeps: heat maps of every setting, and each factor by itself."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from geomkit.errors import GeomkitError
from geomkit.plots.heatmap import colour_bar, heat_map
from geomkit.plots.multiples import Panel, Series, small_multiples
from geomkit.plots.style import axes_grid, label, style
from geomkit.reproduce.framework.figures import series_of
from geomkit.reproduce.framework.results import Rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["effects", "heat_maps"]

LABELS = {
    "centroid_distance": "Centroid distance\n(0: none)",
    "linear_separability": "Linear separability\n(0.5: mixed, 1: disjoint)",
    "uniformity": "Uniformity\n(lower: more spread)",
}


def heat_maps(rows: Rows) -> Figure:
    """Return a figure with a map of batch sizes × dimensions per temperature and metric.

    Raises:
        GeomkitError: If no row has any of the metrics.
    """
    metrics = [m for m in LABELS if rows.where(metric=m)]
    if not metrics:
        raise GeomkitError("sweeps: no rows to draw")
    temperatures = list(dict.fromkeys((r.conditions["learned"], r.conditions["tau"]) for r in rows))
    batches = sorted({int(r.conditions["batch"]) for r in rows})
    dims = sorted(rows.values("dim"))
    count = len(temperatures)
    height = 0.45 + len(metrics) * max(1.45, 0.42 + 0.36 * len(batches))
    figure, axes = axes_grid(len(metrics) * count, count, height=height, sharex=True, sharey=True)
    with style():
        for line, metric in enumerate(metrics):
            places = axes[line * count : (line + 1) * count]
            chosen = rows.where(metric=metric)
            finite = [row.value for row in chosen if math.isfinite(row.value)] or [0.0]
            for place, (learned, tau) in zip(places, temperatures, strict=True):
                values = np.full((len(batches), len(dims)), np.nan)
                for row in chosen.where(learned=learned, tau=tau):
                    at = batches.index(int(row.conditions["batch"])), dims.index(row.dim)
                    values[at] = row.value
                image = heat_map(
                    place, values, across=[str(dim) for dim in dims],
                    down=[str(batch) for batch in batches], ends=(min(finite), max(finite)),
                    upwards=True,
                )  # fmt: skip
                title = f"τ learned from {tau}" if learned == "1" else f"τ = {tau}"
                last = line == len(metrics) - 1
                label(place, title="" if line else title, x="Dimension" if last else "")
            label(places[0], y="Batch size")
            colour_bar(figure, image, places, LABELS[metric])
    return figure


def effects(rows: Rows) -> Figure:
    """Return centroid distance and uniformity against each factor: settings faint, then means."""
    fixed = rows.where(learned=0)
    factors = (
        ("dim", "Dimension", rows),
        ("batch", "Batch size", rows),
        ("tau", "Temperature τ, fixed", fixed),
    )
    panels = [
        Panel([*_settings(found, factor), series_of(found, factor, marker="o")],
              x=label, y=LABELS[metric], log=True, grid="y")
        for metric in ("centroid_distance", "uniformity")
        for factor, label, among in factors
        if (found := among.where(metric=metric))
    ]  # fmt: skip
    return small_multiples(panels, across=3, height=1.75, sharey="row")


def _settings(rows: Rows, factor: str) -> list[Series]:
    """Values by level of the factor: a faint line per setting of the others."""
    settings: dict[tuple, dict[float, float]] = {}
    for row in rows:
        fields: dict[str, Any] = {"dim": row.dim, **row.conditions}
        level = float(fields.pop(factor))
        settings.setdefault(tuple(sorted(fields.items())), {})[level] = row.value
    return [
        Series.through(sorted(found.items()), colour="#b9b9b9", width=0.7)
        for found in settings.values()
    ]
