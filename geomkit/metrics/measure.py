"""gap(): all the numbers of a pair of embedding matrices, as one frozen result."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from geomkit._core.array import Array
from geomkit._core.parallel import SOLO, Team
from geomkit.embeddings.embeddings import Embeddings
from geomkit.embeddings.rows import Rows
from geomkit.errors import GeomkitError, unknown_name
from geomkit.metrics.budget import check_memory, within_budget
from geomkit.metrics.registry import METRICS
from geomkit.metrics.statistics import QUERIES, Needs, Statistics

if TYPE_CHECKING:
    import pandas

__all__ = ["SCHEMA_VERSION", "GapResult", "gap", "select"]

SCHEMA_VERSION = 1
_OTHER_DIMENSION = "the two modalities have different dimensions"


@dataclass(frozen=True)
class GapResult:
    """What :func:`gap` found; prints as a table, here and in a notebook.

    Attributes:
        metrics: value by name; NaN where undefined, with the reason in ``meta["reasons"]``.
        n: pairs.
        dim: dimension.
        modalities: names of the two.
        source: where the rows came from.
        split: which part of the data they are, if known.
        exact: whether every value is exact.
        estimated: names of those that are not.
        stderr: standard errors over the draw of the pairs.
        null: what the number would be with no gap, or no pairing, on these very rows.
        ideal: its value for coinciding pairs spread over the whole sphere, as n → ∞.
        p_value: one-sided, against the null.
        meta: seed, folds, caption index, norms found, and whatever the source knows.

    The last four hold only names that have something to say.
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

    def to_frame(self) -> pandas.DataFrame:
        """A row a metric: value, stderr, null, ideal, p_value, estimated."""
        import pandas

        columns = {
            "value": self.metrics,
            "stderr": self.stderr,
            "null": self.null,
            "ideal": self.ideal,
            "p_value": self.p_value,
        }
        frame = pandas.DataFrame(
            {name: [values.get(key, math.nan) for key in self.metrics]
             for name, values in columns.items()},
            index=pandas.Index(list(self.metrics), name="metric"),
        )  # fmt: skip
        frame["estimated"] = [key in self.estimated for key in self.metrics]
        return frame

    def __str__(self) -> str:
        from geomkit.metrics.table import plain

        return plain([self])

    def _repr_html_(self) -> str:
        from geomkit.metrics.table import html

        return html([self])


def _dim(name: str, embeddings: Embeddings) -> int:
    """The dimension of the modality that a metric speaks of."""
    return int((embeddings.text if name.endswith("_text") else embeddings.image).shape[1])


def _finite(values: Mapping[str, float]) -> dict[str, float | None]:
    return {key: value if math.isfinite(value) else None for key, value in values.items()}


def select(metrics: Iterable[str] | None) -> list[str]:
    """Names of metrics, groups expanded, in the order of :data:`METRICS`; all if none are given.

    Raises:
        GeomkitError: for a name that is neither a metric nor a group.

    >>> select(["mmd", "alignment"])
    ['alignment', 'mmd']
    """
    if metrics is None:
        return list(METRICS)
    chosen: set[str] = set()
    groups = {metric.group for metric in METRICS.values()}
    for name in metrics:
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
    exact_limit: int | None = None,
    source: str = "",
    split: str | None = None,
    team: Team = SOLO,
) -> GapResult:
    """Measure the geometry of a pair of embedding matrices.

    Args:
        image: :class:`Embeddings`, or the image rows ``(n, d)``, raw or normalised.
        text: the text rows ``(m, d)``.
        image_index: whose each text is, if an image has several.
        metrics: names or groups from :data:`METRICS`; all if not given.
        caption_index: which text of each image everything but retrieval uses.
        folds: of the linear separability: a number, or ``"paper"``.
        seed: of folds, samples, projections and permutations.
        exact_limit: rows up to which all pairs are compared; past it what is quadratic in n is
            estimated from sampled rows against all. ``None``: as long as it takes two minutes.
        source, split: recorded in the result.
        team: ranks to share the work with; only the first gets numbers.

    Raises:
        GeomkitError: for unfit rows (see :meth:`Embeddings.of`), an unknown metric, or memory that
            would not suffice.

    >>> import numpy as np
    >>> result = gap(np.eye(4), np.eye(4)[::-1], metrics=["centroid_distance", "uniformity_image"])
    >>> round(result.metrics["uniformity_image"], 6), round(result.null["centroid_distance"], 6)
    (-4.0, 0.707107)
    """
    embeddings = image if isinstance(image, Embeddings) else Embeddings.of(image, text, image_index)
    if seed < 0:
        raise GeomkitError(f"seed: expected 0 or more, got {seed}")
    names = select(metrics)
    wanted = [METRICS[name] for name in names]
    usable = [m for m in wanted if embeddings.equal_dims or not m.across]
    parts = {m.part for m in usable}
    exact, seconds = (True, None)
    if parts - {None} or any(m.estimated for m in usable):
        # One rank's clock decides for all, or some would wait for the others for ever.
        exact, seconds = team.gather(within_budget(embeddings, exact_limit))[0]
    check_memory(
        embeddings,
        moments=any(m.cost == "n·d²" for m in usable),
        pairwise=bool(parts - {None}),
    )
    s = Statistics(
        embeddings,
        caption_index=caption_index,
        folds=folds,
        seed=seed,
        needs=Needs("potentials" in parts, "ranks" in parts, "neighbours" in parts),
        exact=exact,
        team=team,
    )
    lazy = isinstance(embeddings.image, Rows) or isinstance(embeddings.text, Rows)
    # The classifier starts from the moments too: whatever ranks do together is done here.
    moments = lazy or any(m.cost != "n²·d" for m in usable)
    s.collect(moments=moments, pairwise=bool(parts - {None}))
    numbers = {m.name: m.number(s) for m in usable} if team.rank == 0 else {}
    reasons = {m.name: _OTHER_DIMENSION for m in wanted if m not in usable}
    reasons |= {
        name: METRICS[name].undefined
        for name, number in numbers.items()
        if math.isnan(number.value)
    }
    estimated = [
        m.name for m in usable
        if not exact and m.estimated and m.name in numbers and m.name not in reasons
    ]  # fmt: skip
    values = {name: numbers[name].value if name in numbers else math.nan for name in names}

    def known(attribute: str) -> dict[str, float]:
        found = {name: getattr(number, attribute) for name, number in numbers.items()}
        return {
            name: value
            for name, value in found.items()
            if math.isfinite(value) and name not in reasons
        }

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
    return GapResult(
        metrics=values if team.rank == 0 else {},
        n=embeddings.n,
        dim=embeddings.dim,
        modalities=embeddings.modalities,
        source=source,
        split=split,
        exact=not estimated,
        estimated=tuple(estimated),
        stderr=known("stderr"),
        null=known("null"),
        ideal={m.name: m.ideal(_dim(m.name, embeddings)) for m in usable if m.ideal},
        p_value=known("p_value"),
        meta=meta,
    )
