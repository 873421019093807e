"""Model + data → embeddings."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from geomkit._runtime import autocast
from geomkit.data import PairData
from geomkit.embeddings import Embeddings
from geomkit.models import TwoEncoder, normalize_pixels, tokenize

__all__ = ["encode", "extract"]


@torch.no_grad()
def encode(
    model: TwoEncoder,
    data: PairData,
    tokens: torch.Tensor,
    preprocess: dict[str, Any],
    *,
    device: str = "cpu",
    precision: str = "fp32",
    batch_size: int = 256,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit rows of pictures and of token ids, on the CPU; the model's mode is left as found.

    Args:
        model: on ``device`` already.
        data: the pictures, ``n`` of them.
        tokens: ``(m, context)``.
        preprocess: mean and std of the pixels.
        device, precision: as resolved.
        batch_size: rows at a time.

    Returns:
        ``(n, d)`` and ``(m, d)`` float32.
    """
    was_training = model.training
    model.eval()
    with autocast(device, precision):
        images = [
            model.encode_image(
                normalize_pixels(
                    torch.from_numpy(data.pictures(slice(i, i + batch_size))).to(device),
                    preprocess,
                )
            )
            for i in range(0, len(data), batch_size)
        ]
        texts = [
            model.encode_text(model.trim(tokens[i : i + batch_size]).to(device))
            for i in range(0, len(tokens), batch_size)
        ]
    model.train(was_training)
    return torch.cat(images).float().cpu(), torch.cat(texts).float().cpu()


def extract(
    model: TwoEncoder,
    data: PairData,
    preprocess: dict[str, Any],
    tokenizer: dict[str, Any],
    *,
    device: str = "cpu",
    precision: str = "fp32",
    batch_size: int = 256,
) -> Embeddings:
    """Embeddings of a data set: a row an image, a row a caption.

    Args:
        model: on ``device`` already.
        data: pictures of the size the model takes.
        preprocess, tokenizer: as the checkpoint has them.
        device, precision: as resolved.
        batch_size: rows at a time.

    Raises:
        GeomkitError: if the model gives anything but finite, non-zero rows.
    """
    captions = [caption for group in data.captions for caption in group]
    owner = np.repeat(np.arange(len(data)), [len(group) for group in data.captions])
    image, text = encode(
        model,
        data,
        tokenize(captions, tokenizer),
        preprocess,
        device=device,
        precision=precision,
        batch_size=batch_size,
    )
    return Embeddings.of(image.numpy(), text.numpy(), owner, ids=data.ids)
