"""What multimodal arithmetic came to: scores with errors, as JSON and as a table."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from geomkit.data.pairs import Bad

__all__ = ["SCHEMA_VERSION", "ArithmeticResult", "Example", "Part", "plain"]

SCHEMA_VERSION = 1


class Part(NamedTuple):
    """The score of some of the queries.

    Attributes:
        value: mean credit.
        stderr: its standard error.
        n: how many queries.
    """

    value: float
    stderr: float
    n: int


@dataclass(frozen=True)
class Example:
    """One query and its answer.

    Attributes:
        source, wanted, retrieved: ids of pictures.
        words: what was taken away and what was added.
        margin: cosine of the query with the wanted picture minus that with the nearest other one:
            positive where the answer is right.
    """

    source: str
    wanted: str
    retrieved: str
    words: tuple[str, str]
    margin: float


@dataclass(frozen=True)
class ArithmeticResult:
    """How often a picture moved by words lands on the picture that was meant.

    Attributes:
        dataset: the DATA spec.
        split: whose queries these are.
        strength: λ, by which the difference of the texts is multiplied.
        difference: ``words`` or ``names``, whose difference was added.
        metrics: ``acc1`` over all queries and ``acc1_ATTRIBUTE``; of SIMAT ``simat_score`` and
            ``simat_score_FIELD``, in percent as its own code gives them.
        stderr: their standard errors over the draw of emoji, or of source pictures.
        chance: what a picture chosen at random would score.
        counts: queries behind each.
        per_value: by ``ATTRIBUTE: VALUE``, the scores of the queries that ask for it.
        taken_for: by attribute, what was found when a value was asked for, as shares.
        examples: clearest successes, then worst failures.
        gallery: pictures searched.
        model, pretrained: what CLIP_benchmark calls architecture and weights.
        source: SOURCE of the model.
        bad: pictures that do not decode.
        meta: how the numbers came about.
    """

    dataset: str
    split: str
    strength: float
    difference: str
    metrics: Mapping[str, float]
    stderr: Mapping[str, float]
    chance: Mapping[str, float]
    counts: Mapping[str, int]
    gallery: int
    model: str
    pretrained: str
    source: str
    per_value: Mapping[str, Part] = field(default_factory=dict)
    taken_for: Mapping[str, Mapping[str, Mapping[str, float]]] = field(default_factory=dict)
    examples: tuple[Example, ...] = ()
    bad: tuple[Bad, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The result as plain values; what is not finite becomes ``None``."""
        return {
            "schema_version": SCHEMA_VERSION,
            "task": "multimodal_arithmetic",
            "dataset": self.dataset,
            "split": self.split,
            "model": self.model,
            "pretrained": self.pretrained,
            "source": self.source,
            "lambda": self.strength,
            "difference": self.difference,
            "gallery": self.gallery,
            "n": dict(self.counts),
            "metrics": _finite(self.metrics),
            "stderr": _finite(self.stderr),
            "chance": _finite(self.chance),
            "per_value": {
                name: {**_finite({"value": part.value, "stderr": part.stderr}), "n": part.n}
                for name, part in self.per_value.items()
            },
            "taken_for": {
                name: {wanted: _finite(found) for wanted, found in table.items()}
                for name, table in self.taken_for.items()
            },
            "examples": [
                {**e.__dict__, "words": list(e.words), "margin": round(e.margin, 6)}
                for e in self.examples
            ],
            "bad": [{"id": b.id, "reason": b.reason} for b in self.bad],
            "meta": dict(self.meta),
        }

    def __str__(self) -> str:
        return plain([self])


def _finite(values: Mapping[str, float]) -> dict[str, float | None]:
    return {key: value if math.isfinite(value) else None for key, value in values.items()}


def plain(results: Sequence[ArithmeticResult], *, per_value: bool = False) -> str:
    """Results side by side as text, as wide as it needs.

    Args:
        results: of one data set, split and difference.
        per_value: with the scores of each value that was asked for.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    first = results[0]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    titles = [f"{Path(r.source).name or 'value'}\nλ={r.strength:g}" for r in results]
    for i, heading in enumerate(["score", *titles, "chance"]):
        table.add_column(heading, justify="right" if i else "left", no_wrap=True)
    for name in first.metrics:
        cells = [_number(r.metrics[name], r.stderr[name]) for r in results]
        label = f"{name} (n={first.counts[name]:,})"
        table.add_row(label, *cells, _number(first.chance[name]))
    if per_value:
        table.add_section()
        for name, part in first.per_value.items():
            parts = [r.per_value[name] for r in results]
            cells = [_number(p.value, p.stderr) for p in parts]
            table.add_row(f"to {name} (n={part.n:,})", *cells, "")
    out = io.StringIO()
    Console(file=out, width=200 + 40 * len(results), highlight=False).print(table)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def _number(value: float, error: float = math.nan) -> str:
    if math.isnan(value):
        return "–"
    return f"{value:.4f}" if math.isnan(error) else f"{value:.4f} ± {error:.4f}"
