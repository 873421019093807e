"""gap(): all the numbers of a pair of embedding matrices, as one frozen result."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, overload

from geomkit._core.array import Array, is_torch
from geomkit._core.parallel import SOLO, Team
from geomkit.embeddings.embeddings import Clouds, Embeddings
from geomkit.embeddings.rows import Rows
from geomkit.errors import GeomkitError, NotConvergedError
from geomkit.metrics.budget import check_memory, within_budget
from geomkit.metrics.inputs import given
from geomkit.metrics.metric import Metric
from geomkit.metrics.number import NAN, Number
from geomkit.metrics.registry import METRICS, select
from geomkit.metrics.result import GapResult, GapResults
from geomkit.metrics.separability import check_folds
from geomkit.metrics.statistics import QUERIES, Statistics
from geomkit.metrics.unpaired import measure_clouds

__all__ = ["gap"]

_OTHER_DIMENSION = "the two modalities have different dimensions"
_LEFT_OUT = "it needs all pairs of rows: it is left out past the row budget"


# fmt: off
@overload
def gap(
    image: Embeddings | Clouds | Array | Sequence[Any], text: Array | Sequence[Any] | None = None,
    image_index: Array | Sequence[int] | None = None, *, paired: bool = True,
    metrics: Iterable[str] | None = None, caption_index: int = 0, folds: int | str = 5,
    seed: int = 0, exact_limit: int | None = None, errors: bool = True, parts: bool = False,
    source: str = "", split: str | None = None, team: Team = SOLO,
) -> GapResult: ...
@overload
def gap(
    image: Mapping[str, Any] | str | Path, text: None = None, image_index: None = None, *,
    paired: bool = True, metrics: Iterable[str] | None = None, caption_index: int = 0,
    folds: int | str = 5, seed: int = 0, exact_limit: int | None = None, errors: bool = True,
    parts: bool = False, source: str = "", split: str | None = None, team: Team = SOLO,
) -> GapResult | GapResults: ...
# fmt: on
def gap(
    image: Any,
    text: Any = None,
    image_index: Any = None,
    *,
    paired: bool = True,
    metrics: Iterable[str] | None = None,
    caption_index: int = 0,
    folds: int | str = 5,
    seed: int = 0,
    exact_limit: int | None = None,
    errors: bool = True,
    parts: bool = False,
    source: str = "",
    split: str | None = None,
    team: Team = SOLO,
) -> GapResult | GapResults:
    """Measure the geometry of a pair of embedding matrices.

    Args:
        image: Image rows ``(n, d)``, raw or normalised, of numpy, torch, pandas or lists;
            :class:`Embeddings`, or what ``load_source`` returns; a dictionary of the rows of any
            modalities; or the path of embeddings.
        text: Text rows ``(m, d)``, or ``(n, k, d)`` for k texts an image. Without them, or with an
            m that is not n and no ``image_index``, what needs no pairs is measured.
        image_index: For each text, the index of its image, ``(m,)``; needed if an image has
            several texts.
        paired: Whether row i of one modality belongs to row i of the other.
        metrics: Names or groups from :data:`METRICS`, or one of them; default: all.
        caption_index: Text of each image for every metric that is not a recall or rank.
        folds: Folds of the linear separability: a number, or ``"paper"`` for one 80/20 split.
        seed: Random seed of folds, samples, projections and permutations.
        exact_limit: Number of rows up to which all pairs are compared; past it what is quadratic
            in n is estimated from sampled rows against all rows. Default: exact if it takes at
            most two minutes.
        errors: Whether to compute standard errors, nulls and p-values too, which of a few thousand
            rows take most of the time.
        parts: Whether to keep what each pair adds to each metric, for
            :func:`~geomkit.metrics.compare`.
        source: Name of the source, recorded in the result.
        split: Name of the split, recorded in the result.
        team: Ranks to share the work with; only the first gets numbers.

    Returns:
        Values with their standard errors, nulls, ideals and p-values, by the names of
        :data:`METRICS`. Of three modalities or more :class:`GapResults`, one for each pair.

    Raises:
        GeomkitError: If the rows are unfit (see :meth:`Embeddings.of`), a metric is unknown, or
            memory would not suffice.

    Example:
        >>> import numpy as np
        >>> names = ["centroid_distance", "uniformity_image"]
        >>> result = gap(np.eye(4), np.eye(4)[::-1], metrics=names)
        >>> round(result.metrics["uniformity_image"], 6)
        -4.0
        >>> round(result.null["centroid_distance"], 6)
        0.707107
    """
    if seed < 0:
        raise GeomkitError(f"seed: expected 0 or more, got {seed}")
    check_folds(folds)
    if isinstance(metrics, str):
        metrics = [word.strip() for word in metrics.split(",")]
    wanted = [METRICS[name] for name in select(metrics)]
    what = given(image, text, image_index, paired=paired)
    options: dict[str, Any] = {"folds": folds, "seed": seed}
    origin: dict[str, Any] = {"source": source or what.source, "split": split or what.split}

    def pairs(embeddings: Embeddings, chosen: Sequence[str], **about: Any) -> GapResult:
        return _measure(
            embeddings,
            [METRICS[name] for name in chosen],
            caption_index=caption_index,
            exact_limit=exact_limit,
            errors=errors,
            parts=parts,
            **options,
            **about,
        )

    def measured(part: Embeddings | Clouds) -> GapResult:
        if isinstance(part, Embeddings):
            return pairs(part, [m.name for m in wanted], team=team, **origin)
        return measure_clouds(part, wanted if team.rank == 0 else [], pairs, **options, **origin)

    with _numerics(what.parts):
        results = GapResults(map(measured, what.parts))
    if not errors:
        results = GapResults(replace(r, stderr={}, null={}, p_value={}) for r in results)
    return results[0] if len(results) == 1 else results


def _numerics(parts: Iterable[Embeddings | Clouds]) -> AbstractContextManager[None]:
    """Exact products of float32, where torch computes them."""
    for part in parts:
        rows = part.rows.values() if isinstance(part, Clouds) else (part.image, part.text)
        if any(map(is_torch, rows)):
            from geomkit._core.runtime import numerics

            return numerics()
    return nullcontext()


def _measure(
    embeddings: Embeddings,
    wanted: Sequence[Metric],
    *,
    caption_index: int,
    folds: int | str,
    seed: int,
    exact_limit: int | None,
    errors: bool,
    parts: bool,
    source: str = "",
    split: str | None = None,
    team: Team = SOLO,
) -> GapResult:
    if team.size > 1:
        team.check_same(embeddings.marks)
    usable = [m for m in wanted if embeddings.equal_dims or not m.across]
    exact, seconds = True, None
    if any(m.reduction or m.estimated for m in usable):
        # The clock of one rank decides for all, or some would wait for the others for ever.
        exact, seconds = team.first(lambda: within_budget(embeddings, exact_limit, ranks=team.size))
    left_out = [m for m in usable if not exact and m.reduction and not m.estimated]
    reductions = [m.reduction for m in usable if m.reduction]
    check_memory(
        embeddings, moments=any(m.cost == "n·d²" for m in usable), pairwise=bool(reductions)
    )
    s = Statistics(
        embeddings,
        caption_index=caption_index,
        folds=folds,
        seed=seed,
        reductions=reductions,
        exact=exact,
        errors=errors,
        team=team,
    )
    lazy = isinstance(embeddings.image, Rows) or isinstance(embeddings.text, Rows)
    # The classifier starts from the moments too: what ranks compute together is computed here.
    s.collect(moments=lazy or any(m.cost != "n²·d" for m in usable))
    found: dict[str, Number] = {}
    failed: dict[str, str] = {}
    for m in usable if team.rank == 0 else ():
        try:
            found[m.name] = Number(NAN) if m in left_out else m.number(s)
        except NotConvergedError as error:
            found[m.name], failed[m.name] = Number(NAN), str(error)
    undefined = [m for m in usable if m.name in found and math.isnan(found[m.name].value)]
    reasons = {m.name: _OTHER_DIMENSION for m in wanted if m not in usable}
    reasons |= {
        m.name: failed.get(m.name) or m.undefined or _LEFT_OUT * (m in left_out) for m in undefined
    }
    known = {name: number for name, number in found.items() if name not in reasons}
    sampled = [m for m in usable if m.estimated and (m.reduction or s.sample is not None)]
    estimated = [m.name for m in sampled if not exact and m.name in known]

    def about(attribute: str) -> dict[str, float]:
        values = ((name, getattr(number, attribute)) for name, number in known.items())
        return {name: value for name, value in values if math.isfinite(value)}

    meta = {
        **embeddings.meta,
        "norms": embeddings.norms,
        "texts": embeddings.m,
        "caption_index": caption_index,
        "folds": folds,
        "seed": seed,
        "reasons": reasons,
    }
    if seconds is not None:
        meta["exact_seconds"] = round(seconds, 1)
    if not exact:
        meta["queries"] = min(QUERIES, embeddings.n)
    ideal = {m.name: m.ideal_at(_dim(m.name, embeddings)) for m in usable if m.ideal is not None}
    return GapResult(
        metrics={m.name: found.get(m.name, Number(NAN)).value for m in wanted if team.rank == 0},
        n=embeddings.n,
        dim=embeddings.dim,
        modalities=embeddings.modalities,
        source=source,
        split=split,
        exact=not estimated,
        estimated=tuple(estimated),
        stderr=about("stderr"),
        null=about("null"),
        ideal=ideal,
        p_value=about("p_value"),
        parts={m.name: m.parts(s) for m in usable if parts and m.parts and m.name in known},
        meta=meta,
    )


def _dim(name: str, embeddings: Embeddings) -> int:
    """Dimension of the modality that a metric describes."""
    return int((embeddings.text if name.endswith("_text") else embeddings.image).shape[1])
