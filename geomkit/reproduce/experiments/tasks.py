"""What the experiments on tasks share: a cell's model, parts that are kept, dots with intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from geomkit.data import parse_spec, with_options
from geomkit.reproduce.framework.experiment import Cell, Context, Options
from geomkit.reproduce.framework.results import Row, Rows, read_rows, write_rows

if TYPE_CHECKING:
    from geomkit.models.checkpoints import Checkpoint

__all__ = [
    "cell_model",
    "distinct",
    "kept",
    "openmoji_with",
    "running_on",
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
