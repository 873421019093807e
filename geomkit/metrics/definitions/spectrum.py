"""Group ``spectrum``: the shape of each cloud, from the eigenvalues of its second moments.

The cost is min(n, d)³ once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np

from geomkit._core.array import to_numpy
from geomkit.engine.moments import Moments
from geomkit.engine.precision import unit64
from geomkit.metrics.metric import Metric, of_moments
from geomkit.metrics.number import Number, norm_errors
from geomkit.metrics.statistics import Statistics

__all__ = [
    "METRICS",
    "components_to",
    "conformity",
    "effective_rank",
    "eigenvalues",
    "explained_variance",
    "explained_variance_auc",
    "explained_variance_with_error",
    "isoscore",
    "leading_components",
    "participation_ratio",
    "principal_components",
    "spectral_decay",
]

_ROWS_AT_ONCE = 4096


def principal_components(s: Statistics, modality: str) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues of the centred scatter, largest first, and its eigenvectors as columns.

    There are min(n, d) of them. The vectors are in the coordinates of ``s.span``.
    """
    matrix, rows = _gram(s, modality, centred=True)
    values, vectors = np.linalg.eigh(matrix)
    values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
    if rows is None:
        return values, vectors
    # What has no variance, as the direction that centring took away, has no vector either.
    lengths = np.sqrt(np.where(values > 1e-14 * values[0], values, np.inf))
    return values, rows.T @ vectors / lengths


def eigenvalues(s: Statistics, modality: str, *, centred: bool) -> np.ndarray:
    """Eigenvalues of Σ(x−x̄)(x−x̄)ᵀ or, uncentred, of Σxxᵀ, largest first, ``(min(n, d),)``.

    The square roots of the uncentred ones are the singular values of the rows. The centred ones are
    0 if the rows differ by rounding alone: their spectrum would be that of noise.
    """
    if centred and s.moments.spread(modality) <= s.moments.ROUNDING:
        return np.zeros(min(s.n, len(s.moments.of_modality(modality)[0])))
    if centred and s.has(principal_components, modality):
        return s.once(principal_components, modality)[0]
    matrix, _ = _gram(s, modality, centred=centred)
    return np.maximum(np.linalg.eigvalsh(matrix)[::-1], 0.0)


def _gram(s: Statistics, modality: str, *, centred: bool) -> tuple[np.ndarray, np.ndarray | None]:
    """Scatter of a modality; if there are fewer rows, their inner products and the rows."""
    mean, covariance = (to_numpy(a) for a in s.moments.of_modality(modality))
    if s.n >= len(mean):
        return s.n * (covariance if centred else covariance + np.outer(mean, mean)), None
    rows = to_numpy(unit64(s.span[modality == "text"][:]))
    rows = rows - mean if centred else rows
    return rows @ rows.T, rows


def leading_components(s: Statistics, modality: str, share: float) -> np.ndarray | None:
    """Principal components that explain a share of the variance, ``(d, k)``; ``None`` without."""
    values, vectors = s.once(principal_components, modality)
    if s.moments.spread(modality) <= s.moments.ROUNDING:
        return None
    return vectors[:, : int(components_to(values, share))]


def explained_variance(eigenvalues: np.ndarray) -> np.ndarray:
    """Cumulative explained-variance ratio, as in sklearn's PCA.

    Args:
        eigenvalues: Eigenvalues of the centred scatter, largest first, ``(k,)``.

    Returns:
        Ratios in [0, 1], ``(k,)``, the last one 1; all NaN when there is no variance to explain.

    Example:
        >>> explained_variance(np.array([3.0, 1.0])).tolist()
        [0.75, 1.0]
    """
    total = eigenvalues.sum()
    if total <= 0:
        return np.full_like(eigenvalues, np.nan)
    cumulative = np.cumsum(eigenvalues) / total
    cumulative[-1] = 1.0
    return cumulative


