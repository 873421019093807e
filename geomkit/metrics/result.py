"""GapResult: what was measured, as a table, as JSON, as CSV and as a data frame."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geomkit._core.table import Table
from geomkit.metrics.registry import METRICS
from geomkit.metrics.wording import verdict

if TYPE_CHECKING:
    import numpy as np
    import pandas

__all__ = ["SCHEMA_VERSION", "GapResult", "GapResults", "table", "to_csv", "to_json"]

SCHEMA_VERSION = 1
_ABOUT = ("stderr", "null", "ideal", "p_value")
"""Fields that hold a number about a metric, by its name."""


@dataclass(frozen=True)
class GapResult:
    """What :func:`geomkit.gap` measured; prints as a table, here and in a notebook.

    Attributes:
        metrics: Value by name; NaN where undefined, with the reason in ``meta["reasons"]``.
        n: Number of pairs, or of rows of the first cloud where ``meta["paired"]`` is false.
        dim: Dimension of the image embeddings.
        modalities: Names of the two modalities, or of the one cloud there is.
        source: Where the rows came from.
        split: Split of the data, if known.
        exact: Whether every value is exact.
        estimated: Names of the metrics that are estimates.
        stderr: Standard errors over the draw of the pairs.
        null: Value without a gap, or without pairing, on these very rows.
        ideal: Value for coinciding pairs spread over the whole sphere, as n → ∞.
        p_value: One-sided p-value against the null.
        parts: What each pair adds to each metric, if it was asked for; not in JSON.
        meta: Random seed, folds, caption index, norms found, and whatever the source knows.

    ``stderr``, ``null``, ``ideal`` and ``p_value`` hold only names that have one.

    Example:
        >>> import numpy as np
        >>> from geomkit import gap
        >>> result = gap(np.eye(4), np.eye(4)[::-1], metrics=["alignment"])
        >>> result.metrics["alignment"], result.ideal["alignment"]
        (2.0, 0.0)
    """

    metrics: Mapping[str, float]
    n: int
    dim: int
    modalities: tuple[str, ...] = ("image", "text")
    source: str = ""
    split: str | None = None
    exact: bool = True
    estimated: tuple[str, ...] = ()
    stderr: Mapping[str, float] = field(default_factory=dict)
    null: Mapping[str, float] = field(default_factory=dict)
    ideal: Mapping[str, float] = field(default_factory=dict)
    p_value: Mapping[str, float] = field(default_factory=dict)
    parts: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False, compare=False)
    meta: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain JSON types, with ``None`` for non-finite numbers.

        >>> GapResult({"alignment": float("nan")}, n=2, dim=3).to_dict()["metrics"]
        {'alignment': None}
        """
        return {
            "source": self.source,
            "split": self.split,
            "modalities": list(self.modalities),
            "n": self.n,
            "dim": self.dim,
            "exact": self.exact,
            "estimated": list(self.estimated),
            **{key: _finite(getattr(self, key)) for key in ("metrics", *_ABOUT)},
            "meta": dict(self.meta),
        }

    def to_json(self) -> dict[str, Any]:
        """Return :meth:`to_dict`: the earlier name, which is kept. ``json.dumps`` makes it text."""
        return self.to_dict()

    def to_frame(self) -> pandas.DataFrame:
        """Return a data frame, one row per metric: value, stderr, null, ideal, p_value, estimated.

        >>> import numpy as np
        >>> from geomkit import gap
        >>> float(gap(np.eye(4), np.eye(4)[::-1]).to_frame().loc["alignment", "value"])
        2.0
        """
        import pandas

        index = pandas.Index(list(self.metrics), name="metric")
        rows = [{**self._numbers(name), "estimated": name in self.estimated} for name in index]
        return pandas.DataFrame(rows, index=index)

    def _numbers(self, name: str) -> dict[str, float]:
        about = {key: getattr(self, key).get(name, math.nan) for key in _ABOUT}
        return {"value": self.metrics.get(name, math.nan), **about}

    def __str__(self) -> str:
        """Return the table as text."""
        return table([self]).plain()

    def _repr_html_(self) -> str:
        return f"<p>{escape(verdict(self))}</p>{table([self]).html()}"


