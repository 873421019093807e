"""Results as tidy rows, one number per row: in memory, as CSV, and the published ones."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geomkit._core.files import atomic_write, refusing
from geomkit._core.shown import shown
from geomkit.errors import GeomkitError

if TYPE_CHECKING:
    from geomkit.training.config import TrainConfig

__all__ = ["Row", "Rows", "data_rows", "published", "read_rows", "rows_of", "with_uniformity",
           "write_rows"]  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One measured number.

    Attributes:
        experiment: Name of the experiment.
        data: DATA spec and split, as ``openmoji val``.
        dim: Dimension of the embeddings; 0 where it does not apply.
        loss: Preset or weighted sum of loss terms.
        seed: Random seed of the training; −1 where there was none.
        metric: Key of :data:`geomkit.metrics.METRICS`, or a name that the experiment explains.
        value: The number.
        stderr: Standard error over pairs; NaN where unknown.
        condition: What else sets the run apart: ``key=value`` joined by ``;``, keys sorted.
    """

    experiment: str
    data: str
    dim: int
    loss: str
    seed: int
    metric: str
    value: float
    stderr: float = math.nan
    condition: str = ""

    @property
    def split(self) -> str:
        """Split of the data, the last word of ``data``."""
        return self.data.rpartition(" ")[2]

    @property
    def conditions(self) -> dict[str, str]:
        """Conditions by key.

        Example:
            >>> Row("e", "d", 3, "clip", 0, "m", 1.0, condition="step=9;tau=0.1").conditions["step"]
            '9'
        """
        pairs = (word.partition("=") for word in self.condition.split(";") if word)
        return {key: value for key, _, value in pairs}

    @property
    def setting(self) -> Row:
        """The row without seed and number; rows that differ in their seeds alone share it."""
        return replace(self, value=0.0, stderr=0.0, seed=0)

    def get(self, name: str) -> Any:
        """Value of a field, the split, or a condition as text; ``None`` without that condition."""
        return getattr(self, name) if name in _NAMES else self.conditions.get(name)


_COLUMNS = tuple(field.name for field in fields(Row))
_NAMES = {*_COLUMNS, "split"}


class Rows(list[Row]):
    """List of rows with selection and grouping.

    Example:
        >>> rows = Rows(Row("e", "d", 3, loss, 0, "m", 1.0) for loss in ("clip", "cua"))
        >>> [row.loss for row in rows.where(loss="cua")]
        ['cua']
    """

    def where(self, test: Callable[[Row], bool] | None = None, /, **equal: Any) -> Rows:
        """Rows that have the given values and pass the test.

        Args:
            test: Condition on a row.
            equal: Values of fields, of ``split``, or of conditions (compared as text). A tuple,
                list or set means any of its members.
        """
        wanted: dict[str, Any] = {}
        for key, value in equal.items():
            wanted[key] = value if isinstance(value, (tuple, list, set)) else (value,)
            if key not in _NAMES:
                wanted[key] = [None if one is None else str(one) for one in wanted[key]]
        return Rows(
            row
            for row in self
            if all(row.get(key) in options for key, options in wanted.items())
            and (test is None or test(row))
        )

    def values(self, name: str) -> list[Any]:
        """Different values of a field, of ``split`` or of a condition, in order of appearance."""
        return list(dict.fromkeys(row.get(name) for row in self))

    def by(self, *names: str) -> dict[tuple[Any, ...], Rows]:
        """Rows grouped by their values of these fields, in order of appearance.

        Example:
            >>> rows = Rows(Row("e", "d", dim, "clip", 0, "m", 1.0) for dim in (3, 8, 3))
            >>> {key: len(found) for key, found in rows.by("dim").items()}
            {(3,): 2, (8,): 1}
        """
        groups: dict[tuple[Any, ...], Rows] = {}
        for row in self:
            groups.setdefault(tuple(row.get(name) for name in names), Rows()).append(row)
        return groups

    def mean(self) -> tuple[float, float]:
        """Mean of the values and of their standard errors.

        Numbers that share their pairs may go up and down together: the error of their mean is at
        most the mean of their errors.
        """
        count = len(self)
        return sum(row.value for row in self) / count, sum(row.stderr for row in self) / count

    def one(self, **equal: Any) -> Row:
        """The only row with these values.

        Raises:
            GeomkitError: If there is none, or more than one.
        """
        found = self.where(**equal)
        if len(found) != 1:
            raise GeomkitError(f"results: {len(found)} rows with {equal}, expected one")
        return found[0]


