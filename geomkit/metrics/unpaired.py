"""Clouds without pairs: one alone, or two whose rows do not belong together.

What describes one cloud is measured as in a pair; what compares two clouds has here its form
for independent samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from geomkit._core.array import Array, to_numpy
from geomkit.embeddings.embeddings import Clouds, Embeddings
from geomkit.functional import gaussian_potential
from geomkit.metrics.metric import Metric
from geomkit.metrics.number import NAN, Number
from geomkit.metrics.registry import METRICS
from geomkit.metrics.result import GapResult
from geomkit.metrics.separability import linear_separability

__all__ = ["measure_clouds"]

_BLOCK = 2048
_NEAREST = 10
_MOST = 25_000
"""Rows of each cloud up to which all are compared with all; of more a random sample is."""
_CLASSIFIED = 20_000
"""Rows of each cloud that the classifier is fitted on at most; always the same number of both."""

Measure = Callable[[Embeddings, Sequence[str]], GapResult]


def measure_clouds(
    clouds: Clouds,
    wanted: Sequence[Metric],
    measure: Measure,
    *,
    folds: int | str,
    seed: int,
    source: str,
    split: str | None,
) -> GapResult:
    """Return the numbers that need no pairs; the others are undefined.

    Args:
        clouds: One or two clouds.
        wanted: Metrics to compute, those that need pairs among them.
        measure: Function from embeddings and names of metrics to a result.
        folds: Folds of the linear separability.
        seed: Random seed of folds and samples.
        source: Name of the source.
        split: Name of the split.
    """
    names = [metric.name for metric in wanted]
    parts = list(clouds.rows.values())
    found: dict[str, Number] = {}
    ideal: dict[str, float] = {}
    reasons: dict[str, str] = {}
    estimated: list[str] = []
    sides = ("text",) if list(clouds.rows) == ["text"] else ("image", "text")
    for side, rows in zip(sides, parts, strict=False):
        own = [m.name for m in METRICS.values() if not m.across and m.name.endswith(f"_{side}")]
        both = [f"uniformity_{side}"] if "uniformity" in names else []
        # A cloud with itself: what describes one side does not see the other.
        twice = Embeddings(rows, rows, np.arange(len(rows)), meta={"norms": {}})
        r = measure(twice, [name for name in own if name in names or name in both])
        for name, value in r.metrics.items():
            null = NAN if METRICS[name].group == "spread" else r.null.get(name, NAN)
            found[name] = Number(value, r.stderr.get(name, NAN), null)
        ideal |= r.ideal
        reasons |= r.meta["reasons"]
        estimated += r.estimated
    if len(parts) == 2 and "uniformity" in names:
        x, y = found["uniformity_image"], found["uniformity_text"]
        found["uniformity"] = Number((x.value + y.value) / 2, math.hypot(x.stderr, y.stderr) / 2)
        estimated += ["uniformity"] * ("uniformity_image" in estimated)
    if len(parts) == 2 and parts[0].shape[1] == parts[1].shape[1]:
        across, sampled = _across(parts[0], parts[1], set(names), folds=folds, seed=seed)
        found |= across
        estimated += sampled
    reasons |= {name: clouds.reason for name in names if name not in found}
    known = {n: found[n] for n in names if n in found and math.isfinite(found[n].value)}
    first, dim = len(parts[0]), int(parts[0].shape[1])
    ideal |= {n: METRICS[n].ideal_at(dim) for n in found if METRICS[n].ideal is not None}
    return GapResult(
        metrics={name: known[name].value if name in known else NAN for name in names},
        n=first,
        dim=dim,
        modalities=tuple(clouds.rows),
        source=source,
        split=split,
        exact=not estimated,
        estimated=tuple(name for name in names if name in estimated),
        stderr={name: x.stderr for name, x in known.items() if math.isfinite(x.stderr)},
        null={name: x.null for name, x in known.items() if math.isfinite(x.null)},
        ideal={name: value for name, value in ideal.items() if name in known},
        meta={
            **clouds.meta,
            "paired": False,
            "texts": len(parts[-1]),
            "folds": folds,
            "seed": seed,
            "reasons": reasons,
            "queries": min(_MOST, first),
        },
    )


def _across(
    x: Array, y: Array, names: set[str], *, folds: int | str, seed: int
) -> tuple[dict[str, Number], list[str]]:
    """What compares two independent clouds of one dimension."""
    found: dict[str, Number] = {}
    sampled: list[str] = []
    if "centroid_distance" in names:
        found["centroid_distance"] = _centroid_distance(_moments(x), _moments(y))
    rng = np.random.default_rng(seed)
    if names & {"linear_separability", "linear_separability_auc"}:
        count = min(len(x), len(y), _CLASSIFIED)
        one, other = (_sample(rows, count, rng) for rows in (x, y))
        chosen = min(folds, count) if isinstance(folds, int) else folds
        scores = linear_separability(one, other, folds=chosen, seed=seed)
        found["linear_separability"] = Number(scores.accuracy, scores.accuracy_error, 0.5)
        found["linear_separability_auc"] = Number(scores.auc, scores.auc_error, 0.5)
        if count < min(len(x), len(y)):
            sampled += ["linear_separability", "linear_separability_auc"]
    pairwise = {"mmd", "cross_uniformity", "hubness_image", "hubness_text"}
    if names & pairwise:
        one, other = (_sample(rows, _MOST, rng) for rows in (x, y))
        sampled += sorted(names & pairwise) if max(len(x), len(y)) > _MOST else []
        cross, hubs_y = _compared(one, other)
        hubs_x = _compared(other, one)[1]
        within = [_within(rows) for rows in (one, other)]
        found["mmd"] = Number(within[0] + within[1] - 2 * cross, null=0.0)
        found["cross_uniformity"] = Number(math.log(cross))
        found |= {"hubness_image": Number(hubs_x), "hubness_text": Number(hubs_y)}
    return found, sampled


def _sample(rows: Array, count: int, rng: np.random.Generator) -> np.ndarray:
    """At most ``count`` rows at random, in their order, in float64."""
    if len(rows) <= count:
        return to_numpy(rows[:]).astype(np.float64)
    return to_numpy(rows[np.sort(rng.permutation(len(rows))[:count])]).astype(np.float64)


def _moments(rows: Array) -> tuple[int, np.ndarray, np.ndarray]:
    """Number, mean and covariance (ddof 1) of rows."""
    n, d = rows.shape
    total, second = np.zeros(d), np.zeros((d, d))
    blocks = [slice(start, start + _BLOCK) for start in range(0, n, _BLOCK)]
    for block in blocks:
        total += to_numpy(rows[block]).astype(np.float64).sum(axis=0)
    mean = total / n
    for block in blocks:
        centred = to_numpy(rows[block]).astype(np.float64) - mean
        second += centred.T @ centred
    return n, mean, second / (n - 1)


def _centroid_distance(
    x: tuple[int, np.ndarray, np.ndarray], y: tuple[int, np.ndarray, np.ndarray]
) -> Number:
    """Distance of two means; the null is the root mean square if all rows are dealt out anew."""
    (n, mean, a), (m, other, b) = x, y
    way = mean - other
    length = float(np.linalg.norm(way))
    error = math.sqrt(max(0.0, way @ (a / n + b / m) @ way)) / length if length > 0 else NAN
    between = n * m / (n + m) * length**2
    pooled = ((n - 1) * a.trace() + (m - 1) * b.trace() + between) / (n + m - 1)
    return Number(length, error, math.sqrt((1 / n + 1 / m) * pooled))


def _compared(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Mean potential of all x with all y, and the hubness of y among the nearest of x."""
    total, counts = 0.0, np.zeros(len(y))
    for start in range(0, len(x), _BLOCK):
        cosine = x[start : start + _BLOCK] @ y.T
        if len(y) > _NEAREST:
            near = np.argpartition(cosine, -_NEAREST, axis=1)[:, -_NEAREST:]
            counts += np.bincount(near.ravel(), minlength=len(y))
        total += float(gaussian_potential(cosine).sum())
    centred = counts - counts.mean()
    spread = float((centred**2).mean())
    skew = float((centred**3).mean()) / spread**1.5 if spread > 0 else 0.0
    return total / (len(x) * len(y)), skew if len(y) > _NEAREST else NAN


def _within(rows: np.ndarray) -> float:
    """Mean potential of two different rows."""
    n = len(rows)
    blocks = (rows[start : start + _BLOCK] @ rows.T for start in range(0, n, _BLOCK))
    total = sum(float(gaussian_potential(cosine).sum()) for cosine in blocks)
    return (total - n) / (n * (n - 1))
