"""The formulas, on numpy arrays or torch tensors: training and analysis call the same ones.

Rows are unit vectors throughout: ``x`` of shape ``(n, d)`` holds image embeddings, ``y`` text
embeddings, and row i of one belongs to row i of the other. Every function is differentiable under
torch's autograd and keeps the dtype of its input; upcast half precision before you call.

Sources: Wang and Isola, "Understanding Contrastive Representation Learning through Alignment and
Uniformity on the Hypersphere" (arXiv 2005.10242); Fahim, Murphy and Fyshe, "It's Not a Modality
Gap" (arXiv 2405.18570), called "the paper" here; Radford et al., "Learning Transferable Visual
Models From Natural Language Supervision" (arXiv 2103.00020).
"""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np

from geomkit._core.array import A, Array, is_torch, namespace
from geomkit.errors import GeomkitError

__all__ = [
    "alignment",
    "contrastive",
    "contrastive_rows",
    "cross_uniformity",
    "gaussian_potential",
    "log_mean_potential",
    "potential_sum",
    "relative_modality_gap",
    "squared_distances",
    "uniform_sphere_limit",
    "uniformity",
]


N = TypeVar("N", float, Array)


def _check_pair(x: Array, y: Array) -> None:
    if x.ndim != 2 or y.ndim != 2 or tuple(x.shape) != tuple(y.shape):
        raise GeomkitError(
            "x and y: expected two (n, d) matrices of equal shape, "
            f"got {tuple(x.shape)} and {tuple(y.shape)}"
        )


def _check_rows(x: Array, *, least: int = 2) -> None:
    if x.ndim != 2 or x.shape[0] < least:
        raise GeomkitError(
            f"expected an (n, d) matrix with n >= {least} rows, got shape {tuple(x.shape)}"
        )


def squared_distances(x: A, y: A) -> A:
    r"""Squared distance within each pair, :math:`\lVert x_i - y_i \rVert^2`.

    Computed from the difference, not as 2 − 2 x·y, which loses the digits of a small distance.

    Args:
        x: Image embeddings, rows ``(n, d)``.
        y: Text embeddings, rows ``(n, d)``.

    Returns:
        Squared distances, ``(n,)``; in [0, 4] on unit rows.

    Raises:
        GeomkitError: If the shapes differ.

    Example:
        >>> squared_distances(np.eye(2), np.eye(2)[::-1]).tolist()
        [2.0, 2.0]
    """
    _check_pair(x, y)
    difference = x - y
    return namespace(x).sum(difference * difference, axis=-1)


def gaussian_potential(cosine: A, t: float = 2.0, *, out: np.ndarray | None = None) -> A:
    r"""Gaussian potential of unit vectors, :math:`e^{-t \lVert u - v \rVert^2} = e^{-2t(1 - u·v)}`.

    The kernel of Wang and Isola's uniformity.

    Args:
        cosine: Inner products of unit vectors, of any shape.
        t: Inverse temperature of the kernel.
        out: Numpy array for the result, of the shape and dtype of ``cosine``; it may be ``cosine``
            itself. Fresh memory costs more here than the arithmetic.

    Returns:
        Potentials of the shape of ``cosine``, in [e^{-4t}, 1].

    Example:
        >>> gaussian_potential(np.array([1.0, 0.0])).round(6).tolist()
        [1.0, 0.018316]
    """
    if out is None:
        return namespace(cosine).exp((2.0 * t) * (cosine - 1.0))
    np.subtract(cosine, 1.0, out=out)
    out *= 2.0 * t
    return np.exp(out, out=out)


def alignment(x: A, y: A) -> A:
    r"""Mean squared distance within pairs, :math:`\frac1n \sum_i \lVert x_i - y_i \rVert^2`.

    Wang and Isola's :math:`\mathcal L_\mathrm{align}` with α = 2; the paper's term A.

    Args:
        x: Image embeddings, unit rows ``(n, d)``.
        y: Text embeddings, unit rows ``(n, d)``.

    Returns:
        Alignment, a scalar in [0, 4]: 0 when every image coincides with its text, 2 for orthogonal
        pairs, 4 for opposite ones.

    Raises:
        GeomkitError: If the shapes differ or there are no rows.

    Example:
        >>> float(alignment(np.eye(3), -np.eye(3)))
        4.0
    """
    _check_pair(x, y)
    _check_rows(x, least=1)
    return namespace(x).mean(squared_distances(x, y))


