"""SIMAT: Embedding Arithmetic for Text-driven Image Transformation (Couairon et al., 2021).

A query takes an image of "a cat sitting on grass" and the words "cat" and "dog"; the answer should
be an image of a dog sitting on grass. Tables and scores are the data set's own: the nearest image
other than the query's own is right if OSCAR's similarity between it and the target's caption is
above one half, and a query has the weight norm2^−½, so that frequent transformations do not
dominate. The user supplies tables, images and OSCAR's matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Unpack

import numpy as np

from geomkit.data.simat import Simat, load_simat
from geomkit.models.checkpoints.checkpoint import Checkpoint
from geomkit.tasks.features import Runner, Running
from geomkit.tasks.queries import moved, nearest
from geomkit.tasks.result import ArithmeticResult, Part, in_columns, model_names

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
    max_bad: float = 0.01,
    **running: Unpack[Running],
) -> list[ArithmeticResult]:
    """Return SIMAT's score, in percent.

    Args:
        checkpoint: The model; it is moved to the device.
        root: Folder of the data set, see :func:`geomkit.data.simat.simat_tables`.
        split: ``dev``, as in the paper, or ``test``.
        strengths: Values of λ.
        max_bad: Largest share of images that may fail to decode, 0 to 1; queries from them are
            left out.
        running: Device, precision, batch size, workers and progress, see
            :class:`~geomkit.tasks.features.Running`.

    Returns:
        One result per strength.

    Raises:
        GeomkitError: As :func:`~geomkit.data.simat.load_simat`, or if the model gives embeddings
            that are not finite.
    """
    tables, data, right = load_simat(
        root, preprocess=checkpoint.preprocess, split=split, max_bad=max_bad
    )
    on = Runner(checkpoint, **running)
    vocabulary = sorted(set(tables.words.flat))
    words = dict(zip(vocabulary, on.text_rows(vocabulary), strict=True))
    image, kept, bad = on.image_rows(data)
    if len(kept) < len(data):
        place = np.full(len(data), -1)
        place[kept] = np.arange(len(kept))
        tables = tables.take(place[tables.source] >= 0)
        tables = replace(tables, source=place[tables.source])
        right = right[kept]
    chance = (right.sum(axis=0)[tables.target] - right[tables.source, tables.target]) / (
        len(image) - 1
    )
    groups = {"simat_score": np.full(len(tables), True)}
    groups |= {f"simat_score_{name}": tables.field == name for name in np.unique(tables.field)}
    by_chance = {
        name: weighted(chance[some], tables.take(some)).value for name, some in groups.items()
    }
    results = []
    for strength in strengths:
        credit = simat_scores(image, words, tables, right, strength=strength)
        parts = {name: weighted(credit[some], tables.take(some)) for name, some in groups.items()}
        results.append(
            ArithmeticResult(
                dataset=data.spec,
                split=split,
                strength=strength,
                difference="words",
                **in_columns(parts),
                chance=by_chance,
                gallery=len(image),
                **model_names(checkpoint),
                bad=bad,
                meta={
                    "weights": "norm2^-0.5",
                    "device": on.device,
                    "precision": on.precision,
                    "notes": checkpoint.notes,
                },
            )
        )
    return results


def weighted(credit: np.ndarray, tables: Simat) -> Part:
    """Return the weighted mean in percent; its error takes queries from one image as one group."""
    weight = tables.weight / tables.weight.sum()
    value = float(weight @ credit)
    images, group = np.unique(tables.source, return_inverse=True)
    sums = np.bincount(group, weights=weight * (credit - value))
    count = len(images)
    error = float(np.sqrt((sums**2).sum() * count / (count - 1))) if count > 1 else float("nan")
    return Part(100.0 * value, 100.0 * error, len(credit))
