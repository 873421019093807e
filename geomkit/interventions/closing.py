"""close(): what interventions do to the gap and to retrieval, fitted and measured on other rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from geomkit._core.array import to_numpy
from geomkit._core.table import Table
from geomkit.embeddings.embeddings import Embeddings
from geomkit.embeddings.rows import Rows, TakenRows
from geomkit.engine.moments import Moments
from geomkit.errors import GeomkitError, unknown_name
from geomkit.functional import contrastive
from geomkit.interventions.affine import Affine
from geomkit.interventions.applying import check_method, closed, fit, halved
from geomkit.interventions.base import Intervention
from geomkit.interventions.registry import INTERVENTIONS
from geomkit.interventions.translation import Translation
from geomkit.metrics import METRICS, RECALL_AT, Difference, GapResult, gap, select
from geomkit.metrics.comparison import difference

__all__ = ["SHOWN", "Closing", "Outcome", "Scores", "Shifts", "check_measured", "close", "shifts"]

SCHEMA_VERSION = 1
SHOWN = (
    "centroid_distance", "linear_separability", "relative_modality_gap",
    "text_retrieval_recall@1", "image_retrieval_recall@1", "mixed_recall@10", "modality_bias",
)  # fmt: skip
"""What the table shows unless asked for other metrics."""
_MEANS = {
    "modality_bias": [f"modality_bias_{side}" for side in ("image", "text")],
    **{
        f"{kind}recall@{k}": [f"{kind}{side}_retrieval_recall@{k}" for side in ("text", "image")]
        for kind in ("", "mixed_")
        for k in RECALL_AT
    },
}
"""Names that stand for the mean of two metrics, one a direction."""

_STRENGTHS = tuple(np.arange(-1.0, 2.01, 0.25).tolist())
"""Fractions of the gap vector that a curve is over."""
_COMPARED = 1 << 20
"""Images up to which equal ones are looked for."""
_LOSS_PAIRS = 2048
"""Most pairs that the loss of a curve is over."""

Scores = Callable[[Intervention | None], Mapping[str, np.ndarray]]
"""Further numbers of a model after an intervention: arrays from 0 to 1 whose means they are."""


@dataclass(frozen=True)
class Outcome:
    """What one method does.

    Attributes:
        method: Name with options.
        intervention: What was fitted.
        result: Metrics after it, on the rows that were not fitted on.
    """

    method: str
    intervention: Affine
    result: GapResult


@dataclass(frozen=True)
class Closing:
    """What several methods do to one pair of embeddings; prints as a table.

    Attributes:
        before: Metrics of the rows as they are.
        outcomes: Each method that could be fitted.
        left_out: Why the others could not, by method.
        moments: Moments of the pairs that they were fitted on.
        fitted: What those are, in words.
        shared: Number of measured images whose rows are among those fitted on too.
        shown: Metrics, or names of means of two, in the order of the table.
    """

    before: GapResult
    outcomes: tuple[Outcome, ...]
    moments: Moments
    left_out: Mapping[str, str] = field(default_factory=dict)
    fitted: str = ""
    shared: int = 0
    shown: tuple[str, ...] = SHOWN

    def value(self, name: str, outcome: Outcome | None = None) -> float:
        """Return a metric or mean after a method, or before any."""
        return _value(outcome.result if outcome else self.before, name)

    def difference(self, outcome: Outcome, name: str) -> Difference:
        """Return the difference that a method makes to a metric or mean, with its paired error."""
        return difference(_MEANS.get(name, [name]), self.before, outcome.result)

    def best(self, name: str, keep: Mapping[str, float] | None = None) -> Outcome | None:
        """Return the method that brings a metric nearest to its ideal.

        ``None`` if no method that may brings it nearer than it is without any.

        Args:
            name: Metric, or mean of two.
            keep: For metrics, how much farther from their ideal a method may bring them.

        Raises:
            GeomkitError: For a metric that was not measured or has no ideal.

        Methods are compared on the rows that the table is of: of many with equal effects, the best
        by chance looks better than it is.
        """

        def away(result: GapResult, name: str) -> float:
            return abs(_value(result, name) - _ideal(result, name))

        limits = {name: away(self.before, name) + more for name, more in (keep or {}).items()}
        allowed = [
            o
            for o in self.outcomes
            if all(away(o.result, at) <= limit + 1e-12 for at, limit in limits.items())
            and away(o.result, name) < away(self.before, name)
        ]
        return min(allowed, key=lambda o: away(o.result, name), default=None)

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain JSON types, with ``None`` for non-finite numbers."""

        def numbers(outcome: Outcome, name: str) -> dict[str, float | None]:
            value = {"value": _value(outcome.result, name)}
            about = self.difference(outcome, name)._asdict()
            about["difference"] = about.pop("value")
            return {k: v if math.isfinite(v) else None for k, v in {**value, **about}.items()}

        measured = dict.fromkeys([*self.shown, *self.before.metrics])
        return {
            "schema_version": SCHEMA_VERSION,
            "fitted": self.fitted,
            "shared": self.shared,
            "before": self.before.to_dict(),
            "methods": [
                {
                    "method": o.method,
                    "metrics": {name: numbers(o, name) for name in measured},
                    "estimated": list(o.result.estimated),
                    "reasons": o.result.meta["reasons"],
                }
                for o in self.outcomes
            ],
            "left_out": dict(self.left_out),
        }

    def table(self) -> Table:
        """Return a table with a row for each method and a column for each metric."""
        before = ["none", *(_shown(self.before, name) for name in self.shown)]
        rows = [[o.method, *(self._cell(o, name) for name in self.shown)] for o in self.outcomes]
        return Table(["method", *self.shown], [[before], rows])

    def _cell(self, outcome: Outcome, name: str) -> str:
        change = self.difference(outcome, name)
        if math.isnan(change.value):
            return "–"
        error = "" if math.isnan(change.stderr) else f" ± {change.stderr:.4f}"
        return f"{_shown(outcome.result, name)} ({change.value:+.4f}{error})"

    def __str__(self) -> str:
        """Return the table as text."""
        return self.table().plain()

    def _repr_html_(self) -> str:
        return self.table().html()


