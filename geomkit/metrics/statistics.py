"""What the metrics are functions of, computed once each and only if asked for."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from geomkit._array import Array, namespace
from geomkit.embeddings import Embeddings
from geomkit.metrics.separability import Separability, linear_separability
from geomkit.metrics.spectrum import scatter_eigenvalues
from geomkit.moments import Moments
from geomkit.pairwise import Pairs, PotentialSums, RankCounts, Reducer, walk

__all__ = ["Statistics"]

_WIDE_MOMENTS = 8192
"""Up to here second moments are formed in float64 outright: the effective rank takes square roots
of small eigenvalues, where the rounding of float32 products would show."""
_WIDE_PAIRS = 2048
"""Up to here pairwise products are float64 too, which costs a tenth of a second at most and leaves
nothing to rounding in small samples."""


class Statistics:
    """Lazily computed statistics of a pair of embedding matrices.

    Args:
        embeddings: checked unit rows.
        caption_index: which text of each image every statistic but retrieval uses.
        folds: of the linear separability, see :func:`geomkit.metrics.linear_separability`.
        seed: of the folds.
        retrieval: count ranks in the pairwise walk.
        potentials: sum potentials in the pairwise walk.
    """

    def __init__(
        self,
        embeddings: Embeddings,
        *,
        caption_index: int = 0,
        folds: int | str = 5,
        seed: int = 0,
        retrieval: bool = True,
        potentials: bool = True,
    ) -> None:
        self.embeddings = embeddings
        self.caption_index = caption_index
        self.folds = folds
        self.seed = seed
        self._potentials, self._retrieval = potentials, retrieval

    @cached_property
    def pairs(self) -> tuple[Array, Array]:
        """Images and one text each."""
        return self.embeddings.pairs(self.caption_index)

    @cached_property
    def moments(self) -> Moments:
        """Means and second moments of the pairs."""
        x, y = self.pairs
        if self.embeddings.n <= _WIDE_MOMENTS:
            x, y = _widened(x, y)
        return Moments.of(x, y)

    @cached_property
    def _walked(self) -> tuple[PotentialSums, RankCounts]:
        e = self.embeddings
        potentials, ranks = PotentialSums(), RankCounts()
        chosen: list[Reducer] = []
        if self._potentials:
            chosen.append(potentials)
        if self._retrieval:
            chosen.append(ranks)
        first = e.first_texts(self.caption_index)
        x, y = e.image, e.text
        if max(e.n, e.m) <= _WIDE_PAIRS:
            x, y = _widened(x, y)
        walk(Pairs(x, y, e.image_index, first), chosen)
        return potentials, ranks

    @property
    def potentials(self) -> PotentialSums:
        """Sums of the Gaussian potential over pairs of rows."""
        return self._walked[0]

    @property
    def ranks(self) -> RankCounts:
        """Ranks of the right answers, both ways."""
        return self._walked[1]

    @cached_property
    def separability(self) -> Separability:
        """Held-out scores of the linear classifier."""
        x, y = self.pairs
        folds = min(self.folds, len(x)) if isinstance(self.folds, int) else self.folds
        return linear_separability(x, y, folds=folds, seed=self.seed)

    @cached_property
    def spectra(self) -> dict[str, dict[bool, np.ndarray]]:
        """Eigenvalues of the scatter by modality (``image``, ``text``) and by centred or not."""
        m = self.moments
        return {
            name: {
                centred: scatter_eigenvalues(second, total, m.n, centred=centred)
                for centred in (True, False)
            }
            for name, second, total in (("image", m.xx, m.sum_x), ("text", m.yy, m.sum_y))
        }


def _widened(x: Array, y: Array) -> tuple[Array, Array]:
    xp = namespace(x)
    return xp.astype(x, xp.float64), xp.astype(y, xp.float64)
