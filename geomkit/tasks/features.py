"""Unit rows of pictures and of class prompts, from a model on any device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from geomkit.data.labelled.prompts import fill
from geomkit.data.loading import Batch
from geomkit.data.pairs import Bad, PairData
from geomkit.errors import GeomkitError
from geomkit.extraction.encode import encode, encode_texts, evaluating
from geomkit.models.checkpoints.checkpoint import Checkpoint
from geomkit.models.tokenizers import Tokenizer
from geomkit.models.two_encoder import TwoEncoder

__all__ = ["class_weights", "image_rows", "placed"]


def placed(loaded: Checkpoint, *, device: str, precision: str) -> TwoEncoder:
    """The model on a device, in float64 for ``fp64``."""
    model = loaded.model.to(device)
    return model.double() if precision == "fp64" else model


def class_weights(
    model: TwoEncoder,
    class_names: Sequence[str],
    templates: Sequence[str],
    tokenizer: Tokenizer,
    *,
    device: str = "cpu",
    precision: str = "fp32",
    batch_size: int = 256,
) -> torch.Tensor:
    """The zero-shot classifier: for each class its prompts' unit rows, averaged and made unit.

    Args:
        model: on ``device`` already.
        class_names: ``C`` names.
        templates: prompts, ``{}`` or ``{c}`` standing for a name.
        tokenizer: as the checkpoint has it.
        device, precision: as resolved.
        batch_size: prompts at a time.

    Returns:
        ``(d, C)`` float32 (float64 from a model in float64), on the CPU.

    Raises:
        GeomkitError: without names or prompts, or if the model gives rows that are not finite.
    """
    if not class_names or not templates:
        raise GeomkitError("zero-shot: expected one class and one prompt or more")
    texts = [fill(template, name) for name in class_names for template in templates]
    with evaluating(model, device=device, precision=precision):
        rows = encode_texts(model, tokenizer.encode(texts), batch_size=batch_size).cpu()
    prompts = rows.view(len(class_names), len(templates), -1)
    weights = F.normalize(prompts.mean(dim=1), dim=-1).T
    if not weights.isfinite().all():
        raise GeomkitError("the model gives rows of prompts that are not finite; try fp32")
    return weights


def image_rows(
    loaded: Checkpoint,
    data: PairData,
    *,
    device: str = "cpu",
    precision: str = "fp32",
    batch_size: int = 256,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[np.ndarray, np.ndarray, list[Bad]]:
    """Unit rows of the pictures that decode.

    Args:
        loaded: the model; it is moved to ``device``.
        data: ``n`` pictures of the size it takes.
        device, precision: as resolved.
        batch_size: pictures at a time.
        workers: processes that decode; ``None`` for one a core.
        progress: called with pictures done and in all.

    Returns:
        ``(k, d)`` float32 (float64 for fp64), the ``k`` rows of ``data`` they belong to, and the
        bad pictures.

    Raises:
        GeomkitError: if too many pictures are bad, or the model gives rows that are not finite.
    """
    model = placed(loaded, device=device, precision=precision)
    bad: list[Bad] = []
    done = 0

    def seen(batch: Batch) -> None:
        nonlocal done
        bad.extend(batch.bad)
        data.check_bad(bad)  # now, not after an hour
        done += len(batch.rows) + len(batch.bad)
        if progress:
            progress(done, len(data))

    options: dict[str, Any] = {"device": device, "precision": precision, "batch_size": batch_size}
    found = encode(model, data, None, loaded.preprocess, **options, workers=workers, seen=seen)
    if not len(found.rows):
        raise GeomkitError(f"'{data.spec}' ({data.split}): not one picture decodes")
    if not found.image.isfinite().all():
        raise GeomkitError(
            f"{loaded.source}: gives rows of pictures that are not finite; try --precision fp32"
        )
    return found.image.numpy(), found.rows, bad
