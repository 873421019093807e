"""SIMAT: Embedding Arithmetic for Text-driven Image Transformation (Couairon et al., 2021).

A query takes an image of "a cat sitting on grass" and the words "cat" and "dog"; the answer should
be an image of a dog sitting on grass. Tables and scores are the data set's own: the nearest image
other than the query's own is right if OSCAR's similarity between it and the target's caption is
above one half, and a query has the weight norm2^−½, so that frequent transformations do not
dominate. The user supplies tables, images and OSCAR's matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from geomkit.data.simat import Simat, load_simat
from geomkit.models.checkpoints.checkpoint import Checkpoint
from geomkit.tasks.features import class_weights, image_rows, placed
from geomkit.tasks.queries import moved, nearest
from geomkit.tasks.result import ArithmeticResult, Part, model_names

__all__ = ["simat", "simat_scores", "weighted"]


def simat_scores(
    image: np.ndarray,
    words: dict[str, np.ndarray],
    tables: Simat,
    right: np.ndarray,
    *,
    strength: float = 1.0,
) -> np.ndarray:
    """Return the credit of each query, ``(q,)``: the share of its answer that is right.

    Args:
        image: Unit rows of the images, ``(n, d)``.
        words: Unit row of each word, ``(d,)``.
        tables: Queries.
        right: Whether each image is right for each caption, ``(n, captions)``, see
            :func:`~geomkit.data.simat.load_simat`.
        strength: λ, the factor of the difference of words.
    """
    away, added = (np.stack([words[w] for w in tables.words[:, k]]) for k in (0, 1))
    query = moved(image, tables.source, added - away, strength)
    credit = np.zeros(len(tables))
    for part, _, shares in nearest(query, image, tables.source):
        credit[part] = (shares * right[:, tables.target[part]].T).sum(axis=1)
    return credit


def simat(
    checkpoint: Checkpoint,
    root: str | Path,
    *,
    split: str = "dev",
    strengths: Sequence[float] = (1.0,),
    device: str = "cpu",
    precision: str = "fp32",
    batch_size: int = 256,
    workers: int | None = None,
    max_bad: float = 0.01,
    progress: Callable[[int, int], None] | None = None,
) -> list[ArithmeticResult]:
    """Return SIMAT's score, in percent.

    Args:
        checkpoint: The model; it is moved to ``device``.
        root: Folder of the data set, see :func:`geomkit.data.simat.simat_tables`.
        split: ``dev``, as in the paper, or ``test``.
        strengths: Values of λ.
        device: Device to compute on, such as ``cpu`` or ``cuda:0``.
        precision: ``fp32``, ``bf16`` or ``fp64``.
        batch_size: Images and words per batch.
        workers: Processes that decode images; ``None`` for one per core.
        max_bad: Largest share of images that may fail to decode, 0 to 1; queries from them are
            left out.
        progress: Function of the number of images done and the total.

    Returns:
        One result per strength.

    Raises:
        GeomkitError: As :func:`~geomkit.data.simat.load_simat`, or if the model gives embeddings
            that are not finite.
    """
    tables, data, right = load_simat(
        root, preprocess=checkpoint.preprocess, split=split, max_bad=max_bad
    )
    options: dict[str, Any] = {"device": device, "precision": precision, "batch_size": batch_size}
    vocabulary = sorted(set(tables.words.flat))
    model = placed(checkpoint, device=device, precision=precision)
    rows = class_weights(model, vocabulary, ["{}"], checkpoint.tokenizer, **options).numpy().T
    image, kept, bad = image_rows(checkpoint, data, workers=workers, progress=progress, **options)
    if len(kept) < len(data):
        place = np.full(len(data), -1)
        place[kept] = np.arange(len(kept))
        tables = tables.take(place[tables.source] >= 0)
        tables = Simat(tables.regions, tables.folders, place[tables.source], *_rest(tables))
        right = right[kept]
    words = dict(zip(vocabulary, rows, strict=True))
    chance = (right.sum(axis=0)[tables.target] - right[tables.source, tables.target]) / (
        len(image) - 1
    )
    results = []
    for strength in strengths:
        credit = simat_scores(image, words, tables, right, strength=strength)
        parts = {"simat_score": weighted(credit, tables)}
        by_chance = {"simat_score": weighted(chance, tables).value}
        for name in np.unique(tables.field):
            some = tables.field == name
            parts[f"simat_score_{name}"] = weighted(credit[some], tables.take(some))
            by_chance[f"simat_score_{name}"] = weighted(chance[some], tables.take(some)).value
        results.append(
            ArithmeticResult(
                dataset=data.spec,
                split=split,
                strength=strength,
                difference="words",
                metrics={k: p.value for k, p in parts.items()},
                stderr={k: p.stderr for k, p in parts.items()},
                counts={k: p.n for k, p in parts.items()},
                chance=by_chance,
                gallery=len(image),
                **model_names(checkpoint),
                bad=tuple(bad),
                meta={"weights": "norm2^-0.5", "device": device, "precision": precision},
            )
        )
    return results


def _rest(tables: Simat) -> tuple[np.ndarray, ...]:
    return tables.target, tables.words, tables.field, tables.weight


def weighted(credit: np.ndarray, tables: Simat) -> Part:
    """Return the weighted mean in percent; its error takes queries from one image as one group."""
    weight = tables.weight / tables.weight.sum()
    value = float(weight @ credit)
    images, group = np.unique(tables.source, return_inverse=True)
    sums = np.bincount(group, weights=weight * (credit - value))
    count = len(images)
    error = float(np.sqrt((sums**2).sum() * count / (count - 1))) if count > 1 else float("nan")
    return Part(100.0 * value, 100.0 * error, len(credit))