def rows_of(
    experiment: str,
    config: TrainConfig,
    split: str,
    metrics: Mapping[str, float],
    stderr: Mapping[str, float] | None = None,
    condition: str = "",
) -> Rows:
    """Metrics of one training as rows.

    Args:
        experiment: Name of the experiment.
        config: Configuration of the training.
        split: Split that was measured.
        metrics: Values by name.
        stderr: Standard errors by name, where known.
        condition: Condition of the rows.
    """
    errors = stderr or {}
    return Rows(
        Row(experiment, f"{config.data} {split}", config.dim, config.loss, config.seed, name,
            value, errors.get(name, math.nan), condition)
        for name, value in metrics.items()
    )  # fmt: skip


def data_rows(
    experiment: str, config: TrainConfig, split: str, numbers: Mapping[str, float], condition: str
) -> Rows:
    """Numbers of the data alone as rows: they depend on no model.

    Arguments are those of :func:`rows_of`.
    """
    return Rows(
        replace(row, dim=0, loss="", seed=-1)
        for row in rows_of(experiment, config, split, numbers, condition=condition)
    )


def write_rows(path: Path, rows: Iterable[Row], *, overwrite: bool = False) -> None:
    """Write rows as CSV, atomically: numbers with all digits, NaN as an empty cell.

    Args:
        path: File to write.
        rows: Rows in order.
        overwrite: Whether to replace an existing file.

    Raises:
        GeomkitError: If the file exists and ``overwrite`` is not given, or cannot be written.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        numbers = {"value": float(row.value), "stderr": float(row.stderr)}
        cells = {k: "" if math.isnan(v) else repr(v) for k, v in numbers.items()}
        writer.writerow({**vars(row), **cells})
    with atomic_write(path, overwrite=overwrite) as file:
        file.write(shown(text.getvalue()).encode())


def read_rows(path: str | Path) -> Rows:
    """Read rows that :func:`write_rows` wrote.

    Args:
        path: CSV file; the column ``condition`` may be absent.

    Raises:
        GeomkitError: If the file is missing, lacks a column, a cell is missing or not a number, or
            two rows are of one measurement.
    """
    with refusing(OSError, UnicodeDecodeError, csv.Error, says=f"{path}: cannot be read"):
        reader = csv.DictReader(io.StringIO(Path(path).read_text("utf-8"), newline=""))
        lines = list(reader)
    missing = [c for c in _COLUMNS[:-1] if c not in (reader.fieldnames or ())]
    if missing:
        raise GeomkitError(f"{path}: no column {missing[0]}; expected {', '.join(_COLUMNS)}")
    rows = Rows()
    measured: dict[Row, int] = {}
    for number, line in enumerate(lines, start=2):
        with refusing(TypeError, ValueError, says=f"{path}: line {number}: not as expected"):
            if None in line or None in line.values():
                raise ValueError("another number of cells than the header")
            rows.append(row := _row(line))
        first = measured.setdefault(replace(row, value=0.0, stderr=0.0), number)
        if first != number:
            raise GeomkitError(f"{path}: line {number}: measured in line {first} already")
    return rows


def _row(cells: Mapping[str, str]) -> Row:
    return Row(
        shown(cells["experiment"]), shown(cells["data"]), int(cells["dim"]), shown(cells["loss"]),
        int(cells["seed"]), shown(cells["metric"]), float(cells["value"] or "nan"),
        float(cells["stderr"] or "nan"), shown(cells.get("condition") or ""),
    )  # fmt: skip


def published(experiment: str | None = None) -> Rows:
    """The paper's numbers, from its repository (abrar-fahim/contrastive-gap, figures only).

    A row with seed −1 is a mean over the paper's seeds; its ``stderr`` is the population standard
    deviation over them. Other rows have no error. A metric's name may say when it was measured
    (``…_epoch12``, ``…_start``).

    Args:
        experiment: Name of a published experiment; default: all.

    Example:
        >>> rows = published("coco-finetune").where(dim=128, loss="cua")
        >>> rows.one(metric="centroid_distance").seed
        -1
    """
    text = resources.files("geomkit.reproduce").joinpath("published_results.csv").read_text("utf-8")
    rows = Rows()
    for line in csv.DictReader(text.splitlines()):
        seed = line["seed"] if line["seed"].isdecimal() else "-1"
        rows.append(_row({**line, "data": line["dataset"], "seed": seed, "stderr": line["std"]}))
    return rows if experiment is None else rows.where(experiment=experiment)


def with_uniformity(rows: Rows) -> Rows:
    """Return the rows, and the mean uniformity of runs that have it only by modality."""
    have = {_run(row) for row in rows.where(metric="uniformity")}
    texts = {_run(row): row.value for row in rows.where(metric="uniformity_text")}
    more = [
        replace(row, metric="uniformity", value=(row.value + texts[run]) / 2, stderr=math.nan)
        for row in rows.where(metric="uniformity_image")
        if (run := _run(row)) in texts and run not in have
    ]
    return Rows([*rows, *more])


def _run(row: Row) -> tuple:
    return row.data, row.dim, row.loss, row.seed, row.condition
