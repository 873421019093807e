"""What experiments share while they measure: metrics as rows, models of cells, and kept parts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from geomkit.data import parse_spec, with_options
from geomkit.reproduce.framework.experiment import Cell, Context, Options
from geomkit.reproduce.framework.results import Row, Rows, read_rows, rows_of, write_rows

if TYPE_CHECKING:
    from geomkit.models.checkpoints import Checkpoint

__all__ = [
    "cell_model", "distinct", "each_cell", "kept", "measured", "openmoji_with", "running_on",
]  # fmt: skip


def openmoji_with(options: Options, **wanted: object) -> str:
    """DATA spec of the run; for OpenMoji with these options, where ``None`` means the default."""
    name, _, given = parse_spec(options.data)
    return with_options("openmoji", **{**given, **wanted}) if name == "openmoji" else options.data


def cell_model(context: Context, cell: Cell) -> Checkpoint:
    """Trained model of a cell."""
    return context.checkpoint(cell).opened(cell.label)


def running_on(options: Options) -> dict[str, Any]:
    """Arguments for the resolved device and precision."""
    from geomkit._core.runtime import resolve_device, resolve_precision

    device = resolve_device(options.device)
    return {"device": device, "precision": resolve_precision("auto", device)}


def kept(context: Context, name: str, make: Callable[[], Rows]) -> Rows:
    """Rows under a name, made once and kept if the run is interrupted."""
    path = context.folder / "work" / f"{name}.csv"
    if path.exists():
        return read_rows(path)
    rows = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_rows(path, rows, overwrite=True)
    return rows


def each_cell(
    cells: Callable[[Options], list[Cell]], of_cell: Callable[[Cell, Context], Rows]
) -> Callable[[Context], Rows]:
    """Measurement of an experiment whose rows are of one cell each."""

    def measure(context: Context) -> Rows:
        found = dict.fromkeys(cells(context.options))
        return distinct(row for cell in found for row in of_cell(cell, context))

    return measure


def distinct(rows: Iterable[Row]) -> Rows:
    """First row of each number; numbers of the data alone are measured with every cell."""
    first: dict[tuple, Row] = {}
    for row in rows:
        first.setdefault((row.data, row.dim, row.loss, row.seed, row.metric, row.condition), row)
    return Rows(first.values())


def measured(
    experiment: str, cell: Cell, context: Context, *, metrics: Iterable[str], condition: str = ""
) -> Rows:
    """Metrics of a trained cell on held-out pairs with standard errors, one row per metric."""
    from geomkit.metrics import gap

    c = cell.config
    result = gap(context.embeddings(cell, "val"), metrics=list(metrics), seed=c.seed)
    return rows_of(experiment, c, "val", result.metrics, result.stderr, condition)
