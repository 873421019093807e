"""Embeddings of images and of class prompts, from a model on any device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

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

__all__ = ["Runner", "Running", "averaged", "class_weights", "prompt_rows"]


class Running(TypedDict, total=False):
    """How a task runs its model: the keyword arguments that every task takes.

    Attributes:
        device: Device to compute on, such as ``cpu`` (the default) or ``cuda:0``.
        precision: ``fp32`` (the default), ``bf16`` or ``fp64``.
        batch_size: Images and texts per batch; default: 256.
        workers: Processes that decode images; ``None``, the default, for one per core.
        progress: Function of the number of images done and the total.
    """

    device: str
    precision: str
    batch_size: int
    workers: int | None
    progress: Callable[[int, int], None] | None


@dataclass(frozen=True)
class Runner:
    """A model on a device, and how it is run; see :class:`Running` for the other attributes.

    Attributes:
        checkpoint: The model; it is moved to ``device``, in float64 for ``fp64``.
    """

    checkpoint: Checkpoint
    device: str = "cpu"
    precision: str = "fp32"
    batch_size: int = 256
    workers: int | None = None
    progress: Callable[[int, int], None] | None = None

    def __post_init__(self) -> None:
        """Move the model."""
        model = self.checkpoint.model.to(self.device)
        if self.precision == "fp64":
            model.double()

    @property
    def options(self) -> dict[str, Any]:
        """Device, precision and batch size, which everything that computes takes."""
        return {name: getattr(self, name) for name in ("device", "precision", "batch_size")}

    def text_rows(self, names: Sequence[str], templates: Sequence[str] = ("{}",)) -> np.ndarray:
        """Return a unit row ``(C, d)`` for each name; see :func:`class_weights`."""
        model, tokenizer = self.checkpoint.model, self.checkpoint.tokenizer
        return class_weights(model, names, templates, tokenizer, **self.options).numpy().T

    def image_rows(self, data: PairData) -> tuple[np.ndarray, np.ndarray, tuple[Bad, ...]]:
        """Return embeddings of the images that decode.

        Args:
            data: ``n`` images of the size that the model takes.

        Returns:
            Unit rows ``(k, d)`` in float32 (float64 for fp64), their row numbers in ``data``, and
            the images that did not decode.

        Raises:
            GeomkitError: If too many images are bad, or the model gives embeddings that are not
                finite.
        """
        source, bad = self.checkpoint.source, list[Bad]()
        done = 0

        def seen(batch: Batch) -> None:
            nonlocal done
            bad.extend(batch.bad)
            data.check_bad(bad)  # as early as possible
            done += len(batch.rows) + len(batch.bad)
            if self.progress:
                self.progress(done, len(data))

        found = encode(
            self.checkpoint.model, data, None, self.checkpoint.preprocess,
            workers=self.workers, seen=seen, **self.options,
        )  # fmt: skip
        if not len(found.rows):
            raise GeomkitError(f"'{data.spec}' ({data.split}): no image decodes")
        if not found.image.isfinite().all():
            raise GeomkitError(
                f"{source}: gives image embeddings that are not finite; try --precision fp32"
            )
        return found.image.numpy(), found.rows, tuple(bad)


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
    r"""Return the zero-shot classifier: the normalised mean embedding of each class's prompts.

    .. math:: w_c = \mathrm{unit}\Bigl(\frac1P \sum_p y_{c,p}\Bigr)

    (Radford et al., arXiv 2103.00020, section 3.1.4.)

    Args:
        model: Model on ``device``.
        class_names: Names of ``C`` classes.
        templates: Prompts with ``{}`` or ``{c}`` for the name.
        tokenizer: Tokenizer of the checkpoint.
        device: Device to compute on, such as ``cpu`` or ``cuda:0``.
        precision: ``fp32``, ``bf16`` or ``fp64``.
        batch_size: Prompts per batch.

    Returns:
        Unit columns ``(d, C)`` on the CPU: float32, or float64 from a model in float64.

    Raises:
        GeomkitError: Without names or prompts, or if the model gives embeddings that are not
            finite.
    """
    options: dict[str, Any] = {"device": device, "precision": precision, "batch_size": batch_size}
    return averaged(prompt_rows(model, class_names, templates, tokenizer, **options))


def prompt_rows(
    model: TwoEncoder,
    class_names: Sequence[str],
    templates: Sequence[str],
    tokenizer: Tokenizer,
    *,
    device: str = "cpu",
    precision: str = "fp32",
    batch_size: int = 256,
) -> torch.Tensor:
    """Return the embedding of every prompt of every class, unit rows ``(C, P, d)`` on the CPU.

    Arguments are those of :func:`class_weights`.

    Raises:
        GeomkitError: Without names or prompts.
    """
    if not class_names or not templates:
        raise GeomkitError("zero-shot: expected at least one class and one prompt")
    texts = [fill(template, name) for name in class_names for template in templates]
    with evaluating(model, device=device, precision=precision):
        rows = encode_texts(model, tokenizer.encode(texts), batch_size=batch_size).cpu()
    return rows.view(len(class_names), len(templates), -1)


def averaged(prompts: torch.Tensor) -> torch.Tensor:
    """Return the classifier of :func:`class_weights` from rows of prompts ``(C, P, d)``.

    Raises:
        GeomkitError: If rows are not finite.
    """
    weights = F.normalize(prompts.mean(dim=1), dim=-1).T
    if not weights.isfinite().all():
        raise GeomkitError("the model gives embeddings of prompts that are not finite; try fp32")
    return weights