def explained_variance_auc(eigenvalues: np.ndarray) -> float:
    r"""Mean of the cumulative explained-variance ratio over the components.

    .. math:: \frac1k \sum_{j=1}^k \frac{λ_1 + \cdots + λ_j}{λ_1 + \cdots + λ_k},
              \quad λ_j \text{ the eigenvalues of the covariance, } k = \min(n, d)

    One number for the curve of Fahim, Murphy and Fyshe (arXiv 2405.18570). (k + 1)/(2k), about ½,
    when all k directions have the same variance; 1 when one has all of it.

    >>> explained_variance_auc(np.array([1.0, 1.0]))
    0.75
    """
    return float(explained_variance(eigenvalues).mean())


def explained_variance_with_error(
    rows: np.ndarray, *, groups: int = 20
) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Cumulative explained variance of one modality, its mean, and the standard errors of both.

    The errors come from a grouped jackknife: every twentieth row is left out at a time. Eigenvalues
    have no simpler standard error.

    Args:
        rows: Embeddings of one modality, shape ``(n, d)``.
        groups: Number of groups of the jackknife.

    Returns:
        The curve, shape ``(min(n, d),)``, its standard errors, the mean of the curve and its
        standard error. The errors are NaN with fewer than two rows per group; all are NaN if the
        rows differ by rounding alone.

    >>> values, errors, area, error = explained_variance_with_error(np.eye(4))
    >>> float(values[-1]), bool(np.isnan(error))
    (1.0, True)
    """
    n, d = rows.shape
    k = min(n, d)
    mean = rows.mean(axis=0, dtype=np.float64)

    def sums(part: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        second, total = np.zeros((d, d)), np.zeros(d)
        for start in range(0, len(part), _ROWS_AT_ONCE):
            centred = part[start : start + _ROWS_AT_ONCE] - mean
            second += centred.T @ centred
            total += centred.sum(axis=0)
        return second, total

    def values(second: np.ndarray, total: np.ndarray, count: int) -> np.ndarray:
        scatter = second - np.outer(total, total) / count
        return np.maximum(np.linalg.eigvalsh(scatter)[::-1][:k], 0.0)

    second, total = sums(rows)
    if second.trace() <= n * Moments.ROUNDING:
        return np.full(k, np.nan), np.full(k, np.nan), float("nan"), float("nan")
    whole = values(second, total, n)
    curve, area = explained_variance(whole), explained_variance_auc(whole)
    if n < 2 * groups:
        return curve, np.full(k, np.nan), area, float("nan")
    left = []
    for part in (rows[g::groups] for g in range(groups)):
        its_second, its_total = sums(part)
        found = values(second - its_second, total - its_total, n - len(part))
        left.append([*explained_variance(found), explained_variance_auc(found)])
    spread = np.array(left) - np.mean(left, axis=0)
    errors = np.sqrt((groups - 1) / groups * (spread**2).sum(axis=0))
    return curve, errors[:-1], area, float(errors[-1])


def components_to(eigenvalues: np.ndarray, share: float) -> float:
    r"""Number of principal components that explain a share of the variance.

    .. math:: \min \{j : λ_1 + \cdots + λ_j \ge s\,(λ_1 + \cdots + λ_k)\},
              \quad λ_j \text{ the eigenvalues of the covariance}

    s is 0.8 or 0.9, as in sklearn's PCA.

    >>> components_to(np.array([3.0, 1.0]), 0.8)
    2.0
    """
    cumulative = explained_variance(eigenvalues)
    if np.isnan(cumulative[0]):
        return float("nan")
    # Without the slack, rounding in a ratio of exactly 0.8 would need one component more.
    return float(np.argmax(cumulative >= share - 1e-12) + 1)


def effective_rank(eigenvalues: np.ndarray) -> float:
    r"""Effective rank, exp of the entropy of the normalised singular values.

    .. math:: \exp\left(-\sum_k p_k \log p_k\right), \quad p_k = \frac{σ_k}{\sum_j σ_j},
              \quad σ_k \text{ the singular values of the rows}

    Garrido et al., "RankMe" (arXiv 2210.02885), without its ε. 1: one direction; min(n, d): all
    equal. Uncentred, so a cloud far from the origin has a low one whatever its shape.

    Args:
        eigenvalues: Eigenvalues of the **uncentred** scatter, ``(k,)``.

    >>> round(effective_rank(np.ones(5)), 6)
    5.0
    """
    singular = np.sqrt(eigenvalues)
    p = singular[singular > 0] / singular.sum()
    return float(np.exp(-(p * np.log(p)).sum()))


def participation_ratio(eigenvalues: np.ndarray) -> float:
    r"""Participation ratio, (Σλ)²/Σλ², of the centred scatter.

    .. math:: \frac{(\sum_j λ_j)^2}{\sum_j λ_j^2}, \quad λ_j \text{ the eigenvalues}

    Bell and Dean (1970) for vibrations; of a covariance by Gao et al. (2017). 1: one direction; d:
    all equal; NaN without variance.

    >>> participation_ratio(np.array([1.0, 1.0, 0.0]))
    2.0
    """
    squares = float((eigenvalues**2).sum())
    return float(eigenvalues.sum() ** 2) / squares if squares > 0 else float("nan")


def isoscore(eigenvalues: np.ndarray, dim: int) -> float:
    r"""IsoScore, how evenly the variance fills the space: 0 (one direction) to 1 (all equal).

    .. math:: \frac{dφ-1}{d-1}, \quad φ = \frac{(d - δ^2(d-\sqrt d))^2}{d^2}, \quad
              δ = \frac{\lVert v - 1 \rVert}{\sqrt{2(d - \sqrt d)}}

    Rudman et al., "IsoScore" (arXiv 2108.07344): v are the eigenvalues of the covariance scaled to
    norm √d, δ is the defect, φ the share of dimensions in use.

    Args:
        eigenvalues: Eigenvalues of the centred scatter; missing ones are zero.
        dim: Dimension d, 2 or more.

    >>> isoscore(np.ones(4), 4), round(isoscore(np.array([1.0, 0, 0, 0]), 4), 12)
    (1.0, 0.0)
    """
    norm = float(np.linalg.norm(eigenvalues))
    if norm == 0 or dim < 2:
        return float("nan")
    scaled = np.zeros(dim)
    scaled[: len(eigenvalues)] = np.sqrt(dim) * eigenvalues / norm
    root = dim - np.sqrt(dim)
    defect = float(((scaled - 1.0) ** 2).sum()) / (2.0 * root)
    phi = (dim - defect * root) ** 2 / dim**2
    return max(0.0, float((dim * phi - 1.0) / (dim - 1.0)))


def spectral_decay(eigenvalues: np.ndarray) -> float:
    r"""Decay coefficient α of the spectrum, λ_j ∝ j^(−α).

    .. math:: α = -\frac{\sum_j (\log j - m) \log λ_j}{\sum_j (\log j - m)^2},
              \quad m = \frac1k \sum_j \log j

    Agrawal et al., "α-ReQ" (NeurIPS 2022): the slope of log eigenvalue against log rank, by least
    squares over all eigenvalues above 10⁻¹⁰ of the largest. 0: flat; the paper finds the best
    representations near 1.

    Args:
        eigenvalues: Eigenvalues of the centred scatter, largest first.

    >>> round(spectral_decay(1.0 / np.arange(1, 20) ** 2), 6)
    2.0
    """
    kept = eigenvalues[eigenvalues > 1e-10 * eigenvalues[0]]
    if len(kept) < 2:
        return float("nan")
    rank = np.log(np.arange(1, len(kept) + 1))
    rank -= rank.mean()
    return float(-(rank @ np.log(kept)) / (rank @ rank))


def conformity(m: Moments, modality: str) -> Number:
    r"""Mean cosine of a modality's rows with their own mean, ‖x̄‖. 0 to 1.

    .. math:: \frac1n \sum_i \frac{x_i·\bar x}{\lVert\bar x\rVert} = \lVert \bar x \rVert

    Levi and Gilboa, "The Double-Ellipsoid Geometry of CLIP" (arXiv 2411.14517): a row's conformity
    is its mean cosine with all others, estimated by its cosine with the mean. The mean of the
    first is the intra-modal cosine, the mean of the second is this. The null, 1/√n, is that of n
    independent directions.
    """
    mean, covariance = m.of_modality(modality)
    _, error = norm_errors(mean, covariance, m.n)
    return Number(float(np.linalg.norm(mean)), error, 1 / math.sqrt(m.n))


def _spectrum(modality: str) -> list[Metric]:
    def metric(
        name: str,
        formula: Callable[..., float],
        ends: str,
        *args: float,
        centred: bool = True,
        with_dim: bool = False,
        undefined: str = "",
        **about: Any,
    ) -> Metric:
        @wraps(formula)
        def number(s: Statistics) -> Number:
            values = s.once(eigenvalues, modality, centred=centred)
            dim = (int(s.pairs[modality == "text"].shape[1]),) if with_dim else ()
            return Number(formula(values, *args, *dim))

        reason = "all rows of this modality are equal, so there is no variance"
        return Metric(
            f"{name}_{modality}", "spectrum", number, ends, across=False,
            undefined=undefined or reason, **about,
        )  # fmt: skip

    return [
        metric(
            "explained_variance_auc", explained_variance_auc,
            "0.5 = all directions equal … 1 = one direction", low=0, high=1,
            ideal=lambda d: (d + 1) / (2 * d),
            pitfalls="With few rows the spectrum is that of the sample, and with fewer rows than "
            "dimensions there are only n components: compare at one n and d. Centred: neither a "
            "cone nor a gap shows.",
        ),
        *(
            metric(
                f"components_to_{share}", components_to,
                f"1 … min(n, d): directions holding {share}% of the variance", share / 100, low=1,
                ideal=lambda d, share=share: math.ceil(share * d / 100),
                pitfalls="A whole number of at most min(n, d): small changes do not show, and few "
                "rows lower it. Centred: neither a cone nor a gap shows.",
            )
            for share in (80, 90)
        ),
        metric(
            "effective_rank", effective_rank, "1 = one direction … min(n, d) = all equal",
            low=1, ideal=float, centred=False,
            pitfalls="Not centred: in a cone it is low whatever the shape of the cloud, and a moved"
            " mean looks like a changed rank. At most min(n, d), and few rows lower it: compare at "
            "one n and d.",
        ),
        metric(
            "participation_ratio", participation_ratio, "1 = one direction … d = all equal",
            low=1, ideal=float,
            pitfalls="The largest eigenvalues dominate: one strong direction makes it small though "
            "many others vary too. Few rows lower it: compare at one n.",
        ),
        metric(
            "isoscore", isoscore, "0 = one direction … 1 = all equal",
            low=0, high=1, ideal=1, with_dim=True,
            undefined="all rows of this modality are equal, or they have one dimension",
            pitfalls="Few rows lower it, and of fewer rows than dimensions the missing eigenvalues "
            "count as 0: compare at one n and d. Centred: a cone does not show.",
        ),
        metric(
            "spectral_decay", spectral_decay, "0 = flat … large = few directions", low=0, ideal=0,
            undefined="the rows of this modality vary in fewer than two directions",
            pitfalls="A power law is fitted whether or not the spectrum follows one. Most points "
            "of the fit are small eigenvalues, which few rows make too small: compare at one n.",
        ),
        Metric(
            f"conformity_{modality}", "spectrum", of_moments(conformity, modality),
            "0 = centred … 1 = all in one cone", low=0, high=1, ideal=0, across=False,
            pitfalls="Few rows enlarge it: 1/√n for independent directions, its null. It is the "
            "length of the mean and says nothing of the shape; centring brings it to about 0.",
        ),
    ]  # fmt: skip


METRICS = [*_spectrum("image"), *_spectrum("text")]
