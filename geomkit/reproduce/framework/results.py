"""Results as tidy rows: one number a row, in memory, as CSV, and back."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any

from geomkit._core.files import atomic_write
from geomkit.errors import GeomkitError

__all__ = ["Row", "Rows", "published", "read_rows", "write_rows"]


@dataclass(frozen=True)
class Row:
    """One measured number.

    Attributes:
        experiment: its name.
        data: DATA spec and split, as ``openmoji val``.
        dim: of the embeddings; 0 where it does not apply.
        loss: preset or sum.
        seed: of the training; -1 where there was none.
        condition: what else sets the run apart, ``key=value`` joined by ``;``, keys sorted.
        metric: a key of :data:`geomkit.metrics.METRICS`, or a name the experiment explains.
        value: the number.
        stderr: its standard error over pairs, NaN where unknown.
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
        """The condition taken apart.

        >>> Row("e", "d", 3, "clip", 0, "m", 1.0, condition="step=100;tau=0.1").conditions["step"]
        '100'
        """
        pairs = (word.partition("=") for word in self.condition.split(";") if word)
        return {key: value for key, _, value in pairs}


_NAMES = {"split", *(field.name for field in fields(Row))}


class Rows(list[Row]):
    """Rows that can be chosen from.

    >>> rows = Rows([Row("e", "d", 3, "clip", 0, "m", 1.0), Row("e", "d", 3, "cua", 0, "m", 2.0)])
    >>> [row.value for row in rows.where(loss="cua")]
    [2.0]
    """

    def where(self, test: Callable[[Row], bool] | None = None, /, **equal: Any) -> Rows:
        """Rows whose fields (or conditions) are as given and that pass the test.

        A key that is no field of :class:`Row` is a condition's, compared as text; a tuple or list
        means any of its members.
        """

        def fits(row: Row) -> bool:
            for key, wanted in equal.items():
                found = getattr(row, key) if key in _NAMES else row.conditions.get(key)
                options = wanted if isinstance(wanted, (tuple, list, set)) else (wanted,)
                if key not in _NAMES:
                    options = [None if option is None else str(option) for option in options]
                if found not in options:
                    return False
            return test is None or test(row)

        return Rows(row for row in self if fits(row))

    def values(self, name: str) -> list[Any]:
        """The different values of a field (or condition), in order of appearance."""
        found = (getattr(r, name) if name in _NAMES else r.conditions.get(name) for r in self)
        return list(dict.fromkeys(found))

    def one(self, **equal: Any) -> Row:
        """The only row that fits.

        Raises:
            GeomkitError: if there is none, or more than one.
        """
        found = self.where(**equal)
        if len(found) != 1:
            raise GeomkitError(f"results: {len(found)} rows with {equal}, expected one")
        return found[0]


_COLUMNS = ("experiment", "data", "dim", "loss", "seed", "metric", "value", "stderr", "condition")


def write_rows(path: Path, rows: Iterable[Row], *, overwrite: bool = False) -> None:
    """Write tidy CSV, atomically; numbers with all their digits, an unknown error as nothing."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for row in rows:
        values = dict(zip([f.name for f in fields(Row)], astuple(row), strict=True))
        for key in ("value", "stderr"):
            values[key] = "" if math.isnan(values[key]) else repr(float(values[key]))
        writer.writerow([values[column] for column in _COLUMNS])
    with atomic_write(path, overwrite=overwrite) as file:
        file.write(text.getvalue().encode())


def read_rows(path: str | Path) -> Rows:
    """Read what :func:`write_rows` wrote.

    Raises:
        GeomkitError: if the file is missing or its columns are others.
    """
    path = Path(path)
    try:
        lines = list(io.StringIO(path.read_text("utf-8"), newline=""))
    except (OSError, UnicodeDecodeError) as error:
        raise GeomkitError(f"{path}: cannot be read ({error})") from None
    return _parse(lines, path)


def _parse(lines: Sequence[str], path: Path) -> Rows:
    reader = csv.DictReader(lines)
    missing = [c for c in _COLUMNS[:-1] if c not in (reader.fieldnames or ())]
    if missing:
        raise GeomkitError(f"{path}: no column {missing[0]}; expected {', '.join(_COLUMNS)}")
    rows = Rows()
    for number, line in enumerate(reader, start=2):
        try:
            rows.append(
                Row(
                    line["experiment"],
                    line["data"],
                    int(line["dim"]),
                    line["loss"],
                    int(line["seed"]),
                    line["metric"],
                    float(line["value"] or "nan"),
                    float(line["stderr"] or "nan"),
                    line.get("condition") or "",
                )
            )
        except (TypeError, ValueError) as error:
            raise GeomkitError(f"{path}: line {number}: {error}") from None
    return rows


def published(experiment: str | None = None) -> Rows:
    """The paper's numbers, from its repository (abrar-fahim/contrastive-gap, figures only).

    ``stderr`` holds the population standard deviation over the paper's seeds where it is a mean
    over them (seed -1), NaN elsewhere. A metric's name may say when (``…_epoch12``, ``…_start``).

    >>> published("coco-finetune").where(dim=128, loss="cua").one(metric="centroid_distance").seed
    -1
    """
    text = resources.files("geomkit.reproduce").joinpath("published_results.csv").read_text("utf-8")
    rows = Rows()
    for line in csv.DictReader(text.splitlines()):
        seed = line["seed"].strip()
        rows.append(
            Row(
                line["experiment"],
                line["dataset"],
                int(line["dim"]) if line["dim"].strip().isdigit() else 0,
                line["loss"],
                int(seed) if seed.lstrip("-").isdigit() else -1,
                line["metric"],
                float(line["value"]),
                float(line["std"]) if line["std"].strip() else math.nan,
            )
        )
    return rows if experiment is None else rows.where(experiment=experiment)
