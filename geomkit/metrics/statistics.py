"""What the metrics are functions of: computed once each, and only if needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

import numpy as np

from geomkit._core.array import Array, like, namespace, to_numpy
from geomkit._core.parallel import SOLO, Team
from geomkit.embeddings.embeddings import Embeddings
from geomkit.engine.moments import Moments
from geomkit.engine.pairwise import Pairs, walk
from geomkit.engine.precision import unit64
from geomkit.engine.sampled import Sample, scan

__all__ = ["QUERIES", "ROWS", "Reduction", "Statistics"]

QUERIES = 1024
"""Pairs sampled past the row budget; each is compared with all rows."""
ROWS = 20_000
"""Pairs sampled past the row budget for what reads the rows itself."""
_WIDE_PAIRS = 2048
"""Number of rows up to which pairwise products are float64 too: it costs a tenth of a second at
most and leaves nothing to rounding in small samples."""

_NARROW = 1e-3
"""Mean squared distance to the mean below which they are float64 for any number of rows: float32
keeps seven digits of a cosine, and of a narrow cloud's squared distances, 2 − 2 cos, fewer."""
_ROWS_AT_ONCE = 8192
"""Rows read at once."""
_SEEN = 256
"""Rows from which it is estimated."""

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
        beside: Another reduction that the metric reads too, if any.
    """

    exact: Callable[[], R]
    sampled: Callable[[], R] | None = None
    beside: Reduction[Any] | None = None


class Statistics:
    """Lazily computed statistics of a pair of embedding matrices.

    Args:
        embeddings: Checked unit rows.
        caption_index: Which text of each image every statistic but recall and ranks uses.
        folds: Folds of the linear separability, see :func:`geomkit.metrics.linear_separability`.
        seed: Random seed of folds, samples, projections and permutations.
        reductions: What the metrics to compute take from the walk over all pairs of rows.
        exact: Whether to compare all pairs of rows, or sampled rows with all rows.
        errors: Whether standard errors, nulls and p-values are wanted too.
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
        errors: bool = True,
        team: Team = SOLO,
    ) -> None:
        """Compute nothing yet."""
        self.embeddings = embeddings
        self.caption_index = caption_index
        self.folds = folds
        self.seed = seed
        self.exact = exact
        self.errors = errors
        self.n = embeddings.n
        asked = [r for reduction in reductions for r in (reduction, reduction.beside) if r]
        self._factories = dict.fromkeys(map(self._factory, asked))
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
    def sample(self) -> np.ndarray | None:
        """Pairs that metrics with ``rows="sampled"`` read, ascending; ``None``: all of them."""
        if self.exact or self.n <= ROWS:
            return None
        return np.sort(np.random.default_rng(self.seed).permutation(self.n)[:ROWS])

    @cached_property
    def _bases(self) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Orthonormal bases of what images and texts span, where they have fewer dimensions."""
        x, y = self.pairs
        if not self.equal_dims:
            return self._basis(x), self._basis(y)
        return (self._basis(x, y),) * 2

    def _basis(self, *parts: Array) -> np.ndarray | None:
        if 2 * self.n > int(parts[0].shape[1]):
            return None
        rows = np.concatenate([to_numpy(part[:]) for part in parts]).astype(np.float64)
        # Ranks must agree on the basis to the last digit.
        return self._team.first(lambda: np.linalg.qr(rows.T)[0])

    @cached_property
    def span(self) -> tuple[Array, Array]:
        """The pairs, rotated into the space that they span if it has fewer dimensions.

        A rotation changes no distance, and 2n rows span at most 2n dimensions.
        """
        parts = zip(self.pairs, self._bases, strict=True)
        one, two = (
            rows if basis is None else to_numpy(rows[:]).astype(np.float64) @ basis
            for rows, basis in parts
        )
        return one, two

    @cached_property
    def moments(self) -> Moments:
        """Mean and scatter of :attr:`span`, as numpy arrays."""
        return Moments.of(*self.span, team=self._team).numpy()

    def over_pairs(self, values: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
        """Return a number of each pair of :attr:`span`, ``(n,)``.

        Args:
            values: Function from some rows x and y, unit rows in float64, to one number each.
        """
        x, y = self.span
        found = []
        for start in range(0, self.n, _ROWS_AT_ONCE):
            block = (to_numpy(unit64(rows[start : start + _ROWS_AT_ONCE])) for rows in (x, y))
            found.append(values(*block))
        return np.concatenate(found)

    @property
    def gap_vector(self) -> np.ndarray:
        """Difference of the two means, x̄ − ȳ, in the space of the embeddings, ``(d,)``."""
        vector = to_numpy(self.moments.mean_x - self.moments.mean_y)
        basis = self._bases[0]
        return vector if basis is None else basis @ vector

    def once(
        self, compute: Callable[Concatenate[Statistics, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Return ``compute(self, *args)``, computed only the first time: metrics may share it."""
        key = (compute, args, *kwargs.items())
        if key not in self._held:
            self._held[key] = compute(self, *args, **kwargs)
        return self._held[key]

    def has(self, compute: Callable[..., Any], *args: Any) -> bool:
        """Whether :meth:`once` has computed it already."""
        return (compute, args) in self._held

    def reduced(self, reduction: Reduction[R]) -> R:
        """Return the reducer of a reduction after the walk.

        It must be among ``reductions``, or beside one of them.
        """
        return self._walked[self._factory(reduction)]

    def collect(self, *, moments: bool) -> None:
        """Compute now what the ranks of a team compute together."""
        if moments:
            _ = self.moments
        _ = self._walked

    @property
    def _narrow(self) -> bool:
        """Whether a modality is a narrow cloud."""
        chosen = np.sort(np.random.default_rng(0).permutation(self.n)[:_SEEN])
        parts = (unit64(rows[like(chosen, rows)]) for rows in self.pairs)
        lengths = (float(namespace(r).sum(namespace(r).mean(r, axis=0) ** 2)) for r in parts)
        return any(1.0 - length < _NARROW for length in lengths)

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
        wide = max(e.n, e.m) <= _WIDE_PAIRS or self._narrow
        if not self.exact:
            sample = Sample(x, y, e.image_index, first, queries=QUERIES, seed=self.seed, wide=wide)
            scan(sample, reducers.values(), team=self._team)
            return reducers
        if wide:
            x, y = unit64(x[:]), unit64(y[:])
        walk(Pairs(x, y, e.image_index, first), reducers.values(), team=self._team)
        return reducers
