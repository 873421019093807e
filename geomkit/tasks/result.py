"""Results of tasks: scores with errors, as JSON and as a table."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

from geomkit.data.pairs import Bad
from geomkit.models.checkpoints.checkpoint import Checkpoint
from geomkit.tasks.scores import Scored

if TYPE_CHECKING:
    from geomkit.metrics import GapResult

__all__ = [
    "SCHEMA_VERSION",
    "ArithmeticResult",
    "Example",
    "ModelNames",
    "Part",
    "Result",
    "TaskResult",
    "model_names",
    "plain",
    "retrieval_json",
]

SCHEMA_VERSION = 1
FEW_CLASSES = "fewer than five classes"


class ModelNames(TypedDict):
    """How a result names its model."""

    model: str
    pretrained: str
    source: str


class Part(NamedTuple):
    """Score of some of the queries.

    Attributes:
        value: Mean credit.
        stderr: Standard error of the mean.
        n: Number of queries.
    """

    value: float
    stderr: float
    n: int


class _Row(NamedTuple):
    """A line of the table: a label, and one value and standard error per result."""

    label: str
    cells: Sequence[tuple[float, float]]
    reference: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Result:
    """What the result of every task holds; prints as a table.

    Attributes:
        dataset: Name of the data set as in CLIP_benchmark, or the DATA spec.
        split: Split that was evaluated.
        model: Architecture, see :func:`model_names`.
        pretrained: Weights, see :func:`model_names`.
        source: SOURCE of the model.
        bad: Images that did not decode; they are not counted.
        meta: Device, precision, sources of names and prompts, and other settings.
    """

    dataset: str
    split: str
    model: str
    pretrained: str
    source: str
    bad: tuple[Bad, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def _title(self) -> str:
        raise NotImplementedError

    @property
    def reasons(self) -> dict[str, str]:
        """Reason for each metric that is undefined."""
        return {}

    def to_json(self, *, detail: bool = False) -> dict[str, Any]:
        """Return the result as plain values.

        Args:
            detail: Whether to add the scores of each class.
        """
        raise NotImplementedError

    def _rows(self, results: Sequence[Any], detail: bool) -> Iterator[_Row | None]:
        """Lines of a table of several results; ``None`` is a rule."""
        raise NotImplementedError

    _columns: tuple[str, ...] = field(default=(), init=False, repr=False)

    def __str__(self) -> str:
        return plain([self])


@dataclass(frozen=True, kw_only=True)
class TaskResult(Result):
    """Result of :func:`geomkit.zeroshot` or :func:`geomkit.probe`.

    Attributes:
        task: ``zeroshot_classification`` or ``linear_probe``, as in CLIP_benchmark.
        scored: Scores of all classes.
        class_names: Names of the classes.
    """

    task: str
    scored: Scored
    class_names: tuple[str, ...]
    _columns = ("metric", "chance", "majority")

    @property
    def metrics(self) -> dict[str, float]:
        """``acc1``, ``acc5`` and ``mean_per_class_recall``."""
        return self.scored.metrics

    @property
    def stderr(self) -> dict[str, float]:
        """Standard errors of the metrics."""
        return self.scored.stderr

    @property
    def reasons(self) -> dict[str, str]:
        """Reason for each metric that is undefined."""
        return {name: FEW_CLASSES for name, value in self.metrics.items() if math.isnan(value)}

    def to_json(self, *, detail: bool = False) -> dict[str, Any]:
        """Return the result in CLIP_benchmark's form with further keys; NaN becomes ``None``.

        Args:
            detail: Whether to add the recall of each class and its confusions.
        """
        scored = self.scored
        metrics = _finite(scored.metrics)
        if self.task == "linear_probe":  # CLIP_benchmark's later name for the same number
            metrics |= {f"lp_{name}": value for name, value in metrics.items()}
        found: dict[str, Any] = {
            "dataset": self.dataset,
            "model": self.model,
            "pretrained": self.pretrained,
            "task": self.task,
            "metrics": metrics,
            "language": "en",
            "schema_version": SCHEMA_VERSION,
            "source": self.source,
            "split": self.split,
            "n": scored.n,
            "classes": len(self.class_names),
            "stderr": _finite(scored.stderr),
            "chance": _finite(scored.chance),
            "majority_share": scored.majority_share,
            "bad": _bad(self.bad),
            "meta": {**self.meta, "reasons": self.reasons},
        }
        if detail:
            names = self.class_names
            parts = zip(names, scored.counts, scored.recall, scored.confusion, strict=True)
            found["per_class"] = [
                {
                    "name": name,
                    "n": int(count),
                    "recall": None if math.isnan(recall) else float(recall),
                    "taken_for": {names[j]: round(float(row[j]), 6) for j in row.nonzero()[0]},
                }
                for name, count, recall, row in parts
            ]
        return found

    @property
    def _title(self) -> str:
        name = Path(self.source).name if self.source else "value"
        return f"{name} {self.split}\nn={self.scored.n:,}, {len(self.class_names)} classes"

    def _rows(self, results: Sequence[TaskResult], detail: bool) -> Iterator[_Row | None]:
        for name in self.metrics:
            majority = f"{self.scored.majority_share:.4f}" if name == "acc1" else ""
            cells = [(r.metrics[name], r.stderr[name]) for r in results]
            yield _Row(name, cells, (_number(self.scored.chance[name]), majority))
        yield None
        for i, name in enumerate(self.class_names) if detail else ():
            label = f"recall: {name} (n={self.scored.counts[i]:,})"
            yield _Row(label, [(float(r.scored.recall[i]), math.nan) for r in results])


@dataclass(frozen=True)
class Example:
    """One query and its answer.

    Attributes:
        source, wanted, retrieved: Ids of images.
        words: Word that was subtracted and word that was added.
        margin: Cosine of the query with the wanted image minus that with the nearest other one;
            positive where the answer is right.
    """

    source: str
    wanted: str
    retrieved: str
    words: tuple[str, str]
    margin: float


@dataclass(frozen=True, kw_only=True)
class ArithmeticResult(Result):
    """How often an image plus a difference of texts retrieves the image that was meant.

    Attributes:
        strength: λ, the factor of the difference of the texts.
        difference: ``words`` or ``names``: which texts are subtracted.
        metrics: ``acc1`` over all queries and ``acc1_ATTRIBUTE``; for SIMAT ``simat_score`` and
            ``simat_score_FIELD``, in percent as in its own code.
        stderr: Standard errors over the draw of emoji, or of source images.
        chance: Scores of an image chosen at random.
        counts: Number of queries behind each score.
        gallery: Number of images searched.
        per_value: Scores of the queries for each ``ATTRIBUTE: VALUE``.
        taken_for: For each attribute and value asked for, shares of the values found.
        examples: Clearest successes, then worst failures.
    """

    strength: float
    difference: str
    metrics: Mapping[str, float]
    stderr: Mapping[str, float]
    chance: Mapping[str, float]
    counts: Mapping[str, int]
    gallery: int
    per_value: Mapping[str, Part] = field(default_factory=dict)
    taken_for: Mapping[str, Mapping[str, Mapping[str, float]]] = field(default_factory=dict)
    examples: tuple[Example, ...] = ()
    _columns = ("score", "chance")

    def to_json(self, *, detail: bool = False) -> dict[str, Any]:
        """Return the result as plain values; a number that is not finite becomes ``None``."""
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
            "bad": _bad(self.bad),
            "meta": dict(self.meta),
        }

    @property
    def _title(self) -> str:
        return f"{Path(self.source).name or 'value'}\nλ={self.strength:g}"

    def _rows(self, results: Sequence[ArithmeticResult], detail: bool) -> Iterator[_Row | None]:
        for name, count in self.counts.items():
            cells = [(r.metrics[name], r.stderr[name]) for r in results]
            yield _Row(f"{name} (n={count:,})", cells, (_number(self.chance[name]),))
        yield None
        for name, part in self.per_value.items() if detail else ():
            parts = [r.per_value[name] for r in results]
            yield _Row(f"to {name} (n={part.n:,})", [(p.value, p.stderr) for p in parts])


def plain(results: Sequence[Result], *, detail: bool = False) -> str:
    """Return results side by side as text, as wide as it needs.

    Args:
        results: Results of one task on one data set and split.
        detail: Whether to add the scores of each class or value.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    first = results[0]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    label, *references = first._columns
    for i, heading in enumerate([label, *(r._title for r in results), *references]):
        table.add_column(heading, justify="right" if i else "left", no_wrap=True)
    for row in first._rows(results, detail):
        if row is None:
            table.add_section()
        else:
            table.add_row(row.label, *(_number(*cell) for cell in row.cells), *row.reference)
    out = io.StringIO()
    Console(file=out, width=200 + 40 * len(results), highlight=False).print(table)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def _number(value: float, error: float = math.nan) -> str:
    if math.isnan(value):
        return "–"
    return f"{value:.4f}" if math.isnan(error) else f"{value:.4f} ± {error:.4f}"


