"""METRICS: every number geomkit reports, by name."""

from __future__ import annotations

from collections.abc import Iterable

from geomkit._core.discovery import registry
from geomkit.errors import unknown_name
from geomkit.metrics.metric import Metric

__all__ = ["METRICS", "select"]

GROUPS = (
    "gap", "pairs", "spread", "distribution", "spectrum", "neighbours", "retrieval", "mixed",
)  # fmt: skip
"""Sections of tables in order, each of them a module of :mod:`geomkit.metrics.definitions`."""

SUMMARY = (
    "centroid_distance", "linear_separability", "relative_modality_gap", "paired_cosine",
    "uniformity_image", "uniformity_text", "cross_uniformity", "intra_cosine_image",
    "intra_cosine_text", "mmd", "text_retrieval_recall@1", "image_retrieval_recall@1",
)  # fmt: skip
"""Metrics that a terminal shows unless others are asked for."""
_SEE = "geomkit metrics"


def _found() -> dict[str, Metric]:
    found = registry("geomkit.metrics.definitions", Metric, first=GROUPS)
    groups = list(dict.fromkeys([*GROUPS, *(metric.group for metric in found.values())]))
    return dict(sorted(found.items(), key=lambda item: groups.index(item[1].group)))


METRICS: dict[str, Metric] = _found()
"""Every metric by name, in the order of tables; a new one comes last in its group."""


def select(metrics: Iterable[str] | None) -> list[str]:
    """Return names of metrics, groups expanded, in the order of :data:`METRICS`.

    Args:
        metrics: Names of metrics and groups, ``summary`` for the dozen that a terminal shows,
            ``all`` or ``None`` for all metrics.

    Raises:
        GeomkitError: If a name is neither a metric nor a group.

    Example:
        >>> select(["mmd", "alignment"])
        ['alignment', 'mmd']
    """
    if metrics is None:
        return list(METRICS)
    chosen: set[str] = set()
    groups = {metric.group for metric in METRICS.values()}
    words = {"summary": SUMMARY, "all": METRICS}
    for name in metrics:
        if name not in groups and name not in METRICS and name not in words:
            raise unknown_name("metric", name, [*words, *sorted(groups), *METRICS], see=_SEE)
        chosen.update(words.get(name, ()))
        chosen.update(m.name for m in METRICS.values() if name in (m.name, m.group))
    return [name for name in METRICS if name in chosen]
