"""Accuracy and recall from scores of classes, with standard errors.

Tied classes count with their expectation under random order, so that a model that gives every class
the same score is at chance, regardless of the order of the classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from geomkit.engine.ranks import Ranks, count_above, tie_width
from geomkit.metrics.number import NAN, mean_with_error

__all__ = ["Scored", "class_variance_share", "score"]

TOP = 5


@dataclass(frozen=True)
class Scored:
    """Accuracy of the classification of ``n`` images.

    Attributes:
        metrics: ``acc1``, ``acc5`` (NaN with fewer than five classes, as in CLIP_benchmark) and
            ``mean_per_class_recall`` over the classes that have an image; each 0 to 1.
        stderr: Standard errors of the metrics over the draw of the images.
        chance: Scores of a random guess among the classes.
        majority_share: ``acc1`` of always guessing the most frequent class.
        counts: Number of images of each class, ``(C,)``.
        recall: Share of each class's images that are classified right, ``(C,)``; NaN without
            images.
        confusion: Number of images of class i classified as class j, ``(C, C)``; fractions where
            scores tie.
    """

    metrics: dict[str, float]
    stderr: dict[str, float]
    chance: dict[str, float]
    majority_share: float
    counts: np.ndarray
    recall: np.ndarray
    confusion: np.ndarray

    @property
    def n(self) -> int:
        """Number of images."""
        return int(self.counts.sum())


def score(
    blocks: Iterable[tuple[np.ndarray, np.ndarray]],
    classes: int,
    groups: np.ndarray | None = None,
) -> Scored:
    """Return accuracies from scores.

    Args:
        blocks: Scores ``(k, C)`` and labels ``(k,)`` of blocks of images.
        classes: Number of classes ``C``.
        groups: For each of all ``n`` images the number of its group: images of one group may depend
            on each other, and standard errors are over the draw of groups. Default: all are
            independent.

    >>> identity = np.eye(3)
    >>> score([(identity, np.arange(3))], 3).metrics["acc1"]
    1.0
    >>> round(score([(0 * identity, np.arange(3))], 3).metrics["acc1"], 6)  # every score equal
    0.333333
    """
    greater, tied, labels = [], [], []
    confusion = np.zeros((classes, classes))
    for scores, own in blocks:
        right = scores[np.arange(len(own)), own]
        above, level = count_above(scores, right[:, None], axis=1)
        greater.append(above)
        tied.append(level - 1)
        labels.append(own)
        top = scores >= scores.max(axis=1, keepdims=True) - tie_width(scores)
        np.add.at(confusion, own, top / top.sum(axis=1, keepdims=True))
    ranks = Ranks(np.concatenate(greater), np.concatenate(tied))
    label = np.concatenate(labels)
    counts = np.bincount(label, minlength=classes)
    hits = ranks.hits(1)
    with np.errstate(invalid="ignore"):
        recall = np.bincount(label, weights=hits, minlength=classes) / counts
    if groups is not None:
        groups = np.unique(groups, return_inverse=True)[1]
    acc1, error1 = mean_with_error(hits, groups)
    acc5, error5 = mean_with_error(ranks.hits(TOP), groups) if classes >= TOP else (NAN, NAN)
    mean_recall = float(recall[counts > 0].mean())
    groups = np.arange(len(hits)) if groups is None else groups
    recall_error = _recall_error(hits, label, recall, groups)
    chance5 = TOP / classes if classes >= TOP else NAN
    names = ("acc1", "acc5", "mean_per_class_recall")
    return Scored(
        metrics=dict(zip(names, (acc1, acc5, mean_recall), strict=True)),
        stderr=dict(zip(names, (error1, error5, recall_error), strict=True)),
        chance=dict(zip(names, (1.0 / classes, chance5, 1.0 / classes), strict=True)),
        majority_share=float(counts.max() / counts.sum()),
        counts=counts,
        recall=recall,
        confusion=confusion,
    )


def class_variance_share(rows: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of the variance of embeddings that lies between the means of classes.

    Args:
        rows: Embeddings of images, ``(n, d)``.
        labels: Class of each, ``(n,)``.

    Returns:
        The share, 0 to 1; NaN if all rows are equal.

    >>> rows = np.array([[1.0, 0.0], [1.0, 2.0], [-1.0, 0.0], [-1.0, 2.0]])
    >>> class_variance_share(rows, np.array([0, 0, 1, 1]))
    0.5
    """
    centred = rows - rows.mean(axis=0, dtype=float)
    whole = float((centred**2).sum())
    of_class = [centred[labels == label] for label in np.unique(labels)]
    between = sum(len(some) * float((some.mean(axis=0) ** 2).sum()) for some in of_class)
    return between / whole if whole > 0 else NAN


def _recall_error(
    hits: np.ndarray, label: np.ndarray, recall: np.ndarray, groups: np.ndarray
) -> float:
    """Return the standard error of the mean recall, with each class as a stratum.

    An image counts by its deviation from its class's recall; the sums over groups, which may have
    images of several classes, are independent. Each class's deviations are as if it had one group
    fewer, which for groups of one image is the stratified variance. A class with one group has no
    variance estimate; the largest possible variance, ¼, is used.
    """
    counts = np.bincount(label, minlength=len(recall))
    cells = np.unique(np.stack([label, groups]), axis=1)[0]
    among = np.bincount(cells, minlength=len(recall))
    several = among > 1
    scale = np.zeros(len(recall))
    scale[several] = np.sqrt(among[several] / (among[several] - 1.0)) / counts[several]
    sums = np.bincount(groups, weights=(hits - np.nan_to_num(recall)[label]) * scale[label])
    variance = (sums**2).sum() + 0.25 * (among == 1).sum()
    return math.sqrt(float(variance)) / int((counts > 0).sum())
