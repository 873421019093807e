"""Figures of the sweeps: heat maps of every setting, and each factor by itself."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from geomkit.errors import GeomkitError
from geomkit.reproduce.framework.claims import mean_interval
from geomkit.reproduce.framework.results import Rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["effects", "heat_maps"]

MAPS = {
    "centroid_distance": "Centroid distance",
    "linear_separability": "Linear separability",
    "uniformity": "Uniformity",
}
HINTS = {
    "centroid_distance": "0: none",
    "linear_separability": "0.5: mixed, 1: disjoint",
    "uniformity": "lower: more spread",
}


def heat_maps(rows: Rows) -> Figure:
    """A map of batch sizes × dimensions a temperature and metric, each field with its number.

    Raises:
        GeomkitError: if no row has any of the metrics.
    """
    from geomkit.plots.style import panels, style

    metrics = [m for m in MAPS if rows.where(metric=m)]
    if not metrics:
        raise GeomkitError("sweeps: no rows to draw")
    temperatures = list(dict.fromkeys((r.conditions["learned"], r.conditions["tau"]) for r in rows))
    batches = sorted({int(r.conditions["batch"]) for r in rows})
    dims = sorted(rows.values("dim"))
    height = 0.45 + len(metrics) * max(1.45, 0.42 + 0.36 * len(batches))
    figure, axes = panels(len(metrics), len(temperatures), height=height, sharex=True, sharey=True)
    with style():
        for at_row, (line, metric) in enumerate(zip(axes, metrics, strict=True)):
            chosen = rows.where(metric=metric)
            finite = [row.value for row in chosen if math.isfinite(row.value)] or [0.0]
            ends = min(finite), max(finite)
            for one, (learned, tau) in zip(line, temperatures, strict=True):
                found = chosen.where(learned=learned, tau=tau)
                values = np.full((len(batches), len(dims)), np.nan)
                for row in found:
                    at = batches.index(int(row.conditions["batch"])), dims.index(row.dim)
                    values[at] = row.value
                drawn = _map(one, values, ends, dims, batches)
                if at_row == 0:
                    one.set_title(_temperature(learned, tau), fontsize=8, pad=4)
                if at_row == len(metrics) - 1:
                    one.set_xlabel("Dimension", fontsize=8, labelpad=2)
            line[0].set_ylabel("Batch size", fontsize=8, labelpad=2)
            bar = figure.colorbar(drawn, ax=list(line), fraction=0.05, pad=0.015, aspect=12)
            bar.set_label(f"{MAPS[metric]}\n({HINTS[metric]})", fontsize=7.5)
            bar.ax.tick_params(labelsize=7, length=2, width=0.6)
            bar.outline.set_visible(False)
    return figure


def _temperature(learned: str, tau: str) -> str:
    return f"τ learned from {tau}" if learned == "1" else f"τ = {tau}"


def _map(
    axes: Axes, values: np.ndarray, ends: tuple[float, float], dims: list, batches: list
) -> Any:
    low, high = ends
    drawn = axes.imshow(
        values, cmap="cividis", vmin=low, vmax=max(high, low + 1e-9), origin="lower", aspect="auto"
    )
    axes.set_xticks(range(len(dims)), [str(dim) for dim in dims])
    axes.set_yticks(range(len(batches)), [str(batch) for batch in batches])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for (i, j), value in np.ndenumerate(values):
        if math.isfinite(value):
            light = (value - low) / max(high - low, 1e-9) > 0.55
            text = f"{value:.2f}".replace("-", "−")
            axes.text(j, i, text, ha="center", va="center", fontsize=7.5,
                      color="black" if light else "white")  # fmt: skip
    return drawn


def effects(rows: Rows) -> Figure:
    """Centroid distance and uniformity against each factor: settings faint, their mean on top."""
    from geomkit.plots.style import INK, panel, panels, style

    fixed = rows.where(learned=0)
    factors = (
        ("dim", "Dimension", rows),
        ("batch", "Batch size", rows),
        ("tau", "Temperature τ, fixed", fixed),
    )
    metrics = [m for m in ("centroid_distance", "uniformity") if rows.where(metric=m)]
    figure, axes = panels(len(metrics), 3, height=0.3 + 1.75 * len(metrics), sharey="row")
    with style():
        for at_row, (line, metric) in enumerate(zip(axes, metrics, strict=True)):
            for one, (factor, label, among) in zip(line, factors, strict=True):
                chosen = among.where(metric=metric)
                levels = sorted(chosen.values(factor), key=float)
                for curve in _curves(chosen, factor):
                    xs = [float(x) for x in levels if x in curve]
                    ys = [curve[x] for x in levels if x in curve]
                    one.plot(xs, ys, color="#b9b9b9", linewidth=0.7, zorder=1)
                points = [(float(x), _mean(chosen.where(**{factor: x}))) for x in levels]
                one.errorbar(
                    [x for x, _ in points],
                    [m[0] for _, m in points],
                    yerr=np.array([m[1] for _, m in points]).T,
                    color=INK, marker="o", capsize=2, elinewidth=0.9, zorder=2,
                )  # fmt: skip
                one.set_xscale("log")
                one.set_xticks([float(x) for x in levels], [str(x) for x in levels])
                one.minorticks_off()
                panel(one, grid="y", x=label if at_row == len(metrics) - 1 else "")
            line[0].set_ylabel(f"{MAPS[metric]}\n({HINTS[metric]})", fontsize=8, labelpad=2)
    return figure


def _curves(rows: Rows, factor: str) -> list[dict[Any, float]]:
    """Values by level of the factor, a curve each setting of the others."""
    curves: dict[tuple, dict[Any, float]] = {}
    for row in rows:
        fields = {"dim": row.dim, **row.conditions}
        level = fields.pop(factor)
        curves.setdefault(tuple(sorted(fields.items())), {})[level] = row.value
    return list(curves.values())


def _mean(rows: Rows) -> tuple[float, tuple[float, float]]:
    try:
        found = mean_interval([r.value for r in rows], [r.stderr for r in rows], over="settings")
    except ValueError:
        return math.nan, (math.nan, math.nan)
    return found.value, (found.value - found.low, found.high - found.value)
