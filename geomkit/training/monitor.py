"""What a training run writes into its history: loss and geometry of the evaluated pairs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from geomkit._core.parallel import Team
from geomkit.data.loading import Batch
from geomkit.embeddings.embeddings import Embeddings
from geomkit.extraction.encode import encode
from geomkit.losses import ContrastiveLoss
from geomkit.metrics import gap
from geomkit.models.checkpoints import Record, Snapshot
from geomkit.training.config import evaluation_metrics
from geomkit.training.preparation import Run

__all__ = ["SNAPSHOT_PAIRS", "embed_held_out", "evaluate", "snapshot"]

SNAPSHOT_PAIRS = 1000


def embed_held_out(
    run: Run, tokens: Tensor, stream: Iterable[Batch], *, team: Team
) -> tuple[Tensor, Tensor]:
    """Return unit rows ``(n, d)`` of the evaluated images and their main captions.

    Each rank encodes its share of them; the first one gets all rows, the others none.

    Args:
        run: Model and data.
        tokens: Token ids ``(n, context)`` of the evaluated images' main captions.
        stream: This rank's images, from :func:`~geomkit.extraction.encode.image_batches`.
        team: Ranks that share the work.

    Raises:
        GeomkitError: If more images fail to decode than the data set allows.
    """
    found = encode(
        run.start.model,
        run.held_out,
        tokens,
        run.start.preprocess,
        device=run.device,
        precision=run.config.precision,
        stream=stream,
        team=team,
        everywhere=False,
    )
    run.held_out.check_bad(found.bad)
    return found.image, found.text[torch.from_numpy(found.rows)]


def evaluate(
    run: Run, image: Tensor, text: Tensor, *, step: int, lr: float, terms: dict[str, float]
) -> Record:
    """Return a record of the history.

    Args:
        run: Run whose model gave the rows.
        image: Unit rows ``(n, d)`` of the evaluated images.
        text: Unit rows ``(n, d)`` of their captions.
        step: Optimizer steps done.
        lr: Learning rate of the last step.
        terms: Weighted terms of the last step's loss.
    """
    logit = run.start.model.get_parameter("clip.logit_scale").detach().exp()
    rows: list[Any] = [image.numpy(), text.numpy()]
    if run.device.startswith("cuda"):
        rows = [image.to(run.device), text.to(run.device)]
    return Record(
        step=step,
        epoch=step / run.order.steps_per_epoch,
        split=run.held_out.split,
        pairs=len(image),
        lr=lr,
        temperature=float(1.0 / logit),
        train_terms=dict(terms),
        loss=_batched_loss(run, torch.as_tensor(rows[0]), torch.as_tensor(rows[1]), logit),
        metrics=dict(
            gap(
                Embeddings.of(*rows),
                metrics=evaluation_metrics(run.config),
                seed=run.config.seed,
                errors=False,
            ).metrics
        ),
    )


def snapshot(image: Tensor, text: Tensor, *, step: int) -> Snapshot:
    """Return the first 1,000 pairs, for the stages of training on the sphere."""
    first = (rows[:SNAPSHOT_PAIRS].float().clone() for rows in (image, text))
    return Snapshot(step, *first)


def _batched_loss(run: Run, image: Tensor, text: Tensor, scale: Tensor) -> float:
    """The mean loss over batches of the training's size: it grows with the size."""
    criterion = ContrastiveLoss(run.config.loss)
    bias = None if criterion.spec.logit_bias is None else run.start.model.logit_bias
    logit = [s.to(image.device) for s in ([scale] if bias is None else [scale, bias.detach()])]
    size = run.config.batch_size
    batches = [slice(i * size, (i + 1) * size) for i in range(max(1, len(image) // size))]
    with torch.random.fork_rng(devices=[]):  # what a term draws: the same at every evaluation
        torch.default_generator.manual_seed(run.config.seed)  # and no generator of a device
        values = [criterion(image[b], text[b], *logit) for b in batches]
    return float(torch.stack(values).mean())
