"""What a result says, in one sentence."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any, Protocol

__all__ = ["plural", "verdict"]

_LEVEL = 0.05
_Z = 1.96
_DISJOINT = 0.995
_COLLAPSED = 0.999


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

    @property
    def n(self) -> int:
        """Number of pairs."""

    @property
    def meta(self) -> Mapping[str, Any]:
        """Whatever else is known."""


def verdict(result: Measured) -> str:
    """Return what a result says of the gap, in one sentence.

    Every part of it is one of the result's numbers against what it would be without a gap or
    without pairing; parts whose number was not measured are left out.

    Args:
        result: Result of :func:`geomkit.gap`.

    >>> from geomkit import GapResult
    >>> result = GapResult({"centroid_distance": 0.85}, n=500, dim=8, null={"centroid_distance":
    ... 0.05}, p_value={"centroid_distance": 0.001})
    >>> verdict(result)
    'Gap: the centroid distance is 0.85, 17 times what no gap would give.'
    """
    if len(result.modalities) == 1:
        return _one_cloud(result)
    parts = [part for part in (_distance(result), _classifier(result)) if part]
    if _collapsed(result):
        parts = [f"{_several(result)} each point in one direction", *parts]
    if not parts:
        reasons = list(dict.fromkeys(result.meta.get("reasons", {}).values()))
        width = _value(result, "mmd")
        said = [] if math.isnan(width) else [f"MMD² {_number(width)}"]
        parts = said or reasons or ["no metric of the gap was asked for"]
    if not result.meta.get("paired", True):
        parts.append("the rows are not paired, so no retrieval is measured")
    elif found := _retrieval(result):
        parts.append(found)
    return f"{_head(result)}: {'; '.join(parts)}."


def plural(modality: str) -> str:
    """Return the rows of a modality in words.

    >>> plural("image"), plural("text"), plural("audio")
    ('images', 'captions', 'audio rows')
    """
    return f"{_one(modality)}s"


def _value(result: Measured, name: str) -> float:
    return result.metrics.get(name, math.nan)


def _one_cloud(result: Measured) -> str:
    (name,) = result.modalities
    sides = [_value(result, f"intra_cosine_{side}") for side in ("image", "text")]
    cosine = next((v for v in sides if math.isfinite(v)), math.nan)
    known = (
        ""
        if math.isnan(cosine)
        else (f"; the mean cosine of two rows is {_number(cosine)} (0: centred, 1: all alike)")
    )
    return f"One modality: there is only {name}, and no other cloud to compare with{known}."


def _head(result: Measured) -> str:
    if _collapsed(result):
        return "Collapsed"
    apart, told = _apart(result), _told(result)
    if told and _value(result, "linear_separability") >= _DISJOINT:
        return "Disjoint clouds"
    if apart and told:
        return "Overlapping clouds with a gap"
    if apart:
        return "Gap" if told is None else "Small gap"
    if told:
        return "No gap between the centres, but the clouds differ" if apart is False else "Gap"
    if _differ(result):
        known = "No gap between the centres, but the" if apart is False else "The"
        return f"{known} clouds differ"
    return "Not measured" if apart is None and told is None else "No gap found"


def _differ(result: Measured) -> bool:
    """Whether the clouds differ in what centres and planes do not see, such as their widths."""
    value, error = _value(result, "mmd"), result.stderr.get("mmd", math.nan)
    return value > 3 * error


def _collapsed(result: Measured) -> bool:
    return all(_value(result, f"intra_cosine_{side}") > _COLLAPSED for side in ("image", "text"))


def _several(result: Measured) -> str:
    return " and ".join(f"all {plural(name)}" for name in result.modalities)


def _apart(result: Measured) -> bool | None:
    """Whether the centroids are farther apart than without a gap; ``None`` if it is not known."""
    name = "centroid_distance"
    value, null = _value(result, name), result.null.get(name, math.nan)
    if math.isnan(value):
        return None
    if (p := result.p_value.get(name)) is not None:
        return p <= _LEVEL
    low = value - _Z * result.stderr.get(name, 0.0)
    return low > (0.0 if math.isnan(null) else null)


def _told(result: Measured) -> bool | None:
    """Whether a classifier tells the modalities apart; ``None`` if it is not known."""
    name = "linear_separability"
    value = _value(result, name)
    return None if math.isnan(value) else value - _Z * result.stderr.get(name, 0.0) > 0.5


def _distance(result: Measured) -> str:
    name = "centroid_distance"
    value, null = _value(result, name), result.null.get(name, math.nan)
    if math.isnan(value):
        return ""
    said = f"the centroid distance is {_about(result, name)}{_number(value)}"
    if math.isnan(null):
        return said
    if not _apart(result):
        above = "not clearly above" if value > null else "no more than"
        return f"{said}, {above} the {_number(null)} expected without a gap"
    if null <= 0:
        return f"{said}, and no gap would give 0"
    times = value / null
    ratio = _number(times) if times < 99.5 else f"{times:,.0f}"
    return f"{said}, {ratio} times what no gap would give"


def _classifier(result: Measured) -> str:
    name = "linear_separability"
    value = _value(result, name)
    if math.isnan(value):
        return ""
    about = _about(result, name)
    if value == 1:
        return "a linear classifier tells all held-out rows apart"
    share = f"{about}{_percent(value)}"
    if not _told(result):
        right = f"a linear classifier is right for {share} of held-out rows"
        return f"{right}, not clearly better than chance"
    return f"a linear classifier is right for {share} of held-out rows (chance 50%)"


def _retrieval(result: Measured) -> str:
    first, second = result.modalities
    several = result.meta.get("texts", result.n) != result.n
    parts: list[str] = []
    chances: list[str] = []
    better = False
    for side, query, answer in (("text", first, second), ("image", second, first)):
        name = f"{side}_retrieval_recall@1"
        if math.isnan(value := _value(result, name)):
            continue
        own = (
            f"one of their {plural(answer)}"
            if several and side == "text"
            else f"their {_one(answer)}"
        )
        find = "" if parts else " find"
        parts.append(f"{_about(result, name)}{_percent(value)} of {plural(query)}{find} {own}")
        if not math.isnan(null := result.null.get(name, math.nan)):
            chances.append(_percent(null))
        better = better or result.p_value.get(name, 0.0) <= _LEVEL
    if not parts:
        return ""
    chance = f" (chance {' and '.join(dict.fromkeys(chances))})" if chances else ""
    more = "" if better else ", not clearly more than by chance"
    return f"{' and '.join(parts)} first{more}{chance}"


def _one(modality: str) -> str:
    return {"image": "image", "text": "caption"}.get(modality, f"{modality} row")


def _about(result: Measured, name: str) -> str:
    return "about " if name in result.estimated else ""


def _number(value: float) -> str:
    """Two digits that count."""
    if 0 < abs(value) < 0.001:
        return "less than 0.001" if value > 0 else "almost 0"
    return f"{value:#.2g}".rstrip(".") if 0 < abs(value) < 99.5 else f"{value:.0f}"


def _percent(share: float) -> str:
    """A share in per cent; what is not all is not called 100%, what is not none not 0%."""
    if share < 1 and share >= 0.9995:
        return "more than 99.9%"
    if 0 < share < 0.0005:
        return "less than 0.1%"
    percent = 100 * share
    if share in (0, 1):
        return f"{percent:.0f}%"
    if percent < 1:
        return f"{percent:.2g}%"
    return f"{percent:.1f}%" if percent < 10 or percent >= 99.5 else f"{percent + 1e-9:.0f}%"
