r"""Linear separability: can a linear classifier tell images from texts?

The classifier is L2-regularised logistic regression with sklearn's default objective,

.. math:: \tfrac12 \lVert w \rVert^2 + C \sum_i \log(1 + e^{-s_i (w·z_i + b)}), \quad C = 1,

the intercept b free. All folds are fitted at once by a preconditioned Newton method: every pass
over the rows serves all of them, and importing sklearn would take longer than the fit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from geomkit._core.array import Array, to_numpy
from geomkit._core.parallel import cores, in_order
from geomkit.engine.moments import Moments
from geomkit.errors import GeomkitError
from geomkit.metrics.number import mean_with_error

__all__ = ["Separability", "assign_folds", "fit_logistic", "linear_separability", "roc_auc"]

_SHARD = 2048
"""Rows per shard: their float64 copy stays near the cache, and threads share the shards."""
_ROUGH = 0.01
"""Norm of the gradient above which float32 rounding cannot mislead a step."""
_THREADED = 1 << 18
"""Number of matrix entries from which threads pay off."""


@dataclass(frozen=True)
class Separability:
    """Held-out scores of the classifier, averaged over folds.

    Attributes:
        accuracy: Share of rows classified correctly; 0.5 = inseparable, 1 = disjoint.
        auc: Area under the ROC curve; 0.5 = inseparable, 1 = disjoint.
        folds: Number of folds scored.
        accuracy_error: Standard error of the accuracy over the held-out pairs, for the classifiers
            as fitted.
        auc_error: Standard error of the AUC, likewise: DeLong's, an image and its text being one
            draw.
    """

    accuracy: float
    auc: float
    folds: int
    accuracy_error: float = float("nan")
    auc_error: float = float("nan")


def linear_separability(
    x: Array,
    y: Array,
    *,
    folds: int | str = 5,
    seed: int = 0,
    C: float = 1.0,
    moments: Moments | None = None,
) -> Separability:
    """Return held-out accuracy and AUC of a logistic regression that tells images from texts.

    An image and its text are always in the same fold: a fold is a set of pairs, so what separates
    is the modality and not the content. Measured as by Fahim, Murphy and Fyshe (arXiv 2405.18570).

    Args:
        x: Images, unit rows ``(n, d)``.
        y: Paired texts, unit rows ``(n, d)``.
        folds: Number of disjoint folds, or ``"paper"`` for one 80/20 split.
        seed: Random seed of the assignment of pairs to folds.
        C: Inverse strength of the regularisation, as in sklearn.
        moments: Moments of these rows, if known: they precondition the fit.

    Returns:
        Scores averaged over the folds, in [0, 1], with their standard errors.

    Raises:
        GeomkitError: If there are fewer pairs than folds.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> rows = rng.standard_normal((40, 4))
        >>> linear_separability(rows + [9, 0, 0, 0], rows - [9, 0, 0, 0]).accuracy
        1.0
    """
    x, y = to_numpy(x), to_numpy(y)
    held_out = assign_folds(len(x), folds, seed=seed)
    count = int(held_out.max()) + 1
    train = held_out[:, None] != np.arange(count)
    # Coefficients within 1e-5 move no margin of a unit row by more than 2e-5.
    coefficients = fit_logistic(x, y, train, C=C, tolerance=1e-5, moments=moments)
    score_x, score_y = (
        rows @ coefficients[:-1].astype(rows.dtype) + coefficients[-1] for rows in (x, y)
    )
    accuracies, aucs, right, placed = [], [], [], []
    for fold in range(count):
        test = held_out == fold
        images, texts = score_x[test, fold], score_y[test, fold]
        correct = ((images <= 0) * 0.5) + ((texts > 0) * 0.5)
        above = _placements(images, texts)
        below = 1.0 - _placements(texts, images)
        accuracies.append(correct.mean())
        aucs.append(above.mean())
        right.append(correct - correct.mean())
        placed.append(above + below - 2 * above.mean())
    return Separability(
        float(np.mean(accuracies)),
        float(np.mean(aucs)),
        count,
        mean_with_error(np.concatenate(right))[1],
        mean_with_error(np.concatenate(placed))[1],
    )


def _placements(negative: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """For each positive, the share of negatives below it; a tie counts half."""
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, side="left")
    upto = np.searchsorted(ordered, positive, side="right")
    return (below + upto) / (2 * len(negative))


def assign_folds(n: int, folds: int | str, *, seed: int) -> np.ndarray:
    """Return the fold that holds out each pair, ``(n,)``; −1 for pairs that are never held out.

    Args:
        n: Number of pairs.
        folds: Number of folds, whose sizes differ by at most one, or ``"paper"``: one fold of 20%.
        seed: Random seed of the shuffle.

    Raises:
        GeomkitError: If ``folds`` is neither, or larger than the number of pairs.

    >>> sorted(assign_folds(4, 2, seed=0).tolist())
    [0, 0, 1, 1]
    """
    order = np.random.default_rng(seed).permutation(n)
    held_out = np.full(n, -1)
    if folds == "paper":
        held_out[order[: max(1, round(0.2 * n))]] = 0
        return held_out
    if not isinstance(folds, int) or folds < 2:
        raise GeomkitError(f"folds: expected a number >= 2 or 'paper', got {folds!r}")
    if n < folds:
        raise GeomkitError(f"linear separability: expected at least {folds} pairs, got {n}")
    held_out[order] = np.arange(n) % folds
    return held_out


def roc_auc(negative: np.ndarray, positive: np.ndarray) -> float:
    """Return the area under the ROC curve, P(positive > negative) + ½ P(equal).

    >>> roc_auc(np.array([0.0, 1.0]), np.array([1.0, 2.0]))
    0.875
    """
    return float(_placements(negative, positive).mean())


def fit_logistic(
    x: np.ndarray,
    y: np.ndarray,
    train: np.ndarray,
    *,
    C: float = 1.0,
    tolerance: float = 1e-6,
    max_iterations: int = 100,
    moments: Moments | None = None,
) -> np.ndarray:
    """Fit one classifier per column of ``train``; texts are the positive class.

    The Hessian of the penalty is the identity, so a gradient of norm g leaves the coefficients
    within g of the optimum. Near it gradients are taken in float64; far from it, and in Hessian
    products, which only steer, in the dtype of the rows.

    Args:
        x: Rows of the negative class, ``(n, d)``.
        y: Rows of the positive class, ``(n, d)``.
        train: Whether pair i fits classifier f, ``(n, f)``.
        C: Inverse strength of the regularisation.
        tolerance: Norm of the gradient at which to stop.
        max_iterations: Largest number of Newton steps.
        moments: Moments of all the rows; default: computed here.

    Returns:
        Coefficients, ``(d + 1, f)``, the intercept last.

    Raises:
        GeomkitError: If it does not converge.
    """
    problem = _Logistic(x, y, train, C)
    precondition = _preconditioner(moments or Moments.of(x, y).numpy())
    w = np.zeros((x.shape[1] + 1, train.shape[1]))
    value, gradient, curvature = problem.value_gradient(w)
    for _ in range(max_iterations):
        norm = np.linalg.norm(gradient, axis=0)
        if not problem.precise and (norm <= _ROUGH).all():
            problem.precise = True
            value, gradient, curvature = problem.value_gradient(w)
            norm = np.linalg.norm(gradient, axis=0)
        if (norm <= tolerance).all():
            return w
        # Loose while far away, tight near the end: the classic forcing sequence.
        accuracy = np.minimum(0.1, np.sqrt(norm / (1.0 + norm))) * 0.3
        mean_curvature = curvature.mean(axis=(0, 1), dtype=np.float64)
        step = _conjugate_gradients(
            partial(problem.hessian_product, curvature),
            -gradient,
            partial(precondition, mean_curvature),
            np.maximum(accuracy * norm, 0.1 * tolerance),
        )
        w, value, gradient, curvature = _line_search(problem, w, value, gradient, curvature, step)
    raise GeomkitError(
        f"linear separability: the classifier did not converge in {max_iterations} steps; "
        "are the rows of unit norm?"
    )


class _Logistic:
    """Values, gradients and Hessian products of all folds at once, shard by shard in threads."""

    def __init__(self, x: np.ndarray, y: np.ndarray, train: np.ndarray, C: float) -> None:
        self.weight = C * train
        starts = range(0, len(x), _SHARD)
        # side (0: images, 1: texts, which is the label too), which rows, and the rows
        self.shards = [
            (side, slice(start, start + _SHARD), rows[start : start + _SHARD])
            for side, rows in enumerate((x, y))
            for start in starts
        ]
        self.dtype = x.dtype
        self.threads = cores() if x.size > _THREADED else 1
        self.precise = x.dtype == np.float64

    def value_gradient(self, w: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return objective (f,), gradient (d+1, f) and curvatures C·p(1 − p), (2, n, f)."""
        curvature = np.empty((2, *self.weight.shape), self.dtype)

        def work(shard: tuple[int, slice, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            label, place, rows = shard
            z = rows.astype(np.float64) if self.precise else rows
            weight = self.weight[place]
            margin = (z @ w[:-1].astype(z.dtype)).astype(np.float64) + w[-1]
            # log(1 + e^m) − label·m, and 1/(1 + e^−m), without overflow on either side
            small = np.exp(-np.abs(margin))
            loss = weight * (np.maximum(margin, 0.0) + np.log1p(small) - label * margin)
            p = np.where(margin >= 0, 1.0, small) / (1.0 + small)
            residual = weight * (p - label)
            curvature[label, place] = weight * p * (1.0 - p)
            return loss.sum(axis=0), z.T @ residual.astype(z.dtype), residual.sum(axis=0)

        value = 0.5 * (w[:-1] ** 2).sum(axis=0)
        gradient = np.concatenate([w[:-1], np.zeros_like(w[-1:])])
        for loss, slope, intercept in in_order(work, self.shards, threads=self.threads):
            value += loss
            gradient[:-1] += slope
            gradient[-1] += intercept
        return value, gradient, curvature

    def hessian_product(self, curvature: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Return H v for every fold, ``(d+1, f)``."""
        narrow = v.astype(self.dtype)

        def work(shard: tuple[int, slice, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
            side, place, rows = shard
            bent = curvature[side, place] * (rows @ narrow[:-1] + narrow[-1])
            return rows.T @ bent, bent.sum(axis=0, dtype=np.float64)

        out = np.concatenate([v[:-1], np.zeros_like(v[-1:])])
        for slope, intercept in in_order(work, self.shards, threads=self.threads):
            out[:-1] += slope
            out[-1] += intercept
        return out


def _preconditioner(m: Moments) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Applies (I + c·Σzzᵀ)⁻¹ for any mean curvature c, from one eigendecomposition."""
    total = m.n * (m.mean_x + m.mean_y)
    second = sum(
        m.n * (covariance + np.outer(mean, mean))
        for mean, covariance in map(m.of_modality, ("image", "text"))
    )
    second = np.block([[second, total[:, None]], [total[None, :], np.array([[2.0 * m.n]])]])
    values, vectors = np.linalg.eigh(second)
    values = np.maximum(values, 0.0)[:, None]
    return lambda mean, v: vectors @ ((vectors.T @ v) / (1.0 + mean * values))


def _conjugate_gradients(
    product: Callable[[np.ndarray], np.ndarray],
    target: np.ndarray,
    precondition: Callable[[np.ndarray], np.ndarray],
    tolerance: np.ndarray,
    max_iterations: int = 200,
) -> np.ndarray:
    """Solve product(s) = target for all columns together; finished columns do not change."""
    solution = np.zeros_like(target)
    residual = target.copy()
    z = precondition(residual)
    direction = z.copy()
    rz = (residual * z).sum(axis=0)
    for _ in range(max_iterations):
        active = np.linalg.norm(residual, axis=0) > tolerance
        if not active.any():
            break
        bent = product(direction)
        along = (direction * bent).sum(axis=0)
        step = np.where(active, rz / np.where(along > 0, along, 1.0), 0.0)
        solution += step * direction
        residual -= step * bent
        z = precondition(residual)
        rz_next = (residual * z).sum(axis=0)
        direction = z + np.where(active, rz_next / np.where(rz > 0, rz, 1.0), 0.0) * direction
        rz = rz_next
    return solution


def _line_search(
    problem: _Logistic,
    w: np.ndarray,
    value: np.ndarray,
    gradient: np.ndarray,
    curvature: np.ndarray,
    step: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Halve each fold's step until its objective falls as a Newton step should."""
    slope = (gradient * step).sum(axis=0)
    size = np.ones(w.shape[1])
    for _ in range(30):
        trial = w + size * step
        new_value, new_gradient, new_curvature = problem.value_gradient(trial)
        # Near the optimum the fall is below the rounding of the objective itself.
        rounding = (1e-12 if problem.precise else 1e-6) * (1.0 + np.abs(value))
        good = new_value <= value + 1e-4 * size * slope + rounding
        if good.all():
            return trial, new_value, new_gradient, new_curvature
        size = np.where(good, size, size / 2)
    return w, value, gradient, curvature