def potential_sum(x: A, others: A, t: float = 2.0, *, offset: int = 0) -> A:
    r"""Sum of potentials, :math:`\sum_i \sum_{j \ne i + o} e^{-t\lVert x_i - z_j \rVert^2}`.

    The contribution of some rows to a uniformity of all, for example of one process's rows to that
    of all processes. :func:`log_mean_potential` of the sum over all rows is the uniformity.

    Args:
        x: Unit rows ``(b, d)``.
        others: Unit rows z, ``(n, d)``, b ≤ n.
        t: Inverse temperature of the kernel.
        offset: Shift o: the pair of row i of ``x`` and row i + o of ``others`` is left out.

    Returns:
        Sum of b (n − 1) potentials, a scalar in [0, b (n − 1)].

    Example:
        >>> rows = np.eye(3)
        >>> parts = [potential_sum(rows[i : i + 1], rows, offset=i) for i in range(3)]
        >>> round(float(log_mean_potential(sum(parts), 3)), 6)
        -4.0
    """
    cosine = x @ others.T
    # Their potential is exactly 0; a mask would be a matrix more, in the backward pass too.
    if is_torch(cosine):
        cosine.diagonal(offset).fill_(-math.inf)  # torch.compile refuses fill_diagonal_
    else:
        np.fill_diagonal(cosine[:, offset : offset + x.shape[0]], -math.inf)
    return namespace(cosine).sum(gaussian_potential(cosine, t))


def log_mean_potential(total: A, n: int) -> A:
    r"""Log of the mean potential of different rows, :math:`\log \frac{S}{n(n-1)}`.

    Args:
        total: Sum S of the potentials over the n (n − 1) pairs of different rows.
        n: Number of rows.

    Returns:
        Uniformity, a scalar in [−4t, 0].

    Example:
        >>> float(log_mean_potential(np.float64(6.0), 3))
        0.0
    """
    return namespace(total).log(total / (n * (n - 1)))


def uniformity(x: A, t: float = 2.0) -> A:
    r"""Uniformity, :math:`\log \frac{2}{n(n-1)} \sum_{i<j} e^{-t\lVert x_i-x_j\rVert^2}`.

    Wang and Isola's :math:`\mathcal L_\mathrm{uniform}`; the paper's term U is its mean over both
    modalities.

    Args:
        x: Embeddings of one modality, unit rows ``(n, d)``, n ≥ 2. Memory grows with n²; for many
            rows use :func:`geomkit.gap`.
        t: Inverse temperature of the kernel.

    Returns:
        Uniformity, a scalar in [−4t, 0]: 0 when all rows coincide; for rows spread over the whole
        sphere it tends to :func:`uniform_sphere_limit`.

    Raises:
        GeomkitError: If there are fewer than two rows.

    Example:
        >>> round(float(uniformity(np.eye(4))), 6)
        -4.0
    """
    _check_rows(x)
    return log_mean_potential(potential_sum(x, x, t), x.shape[0])


def cross_uniformity(x: A, y: A, t: float = 2.0) -> A:
    r"""Cross-uniformity, :math:`\log \frac{1}{n(n-1)} \sum_{i\ne j} e^{-t\lVert x_i-y_j\rVert^2}`.

    The paper's term XU: it pushes each image away from the texts of other images.

    Args:
        x: Image embeddings, unit rows ``(n, d)``, n ≥ 2.
        y: Text embeddings, unit rows ``(n, d)``.
        t: Inverse temperature of the kernel.

    Returns:
        Cross-uniformity, a scalar in [−4t, 0], with the limit of :func:`uniformity`.

    Raises:
        GeomkitError: If the shapes differ or there are fewer than two rows.

    Example:
        >>> round(float(cross_uniformity(np.eye(4), np.eye(4))), 6)
        -4.0
    """
    _check_pair(x, y)
    _check_rows(x)
    return log_mean_potential(potential_sum(x, y, t), x.shape[0])


def contrastive(x: A, y: A, scale: Array | float, bias: Array | float = 0.0) -> A:
    r"""CLIP's symmetric cross-entropy, :math:`\frac12 (CE(s\,xy^⊤) + CE(s\,yx^⊤))`, s = 1/τ.

    Radford et al.; the paper's term CLIP.

    Args:
        x: Image embeddings, unit rows ``(n, d)``.
        y: Text embeddings, unit rows ``(n, d)``.
        scale: Inverse temperature s.
        bias: Constant added to every logit; it does not change a softmax.

    Returns:
        Loss, a scalar ≥ 0: log n for a collapsed model, towards 0 when every row is nearest to its
        partner by far.

    Raises:
        GeomkitError: If the shapes differ or there are no rows.

    Example:
        >>> round(float(contrastive(np.ones((4, 1)), np.ones((4, 1)), 10.0)), 6)  # log 4
        1.386294
    """
    _check_pair(x, y)
    _check_rows(x, least=1)
    xp = namespace(x)
    logits = scale * (x @ y.T) + bias
    return _cross_entropy(
        _log_sum_exp(logits, axis=1), _log_sum_exp(logits, axis=0), xp.linalg.diagonal(logits)
    )


