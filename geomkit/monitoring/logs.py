"""Where the numbers go: a logger of any kind, as a function of step and values."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from geomkit._core.files import atomic_write, check_target, from_home
from geomkit.errors import GeomkitError

__all__ = ["Log", "log_to"]

Log = Callable[[int, dict[str, float]], object]
"""Takes a step and numbers by name."""


def log_to(target: Any) -> Log:
    """Return the function that logs numbers to a target.

    Args:
        target: Path of a ``.csv`` file; an object with ``add_scalar`` (TensorBoard's
            SummaryWriter), ``log_metrics`` (a Lightning logger, mlflow) or ``log`` (a run of
            Weights & Biases, an Accelerator); a function of step and numbers; a list of these; or
            ``None``.

    Raises:
        GeomkitError: If it is none of these, or the file cannot be written or holds other columns.

    Example:
        >>> log_to(print)(10, {"gap/alignment": 0.5})
        10 {'gap/alignment': 0.5}
    """
    if target is None:
        return lambda step, values: None
    if isinstance(target, list | tuple):
        every = [log_to(one) for one in target]
        return lambda step, values: [log(step, values) for log in every]
    if isinstance(target, str | Path):
        return _csv(Path(from_home(target)))
    if hasattr(target, "add_scalar"):

        def add_scalars(step: int, values: Mapping[str, float]) -> None:
            for name, value in values.items():
                target.add_scalar(name, value, step)

        return add_scalars
    for method in ("log_metrics", "log"):
        if hasattr(target, method):
            return lambda step, values: getattr(target, method)(dict(values), step=step)
    if callable(target):
        return target
    raise GeomkitError(
        f"log: {type(target).__name__} is no logger; give a .csv path, a SummaryWriter, a run of "
        "Weights & Biases, or a function of step and numbers"
    )


def _csv(path: Path) -> Log:
    """One row a step; a file with a first column ``step`` is continued."""
    if path.suffix != ".csv":
        raise GeomkitError(f"log: {path} does not end in .csv")
    check_target(path, overwrite=True)
    _rows(path)

    def log(step: int, values: Mapping[str, float]) -> None:
        # Written as a whole: a number that later rows have and earlier ones lack is a new column.
        rows = [*_rows(path), {"step": step, **values}]
        text = io.StringIO(newline="")
        table = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)))
        table.writeheader()
        table.writerows(rows)
        with atomic_write(path, overwrite=True) as file:
            file.write(text.getvalue().encode())

    return log


def _rows(path: Path) -> list[dict[str, Any]]:
    if not path.exists() or not path.stat().st_size:
        return []
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        table = csv.DictReader(file)
        if (table.fieldnames or [""])[0] != "step":
            raise GeomkitError(f"log: {path} exists and its first column is not step; name another")
        return list(table)
