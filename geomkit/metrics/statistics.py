"""What the metrics are functions of, computed once each and only if asked for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from geomkit._core.array import Array, like, namespace
from geomkit._core.parallel import SOLO, Team
from geomkit.embeddings.embeddings import Embeddings
from geomkit.engine.moments import Moments
from geomkit.engine.neighbours import Neighbours
from geomkit.engine.pairwise import Kind, Pairs, Reducer, walk
from geomkit.engine.ranks import Ranks
from geomkit.engine.reducers import PotentialSums, RankCounts
from geomkit.engine.sampled import SampledPairs, sample_pairs
from geomkit.metrics.separability import Separability, linear_separability
from geomkit.metrics.spectrum import scatter_eigenvalues

__all__ = ["NEIGHBOURS", "QUERIES", "Statistics"]

NEIGHBOURS = 10
QUERIES = 1024
"""Pairs sampled past the row budget; each is compared with all rows."""
_CLASSIFIED = 20_000
"""Pairs that the classifier sees past the row budget."""
_WIDE_MOMENTS = 2048
"""Up to here second moments are formed in float64 outright. Past it their float32 products are
about the centre, and good to 1e-7 of the largest variance: the effective rank takes square roots
of small eigenvalues, where more would show."""
_NARROW_NOISE = 5e-7
"""Eigenvalues below this share of the largest of the centred scatter are rounding, past that."""
_WIDE_PAIRS = 2048
"""Up to here pairwise products are float64 too, which costs a tenth of a second at most and leaves
nothing to rounding in small samples."""


@dataclass(frozen=True)
class Needs:
    """Which parts of the pairwise walk are wanted."""

    potentials: bool = True
    ranks: bool = True
    neighbours: bool = True


class Statistics:
    """Lazily computed statistics of a pair of embedding matrices.

    Args:
        embeddings: checked unit rows.
        caption_index: which text of each image every statistic but retrieval uses.
        folds: of the linear separability, see :func:`geomkit.metrics.linear_separability`.
        seed: of folds, samples, projections and permutations.
        needs: what the pairwise walk is for.
        exact: compare all pairs of rows, or sampled ones with all.
        team: ranks to share the work with.
    """

    def __init__(
        self,
        embeddings: Embeddings,
        *,
        caption_index: int = 0,
        folds: int | str = 5,
        seed: int = 0,
        needs: Needs | None = None,
        exact: bool = True,
        team: Team = SOLO,
    ) -> None:
        self.embeddings = embeddings
        self.caption_index = caption_index
        self.folds = folds
        self.seed = seed
        self.exact = exact
        self.n = embeddings.n
        self._needs = needs or Needs()
        self._team = team
        self._spectra: dict[tuple[str, bool], np.ndarray] = {}

    @cached_property
    def pairs(self) -> tuple[Array, Array]:
        """Images and one text each."""
        return self.embeddings.pairs(self.caption_index)

    @cached_property
    def equal_dims(self) -> bool:
        """Whether the two modalities share one dimension."""
        return self.embeddings.equal_dims

    @cached_property
    def moments(self) -> Moments:
        """Means and second moments of the pairs, as numpy arrays."""
        x, y = self.pairs
        return Moments.of(x, y, wide=self.n <= _WIDE_MOMENTS, team=self._team).numpy()

    def collect(self, *, moments: bool, pairwise: bool) -> None:
        """Do now what the ranks of a team have to do together."""
        if moments:
            _ = self.moments
        if pairwise:
            _ = self._walked if self.exact else self._sampled

    @cached_property
    def _walked(self) -> tuple[PotentialSums, RankCounts, Neighbours]:
        e = self.embeddings
        kinds: frozenset[Kind] = frozenset(("xx", "yy", "xy") if self.equal_dims else ("xx", "yy"))
        potentials, ranks = PotentialSums(kinds=kinds), RankCounts()
        neighbours = Neighbours(NEIGHBOURS, kinds=kinds)
        chosen: list[Reducer] = []
        if self._needs.potentials:
            chosen.append(potentials)
        if self._needs.ranks and self.equal_dims:
            chosen.append(ranks)
        if self._needs.neighbours and self.n > NEIGHBOURS:
            chosen.append(neighbours)
        x, y = e.image, e.text
        if max(e.n, e.m) <= _WIDE_PAIRS:
            x, y = x[:], y[:]
            xp = namespace(x)
            x, y = xp.astype(x, xp.float64), xp.astype(y, xp.float64)
        first = e.first_texts(self.caption_index)
        walk(Pairs(x, y, e.image_index, first), chosen, team=self._team)
        return potentials, ranks, neighbours

    @cached_property
    def _sampled(self) -> SampledPairs:
        e = self.embeddings
        return sample_pairs(
            e.image,
            e.text,
            e.image_index,
            e.first_texts(self.caption_index),
            queries=QUERIES,
            neighbours=NEIGHBOURS,
            seed=self.seed,
            team=self._team,
        )

    def potential_rows(self, kind: Kind) -> np.ndarray:
        """Each row's mean potential with all others; of all rows, or of the sampled ones."""
        if self.exact:
            return self._walked[0].row_means(kind)
        return self._sampled.potential_rows[kind]

    def ranks(self, direction: str) -> tuple[Ranks, np.ndarray | None]:
        """Ranks of ``text`` or ``image`` retrieval, and which queries belong to one image."""
        if self.exact:
            counts = self._walked[1]
            if direction == "text":
                return counts.text_retrieval, None
            several = self.embeddings.m > self.n
            return counts.image_retrieval, self.embeddings.image_index if several else None
        found = getattr(self._sampled, f"{direction}_retrieval")
        return found, None

    @cached_property
    def overlap(self) -> np.ndarray | None:
        """For each row the share of its nearest neighbours that both modalities agree on."""
        if self.n <= NEIGHBOURS:
            return None
        if not self.exact:
            return self._sampled.overlap
        near = self._walked[2]
        both = np.sort(np.concatenate([near.xx, near.yy], axis=1), axis=1)
        return (both[:, 1:] == both[:, :-1]).sum(axis=1) / NEIGHBOURS

    def occurrences(self, modality: str) -> np.ndarray | None:
        """How often each row of a modality is among the nearest of a row of the other."""
        if self.n <= NEIGHBOURS or not self.exact:
            return None
        near = self._walked[2]
        return np.bincount((near.yx if modality == "image" else near.xy).ravel(), minlength=self.n)

    @cached_property
    def separability(self) -> Separability:
        """Held-out scores of the linear classifier."""
        x, y = self.pairs
        moments: Moments | None = self.moments
        if not self.exact and self.n > _CLASSIFIED:
            moments = None
            rng = np.random.default_rng(self.seed)
            chosen = np.sort(rng.permutation(self.n)[:_CLASSIFIED])
            x, y = x[like(chosen, x)], y[like(chosen, y)]
        folds = min(self.folds, len(x)) if isinstance(self.folds, int) else self.folds
        return linear_separability(x[:], y[:], folds=folds, seed=self.seed, moments=moments)

    def spectrum(self, modality: str, *, centred: bool) -> np.ndarray:
        """Eigenvalues of the scatter of ``image`` or ``text`` rows, about their mean or about 0."""
        key = (modality, centred)
        if key not in self._spectra:
            m = self.moments
            second, total = (m.xx, m.sum_x) if modality == "image" else (m.yy, m.sum_y)
            values = scatter_eigenvalues(second, total, m.n, centred=centred)
            if m.n > _WIDE_MOMENTS:
                largest = values if centred else self.spectrum(modality, centred=True)
                values = np.where(values > _NARROW_NOISE * largest[0], values, 0.0)
            self._spectra[key] = values
        return self._spectra[key]
