"""SIMAT: Embedding Arithmetic for Text-driven Image Transformation (Couairon et al., 2021).

A query takes a photograph of "a cat sitting on grass", the words "cat" and "dog", and asks for a
photograph of a dog sitting on grass. The data set's own tables and scoring are followed: the
nearest photograph other than the query's own is right if OSCAR's similarity between it and the
target's caption is above one half, and a query counts by norm2^−½, so that frequent
transformations do not drown the rest. A user supplies tables, photographs and OSCAR's matrix.
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
    """Credit ``(q,)`` of each query: whether its answer fits, a tie's share that does.

    Args:
        image: ``(n, d)`` unit rows of the photographs.
        words: unit rows ``(d,)`` of all words.
        tables: the queries.
        right: ``(n, captions)``, see :func:`~geomkit.data.simat.load_simat`.
        strength: λ.
    """
    away, added = (np.stack([words[w] for w in tables.words[:, k]]) for k in (0, 1))
    query = moved(image, tables.source, added - away, strength)
    credit = np.zeros(len(tables))
    for part, _, shares in nearest(query, image, tables.source):
        credit[part] = (shares * right[:, tables.target[part]].T).sum(axis=1)
    return credit


def simat(
    loaded: Checkpoint,
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
    """SIMAT's score, in percent.

    Args:
        loaded: the model; it is moved to ``device``.
        root: see :func:`geomkit.data.simat.simat_tables`.
        split: ``dev``, as the paper, or ``test``.
        strengths: λ, any number.
        device, precision: as resolved.
        batch_size: photographs and words at a time.
        workers: processes that decode; ``None`` for one a core.
        max_bad: largest share of photographs that may fail to decode; queries from them are left
            out.
        progress: called with photographs done and in all.

    Returns:
        A result for each strength.

    Raises:
        GeomkitError: as :func:`~geomkit.data.simat.load_simat`, or if the model gives rows that
            are not finite.
    """
    tables, data, right = load_simat(
        root, preprocess=loaded.preprocess, split=split, max_bad=max_bad
    )
    options: dict[str, Any] = {"device": device, "precision": precision, "batch_size": batch_size}
    vocabulary = sorted(set(tables.words.flat))
    model = placed(loaded, device=device, precision=precision)
    rows = class_weights(model, vocabulary, ["{}"], loaded.tokenizer, **options).numpy().T
    image, kept, bad = image_rows(loaded, data, workers=workers, progress=progress, **options)
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
                **model_names(loaded),
                bad=tuple(bad),
                meta={"weights": "norm2^-0.5", "device": device, "precision": precision},
            )
        )
    return results


def _rest(tables: Simat) -> tuple[np.ndarray, ...]:
    return tables.target, tables.words, tables.field, tables.weight


def weighted(credit: np.ndarray, tables: Simat) -> Part:
    """Weighted mean in percent; queries from one photograph are one draw."""
    weight = tables.weight / tables.weight.sum()
    value = float(weight @ credit)
    photographs, group = np.unique(tables.source, return_inverse=True)
    sums = np.bincount(group, weights=weight * (credit - value))
    count = len(photographs)
    error = float(np.sqrt((sums**2).sum() * count / (count - 1))) if count > 1 else float("nan")
    return Part(100.0 * value, 100.0 * error, len(credit))
