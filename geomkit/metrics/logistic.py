r"""Logistic regression with sklearn's default objective, for all folds of a data set at once.

.. math:: \tfrac12 \lVert w \rVert^2 + C \sum_i \log(1 + e^{-s_i (w·z_i + b)}),

the intercept b free. The folds are fitted together by a preconditioned Newton method: every pass
over the rows serves all of them, and importing sklearn would take longer than the fit.

It runs on the CPU. The rows of a device are copied to it once, 82 MB for 20,000 pairs of 512
numbers, and a fit then takes some 17 passes over them, 2.6 s of one core; the last passes are in
float64, which many devices compute slowly or not at all. The fit was not measured on a device.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from geomkit._core.parallel import cores, in_order
from geomkit.engine.moments import Moments
from geomkit.errors import NotConvergedError

__all__ = ["Logistic"]

_SHARD = 2048
"""Rows per shard: their float64 copy stays near the cache, and threads share the shards."""
_ROUGH = 0.01
"""Norm of the gradient above which float32 rounding cannot mislead a step."""
_THREADED = 1 << 18
"""Number of matrix entries from which threads pay off."""


class Logistic:
    """One classifier per column of ``train``; texts are the positive class.

    Args:
        x: Rows of the negative class, ``(n, d)``.
        y: Rows of the positive class, ``(n, d)``.
        train: Whether pair i fits classifier f, ``(n, f)``.
        C: Inverse strength of the regularisation.
        moments: Moments of all the rows; default: computed here.
    """

    def __init__(
        self,
        x: np.ndarray,
        y: np.ndarray,
        train: np.ndarray,
        *,
        C: float = 1.0,
        moments: Moments | None = None,
    ) -> None:
        self.weight = C * train
        starts = range(0, len(x), _SHARD)
        # side (0: images, 1: texts, which is the label too), which rows, and the rows
        self.shards = [
            (side, slice(start, start + _SHARD), rows[start : start + _SHARD])
            for side, rows in enumerate((x, y))
            for start in starts
        ]
        self.dim, self.dtype = x.shape[1], x.dtype
        self.threads = cores() if x.size > _THREADED else 1
        self.precise = x.dtype == np.float64
        self.spectrum = _spectrum(moments or Moments.of(x, y).numpy())

    def fit(
        self, *, tolerance: float = 1e-6, max_iterations: int = 100
    ) -> tuple[np.ndarray, np.ndarray]:
        """Fit all classifiers.

        The Hessian of the penalty is the identity, so a gradient of norm g leaves the coefficients
        within g of the optimum. Near it gradients are taken in float64; far from it, and in Hessian
        products, which only steer, in the dtype of the rows.

        Args:
            tolerance: Norm of the gradient at which to stop.
            max_iterations: Largest number of Newton steps.

        Returns:
            Coefficients, ``(d + 1, f)``, the intercept last, and the mean curvatures C·p(1 − p) of
            the pairs' rows there, ``(f,)``.

        Raises:
            NotConvergedError: If it does not converge.
        """
        w = np.zeros((self.dim + 1, self.weight.shape[1]))
        value, gradient, curvature = self.value_gradient(w)
        for _ in range(max_iterations):
            norm = np.linalg.norm(gradient, axis=0)
            if not self.precise and (norm <= _ROUGH).all():
                self.precise = True
                value, gradient, curvature = self.value_gradient(w)
                norm = np.linalg.norm(gradient, axis=0)
            if (norm <= tolerance).all():
                return w, curvature.mean(axis=(0, 1), dtype=np.float64)
            # Loose while far away, tight near the end: the classic forcing sequence.
            accuracy = np.minimum(0.1, np.sqrt(norm / (1.0 + norm))) * 0.3
            step = _conjugate_gradients(
                partial(self.hessian_product, curvature),
                -gradient,
                partial(self.nearly_solve, curvature.mean(axis=(0, 1), dtype=np.float64)),
                np.maximum(accuracy * norm, 0.1 * tolerance),
            )
            w, value, gradient, curvature = _line_search(self, w, value, gradient, curvature, step)
        raise NotConvergedError(
            f"the classifier did not converge in {max_iterations} steps; are the rows of unit norm?"
        )

    def nearly_solve(self, curvature: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Return (I + c·Σzzᵀ)⁻¹ v: H⁻¹ v if the curvature c were the same for all rows.

        Args:
            curvature: Mean curvature for each column, ``(f,)``.
            v: Columns, ``(d + 1, f)``.
        """
        values, vectors = self.spectrum
        return vectors @ ((vectors.T @ v) / (1.0 + curvature * values))

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


def _spectrum(m: Moments) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues, ``(d + 1, 1)``, and eigenvectors of Σzzᵀ over the rows, each with a 1 added."""
    total = m.n * (m.mean_x + m.mean_y)
    second = sum(
        m.n * (covariance + np.outer(mean, mean))
        for mean, covariance in map(m.of_modality, ("image", "text"))
    )
    second = np.block([[second, total[:, None]], [total[None, :], np.array([[2.0 * m.n]])]])
    values, vectors = np.linalg.eigh(second)
    return np.maximum(values, 0.0)[:, None], vectors


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
    problem: Logistic,
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