class GapResults(tuple[GapResult, ...]):
    """Results of every pair of several modalities; prints as one table.

    >>> results = GapResults([GapResult({"alignment": 1.0}, n=2, dim=3)] * 2)
    >>> len(results), results.to_dict()["schema_version"]
    (2, 1)
    """

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the object that ``geomkit gap --json`` prints."""
        return to_json(self)

    def __str__(self) -> str:
        """Return the table as text."""
        return table(self).plain()

    def _repr_html_(self) -> str:
        return table(self).html()


def _finite(values: Mapping[str, float]) -> dict[str, float | None]:
    return {key: value if math.isfinite(value) else None for key, value in values.items()}


def to_json(results: Iterable[GapResult]) -> dict[str, Any]:
    """Return results as the object that ``geomkit gap --json`` prints.

    >>> to_json([GapResult({"alignment": 1.0}, n=2, dim=3)])["schema_version"]
    1
    """
    return {"schema_version": SCHEMA_VERSION, "results": [r.to_dict() for r in results]}


def to_csv(results: Iterable[GapResult]) -> str:
    """Return results as CSV, one line per result and metric.

    >>> print(to_csv([GapResult({"alignment": 1.0}, n=2, dim=3)]), end="")
    source,split,modalities,n,dim,metric,value,stderr,null,ideal,p_value,estimated
    ,,image text,2,3,alignment,1.0,,,,,0
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    start = ("source", "split", "modalities", "n", "dim", "metric")
    writer.writerow([*start, "value", *_ABOUT, "estimated"])
    for r in results:
        for name in r.metrics:
            numbers = [repr(v) if math.isfinite(v) else "" for v in r._numbers(name).values()]
            own = [r.source, r.split or "", " ".join(r.modalities), r.n, r.dim, name]
            writer.writerow([*own, *numbers, int(name in r.estimated)])
    return out.getvalue()


def table(results: Sequence[GapResult]) -> Table:
    """Return results side by side as a table.

    One result is shown with its null, ideal and p-value; several with value and error each.

    Args:
        results: Results in the order of their columns.

    Example:
        >>> result = GapResult({"alignment": 1.0}, n=2, dim=3, source="e.npz")
        >>> table([result, result]).plain().splitlines()[0].split()
        ['e.npz', 'e.npz']
    """
    alone = results[0] if len(results) == 1 else None
    headings = ["metric", *map(_title, results), *(("null", "ideal", "p") if alone else ())]
    dims = {r.dim for r in results}
    rows = []
    names = (name for r in results for name in r.metrics if not _without_pairs(r, name))
    for name in dict.fromkeys(names):
        row = [name, *(_value(r, name) for r in results)]
        if alone:
            numbers = alone._numbers(name)
            row += [_number(numbers["null"]), _number(numbers["ideal"]), _p(numbers["p_value"])]
        rows.append((METRICS[name].group, [*row, METRICS[name].interpretation(dims)]))
    sections = [[row for _, row in group] for _, group in groupby(rows, key=lambda row: row[0])]
    optional = ("interpretation", *(("ideal", "null", "p") if alone else ()))
    return Table([*headings, "interpretation"], sections, True, optional, exchanged=True)


def _without_pairs(r: GapResult, name: str) -> bool:
    """Whether a metric has no value because there are no pairs."""
    return not r.meta.get("paired", True) and math.isnan(r.metrics[name])


def _title(r: GapResult) -> str:
    texts = f", {r.meta['texts']:,} texts" if r.meta.get("texts", r.n) != r.n else ""
    pair = "" if r.modalities == ("image", "text") else f" {'–'.join(r.modalities)}"
    name = Path(r.source).name if r.source else "value"
    split = f" {r.split}" if r.split else ""
    kinds = set(r.meta.get("quantized", {}).values())
    kinds |= {"bf16"} & {r.meta.get("precision")}
    kinds |= {"closed"} if r.meta.get("closed_by") else set()
    stored = "".join(f", {kind}" for kind in sorted(kinds))
    return f"{name}{split}{pair}\nn={r.n:,}{texts}, d={r.dim}{stored}"


def _number(value: float) -> str:
    """A number to four decimals, a whole one without."""
    if math.isnan(value):
        return ""
    if value == int(value) and (abs(value) >= 2 or value == 0):
        return f"{value:.0f}"
    return f"{value:.4f}".replace("-0.0000", "0.0000")


def _p(value: float) -> str:
    if math.isnan(value):
        return ""
    return f"{value:.3f}" if value >= 0.001 else "<0.001"


def _value(r: GapResult, name: str) -> str:
    numbers = r._numbers(name)
    value, error = numbers["value"], numbers["stderr"]
    if math.isnan(value):
        return "–"
    sign = "~" if name in r.estimated else ""
    return f"{sign}{_number(value)}" if math.isnan(error) else f"{sign}{value:.4f} ± {error:.4f}"