def close(
    embeddings: Embeddings,
    methods: str | Sequence[str] = "all",
    *,
    fit_on: Embeddings | None = None,
    fit_from: str = "other pairs",
    metrics: Iterable[str] = SHOWN,
    caption_index: int = 0,
    seed: int = 0,
    exact_limit: int | None = None,
    source: str = "",
    split: str | None = None,
    scores: Scores | None = None,
) -> Closing:
    """Fit interventions on some pairs, and measure what they do to others.

    Args:
        embeddings: Pairs to measure; without ``fit_on``, a random half of the images to fit on and
            the other half to measure.
        methods: Names of :data:`geomkit.interventions.INTERVENTIONS` with their options, as in
            ``translate:strength=0.5``; or ``all``, each with its defaults.
        fit_on: Pairs to fit on, of the same model; none of them should be among those measured.
        fit_from: What those are, in words.
        metrics: Names or groups of metrics, or ``recall@K``, ``mixed_recall@K`` and
            ``modality_bias`` for the mean of both directions.
        caption_index: Text of each image to fit on, and for every metric that is no recall.
        seed: Random seed of the halves, and of folds and samples.
        exact_limit: Number of rows up to which all pairs are compared, as for :func:`geomkit.gap`.
        source: Name of the source, recorded in the results.
        split: Name of the split, recorded in the results.
        scores: Further numbers for each intervention, and for ``None``, which is none.

    Returns:
        Metrics before and after each method, with paired errors of the differences.

    Raises:
        GeomkitError: For an unknown method or metric, or embeddings that do not fit each other.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x = rng.standard_normal((200, 8))
        >>> pairs = Embeddings.of(x + 3, x - 3)
        >>> found = close(pairs, ["centre", "translate"], metrics=["centroid_distance"])
        >>> [round(o.result.metrics["centroid_distance"], 1) for o in found.outcomes]
        [0.1, 0.1]
    """
    if not isinstance(embeddings, Embeddings):
        raise GeomkitError(
            f"close: expected Embeddings, got {type(embeddings).__name__}; "
            "Embeddings.of(image, text) makes them"
        )
    names = _names(metrics)
    methods = _methods(methods)
    if not embeddings.equal_dims:
        raise GeomkitError(
            "close: images and texts have different dimensions; there is no map between them here"
        )
    about = fit_from
    if fit_on is None:
        fit_on, embeddings = halved(embeddings, seed)
        about = f"a random half of the images (seed {seed})"
    if fit_on.dim != embeddings.dim or not fit_on.equal_dims:
        raise GeomkitError(
            f"close: expected rows of {embeddings.dim} dimensions to fit on, got {fit_on.dim}"
        )
    shared = _shared(fit_on, embeddings)
    if shared == embeddings.n:
        raise GeomkitError(
            f"close: all {shared:,} images to measure are among those to fit on; give others"
        )
    moments = Moments.of(*fit_on.pairs(caption_index)).numpy()
    wanted = list(dict.fromkeys(m for name in names for m in _MEANS.get(name, [name])))

    def measured(part: Embeddings, intervention: Intervention | None) -> GapResult:
        result = gap(
            part, metrics=wanted, caption_index=caption_index, seed=seed, exact_limit=exact_limit,
            errors=intervention is None, parts=True, source=source, split=split,
        )  # fmt: skip
        more = scores(intervention) if scores else {}
        values = {name: float(part.mean()) for name, part in more.items()}
        return replace(result, metrics={**result.metrics, **values}, parts={**result.parts, **more})

    before = measured(embeddings, None)
    outcomes, left_out = [], {}
    for method in methods:
        try:
            fitted = fit(method, moments)
            result = measured(closed(embeddings, fitted, method), fitted)
        except GeomkitError as error:
            if len(methods) == 1:
                raise
            left_out[method] = str(error).removeprefix(f"{method}: ")
        else:
            outcomes.append(Outcome(method, fitted, result))
    shown = (*names, *(name for name in before.metrics if name not in METRICS))
    words = f"{about}: {fit_on.n:,} pairs"
    return Closing(before, tuple(outcomes), moments, left_out, words, shared, shown)


