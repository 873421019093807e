"""The formulas, on numpy arrays or torch tensors: training and analysis call the same ones.

Rows are unit vectors throughout: ``x`` of shape ``(n, d)`` holds images, ``y`` texts, and row i
of one belongs to row i of the other. Everything is differentiable under torch's autograd and
keeps the dtype of its input; upcast half precision before you call.

Sources: Wang and Isola, "Understanding Contrastive Representation Learning through Alignment and
Uniformity on the Hypersphere" (arXiv 2005.10242); Fahim, Murphy and Fyshe, "It's Not a Modality
Gap" (arXiv 2405.18570); Radford et al., "Learning Transferable Visual Models" (arXiv 2103.00020).
"""

from __future__ import annotations

import numpy as np

from geomkit._core.array import Array, eye, namespace
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
    "uniformity",
]


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


def squared_distances(x: Array, y: Array) -> Array:
    r"""Squared distance of each pair, :math:`\lVert x_i - y_i \rVert^2`.

    Taken from the difference, not as 2 − 2 x·y, which loses the digits of a small distance.

    Args:
        x, y: rows, shape ``(n, d)``.

    Returns:
        Shape ``(n,)``; in [0, 4] on unit rows.

    Raises:
        GeomkitError: if the shapes differ.

    >>> import numpy as np
    >>> squared_distances(np.eye(2), np.eye(2)[::-1]).tolist()
    [2.0, 2.0]
    """
    _check_pair(x, y)
    difference = x - y
    return namespace(x).sum(difference * difference, axis=-1)


def gaussian_potential(cosine: Array, t: float = 2.0, *, out: np.ndarray | None = None) -> Array:
    r"""Gaussian potential of unit vectors, :math:`e^{-t \lVert u - v \rVert^2} = e^{-2t(1 - u·v)}`.

    Args:
        cosine: inner products of unit vectors, any shape.
        t: inverse temperature of the kernel.
        out: a numpy array to put the result into, of the shape and dtype of ``cosine``, which it
            may be: fresh memory costs more here than the arithmetic.

    Returns:
        The potential, in [e^{-4t}, 1].

    >>> gaussian_potential(np.array([1.0, 0.0])).round(6).tolist()
    [1.0, 0.018316]
    """
    if out is None:
        return namespace(cosine).exp((2.0 * t) * (cosine - 1.0))
    np.subtract(cosine, 1.0, out=out)
    out *= 2.0 * t
    return np.exp(out, out=out)


def alignment(x: Array, y: Array) -> Array:
    r"""Mean squared distance of the pairs, :math:`\frac1n \sum_i \lVert x_i - y_i \rVert^2`.

    Wang and Isola's :math:`\mathcal L_\mathrm{align}` with α = 2; the paper's term A. 0 when every
    image sits on its text, 2 for orthogonal pairs, 4 for opposite ones.

    Args:
        x, y: unit rows, shape ``(n, d)``.

    Raises:
        GeomkitError: if the shapes differ or there are no rows.

    >>> import numpy as np
    >>> float(alignment(np.eye(3), -np.eye(3)))
    4.0
    """
    _check_pair(x, y)
    _check_rows(x, least=1)
    return namespace(x).mean(squared_distances(x, y))


def potential_sum(x: Array, others: Array, t: float = 2.0, *, offset: int = 0) -> Array:
    r"""Sum of potentials, :math:`\sum_i \sum_{j \ne i + o} e^{-t\lVert x_i - z_j \rVert^2}`.

    What some rows add to a uniformity of all: the rows of one process against those of every
    process, say. :func:`log_mean_potential` of the sum over all is the uniformity.

    Args:
        x: unit rows, shape ``(b, d)``.
        others: unit rows z, shape ``(n, d)``, b ≤ n.
        t: inverse temperature of the kernel.
        offset: o; row i of ``x`` is left out against row ``i + offset`` of ``others``.

    >>> rows = np.eye(3)
    >>> parts = [potential_sum(rows[i : i + 1], rows, offset=i) for i in range(3)]
    >>> round(float(log_mean_potential(sum(parts), 3)), 6)
    -4.0
    """
    cosine = x @ others.T
    b, n = cosine.shape
    off_diagonal = 1.0 - eye(b, like=cosine, columns=n, offset=offset)
    return namespace(cosine).sum(gaussian_potential(cosine, t) * off_diagonal)


def log_mean_potential(total: Array, n: int) -> Array:
    """Log of the mean over the n (n − 1) pairs of different rows, from their sum."""
    return namespace(total).log(total / (n * (n - 1)))


