"""What the metrics are functions of: computed once each, and only if needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from geomkit._core.array import Array
from geomkit._core.parallel import SOLO, Team
from geomkit.embeddings.embeddings import Embeddings
from geomkit.engine.moments import Moments
from geomkit.engine.pairwise import Pairs, walk
from geomkit.engine.precision import unit64
from geomkit.engine.sampled import Sample, scan

__all__ = ["QUERIES", "Reduction", "Statistics"]

QUERIES = 1024
"""Pairs sampled past the row budget; each is compared with all rows."""
_WIDE_MOMENTS = 2048
"""Number of pairs up to which second moments are formed in float64. Past it they are products of
float32 rows about their centre, and good to 1e-7 of the largest variance."""
_WIDE_PAIRS = 2048
"""Number of rows up to which pairwise products are float64 too: it costs a tenth of a second at
most and leaves nothing to rounding in small samples."""

R = TypeVar("R", covariant=True)
T = TypeVar("T")
P = ParamSpec("P")


@dataclass(frozen=True)
class Reduction(Generic[R]):
    """What a pairwise metric takes from the walk over all pairs of rows.

    Metrics that name the same ``exact`` or ``sampled`` share one reducer.

    Attributes:
        exact: Factory of a ``Reducer[Pairs, Tile]``, fed with all pairs of rows; see
            :mod:`geomkit.engine.pairwise`.
        sampled: Factory of a ``Reducer[Sample, Strip]`` with the same results, fed with sampled
            queries past the row budget, see :mod:`geomkit.engine.sampled`; ``None`` if the metric
            is left out there.
    """

    exact: Callable[[], R]
    sampled: Callable[[], R] | None = None


class Statistics:
    """Lazily computed statistics of a pair of embedding matrices.

    Args:
        embeddings: Checked unit rows.
        caption_index: Which text of each image every statistic but retrieval uses.
        folds: Folds of the linear separability, see :func:`geomkit.metrics.linear_separability`.
        seed: Random seed of folds, samples, projections and permutations.
        reductions: What the metrics to compute take from the walk over all pairs of rows.
        exact: Whether to compare all pairs of rows, or sampled rows with all rows.
        team: Ranks to share the work with.
    """

    def __init__(
        self,
        embeddings: Embeddings,
        *,
        caption_index: int = 0,
        folds: int | str = 5,
        seed: int = 0,
        reductions: Iterable[Reduction[Any]] = (),
        exact: bool = True,
        team: Team = SOLO,
    ) -> None:
        """Compute nothing yet."""
        self.embeddings = embeddings
        self.caption_index = caption_index
        self.folds = folds
        self.seed = seed
        self.exact = exact
        self.n = embeddings.n
        self._factories = dict.fromkeys(map(self._factory, reductions))
        self._team = team
        self._held: dict[Any, Any] = {}

    @cached_property
    def pairs(self) -> tuple[Array, Array]:
        """Images and one text each, ``(n, d)`` and ``(n, e)``."""
        return self.embeddings.pairs(self.caption_index)

    @property
    def equal_dims(self) -> bool:
        """Whether the two modalities have one dimension."""
        return self.embeddings.equal_dims

    @cached_property
    def moments(self) -> Moments:
        """Means and second moments of the pairs, as numpy arrays."""
        x, y = self.pairs
        return Moments.of(x, y, wide=not self.narrow, team=self._team).numpy()

    @property
    def narrow(self) -> bool:
        """Whether the moments are formed from products in the rows' own precision."""
        return self.n > _WIDE_MOMENTS

    def once(
        self, compute: Callable[Concatenate[Statistics, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Return ``compute(self, *args)``, computed only the first time: metrics may share it."""
        key = (compute, args, *kwargs.items())
        if key not in self._held:
            self._held[key] = compute(self, *args, **kwargs)
        return self._held[key]

    def reduced(self, reduction: Reduction[R]) -> R:
        """Return the reducer of a reduction after the walk; it must be among ``reductions``."""
        return self._walked[self._factory(reduction)]

    def collect(self, *, moments: bool) -> None:
        """Compute now what the ranks of a team compute together."""
        if moments:
            _ = self.moments
        _ = self._walked

    def _factory(self, reduction: Reduction[Any]) -> Callable[[], Any] | None:
        return reduction.exact if self.exact else reduction.sampled

    @cached_property
    def _walked(self) -> dict[Callable[[], Any] | None, Any]:
        """Every reducer after one walk for all of them."""
        reducers: dict[Callable[[], Any] | None, Any] = {
            factory: factory() for factory in self._factories if factory
        }
        if not reducers:
            return {}
        e = self.embeddings
        x, y, first = e.image, e.text, e.first_texts(self.caption_index)
        if not self.exact:
            sample = Sample(x, y, e.image_index, first, queries=QUERIES, seed=self.seed)
            scan(sample, reducers.values(), team=self._team)
            return reducers
        if max(e.n, e.m) <= _WIDE_PAIRS:
            x, y = unit64(x[:]), unit64(y[:])
        walk(Pairs(x, y, e.image_index, first), reducers.values(), team=self._team)
        return reducers
