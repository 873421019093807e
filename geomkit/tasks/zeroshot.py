"""Zero-shot classification: the class whose prompts lie nearest to a picture."""

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
    loaded: Checkpoint,
    classes: ClassData,
    *,
    device: str = "cpu",
    precision: str = "fp32",
    batch_size: int = 256,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> TaskResult:
    """Classify pictures by the cosine with each class's averaged prompts.

    Args:
        loaded: the model; it is moved to ``device``.
        classes: pictures of the size it takes, with names and prompts.
        device, precision: as resolved.
        batch_size: pictures and prompts at a time.
        workers: processes that decode; ``None`` for one a core.
        progress: called with pictures done and in all.

    Raises:
        GeomkitError: if too many pictures do not decode, or the model gives rows that are not
            finite.
    """
    weights = class_weights(
        placed(loaded, device=device, precision=precision),
        classes.class_names,
        classes.templates,
        loaded.tokenizer,
        device=device,
        precision=precision,
        batch_size=batch_size,
    ).numpy()
    rows, kept, bad = image_rows(
        loaded,
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
        **model_names(loaded),
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
