"""Names of metrics on an axis, and their ranges."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import cache

from geomkit._core.shown import distinct
from geomkit.metrics import METRICS

__all__ = ["axis_label", "fitted", "range_label", "short_titles", "text_width", "value_range"]

_ROOM = 34
"""Characters of a source's name that a panel, a legend or an axis has room for."""

_LABELS = {
    "linear_separability_auc": "Separability, AUC",
    "uniformity": "Uniformity, mean",
    "cross_uniformity": "Cross-uniformity",
    "mmd": "MMD²",
    "cka": "CKA",
}
"""Labels that are not the metric's name."""


def axis_label(metric: str) -> str:
    """Return the label of a metric on an axis.

    >>> axis_label("text_retrieval_recall@5"), axis_label("effective_rank_image")
    ('Recall@5, I→T', 'Effective rank, images')
    >>> axis_label("mixed_image_retrieval_recall@5")
    'Mixed recall@5, T→I'
    """
    if metric in _LABELS:
        return _LABELS[metric]
    if metric.startswith(("recall@", "mixed_recall@")):
        metric += "_both_ways"
    for side, arrow in (("text", "I→T"), ("image", "T→I")):
        start, found, rest = metric.partition(f"{side}_retrieval_")
        if found and start in ("", "mixed_"):
            words = start.replace("_", " ") + rest.replace("_", " ").replace("mrr", "MRR")
            return f"{words[:1].upper()}{words[1:]}, {arrow}"
    for end, what in (("_image", "images"), ("_text", "texts")):
        if metric.endswith(end):
            return f"{_words(metric.removesuffix(end))}, {what}"
    return _words(metric)


def value_range(metric: str) -> tuple[float, float]:
    """Return the smallest and the largest possible value of a metric, infinite if there is none.

    >>> value_range("image_retrieval_recall@1")
    (0, 1)
    """
    if metric.startswith(("recall@", "mixed_recall@")) or metric == "modality_bias":
        return 0, 1
    known = METRICS.get(metric)
    return (known.low, known.high) if known else (-math.inf, math.inf)


def range_label(metric: str) -> str:
    """Return a short reading of a metric's axis: what its ends mean, or its range.

    >>> range_label("centroid_distance")
    'range 0 to 2'
    """
    low, high = value_range(metric)
    plain = f"range {low:g} to {high:g}".replace("-", "−") if math.isfinite(low + high) else ""
    hint = METRICS[metric].hint if metric in METRICS else ""
    return hint or plain


def short_titles(names: Iterable[object]) -> list[str]:
    """Return names of sources as a figure has room for, shortened in the middle.

    >>> short_titles(["a", "runs/of/last/week/with/a/long/name/ckpt.pt"])
    ['a', 'runs/of/last/wee…long/name/ckpt.pt']
    """
    texts = [str(name) for name in names]
    return distinct(texts, [_ROOM] * len(texts))


def fitted(texts: Sequence[str], inches: float, size: float) -> list[str]:
    """Return texts whose lines are at most as wide as given, shortened in the middle.

    Args:
        texts: Texts; lines that were different stay so.
        inches: Largest width of a line.
        size: Font size in pt.

    >>> fitted(["short", "a name of many letters, which nobody reads"], 1.0, 8)
    ['short', 'a name …y reads']
    """
    lines = [text.split("\n") for text in texts]
    most = max(map(len, lines), default=0)
    for k in range(most):
        column = [parts[k] for parts in lines if len(parts) > k]
        short = iter(_fitted(column, inches, size))
        for parts in lines:
            if len(parts) > k:
                parts[k] = next(short)
    return ["\n".join(parts) for parts in lines]


def _fitted(names: list[str], inches: float, size: float) -> list[str]:
    found = names
    for room in range(max(map(len, names), default=0), 5, -1):
        if all(text_width(name, size) <= inches for name in found):
            break
        found = distinct(names, [room] * len(names))
    return found


@cache
def text_width(text: str, size: float) -> float:
    """Return the width in inches of a line in the font of figures."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(family="sans-serif", size=size)
    width, *_ = text_to_path.get_text_width_height_descent(text, font, ismath=False)
    return float(width) / 72


def _words(name: str) -> str:
    words = name.replace("_", " ")
    return words[:1].upper() + words[1:]
