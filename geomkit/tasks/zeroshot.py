"""Zero-shot classification: the class whose prompts are nearest to an image."""

from __future__ import annotations

from typing import Unpack

from geomkit.data.labelled.classes import ClassData
from geomkit.models.checkpoints.checkpoint import Checkpoint
from geomkit.tasks.features import Runner, Running
from geomkit.tasks.result import TaskResult, class_result

__all__ = ["zeroshot"]

_BLOCK = 4096


def zeroshot(checkpoint: Checkpoint, classes: ClassData, **running: Unpack[Running]) -> TaskResult:
    """Classify images by their cosine with each class's averaged prompts.

    Args:
        checkpoint: The model; it is moved to the device.
        classes: Labelled images of the size that the model takes, with names and prompts.
        running: Device, precision, batch size, workers and progress, see
            :class:`~geomkit.tasks.features.Running`.

    Raises:
        GeomkitError: If too many images do not decode, or the model gives embeddings that are
            not finite.
    """
    on = Runner(checkpoint, **running)
    weights = on.text_rows(classes.class_names, classes.templates).T
    rows, kept, bad = on.image_rows(classes.data)
    labels = classes.labels[kept]
    parts = (slice(start, start + _BLOCK) for start in range(0, len(rows), _BLOCK))
    return class_result(
        "zeroshot_classification",
        on,
        classes,
        ((rows[part] @ weights, labels[part]) for part in parts),
        bad,
        class_names=classes.names_from,
        templates=classes.templates_from,
        template_count=len(classes.templates),
    )
