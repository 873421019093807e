"""Zero-shot classification: the class whose prompts are nearest to an image."""

from __future__ import annotations

import math
from typing import Any, Unpack

import numpy as np

from geomkit.data.labelled.classes import ClassData
from geomkit.engine.ranks import Ranks, count_above
from geomkit.interventions import Intervention
from geomkit.interventions.closing import Scores
from geomkit.models.checkpoints.checkpoint import Checkpoint
from geomkit.tasks.features import Runner, Running, averaged, prompt_rows
from geomkit.tasks.result import TaskResult, class_result
from geomkit.tasks.scores import class_variance_share

__all__ = ["zeroshot", "zeroshot_scores"]

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
    share = class_variance_share(rows, labels)
    parts = (slice(start, start + _BLOCK) for start in range(0, len(rows), _BLOCK))
    return class_result(
        "zeroshot_classification",
        on,
        classes,
        ((rows[part] @ weights, labels[part]) for part in parts),
        kept,
        bad,
        class_names=classes.names_from,
        templates=classes.templates_from,
        template_count=len(classes.templates),
        class_variance_share=share if math.isfinite(share) else None,
    )


def zeroshot_scores(
    checkpoint: Checkpoint, classes: ClassData, **running: Unpack[Running]
) -> Scores:
    """Return a function from an intervention to ``zeroshot_acc1`` of each image after it.

    Images and prompts go through the model once; an intervention moves their embeddings.

    Args:
        checkpoint: The model; it is moved to the device.
        classes: Labelled images, as for :func:`zeroshot`.
        running: Device and the like, as for :func:`zeroshot`.

    Raises:
        GeomkitError: As :func:`zeroshot`.
    """
    on = Runner(checkpoint, **running)
    names, templates = classes.class_names, classes.templates
    prompts = prompt_rows(checkpoint.model, names, templates, checkpoint.tokenizer, **on.options)
    rows, kept, _ = on.image_rows(classes.data)
    labels = classes.labels[kept]

    def scores(intervention: Intervention | None) -> dict[str, np.ndarray]:
        images: Any = rows
        texts: Any = prompts
        if intervention is not None:
            images = intervention.apply(images, "image")
            moved: Any = intervention.apply(texts.flatten(0, 1), "text")
            texts = moved.view(prompts.shape)
        found = images @ averaged(texts).numpy()
        right = found[np.arange(len(labels)), labels]
        above, level = count_above(found, right[:, None], axis=1)
        return {"zeroshot_acc1": Ranks(above, level - 1).hits(1)}

    return scores