def contrastive_rows(
    x: A,
    y: A,
    all_x: A,
    all_y: A,
    scale: Array | float,
    bias: Array | float = 0.0,
    *,
    offset: int = 0,
) -> A:
    r"""Share of some pairs in :func:`contrastive` over all pairs.

    The mean over equal shares is the loss of all pairs. Cost: b·n·d twice, since the columns of all
    logits are the rows of their transpose.

    Args:
        x: Image embeddings of these pairs, unit rows ``(b, d)``.
        y: Text embeddings of these pairs, unit rows ``(b, d)``.
        all_x: Image embeddings of all pairs, unit rows ``(n, d)``.
        all_y: Text embeddings of all pairs, unit rows ``(n, d)``.
        scale: Inverse temperature s.
        bias: Constant added to every logit.
        offset: Number of the first of these pairs among all.

    Returns:
        Mean cross-entropy of these pairs among all, a scalar ≥ 0.

    Raises:
        GeomkitError: If the shapes differ.

    Example:
        >>> x, y = np.eye(4), np.eye(4)[::-1]
        >>> halves = [contrastive_rows(x[h], y[h], x, y, 5.0, offset=h.start)
        ...           for h in (slice(0, 2), slice(2, 4))]
        >>> bool(np.isclose(np.mean(halves), contrastive(x, y, 5.0)))
        True
    """
    _check_pair(x, y)
    _check_pair(all_x, all_y)
    from_images = scale * (x @ all_y.T) + bias
    from_texts = scale * (y @ all_x.T) + bias
    own = from_images[:, offset : offset + x.shape[0]]
    return _cross_entropy(
        _log_sum_exp(from_images, axis=1),
        _log_sum_exp(from_texts, axis=1),
        namespace(x).linalg.diagonal(own),
    )


def _cross_entropy(of_images: A, of_texts: A, own: A) -> A:
    """Mean cross-entropy of both directions, from log-sum-exps and the logits of the pairs."""
    return 0.5 * namespace(own).mean(of_images + of_texts - 2.0 * own)


def _log_sum_exp(a: A, axis: int) -> A:
    xp = namespace(a)
    if hasattr(a, "logsumexp"):  # torch's fused one, with its stable gradient
        return a.logsumexp(axis)
    top = xp.max(a, axis=axis, keepdims=True)
    return xp.log(xp.sum(xp.exp(a - top), axis=axis)) + xp.squeeze(top, axis=axis)


def relative_modality_gap(paired: N, intra_image: N, intra_text: N) -> N:
    r"""Relative modality gap, :math:`p / (p + q)` of cosine distances halved to [0, 1].

    p = (1 − paired)/2 is the distance within pairs, and the mean q of (1 − intra_image)/2 and
    (1 − intra_text)/2 that between two rows of one modality (Role et al., "Fill the Gap", arXiv
    2505.03703).

    Args:
        paired: Mean cosine of the pairs.
        intra_image: Mean cosine of two different images.
        intra_text: Mean cosine of two different texts.

    Returns:
        Relative gap in [0, 1]: 0 when pairs coincide, ½ when a partner is as far away as any row of
        one's own modality, towards 1 when the gap exceeds the spread within a modality. Undefined
        if all rows coincide.

    Example:
        >>> relative_modality_gap(1.0, 0.0, 0.0)
        0.0
    """
    p = (1.0 - paired) / 2.0
    q = ((1.0 - intra_image) / 2.0 + (1.0 - intra_text) / 2.0) / 2.0
    return p / (p + q)


def uniform_sphere_limit(dim: int, t: float = 2.0) -> float:
    r"""Uniformity of a uniform distribution on the sphere, :math:`-2t + \log {}_0F_1(; d/2; t^2)`.

    What :func:`uniformity` tends to for n → ∞ rows spread over the whole sphere. Summed as its
    power series, whose terms decrease fast; the equivalent Bessel form (Wang and Isola) underflows
    for large d.

    Args:
        dim: Dimension d of the embeddings, 1 or more.
        t: Inverse temperature of the kernel.

    Returns:
        Limit in [−4t, 0]; for t = 2 it is −2.0798 for d = 3 and −3.9844 for d = 512.

    Example:
        >>> round(uniform_sphere_limit(3), 4), round(uniform_sphere_limit(512), 4)
        (-2.0798, -3.9844)
    """
    term = total = 1.0
    k = 0
    while term > 1e-17 * total:
        term *= t * t / ((dim / 2 + k) * (k + 1))
        total += term
        k += 1
    return -2.0 * t + math.log(total)
