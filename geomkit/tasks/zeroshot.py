"""Zero-shot classification: the class whose prompts are nearest to an image."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from geomkit.data.labelled.classes import ClassData
from geomkit.models.checkpoints.checkpoint import Checkpoint
from geomkit.tasks.features import class_weights, image_rows, placed
from geomkit.tasks.result import TaskResult, model_names
from geomkit.tasks.scores import score

__all__ = ["zeroshot"]

_BLOCK = 4096


def zeroshot(
    checkpoint: Checkpoint,
    classes: ClassData,
    *,
    device: str = "cpu",
    precision: str = "fp32",
    batch_size: int = 256,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> TaskResult:
    """Classify images by their cosine with each class's averaged prompts.

    Args:
        checkpoint: The model; it is moved to ``device``.
        classes: Labelled images of the size that the model takes, with names and prompts.
        device: Device to compute on, such as ``cpu`` or ``cuda:0``.
        precision: ``fp32``, ``bf16`` or ``fp64``.
        batch_size: Images and prompts per batch.
        workers: Processes that decode images; ``None`` for one per core.
        progress: Function of the number of images done and the total.

    Raises:
        GeomkitError: If too many images do not decode, or the model gives embeddings that are
            not finite.
    """
    weights = class_weights(
        placed(checkpoint, device=device, precision=precision),
        classes.class_names,
        classes.templates,
        checkpoint.tokenizer,
        device=device,
        precision=precision,
        batch_size=batch_size,
    ).numpy()
    rows, kept, bad = image_rows(
        checkpoint,
        classes.data,
        device=device,
        precision=precision,
        batch_size=batch_size,
        workers=workers,
        progress=progress,
    )
    labels = classes.labels[kept]

    def blocks() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for start in range(0, len(rows), _BLOCK):
            part = slice(start, start + _BLOCK)
            yield rows[part] @ weights, labels[part]

    return TaskResult(
        task="zeroshot_classification",
        scored=score(blocks(), len(classes.class_names)),
        class_names=classes.class_names,
        dataset=classes.dataset,
        split=classes.data.split,
        **model_names(checkpoint),
        bad=tuple(bad),
        meta={
            "data": classes.data.spec,
            "data_source": classes.data.source,
            "licence": classes.data.licence,
            "attribution": classes.data.attribution,
            "class_names": classes.names_from,
            "templates": classes.templates_from,
            "template_count": len(classes.templates),
            "device": device,
            "precision": precision,
        },
    )
