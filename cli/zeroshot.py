"""``geomkit zeroshot``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .options import Data, TaskOptions
from .tasks import Models, evaluate

if TYPE_CHECKING:
    from geomkit.models.checkpoints.checkpoint import Checkpoint
    from geomkit.tasks.features import Running
    from geomkit.tasks.result import TaskResult

    from .progress import Display

__all__ = ["zeroshot"]


def zeroshot(
    sources: Models,
    *,
    data: Data,
    options: TaskOptions,
    split: str | None = None,
    classnames: Path | None = None,
    templates: Path | None = None,
    fast_decode: bool = False,
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
        fast_decode: Decode large JPEGs at a reduced size, which moves the embeddings a little.
        per_class: Show the recall of each class.

    Examples:
        $ geomkit zeroshot ckpt.pt --data openmoji,attribute=gender
        $ geomkit zeroshot a.pt b.pt --data cifar10:/data
    """
    from geomkit.data.labelled import load_classes
    from geomkit.tasks import zeroshot as classify

    def run(checkpoint: Checkpoint, running: Running, display: Display) -> list[TaskResult]:
        classes = load_classes(
            data,
            preprocess=checkpoint.preprocess,
            split=split,
            classnames=classnames,
            templates=templates,
            max_bad=options.max_bad,
            fast_decode=fast_decode,
            progress=display.preparing,
        )
        display.once(
            f"{data} ({classes.data.split}): {len(classes):,} images of "
            f"{len(classes.class_names)} classes; names {classes.names_from}; "
            f"{len(classes.templates)} prompts {classes.templates_from}; "
            f"{running['device']}, {running['precision']}",
            classes.data.attribution,
        )
        return [classify(checkpoint, classes, **running)]

    evaluate(sources, options, run, detail=per_class)