@dataclass(frozen=True)
class Shifts:
    """What a translation by a fraction of the gap vector does, at several fractions.

    Attributes:
        strengths: Fractions of the gap vector; 0 leaves the rows, 1 brings the centroids together.
        distance: Centroid distance after each; negative where the two have passed each other.
        loss: Contrastive loss of clip after each, in nats.
        recall: Recall@1, the mean of both directions.
        temperature: τ of the loss.
        n: Number of pairs that the loss is over.
    """

    strengths: tuple[float, ...]
    distance: tuple[float, ...]
    loss: tuple[float, ...]
    recall: tuple[float, ...]
    temperature: float
    n: int


def shifts(
    embeddings: Embeddings,
    moments: Moments,
    strengths: Sequence[float] = _STRENGTHS,
    *,
    temperature: float = 0.01,
    caption_index: int = 0,
    exact_limit: int | None = None,
    seed: int = 0,
) -> Shifts:
    """Return distance, loss and recall against the shift of both modalities along the gap.

    The curve of Liang et al., "Mind the Gap" (arXiv 2203.02053, figure 3), who shift by a fraction
    λ of the unit gap vector: theirs is λ divided by the centroid distance here.

    Args:
        embeddings: Pairs to measure.
        moments: Moments of the pairs that the gap vector is taken from.
        strengths: Fractions of the gap vector.
        temperature: τ of the loss; CLIP's is 0.01.
        caption_index: Text of each image for distance and loss.
        exact_limit: As for :func:`geomkit.gap`.
        seed: Random seed of the pairs that the loss is over, at most 2,048.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x = rng.standard_normal((50, 8))
        >>> pairs = Embeddings.of(x + 2, x - 2)
        >>> found = shifts(pairs, Moments.of(pairs.image, pairs.text), [0.0, 1.0])
        >>> found.distance[0] > 1 > 0.2 > abs(found.distance[1])
        True
    """
    some = np.sort(np.random.default_rng(seed).permutation(embeddings.n)[:_LOSS_PAIRS])
    found = []
    for strength in strengths:
        moved = closed(embeddings, Translation.of(moments, strength=strength))
        names = ["centroid_distance", *_MEANS["recall@1"]]
        result = gap(
            moved, metrics=names, caption_index=caption_index, exact_limit=exact_limit,
            errors=False, seed=seed,
        )  # fmt: skip
        x, y = (to_numpy(rows) for rows in moved.subset(some).pairs(caption_index))
        way = (x.mean(axis=0) - y.mean(axis=0)) @ to_numpy(moments.mean_x - moments.mean_y)
        found.append(
            (
                result.metrics["centroid_distance"] * (1.0 if way >= 0 else -1.0),
                float(contrastive(x, y, 1.0 / temperature)),
                _value(result, "recall@1"),
            )
        )
    distance, loss, recall = zip(*found, strict=True)
    return Shifts(tuple(strengths), distance, loss, recall, temperature, len(some))