def _finite(values: Mapping[str, float]) -> dict[str, float | None]:
    return {key: value if math.isfinite(value) else None for key, value in values.items()}


def _bad(bad: Sequence[Bad]) -> list[dict[str, str]]:
    return [{"id": b.id, "reason": b.reason} for b in bad]


def model_names(checkpoint: Checkpoint) -> ModelNames:
    """Return the model's architecture and weights in CLIP_benchmark's terms, and its SOURCE.

    For ``open_clip:NAME/TAG`` they are NAME and TAG; for others the architecture, if it is known,
    and the SOURCE.
    """
    source, meta = checkpoint.source, checkpoint.meta
    if name := meta.get("architecture"):
        weights = source.removeprefix("open_clip:").removeprefix(f"{name}/")
        return {"model": str(name), "pretrained": weights, "source": source}
    config = meta.get("config") or {}
    name = str(config.get("model") or checkpoint.kind)
    return {"model": name, "pretrained": source, "source": source}


def retrieval_json(result: GapResult, *, model: str = "", dataset: str = "") -> dict[str, Any]:
    """Return retrieval scores in CLIP_benchmark's form, from the result of :func:`geomkit.gap`.

    Args:
        result: Result with retrieval among its metrics.
        model: Name of the architecture, if there is one.
        dataset: Name of the data set; default: the data that the result names.

    >>> from geomkit.metrics import GapResult
    >>> r = GapResult({"image_retrieval_recall@5": 0.5, "alignment": 1.0}, n=10, dim=3)
    >>> retrieval_json(r)["metrics"]
    {'image_retrieval_recall@5': 0.5}
    """
    metrics = {name: value for name, value in result.metrics.items() if "_recall@" in name}
    return {
        "dataset": dataset or str(result.meta.get("data", "")),
        "model": model,
        "pretrained": result.source,
        "task": "zeroshot_retrieval",
        "metrics": _finite(metrics),
        "language": "en",
        "schema_version": SCHEMA_VERSION,
        "split": result.split,
        "n": result.n,
        "stderr": _finite({k: v for k, v in result.stderr.items() if k in metrics}),
    }
