"""gap(): all the numbers of a pair of embedding matrices, as one frozen result."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from geomkit._array import Array
from geomkit.embeddings import Embeddings
from geomkit.errors import unknown_name
from geomkit.metrics.registry import METRICS
from geomkit.metrics.statistics import Statistics

__all__ = ["SCHEMA_VERSION", "GapResult", "gap", "select", "uniform_sphere_limit"]

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class GapResult:
    """What :func:`gap` found.

    Attributes:
        metrics: value by name; NaN where undefined, with the reason in ``meta["reasons"]``.
        n: pairs.
        dim: dimension.
        modalities: names of the two.
        source: where the rows came from.
        split: which part of the data they are, if known.
        exact: whether every value is exact.
        estimated: names of those that are not.
        stderr, null, ideal, p_value: by name; empty where there is nothing to say.
        meta: seed, folds, caption index, norms found, and whatever the source knows.
    """

    metrics: Mapping[str, float]
    n: int
    dim: int
    modalities: tuple[str, str] = ("image", "text")
    source: str = ""
    split: str | None = None
    exact: bool = True
    estimated: tuple[str, ...] = ()
    stderr: Mapping[str, float] = field(default_factory=dict)
    null: Mapping[str, float] = field(default_factory=dict)
    ideal: Mapping[str, float] = field(default_factory=dict)
    p_value: Mapping[str, float] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The result as plain JSON types, non-finite numbers as ``None``.

        >>> GapResult({"alignment": float("nan")}, n=2, dim=3).to_json()["metrics"]
        {'alignment': None}
        """
        return {
            "source": self.source,
            "split": self.split,
            "modalities": list(self.modalities),
            "n": self.n,
            "dim": self.dim,
            "exact": self.exact,
            "estimated": list(self.estimated),
            "metrics": _finite(self.metrics),
            "stderr": _finite(self.stderr),
            "null": _finite(self.null),
            "ideal": _finite(self.ideal),
            "p_value": _finite(self.p_value),
            "meta": dict(self.meta),
        }


def _finite(values: Mapping[str, float]) -> dict[str, float | None]:
    return {key: value if math.isfinite(value) else None for key, value in values.items()}


def select(metrics: Iterable[str] | None) -> list[str]:
    """Names of metrics, groups expanded, in the order of :data:`METRICS`; all if none are given.

    Raises:
        GeomkitError: for a name that is neither a metric nor a group.

    >>> select(["alignment"])
    ['paired_cosine', 'alignment']
    """
    if metrics is None:
        return list(METRICS)
    chosen: set[str] = set()
    groups = {metric.group for metric in METRICS.values()}
    for name in metrics:
        # "alignment" and "uniformity" are both a metric and the group around it: the group wins.
        if name in groups:
            chosen.update(m.name for m in METRICS.values() if m.group == name)
        elif name in METRICS:
            chosen.add(name)
        else:
            raise unknown_name("metric", name, [*sorted(groups), *METRICS])
    return [name for name in METRICS if name in chosen]


def gap(
    image: Embeddings | Array,
    text: Array | None = None,
    image_index: Array | None = None,
    *,
    metrics: Iterable[str] | None = None,
    caption_index: int = 0,
    folds: int | str = 5,
    seed: int = 0,
    source: str = "",
    split: str | None = None,
) -> GapResult:
    """Measure the geometry of a pair of embedding matrices.

    Args:
        image: :class:`Embeddings`, or the image rows ``(n, d)``, raw or normalised.
        text: the text rows ``(m, d)``.
        image_index: whose each text is, if an image has several.
        metrics: names or groups from :data:`METRICS`; all if not given.
        caption_index: which text of each image everything but retrieval uses.
        folds: of the linear separability: a number, or ``"paper"``.
        seed: of the folds.
        source, split: recorded in the result.

    Raises:
        GeomkitError: for unfit rows (see :meth:`Embeddings.of`) or an unknown metric.

    >>> import numpy as np
    >>> result = gap(np.eye(4), np.eye(4)[::-1], metrics=["centroid_distance", "uniformity_image"])
    >>> {name: round(value, 6) for name, value in result.metrics.items()}["centroid_distance"]
    0.0
    """
    if isinstance(image, Embeddings):
        embeddings = image
    else:
        embeddings = Embeddings.of(image, text, image_index)
    names = select(metrics)
    groups = {METRICS[name].group for name in names}
    quadratic = [METRICS[name] for name in names if METRICS[name].cost == "n²·d"]
    statistics = Statistics(
        embeddings,
        caption_index=caption_index,
        folds=folds,
        seed=seed,
        retrieval="retrieval" in groups,
        potentials=any(metric.group != "retrieval" for metric in quadratic),
    )
    values = {name: METRICS[name].value(statistics) for name in names}
    reasons = {
        name: METRICS[name].undefined for name, value in values.items() if not math.isfinite(value)
    }
    return GapResult(
        metrics=values,
        n=embeddings.n,
        dim=embeddings.dim,
        modalities=embeddings.modalities,
        source=source,
        split=split,
        meta={
            **embeddings.meta,
            "texts": embeddings.m,
            "caption_index": caption_index,
            "folds": folds,
            "seed": seed,
            "reasons": reasons,
        },
    )


def uniform_sphere_limit(dim: int, t: float = 2.0) -> float:
    r"""Uniformity of the uniform distribution on the sphere, −2t + log ₀F₁(; d/2; t²).

    Summed as its power series, whose terms fall off fast; the equivalent Bessel form underflows
    for large d.

    >>> round(uniform_sphere_limit(3), 4), round(uniform_sphere_limit(512), 4)
    (-2.0798, -3.9844)
    """
    term = total = 1.0
    k = 0
    while term > 1e-17 * total:
        term *= t * t / ((dim / 2 + k) * (k + 1))
        total += term
        k += 1
    return -2.0 * t + math.log(total)