def _shared(fit_on: Embeddings, measured: Embeddings) -> int:
    """Number of measured images whose rows are among others; 0 where it is not looked at.

    That is where there are too many, or they are read from a file as needed.
    """
    lazy = any(isinstance(e.image, Rows | TakenRows) for e in (fit_on, measured))
    if lazy or fit_on.n + measured.n > _COMPARED:
        return 0
    known, others = (
        [hash(row.tobytes()) for row in to_numpy(e.image[:])] for e in (fit_on, measured)
    )
    among = set(known)
    return sum(row in among for row in others)


def _methods(methods: str | Sequence[str]) -> list[str]:
    """The methods asked for, each once; every one is known and has options that it knows."""
    given = [methods] if isinstance(methods, str) else list(methods)
    everything = [name for name, kind in INTERVENTIONS.items() if issubclass(kind, Affine)]
    found = [m for method in given for m in (everything if method == "all" else [method])]
    if not found:
        raise GeomkitError("close: name at least one method, or all")
    for method in found:
        check_method(method)
    return list(dict.fromkeys(found))


def _names(metrics: Iterable[str]) -> tuple[str, ...]:
    """Metrics and means of two, in the order given; groups become their metrics."""
    found: list[str] = []
    groups = dict.fromkeys(metric.group for metric in METRICS.values())
    for name in [metrics] if isinstance(metrics, str) else metrics:
        if name not in _MEANS and name not in METRICS and name not in groups:
            raise unknown_name(
                "metric or mean", name, [*_MEANS, *groups, *METRICS], see="geomkit metrics"
            )
        found += [name] if name in _MEANS else select([name])
    return tuple(dict.fromkeys(found))


def check_measured(metrics: Iterable[str], wanted: Iterable[str], *more: str) -> tuple[str, ...]:
    """Return the metrics by name, refusing what is wanted of them and not among them.

    Args:
        metrics: Names or groups, as for :func:`close`.
        wanted: Names that a choice of the best method needs.
        more: Names of further scores.

    Raises:
        GeomkitError: For an unknown metric, or one that would not be measured.
    """
    names = _names(metrics)
    measured = {*names, *more, *(m for name in names for m in _MEANS.get(name, ()))}
    for name in wanted:
        if not set(_MEANS.get(name, [name])) <= measured:
            raise GeomkitError(f"{name}: is not measured; add it to --metrics")
    return names


def _value(result: GapResult, name: str) -> float:
    names = _MEANS.get(name, [name])
    for metric in names:
        if metric not in result.metrics:
            raise GeomkitError(f"{name}: was not measured; add it to the metrics")
    return float(np.mean([result.metrics[metric] for metric in names]))


def _ideal(result: GapResult, name: str) -> float:
    """Value to come near to; of a score of a model, 1."""
    metric = METRICS.get(_MEANS.get(name, [name])[0])
    ideal = 1.0 if metric is None else metric.ideal_at(result.dim)
    if math.isnan(ideal):
        raise GeomkitError(f"{name}: no value of it is ideal, so none is best; choose another one")
    return ideal


def _shown(result: GapResult, name: str) -> str:
    value = _value(result, name)
    sign = "~" if set(_MEANS.get(name, [name])) & set(result.estimated) else ""
    return "–" if math.isnan(value) else f"{sign}{value:.4f}"
