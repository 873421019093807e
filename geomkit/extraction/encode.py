"""Model + data → embeddings.

Pictures are decoded by worker processes ahead of the model, captions go through it by length, so
that hardly a token of padding is computed, and rows stay on the device until all are there: it
never waits for the host to look at them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from geomkit._core.runtime import autocast, numerics, send
from geomkit.data import PairData
from geomkit.data.loading import batches, resolve_workers
from geomkit.data.pairs import Bad
from geomkit.embeddings.embeddings import Embeddings
from geomkit.models.preprocess import Preprocess
from geomkit.models.tokenizers import Tokenizer
from geomkit.models.two_encoder import TwoEncoder

__all__ = ["Encoded", "encode", "encode_pictures", "encode_texts", "evaluating", "extract"]


@dataclass(frozen=True)
class Encoded:
    """Unit rows, float32 (float64 from a model in float64).

    Attributes:
        image: ``(k, d)``, of the pictures that decode, in order.
        text: ``(m, d)``, of all token ids given, in order.
        rows: the ``k`` rows of the data set that ``image`` has; all of them unless some are bad.
        bad: the pictures that do not decode.
    """

    image: torch.Tensor
    text: torch.Tensor
    rows: np.ndarray
    bad: tuple[Bad, ...] = ()


def encode(
    model: TwoEncoder,
    data: PairData,
    tokens: torch.Tensor,
    preprocess: Preprocess,
    *,
    device: str = "cpu",
    precision: str = "fp32",
    batch_size: int = 256,
    workers: int | None = None,
) -> Encoded:
    """Unit rows of pictures and of token ids, on the CPU; the model's mode is left as found.

    Args:
        model: on ``device`` already.
        data: the pictures, ``n`` of them; those that do not decode are left out.
        tokens: ``(m, context)``.
        preprocess: mean and std of the pixels.
        device, precision: as resolved.
        batch_size: rows at a time.
        workers: processes that decode; as many as there are cores if not given.
    """
    jobs = [np.arange(i, min(i + batch_size, len(data))) for i in range(0, len(data), batch_size)]
    images: list[torch.Tensor] = []
    rows: list[np.ndarray] = []
    bad: list[Bad] = []
    with evaluating(model), numerics(precision), autocast(device, precision):
        for batch in batches(
            data, jobs, workers=resolve_workers(workers, data), pin=device.startswith("cuda")
        ):
            images.append(encode_pictures(model, batch.images, preprocess, device=device))
            rows.append(batch.rows)
            bad += batch.bad
        text = encode_texts(model, tokens, device=device, batch_size=batch_size)
    image = torch.cat([part for part in images if len(part)] or [text[:0]])
    text = text if len(text) else image[:0]
    return Encoded(image.cpu(), text.cpu(), np.concatenate([np.empty(0, int), *rows]), tuple(bad))


def extract(
    model: TwoEncoder,
    data: PairData,
    preprocess: Preprocess,
    tokenizer: Tokenizer,
    *,
    device: str = "cpu",
    precision: str = "fp32",
    batch_size: int = 256,
    workers: int | None = None,
) -> Embeddings:
    """Embeddings of a data set: a row an image, a row a caption.

    Pictures that do not decode are left out with their captions; ``meta["bad"]`` lists them.

    Args:
        model: on ``device`` already.
        data: pictures of the size the model takes.
        preprocess, tokenizer: as the checkpoint has them.
        device, precision: as resolved.
        batch_size: rows at a time.
        workers: processes that decode; as many as there are cores if not given.

    Raises:
        GeomkitError: if the model gives anything but finite, non-zero rows, or more pictures are
            bad than the data set allows.
    """
    captions = [caption for group in data.captions for caption in group]
    owner = np.repeat(np.arange(len(data)), [len(group) for group in data.captions])
    encoded = encode(
        model,
        data,
        tokenizer.encode(captions),
        preprocess,
        device=device,
        precision=precision,
        batch_size=batch_size,
        workers=workers,
    )
    data.check_bad(encoded.bad)
    # From rows of the data set to rows of the pictures that are left.
    place = np.full(len(data), -1)
    place[encoded.rows] = np.arange(len(encoded.rows))
    left = place[owner] >= 0
    return Embeddings.of(
        encoded.image.numpy(),
        encoded.text.numpy()[left],
        place[owner[left]],
        ids=tuple(data.ids[row] for row in encoded.rows),
        meta={"bad": [{"id": b.id, "reason": b.reason} for b in encoded.bad]},
    )


def encode_pictures(
    model: TwoEncoder, pictures: torch.Tensor, preprocess: Preprocess, *, device: str
) -> torch.Tensor:
    """Unit rows ``(k, d)`` of uint8 pictures ``(k, size, size, 3)``, left on the device.

    To be called in :func:`evaluating` and in the autocast context of a precision.
    """
    if not len(pictures):
        return torch.empty(0, 0, device=device)
    return model.encode_image(model.pixels(pictures, preprocess))


def encode_texts(
    model: TwoEncoder, tokens: torch.Tensor, *, device: str, batch_size: int
) -> torch.Tensor:
    """Unit rows ``(m, d)`` of token ids ``(m, context)``, left on the device, in order.

    To be called as :func:`encode_pictures`.
    """
    if not len(tokens):
        return torch.empty(0, 0, device=device)
    # Short captions beside short ones; argmax is where a caption ends, see TwoEncoder.trim.
    order = torch.argsort(tokens.argmax(dim=-1), stable=True)
    rows = [model.encode_text(model.tokens(tokens[part])) for part in order.split(batch_size)]
    return torch.cat(rows)[send(torch.argsort(order), device)]


@contextmanager
def evaluating(model: TwoEncoder) -> Iterator[None]:
    """The model in evaluation mode and without gradients, for as long as that."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)
