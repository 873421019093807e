"""Model + data → unit rows in memory.

Images are decoded by worker processes ahead of the model. Captions go through it sorted by length,
so that hardly any padding is computed. Rows stay on the device until all are there, so that it
never waits for the host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from geomkit._core.parallel import SOLO, Team
from geomkit._core.runtime import autocast, numerics, send
from geomkit.data import PairData
from geomkit.data.loading import Batch, loader
from geomkit.data.pairs import Bad
from geomkit.embeddings import Embeddings
from geomkit.embeddings.manifest import cut_captions
from geomkit.embeddings.reading import naming
from geomkit.models.checkpoints import Checkpoint
from geomkit.models.preprocess import Preprocess
from geomkit.models.two_encoder import TwoEncoder

__all__ = ["Encoded", "blocks", "embed", "encode", "encode_batches", "encode_texts", "evaluating"]


@dataclass(frozen=True)
class Encoded:
    """Unit rows, float32 (float64 from a model in float64).

    Attributes:
        image: ``(k, d)``, for the images that decode, in order.
        text: ``(m, d)``, for the token ids, in order.
        rows: ``(k,)``, row of the data set for each row of ``image``.
        bad: The images that do not decode.
    """

    image: torch.Tensor
    text: torch.Tensor
    rows: np.ndarray
    bad: tuple[Bad, ...] = ()


def embed(
    checkpoint: Checkpoint,
    data: PairData,
    *,
    device: str = "cpu",
    precision: str = "fp32",
    batch_size: int = 256,
    workers: int | None = None,
    team: Team = SOLO,
) -> Embeddings:
    """Embeddings of a data set in memory: one row per image, one per caption.

    Images that do not decode are left out with their captions; ``meta["bad"]`` lists them, and
    ``meta["left_out"]`` counts them with what the data set left out before. To write
    embeddings of a large data set to disk, use :func:`geomkit.extraction.extract`.

    Args:
        checkpoint: Model with its preprocessing and tokenizer; it is moved to the device.
        data: ``n`` images of the size the model takes, with ``m`` captions.
        device: ``cpu``, ``cuda[:n]`` or ``mps``.
        precision: ``fp32``, ``bf16`` or ``fp64``; the weights keep their precision.
        batch_size: Images, and captions, per forward pass.
        workers: Number of processes that decode images; default: one per core.
        team: Ranks that share the work; each returns all embeddings.

    Returns:
        Unit rows ``(n, d)`` and ``(m, d)``, the index of the image of each caption, and the ids of
        the images.

    Raises:
        GeomkitError: If a row the model computes is not finite or all zeros, or more images do not
            decode than the data set allows.

    Example:
        >>> from geomkit.data import load_data
        >>> from geomkit.models.checkpoints import Checkpoint
        >>> from geomkit.models.preprocess import Preprocess
        >>> from geomkit.models.tokenizers import Tokenizer
        >>> from geomkit.models import build, model_config
        >>> config = model_config("nano", dim=3)
        >>> parts = Preprocess.for_model(config), Tokenizer.for_model(config)
        >>> fresh = Checkpoint(build(config), "geomkit", "fresh", config, *parts)
        >>> found = embed(fresh, load_data(n=4, preprocess=fresh.preprocess))
        >>> found.n, found.m, found.dim
        (4, 4, 3)
    """
    captions = [caption for group in data.captions for caption in group]
    owner = np.repeat(np.arange(len(data)), [len(group) for group in data.captions])
    tokens = checkpoint.tokenizer.encode(captions)
    cut = checkpoint.tokenizer.cut(captions, tokens)
    encoded = encode(
        checkpoint.model.to(device),
        data,
        tokens,
        checkpoint.preprocess,
        device=device,
        precision=precision,
        batch_size=batch_size,
        workers=workers,
        team=team,
    )
    data.check_bad(encoded.bad)
    # From rows of the data set to rows of the images that are left.
    place = np.full(len(data), -1)
    place[encoded.rows] = np.arange(len(encoded.rows))
    left = place[owner] >= 0
    with naming(Path(checkpoint.source)):
        return Embeddings.of(
            encoded.image.numpy(),
            encoded.text.numpy()[left],
            place[owner[left]],
            ids=tuple(data.ids[row] for row in encoded.rows),
            meta={
                "bad": [{"id": b.id, "reason": b.reason} for b in encoded.bad],
                **data.account(encoded.bad),
                "notes": [*data.lines(encoded.bad), *cut_captions(len(cut))],
            },
        )


def encode(
    model: TwoEncoder,
    data: PairData,
    tokens: torch.Tensor | None,
    preprocess: Preprocess,
    *,
    device: str = "cpu",
    precision: str = "fp32",
    batch_size: int = 256,
    workers: int | None = None,
    seen: Callable[[Batch], None] = lambda batch: None,
    stream: Iterable[Batch] | None = None,
    team: Team = SOLO,
    everywhere: bool = True,
) -> Encoded:
    """Unit rows of images and of token ids, on the CPU.

    Args:
        model: Model, on ``device`` already; its mode is left as found.
        data: ``n`` images; those that do not decode are left out.
        tokens: ``(m, context)`` token ids, or ``None``.
        preprocess: Preprocessing of the model.
        device: Device, resolved.
        precision: Precision, resolved.
        batch_size: Images, and captions, per forward pass.
        workers: Number of processes that decode images; default: one per core.
        seen: Function called after each batch of images.
        stream: What :func:`image_batches` returned, if it is used again.
        team: Ranks that share the work: each encodes a block of the images and one of the texts.
        everywhere: Whether each rank gets all rows, or only the first one; the others get none.
    """
    if stream is None:
        stream = image_batches(data, team, batch_size, device=device, workers=workers)
    with evaluating(model, device=device, precision=precision):
        words = None if tokens is None else tokens[team.block(len(tokens))]
        found = encode_batches(
            model, stream, preprocess, batch_size=batch_size, tokens=words, seen=seen
        )
    bad = team.gather(found.bad)

    def joined(rows: torch.Tensor) -> torch.Tensor:
        return team.join(rows.cpu(), everywhere=everywhere)

    return Encoded(
        image=joined(found.image),
        text=joined(found.text),
        rows=joined(torch.from_numpy(found.rows)).numpy(),
        bad=tuple(image for part in bad for image in part),
    )


def image_batches(
    data: PairData,
    team: Team,
    batch_size: int = 256,
    *,
    device: str,
    workers: int | None,
    keep: bool = False,
) -> Iterable[Batch]:
    """Return a rank's share of the images in batches, for :func:`encode`.

    Args:
        data: Images.
        team: Ranks that share the work.
        batch_size: Images per batch.
        device: Device that they are for.
        workers: Number of processes that decode images; default: one per core, at most 8.
        keep: Whether these processes stay for the next pass.
    """
    own = team.block(len(data))
    jobs = blocks(own.start, own.stop, batch_size)
    return loader(data, jobs, workers=workers, pin=device.startswith("cuda"), keep=keep)


def blocks(start: int, stop: int, size: int) -> list[np.ndarray]:
    """The rows from ``start`` to ``stop`` in blocks of at most ``size``.

    Example:
        >>> [block.tolist() for block in blocks(4, 9, 3)]
        [[4, 5, 6], [7, 8]]
    """
    return [np.arange(i, min(i + size, stop)) for i in range(start, stop, size)]


def encode_batches(
    model: TwoEncoder,
    stream: Iterable[Batch],
    preprocess: Preprocess,
    *,
    batch_size: int,
    tokens: torch.Tensor | None = None,
    dim: int = 0,
    seen: Callable[[Batch], None] = lambda batch: None,
) -> Encoded:
    """Unit rows of batches of images and of their token ids, left on the device.

    To be called in :func:`evaluating`.

    Args:
        model: Model.
        stream: Batches of decoded images.
        preprocess: Preprocessing of the model.
        batch_size: Captions per forward pass.
        tokens: ``(m, context)`` token ids; default: those of the batches.
        dim: Dimension of the rows if there are none.
        seen: Function called after each batch.
    """
    image: list[torch.Tensor] = []
    words = [] if tokens is None else [tokens]
    rows = [np.empty(0, int)]
    bad: list[Bad] = []
    for batch in stream:
        if len(batch.rows):
            image.append(model.encode_image(model.pixels(batch.images, preprocess)))
            if batch.tokens is not None:
                words.append(batch.tokens)
        rows.append(batch.rows)
        bad += batch.bad
        seen(batch)
    text = []
    if sum(map(len, words)):
        text.append(encode_texts(model, torch.cat(words), batch_size=batch_size))
    nothing = next(iter([*image, *text]), torch.empty(0, dim))[:0]
    return Encoded(
        torch.cat([nothing, *image]), torch.cat([nothing, *text]), np.concatenate(rows), tuple(bad)
    )


def encode_texts(model: TwoEncoder, tokens: torch.Tensor, *, batch_size: int) -> torch.Tensor:
    """Unit rows ``(m, d)`` of token ids ``(m, context)``, m ≥ 1, left on the device, in order.

    To be called in :func:`evaluating`.
    """
    # Sorted by length; argmax is where a caption ends, see TwoEncoder.trim.
    order = torch.argsort(tokens.argmax(dim=-1), stable=True)
    rows = torch.cat(
        [model.encode_text(model.tokens(tokens[part])) for part in order.split(batch_size)]
    )
    return rows[send(torch.argsort(order), str(rows.device))]


@contextmanager
def evaluating(model: TwoEncoder, *, device: str, precision: str) -> Iterator[None]:
    """The model in evaluation mode, without gradients, in the autocast context of a precision."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), numerics(precision), autocast(device, precision):
            yield
    finally:
        model.train(was_training)
