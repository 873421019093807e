"""Results of tasks: scores with errors, as JSON and as a table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

import numpy as np

from geomkit._core.table import Table
from geomkit.data.labelled.classes import ClassData
from geomkit.data.pairs import Bad, LeftOut
from geomkit.models.checkpoints.checkpoint import Checkpoint
from geomkit.tasks.features import Runner
from geomkit.tasks.scores import Scored, score

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
    "class_result",
    "in_columns",
    "model_names",
    "retrieval_json",
    "table",
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
    def reasons(self) -> dict[str, str]:
        """Reason for each metric that is undefined."""
        return {}

    def to_json(self, *, detail: bool = False) -> dict[str, Any]:
        """Return the result as plain values.

        Args:
            detail: Whether to add the scores of each class.
        """
        raise NotImplementedError

    def _named(self, *names: str) -> dict[str, Any]:
        return {name: getattr(self, name) for name in names}

    def _table(self, results: Sequence[Any], detail: bool) -> Table:
        """Table of several results of this kind, of which this is the first."""
        raise NotImplementedError

    def __str__(self) -> str:
        return table([self]).plain()


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
            **self._named("dataset", "model", "pretrained", "task"),
            "metrics": metrics,
            "language": "en",
            "schema_version": SCHEMA_VERSION,
            **self._named("source", "split"),
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

    def _table(self, results: Sequence[TaskResult], detail: bool) -> Table:
        titles = [
            f"{Path(r.source).name or 'value'} {r.split}\nn={r.scored.n:,}, "
            f"{len(r.class_names)} classes"
            for r in results
        ]
        majority = {"acc1": f"{self.scored.majority_share:.4f}"}
        scores = []
        for name, chance in self.scored.chance.items():
            numbers = [_number(r.metrics[name], r.stderr[name]) for r in results]
            scores.append([name, *numbers, _number(chance), majority.get(name, "")])
        recalls = []
        for i, name in enumerate(self.class_names):
            numbers = [_number(r.scored.recall[i]) for r in results]
            recalls.append([f"recall: {name} (n={self.scored.counts[i]:,})", *numbers, "", ""])
        sections = [scores, recalls if detail else []]
        headings = ["metric", *titles, "chance", "majority"]
        return Table(headings, sections, optional=("majority", "chance"), exchanged=True)


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
        metrics: ``acc1`` over all queries, ``mean_per_relation_acc1``, in which every relation
            counts alike, and ``acc1_RELATION``; for SIMAT ``simat_score`` and
            ``simat_score_FIELD``, in percent as in its own code.
        stderr: Standard errors over the draw of emoji, or of source images.
        chance: Scores of an image chosen at random.
        counts: Number of queries behind each score.
        gallery: Number of images searched.
        per_value: Scores of the queries for each ``RELATION: VALUE``.
        taken_for: For each relation and value asked for, shares of the values found.
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

    def to_json(self, *, detail: bool = False) -> dict[str, Any]:
        """Return the result as plain values; a number that is not finite becomes ``None``."""
        return {
            "schema_version": SCHEMA_VERSION,
            "task": "multimodal_arithmetic",
            **self._named("dataset", "split", "model", "pretrained", "source"),
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

    def _table(self, results: Sequence[ArithmeticResult], detail: bool) -> Table:
        titles = [f"{Path(r.source).name or 'value'}\nλ={r.strength:g}" for r in results]
        scores = []
        for name, count in self.counts.items():
            numbers = [_number(r.metrics[name], r.stderr[name]) for r in results]
            scores.append([f"{name} (n={count:,})", *numbers, _number(self.chance[name])])
        values = [
            [f"to {name} (n={part.n:,})", *(_number(*r.per_value[name][:2]) for r in results), ""]
            for name, part in self.per_value.items()
        ]
        sections = [scores, values if detail else []]
        return Table(["score", *titles, "chance"], sections, optional=("chance",), exchanged=True)


def table(results: Sequence[Result], *, detail: bool = False) -> Table:
    """Return results side by side as a table.

    Args:
        results: Results of one task on one data set and split.
        detail: Whether to add the scores of each class or value.
    """
    return results[0]._table(results, detail)


def _number(value: float, error: float = math.nan) -> str:
    if math.isnan(value):
        return "–"
    return f"{value:.4f}" if math.isnan(error) else f"{value:.4f} ± {error:.4f}"


def _finite(values: Mapping[str, float]) -> dict[str, float | None]:
    return {key: value if math.isfinite(value) else None for key, value in values.items()}


def _bad(bad: Sequence[Bad]) -> list[dict[str, str]]:
    return [{"id": b.id, "reason": b.reason} for b in bad]


def class_result(
    task: str,
    on: Runner,
    classes: ClassData,
    blocks: Iterable[tuple[np.ndarray, np.ndarray]],
    kept: np.ndarray,
    bad: tuple[Bad, ...],
    **meta: Any,
) -> TaskResult:
    """Return the result of a classification.

    Args:
        task: Name of the task.
        on: The model.
        classes: Images that were classified.
        blocks: Scores and labels of blocks of images, as :func:`~geomkit.tasks.scores.score`.
        kept: Rows of the images that decoded, in the order of the blocks.
        bad: Images that did not decode.
        meta: Settings of the task.
    """
    data = classes.data
    absent = [classes.class_names[i] for i in np.flatnonzero(classes.counts == 0)]
    lacking = LeftOut.of(f"classes without an image in {data.split}", absent)
    account = data.with_note("; ".join(map(str, lacking))).account()
    groups = None if classes.groups is None else classes.groups[kept]
    if groups is not None:
        meta["error_groups"] = len(np.unique(groups))
    return TaskResult(
        task=task,
        scored=score(blocks, len(classes.class_names), groups),
        class_names=classes.class_names,
        dataset=classes.dataset,
        split=data.split,
        **model_names(on.checkpoint),
        bad=bad,
        meta={
            "data": data.spec,
            "data_source": data.source,
            "licence": data.licence,
            "attribution": data.attribution,
            **account,
            **meta,
            "device": on.device,
            "precision": on.precision,
            "notes": on.checkpoint.notes,
        },
    )


def in_columns(parts: Mapping[str, Part]) -> dict[str, Any]:
    """Return scores by name as the mappings of a result: ``metrics``, ``stderr`` and ``counts``."""
    columns = ("metrics", "stderr", "counts")
    return {c: {name: part[i] for name, part in parts.items()} for i, c in enumerate(columns)}


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
    names = ("image_retrieval_recall@", "text_retrieval_recall@")
    metrics = {name: value for name, value in result.metrics.items() if name.startswith(names)}
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
