"""What metrics are called on an axis, and the ends they cannot pass."""

from __future__ import annotations

import math

__all__ = ["axis_label", "range_label", "value_range"]

_LABELS = {
    "centroid_distance": "Centroid distance",
    "linear_separability": "Linear separability",
    "linear_separability_auc": "Separability, AUC",
    "paired_cosine": "Paired cosine",
    "alignment": "Alignment",
    "uniformity": "Uniformity, mean",
    "uniformity_image": "Uniformity, images",
    "uniformity_text": "Uniformity, texts",
    "cross_uniformity": "Cross-uniformity",
    "relative_modality_gap": "Relative modality gap",
    "mmd": "MMD²",
    "cka": "CKA",
}


def axis_label(metric: str) -> str:
    """A metric's name for people.

    >>> axis_label("text_retrieval_recall@5"), axis_label("effective_rank_image")
    ('Recall@5, I→T', 'Effective rank, images')
    """
    if metric in _LABELS:
        return _LABELS[metric]
    for side, arrow in (("text", "I→T"), ("image", "T→I")):
        start = f"{side}_retrieval_"
        if metric.startswith(start):
            rest = metric.removeprefix(start).replace("_", " ").replace("mrr", "MRR")
            return f"{rest[:1].upper()}{rest[1:]}, {arrow}"
    for end, what in (("_image", "images"), ("_text", "texts")):
        if metric.endswith(end):
            return f"{_words(metric.removesuffix(end))}, {what}"
    return _words(metric)


def value_range(metric: str) -> tuple[float, float]:
    """Ends that a metric cannot pass, infinite where there is none.

    >>> value_range("image_retrieval_recall@1")
    (0.0, 1.0)
    """
    bounded = {
        "centroid_distance": (0.0, 2.0),
        "alignment": (0.0, 4.0),
        "paired_cosine": (-1.0, 1.0),
        "mmd": (-math.inf, 2.0),
    }
    if metric in bounded:
        return bounded[metric]
    if "uniformity" in metric:
        return -8.0, 0.0
    unit = ("linear_separability", "recall", "mrr", "variance", "cka", "mutual_knn", "relative")
    return (0.0, 1.0) if any(word in metric for word in unit) else (-math.inf, math.inf)


_HINTS = {
    "linear_separability": "0.5 mixed, 1 disjoint",
    "linear_separability_auc": "0.5 mixed, 1 disjoint",
    "uniformity": "lower: more uniform",
    "uniformity_image": "lower: more uniform",
    "uniformity_text": "lower: more uniform",
    "cross_uniformity": "lower: farther apart",
}


def range_label(metric: str) -> str:
    """What the ends of a metric are, to stand beside its axis.

    >>> range_label("centroid_distance")
    'range 0 to 2'
    """
    low, high = value_range(metric)
    plain = f"range {low:g} to {high:g}".replace("-", "−") if math.isfinite(low + high) else ""
    return _HINTS.get(metric, plain)


def _words(name: str) -> str:
    words = name.replace("_", " ")
    return words[:1].upper() + words[1:]
