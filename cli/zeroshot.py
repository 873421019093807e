"""``geomkit zeroshot``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import console
from .options import Data, TaskOptions
from .tasks import Models, drawing, evaluate

if TYPE_CHECKING:
    from geomkit.models.checkpoints.checkpoint import Checkpoint
    from geomkit.tasks.result import TaskResult

__all__ = ["zeroshot"]


def zeroshot(
    sources: Models,
    *,
    data: Data,
    options: TaskOptions,
    split: str | None = None,
    classnames: Path | None = None,
    templates: Path | None = None,
    per_class: bool = False,
) -> None:
    """Zero-shot classification: accuracy, top-5 accuracy and mean recall per class.

    Args:
        sources: Models.
        data: DATA spec.
        options: How models are evaluated.
        split: Split to classify; default: the data set's test or val.
        classnames: File of class names: one per line, or a JSON list.
        templates: File of prompts with {} or {c}: one per line, or a JSON list.
        per_class: Show the recall of each class.
    """
    from geomkit.data.labelled import load_classes
    from geomkit.tasks import zeroshot as classify

    def run(checkpoint: Checkpoint, first: bool, shared: dict[str, Any]) -> list[TaskResult]:
        classes = load_classes(
            data,
            preprocess=checkpoint.preprocess,
            split=split,
            classnames=classnames,
            templates=templates,
            max_bad=options.max_bad,
            progress=drawing,
        )
        if first:
            console.line(
                f"{data} ({classes.data.split}): {len(classes):,} images of "
                f"{len(classes.class_names)} classes; names {classes.names_from}; "
                f"{len(classes.templates)} prompts {classes.templates_from}; "
                f"{shared['device']}, {shared['precision']}"
            )
            if classes.data.attribution:
                console.line(classes.data.attribution)
        return [classify(checkpoint, classes, **shared)]

    evaluate(sources, options, run, detail=per_class)
