"""One-pass, mergeable sufficient statistics of paired rows.

Whatever is linear or quadratic in one row is a function of these few sums: centroid distance,
paired and intra-modal cosine, alignment, spectra. They are kept in float64, built shard by shard
and merged with ``+``, so the data may be of any size and spread over any number of processes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

from geomkit._array import Array, namespace
from geomkit.errors import GeomkitError
from geomkit.functional import squared_distances

__all__ = ["Moments"]

_BLOCK = 4096
"""Rows whose products are added up in their own dtype before they go to float64: long enough for
the matrix product to run at full rate, short enough that float32 loses nothing that matters."""


@dataclass(frozen=True)
class Moments:
    """Sums over paired unit rows, in float64.

    Attributes:
        n: number of pairs.
        sum_x, sum_y: Σx and Σy, shape ``(d,)``.
        xx, yy, xy: Σxxᵀ, Σyyᵀ and Σxyᵀ, shape ``(d, d)``.
        squared_distance: Σ‖x − y‖², a sum of its own since 2n − 2Σx·y loses a small distance.
    """

    n: int
    sum_x: Array
    sum_y: Array
    xx: Array
    yy: Array
    xy: Array
    squared_distance: Array

    @classmethod
    def of(cls, x: Array, y: Array) -> Moments:
        """The moments of paired rows.

        Args:
            x, y: unit rows, shape ``(n, d)``, n ≥ 1.

        Raises:
            GeomkitError: if the shapes differ or there are no rows.

        >>> import numpy as np
        >>> m = Moments.of(np.eye(2), np.eye(2))
        >>> m.n, m.sum_x.tolist(), float(m.squared_distance)
        (2, [1.0, 1.0], 0.0)
        """
        blocks = range(0, x.shape[0], _BLOCK)
        return cls.merge(cls._of_block(x[i : i + _BLOCK], y[i : i + _BLOCK]) for i in blocks)

    @classmethod
    def _of_block(cls, x: Array, y: Array) -> Moments:
        xp = namespace(x, y)

        def wide(a: Array) -> Array:
            return xp.astype(a, xp.float64)

        return cls(
            n=int(x.shape[0]),
            sum_x=xp.sum(wide(x), axis=0),
            sum_y=xp.sum(wide(y), axis=0),
            xx=wide(x.T @ x),
            yy=wide(y.T @ y),
            xy=wide(x.T @ y),
            squared_distance=xp.sum(wide(squared_distances(x, y))),
        )

    @classmethod
    def merge(cls, parts: Iterable[Moments]) -> Moments:
        """The moments of all parts together.

        Raises:
            GeomkitError: if there are none.
        """
        total: Moments | None = None
        for part in parts:
            total = part if total is None else total + part
        if total is None:
            raise GeomkitError("moments: expected at least one row, got none")
        return total

    def __add__(self, other: Moments) -> Moments:
        return Moments(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def mean_x(self) -> Array:
        """Centroid of the images."""
        return self.sum_x / self.n

    @property
    def mean_y(self) -> Array:
        """Centroid of the texts."""
        return self.sum_y / self.n
