"""What the experiments on tasks share: a cell's model, parts that are kept, dots with intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from geomkit.data import parse_spec, with_options
from geomkit.errors import GeomkitError
from geomkit.reproduce.framework.common import Dot
from geomkit.reproduce.framework.experiment import Cell, Context, Options
from geomkit.reproduce.framework.results import Row, Rows, read_rows, write_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from geomkit.models.checkpoints import Checkpoint

__all__ = [
    "cell_model",
    "distinct",
    "dots",
    "kept",
    "openmoji_with",
    "running_on",
    "slant",
]


def openmoji_with(options: Options, **wanted: object) -> str:
    """The DATA spec asked for; OpenMoji's with options set as wanted, ``None`` for its default."""
    name, _, given = parse_spec(options.data)
    return with_options("openmoji", **{**given, **wanted}) if name == "openmoji" else options.data


def cell_model(context: Context, cell: Cell) -> Checkpoint:
    """The trained model of a cell."""
    from geomkit.models.checkpoints.opening import opened_run

    return opened_run(context.checkpoint(cell), cell.label)


def running_on(options: Options) -> dict[str, Any]:
    """Device and precision, as resolved."""
    from geomkit._core.runtime import resolve_device, resolve_precision

    device = resolve_device(options.device)
    return {"device": device, "precision": resolve_precision("auto", device)}


def kept(context: Context, name: str, make: Callable[[], Rows]) -> Rows:
    """Rows that are made once, even if the run is killed after."""
    path = context.folder / "work" / f"{name}.csv"
    if path.exists():
        return read_rows(path)
    rows = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_rows(path, rows, overwrite=True)
    return rows


def distinct(rows: Iterable[Row]) -> Rows:
    """The first of each number: what belongs to the data, not to a model, comes with every cell."""
    first: dict[tuple, Row] = {}
    for row in rows:
        first.setdefault((row.data, row.dim, row.loss, row.seed, row.metric, row.condition), row)
    return Rows(first.values())


def dots(
    axes: Axes,
    names: Sequence[str],
    series: Mapping[str, Sequence[Dot | None]],
    *,
    chance: Sequence[float | None] = (),
    hollow: bool = False,
) -> None:
    """Groups of dots with intervals: a group a name, a dot a loss, beside each other.

    Args:
        axes: to draw in.
        names: of the groups, left to right.
        series: by loss, a dot for each group, or ``None``.
        chance: for each group the level that guessing reaches.
        hollow: another's numbers.

    Raises:
        GeomkitError: if there is nothing to draw.
    """
    from geomkit.plots.style import INK, loss_colour, loss_marker

    if not any(dot for found in series.values() for dot in found):
        raise GeomkitError("nothing to draw: expected at least one finite value")
    step = 0.7 / max(len(series), 1)
    for k, (loss, found) in enumerate(series.items()):
        shift = (k - (len(series) - 1) / 2) * step
        colour = loss_colour(loss)
        for group, dot in enumerate(found):
            if dot is None:
                continue
            x = group + shift
            if math.isfinite(dot.low):
                axes.plot([x, x], [dot.low, dot.high], color=colour, linewidth=1.0, zorder=2)
            if len(dot.each) > 1:
                axes.plot([x] * len(dot.each), dot.each, ".", color=colour, alpha=0.45, ms=2.5)
            axes.plot(
                [x],
                [dot.value],
                loss_marker(loss),
                color=colour,
                markerfacecolor="white" if hollow else colour,
                label=loss if group == 0 else None,
                zorder=3,
            )
    for group, level in enumerate(chance):
        if level is not None:
            axes.plot(
                [group - 0.42, group + 0.42],
                [level, level],
                color=INK,
                linewidth=0.8,
                linestyle=(0, (3, 2)),
                zorder=1,
            )
    axes.set_xticks(range(len(names)), names)
    axes.set_xlim(-0.6, len(names) - 0.4)


def slant(axes: Axes, degrees: float = 25.0) -> None:
    """Turn long names of groups, their ends at their ticks."""
    for label in axes.get_xticklabels():
        label.set(rotation=degrees, ha="right", rotation_mode="anchor")
