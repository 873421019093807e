"""One-pass, mergeable sufficient statistics of paired rows.

Whatever is linear or quadratic in one row is a function of these few sums: centroid distance,
paired and intra-modal cosine, alignment, spectra, CKA, and the standard errors of most of them.
They are kept in float64, built block by block and merged with ``+``, so the data may be of any
size and spread over any number of processes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import reduce
from operator import add

import numpy as np

from geomkit._core.array import Array, is_torch, namespace, to_numpy
from geomkit._core.parallel import SOLO, Team, cores, in_order
from geomkit.errors import GeomkitError
from geomkit.functional import squared_distances

__all__ = ["Moments"]

_BLOCK = 4096
"""Rows whose products are summed in their own dtype before float64 takes over: enough for matrix
products at full rate, few enough that float32 loses nothing that matters."""


@dataclass(frozen=True)
class Moments:
    """Sums over paired unit rows, in float64.

    Attributes:
        n: Number of pairs.
        sum_x: Σx, ``(d,)``.
        sum_y: Σy, ``(e,)``.
        xx: Σxxᵀ, ``(d, d)``.
        yy: Σyyᵀ, ``(e, e)``.
        xy: Σxyᵀ, ``(d, e)``.
        squared_distance: Σ‖x − y‖², a sum of its own since 2n − 2Σp loses a small distance.
        paired_square: Σp² of the paired cosines p = x·y.
        paired_x: Σp·x, ``(d,)``.
        paired_y: Σp·y, ``(e,)``.

    The sums that need x and y of one dimension are NaN where the dimensions differ.
    """

    n: int
    sum_x: Array
    sum_y: Array
    xx: Array
    yy: Array
    xy: Array
    squared_distance: Array
    paired_square: Array
    paired_x: Array
    paired_y: Array

    @classmethod
    def of(
        cls,
        x: Array,
        y: Array,
        *,
        threads: int | None = None,
        team: Team = SOLO,
        wide: bool = False,
    ) -> Moments:
        """Return the moments of paired rows.

        Args:
            x: Images, unit rows ``(n, d)``, n ≥ 1: an array, a tensor or
                :class:`geomkit.embeddings.rows.Rows`.
            y: Texts, unit rows ``(n, e)``; row i belongs to row i of ``x``.
            threads: Blocks computed at once (numpy); default: one per core.
            team: Ranks to share the blocks with; each gets the whole sum.
            wide: Whether to form products in float64, whatever the rows are.

        Raises:
            GeomkitError: If the lengths differ or there are no rows.

        >>> m = Moments.of(np.eye(2), np.eye(2))
        >>> m.n, m.sum_x.tolist(), float(m.squared_distance)
        (2, [1.0, 1.0], 0.0)
        """
        if x.shape[0] != y.shape[0]:
            raise GeomkitError(
                f"moments: expected one text per image, got {x.shape[0]} images and "
                f"{y.shape[0]} texts"
            )
        # Few rows are cut into smaller blocks, so that threads share them.
        block = _BLOCK if x.shape[0] > 8 * _BLOCK else _BLOCK // 2
        starts = team.share(list(range(0, x.shape[0], block)))

        def work(start: int) -> Moments:
            a, b = x[start : start + block], y[start : start + block]
            if wide:
                xp = namespace(a)
                a, b = xp.astype(a, xp.float64), xp.astype(b, xp.float64)
            return cls._of_block(a, b)

        threads = 1 if is_torch(x) else threads or cores()
        parts = in_order(work, starts, threads=min(threads, len(starts)))
        if team.size == 1:
            return cls.merge(parts)
        # Each rank adds its own blocks; a rank without a block adds zeros of the right shape.
        mine = reduce(add, (part.numpy() for part in parts), cls._zero(x.shape[1], y.shape[1]))
        return cls(
            x.shape[0], *(team.sum(to_numpy(getattr(mine, f.name))) for f in fields(cls)[1:])
        )

    @classmethod
    def _zero(cls, d: int, e: int) -> Moments:
        shapes = [(d,), (e,), (d, d), (e, e), (d, e), (), (), (d,), (e,)]
        return cls(0, *(np.zeros(shape) for shape in shapes))

    @classmethod
    def _of_block(cls, x: Array, y: Array) -> Moments:
        xp = namespace(x, y)

        def wide(a: Array) -> Array:
            return xp.astype(a, xp.float64)

        if x.shape[1] == y.shape[1]:
            paired = xp.sum(x * y, axis=1)
            distance = xp.sum(squared_distances(x, y), dtype=xp.float64)
        else:
            paired = xp.full_like(x[:, 0], xp.nan)
            distance = wide(paired[0])
        n = int(x.shape[0])
        sum_x, sum_y = (xp.sum(rows, axis=0, dtype=xp.float64) for rows in (x, y))
        if x.dtype == y.dtype == xp.float64:
            xx, yy, xy = x.T @ x, y.T @ y, x.T @ y
        else:
            # Products of float32 keep seven digits of what they are given: the centre, which is
            # most of a tight cloud, goes into them in float64 alone.
            (a, at_a, left_a), (b, at_b, left_b) = (
                _about_centre(rows, total / n) for rows, total in ((x, sum_x), (y, sum_y))
            )
            xx = wide(a.T @ a) + _cross(n, at_a, left_a, at_a, left_a)
            yy = wide(b.T @ b) + _cross(n, at_b, left_b, at_b, left_b)
            xy = wide(a.T @ b) + _cross(n, at_a, left_a, at_b, left_b)
        return cls(
            n=n,
            sum_x=sum_x,
            sum_y=sum_y,
            xx=xx,
            yy=yy,
            xy=xy,
            squared_distance=distance,
            paired_square=xp.sum(wide(paired) ** 2),
            paired_x=wide(paired @ x),
            paired_y=wide(paired @ y),
        )

    @classmethod
    def merge(cls, parts: Iterable[Moments]) -> Moments:
        """Return the moments of all parts together.

        Raises:
            GeomkitError: If there are no parts.
        """
        total: Moments | None = None
        for part in parts:
            total = part if total is None else total + part
        if total is None:
            raise GeomkitError("moments: expected at least one row, got none")
        return total

    def __add__(self, other: Moments) -> Moments:
        """Return the moments of the rows of both."""
        return Moments(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def numpy(self) -> Moments:
        """Return the same sums as numpy arrays on the CPU."""
        return Moments(self.n, *(to_numpy(getattr(self, f.name)) for f in fields(self)[1:]))

    @property
    def mean_x(self) -> Array:
        """Centroid of the images."""
        return self.sum_x / self.n

    @property
    def mean_y(self) -> Array:
        """Centroid of the texts."""
        return self.sum_y / self.n

    @property
    def paired(self) -> float:
        """Mean paired cosine: the trace of Σxyᵀ over n; NaN if the dimensions differ."""
        if self.sum_x.shape != self.sum_y.shape:
            return float("nan")
        return float(to_numpy(self.xy).trace()) / self.n

    @property
    def paired_variance(self) -> float:
        """Variance of the paired cosines."""
        return max(0.0, float(self.paired_square) / self.n - self.paired**2)

    @property
    def cross_cosine(self) -> float:
        """Mean cosine of an image with the texts of other images: that of shuffled pairs."""
        if self.n < 2:
            return float("nan")
        return float((self.sum_x @ self.sum_y - self.n * self.paired) / (self.n * (self.n - 1)))

    @property
    def difference(self) -> tuple[Array, Array]:
        """Mean ``(d,)`` and covariance ``(d, d)`` of x − y."""
        cross = self.covariance("xy")
        covariance = self.covariance("xx") + self.covariance("yy") - cross - cross.T
        return self.mean_x - self.mean_y, covariance

    def of_modality(self, modality: str) -> tuple[Array, Array]:
        """Return the sum ``(d,)`` and the second moment ``(d, d)`` of ``image`` or ``text``."""
        return (self.sum_x, self.xx) if modality == "image" else (self.sum_y, self.yy)

    def intra_cosine(self, modality: str) -> float:
        """Return the mean cosine of two different rows of ``image`` or ``text``."""
        # Σ_{i≠j} x_i·x_j = ‖Σx‖² − Σ‖x‖²
        total, second = self.of_modality(modality)
        return float((total @ total - second.trace()) / (self.n * (self.n - 1)))

    def covariance(self, kind: str) -> Array:
        """Return the covariance (ddof 0) of ``xx``, ``yy`` or ``xy``."""
        left, right = ({"x": self.mean_x, "y": self.mean_y}[letter] for letter in kind)
        return getattr(self, kind) / self.n - left[:, None] * right[None, :]


def _about_centre(rows: Array, mean: Array) -> tuple[Array, Array, Array]:
    """Rows minus a centre, the centre in float64, and the sum of these rows."""
    xp = namespace(rows)
    centre = xp.astype(mean, rows.dtype)
    moved = rows - centre
    return moved, xp.astype(centre, xp.float64), xp.sum(moved, axis=0, dtype=xp.float64)


def _cross(n: int, at_a: Array, left_a: Array, at_b: Array, left_b: Array) -> Array:
    """Σ(a + α)(b + β)ᵀ − Σabᵀ for constants α and β."""
    xp = namespace(at_a)
    return xp.stack([left_a, at_a], axis=1) @ xp.stack([at_b, left_b + n * at_b])
