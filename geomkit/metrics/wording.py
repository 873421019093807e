"""What a result says about the gap, in words."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Protocol

__all__ = ["verdict"]

_DISJOINT, _APART = 0.99, 0.75
"""Separability from which clouds are called disjoint, and overlapping."""
_ALIKE = 1.5
"""Times the null up to which a centroid distance is called as small as with no gap."""
_LEVEL = 0.05
"""p-value below which a distance differs from that of no gap."""


class Measured(Protocol):
    """What a sentence is made of: a :class:`~geomkit.GapResult` has it."""

    @property
    def metrics(self) -> Mapping[str, float]:
        """Value by name."""

    @property
    def stderr(self) -> Mapping[str, float]:
        """Standard error by name."""

    @property
    def null(self) -> Mapping[str, float]:
        """Value without a gap by name."""

    @property
    def p_value(self) -> Mapping[str, float]:
        """p-value by name."""

    @property
    def estimated(self) -> Collection[str]:
        """Names of the estimates."""

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities."""


def verdict(result: Measured) -> str:
    """Return one sentence about the gap: the clouds, their distance, their separability, retrieval.

    Words follow the numbers: clouds are *disjoint* from a linear separability of 0.99, *overlap*
    from 0.75, and are *mixed* below; there is *no gap to be seen* where neither the separability
    nor the centroid distance differs from what chance gives.

    Args:
        result: Result with some of ``linear_separability``, ``centroid_distance`` and
            ``text_retrieval_recall@1``; what is missing or undefined is left out.

    Returns:
        The sentence; empty if there is nothing to say it with.

    Example:
        >>> from geomkit import GapResult
        >>> values = {"linear_separability": 1.0, "centroid_distance": 0.8514}
        >>> verdict(GapResult(values, n=500, dim=512))
        'Disjoint clouds: centroid distance 0.85; a linear classifier never errs.'
    """
    parts = [part for part in (_distance(result), _classifier(result), _found(result)) if part]
    start = _clouds(result)
    if not start:
        parts = [part for part in (*parts, *_cones(result)) if part]
        return f"{_upper('; '.join(parts))}." if parts else ""
    return f"{start}: {'; '.join(parts)}." if parts else f"{start}."


def _value(result: Measured, name: str) -> float:
    return result.metrics.get(name, math.nan)


def _clouds(result: Measured) -> str:
    """What the two clouds are to each other."""
    accuracy, far = _value(result, "linear_separability"), _far(result)
    if math.isnan(accuracy):
        return {True: "Clouds apart", False: "No gap to be seen", None: ""}[far]
    error = result.stderr.get("linear_separability", 0.0)
    if accuracy >= _DISJOINT:
        return "Disjoint clouds"
    if accuracy >= _APART:
        return "Clouds that overlap"
    told = accuracy - 1.96 * error > 0.5
    return "No gap to be seen" if not told and far is False else "Mixed clouds"


def _far(result: Measured) -> bool | None:
    """Whether the centroids are farther apart than with no gap; ``None`` if that is not known."""
    value, p = _value(result, "centroid_distance"), result.p_value.get("centroid_distance")
    null = result.null.get("centroid_distance", math.nan)
    if math.isnan(value):
        return None
    if p is not None:
        return p < _LEVEL
    return value > _ALIKE * null if math.isfinite(null) else None


def _distance(result: Measured) -> str:
    value = _value(result, "centroid_distance")
    if math.isnan(value):
        return ""
    null, said = result.null.get("centroid_distance", math.nan), f"centroid distance {value:.2g}"
    if not null > 0:
        return said
    if _far(result) is False:
        return f"{said}, where no gap would give {null:.2g}"
    return f"{said}, {_times(value / null)} what no gap would give"


def _times(ratio: float) -> str:
    if ratio >= 100:
        return "over 100 times"
    return f"{ratio:.2g} times" if ratio >= 1 else f"{100 * ratio:.0f}% of"


def _classifier(result: Measured) -> str:
    accuracy = _value(result, "linear_separability")
    if math.isnan(accuracy):
        return ""
    if accuracy == 1:
        return "a linear classifier never errs"
    error = result.stderr.get("linear_separability", 0.0)
    if accuracy - 1.96 * error <= 0.5:
        return "a linear classifier does no better than chance"
    return f"a linear classifier errs on {_percent(1 - accuracy)} of the rows"


def _found(result: Measured) -> str:
    share = _value(result, "text_retrieval_recall@1")
    if math.isnan(share):
        return ""
    image, text = result.modalities if len(result.modalities) == 2 else ("image", "text")
    about = "about " if "text_retrieval_recall@1" in result.estimated else ""
    return f"{about}{_percent(share)} of {image} rows find their {text} first"


def _cones(result: Measured) -> list[str]:
    """How narrow each cloud is: all there is to say of one cloud alone."""
    said = []
    for side, modality in zip(("image", "text"), result.modalities, strict=False):
        cosine = _value(result, f"intra_cosine_{side}")
        if math.isfinite(cosine):
            said.append(f"mean cosine of two {modality} rows {round(cosine, 2) + 0.0:.2f}")
    return said


def _percent(share: float) -> str:
    """A share in per cent, never rounded to all or none.

    >>> _percent(0.5486), _percent(0.9996), _percent(0.0004), _percent(1.0)
    ('55%', 'over 99.9%', 'under 0.1%', '100%')
    """
    if 0 < share < 0.0995:
        return "under 0.1%" if share < 0.001 else f"{100 * share:.1f}%"
    if 0.9905 <= share < 1:
        return "over 99.9%" if share > 0.999 else f"{100 * share:.1f}%"
    return f"{100 * share:.0f}%"


def _upper(words: str) -> str:
    return words[:1].upper() + words[1:]
