"""Metrics that are functions of the moments alone: exact in one pass, whatever n is.

Standard errors are linearised: the influence of pair i on the number is written out, and its
variance over the pairs is a quadratic form in the same moments.
"""

from __future__ import annotations

import math

import numpy as np

from geomkit.engine.moments import Moments
from geomkit.functional import relative_modality_gap
from geomkit.metrics.number import NAN, Number

__all__ = [
    "alignment",
    "centroid_distance",
    "centroid_gap",
    "cka",
    "conformity",
    "distribution_gap",
    "frechet_distance",
    "gap_dimensions",
    "intra_cosine",
    "paired_cosine",
    "relative_gap",
]


def _difference(m: Moments) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of x − y."""
    cross = m.covariance("xy")
    return m.mean_x - m.mean_y, m.covariance("xx") + m.covariance("yy") - cross - cross.T


def _paired_variance(m: Moments) -> float:
    return max(0.0, float(m.paired_square) / m.n - m.paired**2)


def _root(variance: float) -> float:
    return math.sqrt(max(0.0, variance))


def cross_cosine(m: Moments) -> float:
    """Mean cosine of an image with the texts of others: the paired cosine of shuffled pairs."""
    if m.n < 2:
        return NAN
    return float((m.sum_x @ m.sum_y - m.n * m.paired) / (m.n * (m.n - 1)))


def centroid_distance(m: Moments) -> Number:
    """Distance of the two means, ‖x̄ − ȳ‖. 0 to 2.

    Liang et al., "Mind the Gap" (arXiv 2203.02053). Two halves of one cloud are not 0
    apart but about √(alignment/n): that is the null, the root mean square under exchange of image
    and text within pairs.
    """
    mean, covariance = _difference(m)
    distance = float(np.linalg.norm(mean))
    null = math.sqrt(float(m.squared_distance)) / m.n
    if distance == 0:
        return Number(0.0, NAN, null)
    direction = mean / distance
    return Number(distance, _root(direction @ covariance @ direction / m.n), null)


def paired_cosine(m: Moments) -> Number:
    """Mean cosine of the pairs, x_i · y_i; its null is the mean over shuffled pairs. −1 to 1."""
    return Number(m.paired, _root(_paired_variance(m) / m.n), cross_cosine(m))


def alignment(m: Moments) -> Number:
    """Mean squared distance of the pairs (Wang and Isola, arXiv 2005.10242). 0 to 4.

    On unit rows it is 2 − 2 × paired cosine, and so are its error and null.
    """
    value = float(m.squared_distance) / m.n
    return Number(value, 2 * _root(_paired_variance(m) / m.n), 2 - 2 * cross_cosine(m))


def intra_cosine(m: Moments, modality: str) -> Number:
    """Mean cosine of two different rows of a modality: the cone effect. −1/(n−1) to 1.

    The null is that of exchanging image and text within pairs: the mean over both modalities and
    across.
    """
    image, text = (_intra(m, letter) for letter in "xy")
    value = image if modality == "image" else text
    letter = "x" if modality == "image" else "y"
    total = m.sum_x if letter == "x" else m.sum_y
    variance = total @ m.covariance(2 * letter) @ total / m.n
    same = m.sum_x.shape == m.sum_y.shape
    null = (image + text + 2 * cross_cosine(m)) / 4 if same else NAN
    return Number(value, 2 * _root(variance) / (m.n - 1), null)


def _intra(m: Moments, letter: str) -> float:
    # Σ_{i≠j} x_i·x_j = ‖Σx‖² − Σ‖x‖²
    total, second = (m.sum_x, m.xx) if letter == "x" else (m.sum_y, m.yy)
    return float((total @ total - second.trace()) / (m.n * (m.n - 1)))


def relative_gap(m: Moments) -> Number:
    """Distance of partners over that of partners and strangers, p/(p + q). 0 to 1.

    See :func:`geomkit.functional.relative_modality_gap` (Role et al., arXiv 2505.03703).
    """
    paired, image, text = m.paired, _intra(m, "x"), _intra(m, "y")
    p = (1 - paired) / 2
    q = ((1 - image) + (1 - text)) / 4
    if p + q < 1e-12:
        return Number(NAN)
    # influence of a pair: a·p_i + 2b·(x_i·x̄ + y_i·ȳ)
    a = -0.5 * q / (p + q) ** 2
    b = 0.25 * p / (p + q) ** 2
    x, y = m.mean_x, m.mean_y
    spread = x @ m.covariance("xx") @ x + y @ m.covariance("yy") @ y
    spread += 2 * (x @ m.covariance("xy") @ y)
    shared = x @ (m.paired_x / m.n - paired * x) + y @ (m.paired_y / m.n - paired * y)
    variance = a * a * _paired_variance(m) + 4 * b * b * spread + 4 * a * b * shared
    return Number(relative_modality_gap(paired, image, text), _root(variance / m.n))


def centroid_gap(m: Moments) -> Number:
    """The part of the alignment that the means make, ‖x̄ − ȳ‖². 0 to 4."""
    distance, error, *_ = centroid_distance(m)
    return Number(distance**2, 2 * distance * error)


def distribution_gap(m: Moments) -> Number:
    """The rest of the alignment, mean ‖(x_i − x̄) − (y_i − ȳ)‖². 0 to 4.

    Together with the centroid gap it makes the alignment; translating one modality onto the other
    removes the first and leaves this.
    """
    mean, covariance = _difference(m)
    value = max(0.0, float(m.squared_distance) / m.n - float(mean @ mean))
    shared = mean @ ((m.paired_x - m.paired_y) / m.n - m.paired * mean)
    variance = 4 * (_paired_variance(m) + mean @ covariance @ mean + 2 * shared)
    return Number(value, _root(variance / m.n))


def gap_dimensions(m: Moments, share: float = 0.9) -> Number:
    """Fewest coordinates that hold a share of ‖x̄ − ȳ‖²: whether the gap is in a few. 1 to d.

    It depends on the basis: a rotation of the space changes it, as nothing else here.
    """
    squares = np.sort((m.mean_x - m.mean_y) ** 2)[::-1]
    total = squares.sum()
    if total <= 0:
        return Number(NAN)
    return Number(float(np.argmax(np.cumsum(squares) >= share * total * (1 - 1e-12)) + 1))


def frechet_distance(m: Moments) -> Number:
    r"""Squared Fréchet distance of two Gaussians with the clouds' means and covariances (ddof 1).

    :math:`\lVert\bar x-\bar y\rVert^2 + \mathrm{tr}(A + B - 2(A^{1/2} B A^{1/2})^{1/2})`
    (Heusel et al., arXiv 1706.08500). 0 upwards; biased upwards for n of the order of d.
    """
    if m.n < 2:
        return Number(NAN)
    correction = m.n / (m.n - 1)
    a, b = m.covariance("xx") * correction, m.covariance("yy") * correction
    values, vectors = np.linalg.eigh(a)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ b @ root), 0.0)).sum()
    mean = m.mean_x - m.mean_y
    return Number(max(0.0, float(mean @ mean + a.trace() + b.trace() - 2 * cross)))


def cka(m: Moments) -> Number:
    r"""Unbiased linear CKA: how alike the two modalities arrange the pairs. 0 (shuffled) to 1.

    Kornblith et al. (arXiv 1905.00414) with the unbiased HSIC of Song et al. (JMLR 2012). On unit
    rows the diagonals of both kernels are 1, so all its sums are functions of the moments. Needs
    n ≥ 4.
    """
    if m.n < 4:
        return Number(NAN)

    def hsic(cross: np.ndarray, left: np.ndarray, right: np.ndarray) -> float:
        n = m.n
        inner = float((cross * cross).sum()) - n
        ones = (float(left @ left) - n) * (float(right @ right) - n) / ((n - 1) * (n - 2))
        mixed = float(left @ cross @ right) - float(left @ left) - float(right @ right) + n
        return (inner + ones - 2 * mixed / (n - 2)) / (n * (n - 3))

    own = hsic(m.xx, m.sum_x, m.sum_x) * hsic(m.yy, m.sum_y, m.sum_y)
    if own <= 0:
        return Number(NAN, null=0.0)
    return Number(hsic(m.xy, m.sum_x, m.sum_y) / math.sqrt(own), null=0.0)


def conformity(m: Moments, modality: str) -> Number:
    """Mean cosine of a modality's rows with their own mean, ‖x̄‖. 0 to 1.

    Levi and Gilboa, "The Double-Ellipsoid Geometry of CLIP" (arXiv 2411.14517): a row's conformity
    is its mean cosine with all others, estimated by its cosine with the mean. The mean of the
    first is the intra-modal cosine, the mean of the second is this.
    """
    letter = "x" if modality == "image" else "y"
    mean = m.mean_x if letter == "x" else m.mean_y
    length = float(np.linalg.norm(mean))
    if length == 0:
        return Number(0.0)
    variance = mean @ m.covariance(2 * letter) @ mean / length**2
    return Number(length, _root(variance / m.n))
