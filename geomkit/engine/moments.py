"""One-pass, mergeable sufficient statistics of paired rows.

Whatever is linear or quadratic in one row is a function of these few sums: centroid distance,
paired and intra-modal cosine, alignment, spectra, CKA, and the standard errors of most of them.
They are centred and in float64, so a cloud of any width keeps its digits. They are built block by
block and merge with ``+``, so the data may be of any size and spread over any number of processes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import ClassVar

from array_api_compat import device

from geomkit._core.array import Array, is_torch, namespace, to_numpy
from geomkit._core.parallel import SOLO, Team, cores, in_order
from geomkit.errors import GeomkitError

__all__ = ["Moments"]

_BLOCK = 4096
"""Rows of a block: enough for matrix products at full rate, few enough to stay near the cache."""


@dataclass(frozen=True)
class Moments:
    """Mean and scatter of paired unit rows, in float64.

    They are those of z = (x, y, δ), where δ = ‖x − y‖² is the squared distance of a pair. On unit
    rows the paired cosine is 1 − δ/2; δ keeps the digits of a small distance.

    Attributes:
        n: Number of pairs.
        mean: Mean of z, ``(d + e + 1,)``.
        scatter: Σ(z − z̄)(z − z̄)ᵀ, ``(d + e + 1, d + e + 1)``.
        dim: Dimension d of x.

    What concerns δ is NaN where the dimensions of x and y differ.
    """

    ROUNDING: ClassVar[float] = 1e-14
    """Mean squared distance up to which rows are equal but for rounding: of float32, in which most
    embeddings are computed, also where they arrive as float64."""

    n: int
    mean: Array
    scatter: Array
    dim: int

    @classmethod
    def of(cls, x: Array, y: Array, *, threads: int | None = None, team: Team = SOLO) -> Moments:
        """Return the moments of paired rows.

        Args:
            x: Images, unit rows ``(n, d)``, n ≥ 1: an array, a tensor or
                :class:`geomkit.embeddings.rows.Rows`. They are normalised in float64, since rows
                of float32 are of unit norm only up to its rounding.
            y: Texts, unit rows ``(n, e)``; row i belongs to row i of ``x``.
            threads: Blocks computed at once (numpy); default: one per core.
            team: Ranks to share the blocks with; each gets the moments of all rows.

        Raises:
            GeomkitError: If the lengths differ or there are no rows.

        >>> import numpy as np
        >>> m = Moments.of(np.eye(2), np.eye(2))
        >>> m.n, m.mean_x.tolist(), m.alignment
        (2, [0.5, 0.5], 0.0)
        """
        n = int(x.shape[0])
        if n != y.shape[0]:
            raise GeomkitError(
                f"moments: expected one text per image, got {n} images and {y.shape[0]} texts"
            )
        if n == 0:
            raise GeomkitError("moments: expected at least one row, got none")
        # Few rows are cut into smaller blocks, so that threads share them.
        block = _BLOCK if n > 8 * _BLOCK else _BLOCK // 2
        xp = namespace(x[:1])
        # Sums about a point inside the cloud lose no digits, and need no second pass.
        centre = xp.mean(_joined(x[:block], y[:block]), axis=0)

        def work(start: int) -> tuple[Array, Array]:
            z = _joined(x[start : start + block], y[start : start + block])
            z -= centre
            return xp.sum(z, axis=0), z.T @ z

        starts = team.share(list(range(0, n, block)))
        threads = 1 if is_torch(x) else threads or cores()
        total, product = 0.0 * centre, 0.0 * (centre[:, None] * centre[None, :])
        for one, other in in_order(work, starts, threads=min(threads, len(starts))):
            total, product = total + one, product + other
        if team.size > 1:
            centre = to_numpy(centre)
            total, product = (team.sum(to_numpy(sums)) for sums in (total, product))
        shift = total / n
        scatter = product - n * (shift[:, None] * shift[None, :])
        return cls(n, centre + shift, scatter, int(x.shape[1]))

    @classmethod
    def merge(cls, parts: Iterable[Moments]) -> Moments:
        """Return the moments of all parts together.

        Raises:
            GeomkitError: If there are no parts.
        """
        parts = list(parts)
        if not parts:
            raise GeomkitError("moments: expected at least one row, got none")
        return reduce(add, parts)

    def __add__(self, other: Moments) -> Moments:
        """Return the moments of the rows of both (Chan, Golub and LeVeque, 1979)."""
        n = self.n + other.n
        way = other.mean - self.mean
        between = self.n * other.n / n * (way[:, None] * way[None, :])
        mean = self.mean + other.n / n * way
        return Moments(n, mean, self.scatter + other.scatter + between, self.dim)

    def numpy(self) -> Moments:
        """Return the same moments as numpy arrays on the CPU."""
        return Moments(self.n, to_numpy(self.mean), to_numpy(self.scatter), self.dim)

    @property
    def mean_x(self) -> Array:
        """Centroid of the images, ``(d,)``."""
        return self.mean[: self.dim]

    @property
    def mean_y(self) -> Array:
        """Centroid of the texts, ``(e,)``."""
        return self.mean[self.dim : -1]

    @property
    def alignment(self) -> float:
        """Mean squared distance of the pairs; NaN if the dimensions differ."""
        return float(self.mean[-1])

    @property
    def paired(self) -> float:
        """Mean paired cosine; NaN if the dimensions differ."""
        return 1.0 - self.alignment / 2

    @property
    def distance_variance(self) -> float:
        """Variance of the squared distances of the pairs (ddof 1)."""
        return float(self.scatter[-1, -1]) / (self.n - 1) if self.n > 1 else float("nan")

    @property
    def difference(self) -> tuple[Array, Array]:
        """Mean ``(d,)`` and covariance ``(d, d)`` of x − y."""
        cross = self.covariance("xy")
        covariance = self.covariance("xx") + self.covariance("yy") - cross - cross.T
        return self.mean_x - self.mean_y, covariance

    @property
    def cross_distance(self) -> float:
        """Mean squared distance of an image and the text of another image.

        NaN for one pair, or if the dimensions differ.
        """
        if self.n < 2 or math.isnan(self.alignment):
            return float("nan")
        way = self.mean_x - self.mean_y
        spread = self.spread("image") + self.spread("text") + float(way @ way)
        return (self.n * spread - self.alignment) / (self.n - 1)

    @property
    def cross_cosine(self) -> float:
        """Mean cosine of an image with the texts of other images: that of shuffled pairs."""
        return 1.0 - self.cross_distance / 2

    def of_modality(self, modality: str) -> tuple[Array, Array]:
        """Return the mean ``(d,)`` and the covariance ``(d, d)`` of ``image`` or ``text``."""
        if modality == "image":
            return self.mean_x, self.covariance("xx")
        return self.mean_y, self.covariance("yy")

    def spread(self, modality: str) -> float:
        """Return the mean squared distance of ``image`` or ``text`` rows to their mean."""
        return max(0.0, float(self.of_modality(modality)[1].trace()))

    def intra_distance(self, modality: str) -> float:
        """Return the mean squared distance of two different rows of ``image`` or ``text``."""
        # Σ_{i≠j} ‖x_i − x_j‖² = 2n Σ‖x_i − x̄‖²
        return 2.0 * self.n / (self.n - 1) * self.spread(modality) if self.n > 1 else float("nan")

    def intra_cosine(self, modality: str) -> float:
        """Return the mean cosine of two different rows of ``image`` or ``text``."""
        return 1.0 - self.intra_distance(modality) / 2

    def covariance(self, kind: str) -> Array:
        """Return the covariance (ddof 0) of ``xx``, ``yy``, ``xy``, ``xd`` or ``yd``; d is δ."""
        part = {"x": slice(self.dim), "y": slice(self.dim, -1), "d": -1}
        return self.scatter[part[kind[0]], part[kind[1]]] / self.n


def _joined(x: Array, y: Array) -> Array:
    """Rows (x, y, δ) in float64, x and y of unit norm; a fresh matrix."""
    xp = namespace(x, y)
    n, d, e = int(x.shape[0]), int(x.shape[1]), int(y.shape[1])
    joined = xp.empty((n, d + e + 1), dtype=xp.float64, device=device(x))
    for part, rows in ((joined[:, :d], x), (joined[:, d:-1], y)):
        part[...] = rows
        part /= xp.sqrt(xp.vecdot(part, part))[:, None]
    if d == e:
        way = joined[:, :d] - joined[:, d:-1]
        joined[:, -1] = xp.vecdot(way, way)
    else:
        joined[:, -1] = xp.nan
    return joined
