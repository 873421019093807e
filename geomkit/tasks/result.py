"""What an evaluation found, in CLIP_benchmark's form and as a table."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geomkit.data.pairs import Bad
from geomkit.models.checkpoints.checkpoint import Checkpoint
from geomkit.tasks.scores import Scored

if TYPE_CHECKING:
    from geomkit.metrics.measure import GapResult

__all__ = ["SCHEMA_VERSION", "TaskResult", "model_names", "plain", "retrieval_json"]

SCHEMA_VERSION = 1
FEW_CLASSES = "fewer than five classes"


@dataclass(frozen=True)
class TaskResult:
    """What :func:`~geomkit.tasks.zeroshot.zeroshot` or
    :func:`~geomkit.tasks.probe.probe` found; prints as a table.

    Attributes:
        task: ``zeroshot_classification`` or ``linear_probe``, as CLIP_benchmark says.
        scored: the numbers.
        class_names: names of the classes.
        dataset: as CLIP_benchmark names it, or the DATA spec.
        split: what was classified.
        model, pretrained: as CLIP_benchmark would name the model, see :func:`model_names`.
        source: the SOURCE that names it.
        bad: pictures that did not decode and are not counted.
        meta: whatever else was settled: device, precision, whose names and prompts; of a probe
            the C chosen, and how.
    """

    task: str
    scored: Scored
    class_names: tuple[str, ...]
    dataset: str
    split: str
    model: str
    pretrained: str
    source: str
    bad: tuple[Bad, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def metrics(self) -> dict[str, float]:
        """``acc1``, ``acc5``, ``mean_per_class_recall``."""
        return self.scored.metrics

    @property
    def stderr(self) -> dict[str, float]:
        """Their standard errors."""
        return self.scored.stderr

    def to_json(self, *, per_class: bool = False) -> dict[str, Any]:
        """The result in CLIP_benchmark's form, with keys of our own; NaN becomes ``None``.

        Args:
            per_class: with the recall of each class, and how often it was taken for which.
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
            "bad": [{"id": b.id, "reason": b.reason} for b in self.bad],
            "meta": {**self.meta, "reasons": self.reasons},
        }
        if per_class:
            found["per_class"] = [
                {
                    "name": name,
                    "n": int(count),
                    "recall": None if math.isnan(recall) else float(recall),
                    "taken_for": {
                        self.class_names[j]: round(float(row[j]), 6) for j in row.nonzero()[0]
                    },
                }
                for name, count, recall, row in zip(
                    self.class_names, scored.counts, scored.recall, scored.confusion, strict=True
                )
            ]
        return found

    @property
    def reasons(self) -> dict[str, str]:
        """Why a number is undefined."""
        return {
            name: FEW_CLASSES for name, value in self.scored.metrics.items() if math.isnan(value)
        }

    def __str__(self) -> str:
        return plain([self])


def _finite(values: Mapping[str, float]) -> dict[str, float | None]:
    return {key: value if math.isfinite(value) else None for key, value in values.items()}


def model_names(loaded: Checkpoint) -> tuple[str, str]:
    """What CLIP_benchmark's ``model`` and ``pretrained`` are for a model: architecture and weights.

    For ``open_clip:NAME/TAG`` the two; for others the architecture, if known, and the SOURCE.
    """
    if name := loaded.meta.get("architecture"):
        return str(name), loaded.source.removeprefix("open_clip:").removeprefix(f"{name}/")
    config = loaded.meta.get("config") or {}
    return str(config.get("model") or loaded.kind), loaded.source


def retrieval_json(result: GapResult, *, model: str = "", dataset: str = "") -> dict[str, Any]:
    """Retrieval as CLIP_benchmark writes it, from what :func:`geomkit.gap` found.

    Args:
        result: with retrieval among its metrics.
        model: its architecture, if it has one.
        dataset: what the pairs are; by default what the result knows of it.

    >>> from geomkit.metrics.measure import GapResult
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


def plain(results: Sequence[TaskResult], *, per_class: bool = False) -> str:
    """Results side by side as text, as wide as it needs.

    Args:
        results: of one data set and split.
        per_class: with the recall of each class below.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    first = results[0]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for i, heading in enumerate(["metric", *map(_title, results), "chance", "majority"]):
        table.add_column(heading, justify="right" if i else "left", no_wrap=True)
    for name in first.metrics:
        cells = [_number(r.metrics[name], r.stderr[name]) for r in results]
        majority = f"{first.scored.majority_share:.4f}" if name == "acc1" else ""
        table.add_row(name, *cells, _number(first.scored.chance[name]), majority)
    if per_class:
        table.add_section()
        for i, name in enumerate(first.class_names):
            cells = [_number(float(r.scored.recall[i])) for r in results]
            table.add_row(f"recall: {name} (n={first.scored.counts[i]:,})", *cells, "", "")
    out = io.StringIO()
    Console(file=out, width=200 + 40 * len(results), highlight=False).print(table)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def _title(r: TaskResult) -> str:
    name = Path(r.source).name if r.source else "value"
    return f"{name} {r.split}\nn={r.scored.n:,}, {len(r.class_names)} classes"


def _number(value: float, error: float = math.nan) -> str:
    if math.isnan(value):
        return "–"
    return f"{value:.4f}" if math.isnan(error) else f"{value:.4f} ± {error:.4f}"