def uniformity(x: Array, t: float = 2.0) -> Array:
    r"""Uniformity, :math:`\log \frac{2}{n(n-1)} \sum_{i<j} e^{-t\lVert x_i-x_j\rVert^2}`.

    Wang and Isola's :math:`\mathcal L_\mathrm{uniform}`; the paper's term U is the mean of it over
    the two modalities. 0 when all rows coincide; on the uniform sphere it tends to
    −2t + log ₀F₁(; d/2; t²), which is −2.0798 for d = 3 and −3.9844 for d = 512 (t = 2).

    Args:
        x: unit rows, shape ``(n, d)``, n ≥ 2. Memory is n²; the analysis of many rows goes through
            :mod:`geomkit.engine.pairwise`.
        t: inverse temperature of the kernel.

    Raises:
        GeomkitError: if there are fewer than two rows.

    >>> import numpy as np
    >>> round(float(uniformity(np.eye(4))), 6)
    -4.0
    """
    _check_rows(x)
    return log_mean_potential(potential_sum(x, x, t), x.shape[0])


def cross_uniformity(x: Array, y: Array, t: float = 2.0) -> Array:
    r"""Cross-uniformity, :math:`\log \frac{1}{n(n-1)} \sum_{i\ne j} e^{-t\lVert x_i-y_j\rVert^2}`.

    The paper's term XU: pushes each image from the texts of the others. Range and limit as for
    :func:`uniformity`.

    Args:
        x, y: unit rows, shape ``(n, d)``, n ≥ 2.
        t: inverse temperature of the kernel.

    Raises:
        GeomkitError: if the shapes differ or there are fewer than two rows.

    >>> import numpy as np
    >>> round(float(cross_uniformity(np.eye(4), np.eye(4))), 6)
    -4.0
    """
    _check_pair(x, y)
    _check_rows(x)
    return log_mean_potential(potential_sum(x, y, t), x.shape[0])


def contrastive(x: Array, y: Array, scale: Array | float, bias: Array | float = 0.0) -> Array:
    r"""CLIP's symmetric cross-entropy, :math:`\frac12 (CE(s\,xy^⊤) + CE(s\,yx^⊤))`, s = 1/τ.

    log n for a collapsed model, towards 0 when every pair finds its partner.

    Args:
        x, y: unit rows, shape ``(n, d)``.
        scale: s, the inverse temperature.
        bias: added to every logit; a softmax does not feel it.

    Raises:
        GeomkitError: if the shapes differ or there are no rows.

    >>> import numpy as np
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
    x: Array,
    y: Array,
    all_x: Array,
    all_y: Array,
    scale: Array | float,
    bias: Array | float = 0.0,
    *,
    offset: int = 0,
) -> Array:
    r"""The share of some pairs in :func:`contrastive` over all of them.

    The mean over equal shares is the loss of the whole. Costs b·n·d twice: the columns of the
    whole are rows of the transpose.

    Args:
        x, y: unit rows of these pairs, shape ``(b, d)``.
        all_x, all_y: unit rows of all pairs, shape ``(n, d)``.
        scale: s, the inverse temperature.
        bias: added to every logit.
        offset: these are pairs ``offset`` to ``offset + b`` of all.

    Raises:
        GeomkitError: if the shapes differ.

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


def _cross_entropy(of_images: Array, of_texts: Array, own: Array) -> Array:
    """Mean of both directions' cross-entropies, from log-sum-exps and the logits of the pairs."""
    return 0.5 * namespace(own).mean(of_images + of_texts - 2.0 * own)


def _log_sum_exp(a: Array, axis: int) -> Array:
    xp = namespace(a)
    if hasattr(a, "logsumexp"):  # torch's fused one, with its stable gradient
        return a.logsumexp(axis)
    top = xp.max(a, axis=axis, keepdims=True)
    return xp.log(xp.sum(xp.exp(a - top), axis=axis)) + xp.squeeze(top, axis=axis)


def relative_modality_gap(paired: Array, intra_image: Array, intra_text: Array) -> Array:
    r"""Relative modality gap, :math:`p / (p + q)` of cosine distances halved to [0, 1].

    p = (1 − paired)/2 is how far apart partners are, q = ((1 − intra_image)/2 + (1 − intra_text)/2)
    / 2 how far apart strangers of one modality are. 0: partners coincide; ½: a partner is as far
    as a stranger; towards 1: the gap exceeds the spread within a modality. (Role et al., "Fill the
    Gap", arXiv 2505.03703.)

    Args:
        paired: mean cosine of the pairs.
        intra_image, intra_text: mean off-diagonal cosine within each modality.

    >>> relative_modality_gap(1.0, 0.0, 0.0)
    0.0
    """
    p = (1.0 - paired) / 2.0
    q = ((1.0 - intra_image) / 2.0 + (1.0 - intra_text) / 2.0) / 2.0
    return p / (p + q)
