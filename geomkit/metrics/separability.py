"""Linear separability: can a linear classifier tell images from texts?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from geomkit._core.array import Array, to_numpy
from geomkit.engine.moments import Moments
from geomkit.errors import GeomkitError
from geomkit.metrics.logistic import Logistic
from geomkit.metrics.number import NAN, share_with_error

__all__ = ["Separability", "assign_folds", "check_folds", "linear_separability", "roc_auc"]

_GRID = 1024
"""Points at which densities of scores are computed; between them they are linear."""
_INTERACTING = 512
"""Pairs among which the interactions of training and held-out pairs are measured."""


@dataclass(frozen=True)
class Separability:
    """Held-out scores of the classifier, averaged over folds.

    Attributes:
        accuracy: Share of rows classified correctly; 0.5 = inseparable, 1 = disjoint.
        auc: Area under the ROC curve; 0.5 = inseparable, 1 = disjoint.
        folds: Number of folds scored.
        accuracy_error: Standard error of the accuracy over the draw of the pairs, of those that
            train the classifiers as of those that are held out.
        auc_error: Standard error of the AUC, likewise.
        accuracy_parts: What each pair adds to the accuracy, by its own score and by its pull on the
            classifiers: an array ``(n,)`` with a mean of 0.
        auc_parts: What it adds to the AUC.
    """

    accuracy: float
    auc: float
    folds: int
    accuracy_error: float = NAN
    auc_error: float = NAN
    accuracy_parts: np.ndarray = field(default_factory=lambda: np.zeros(0), compare=False)
    auc_parts: np.ndarray = field(default_factory=lambda: np.zeros(0), compare=False)


def linear_separability(
    x: Array,
    y: Array,
    *,
    folds: int | str = 5,
    seed: int = 0,
    C: float = 1.0,
    moments: Moments | None = None,
) -> Separability:
    r"""Return held-out accuracy and AUC of a logistic regression that tells images from texts.

    The classifier is sklearn's default: L2-regularised, C = 1, the intercept free. An image and its
    text are always in the same fold: a fold is a set of pairs, so what separates is the modality
    and not the content. Measured as by Fahim, Murphy and Fyshe (arXiv 2405.18570).

    The errors are an infinitesimal jackknife over pairs. A pair acts in two ways: by its own score,
    where it is held out (for the AUC its placements; DeLong et al., 1988), and by its pull on the
    classifiers that it trains, whose coefficients move by the gradient of its loss times the
    inverse Hessian. The smoothed derivative of the accuracy and the AUC turns this into a change of
    the score. The sum of squares counts the interactions of training and held-out pairs twice, so
    they are taken off once (Efron and Stein, 1981). An error is never below that of the held-out
    pairs alone. Close to 1 it is still too small: in simulations, 95% intervals of an AUC above
    0.98 covered the expected value in 84 to 93% of the data sets.

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
    # Coefficients within 1e-5 move no margin of a unit row by more than 2e-5.
    training = _Training(x, y, held_out, C=C, moments=moments, tolerance=1e-5, seed=seed)
    accuracy, auc = _Scores(held_out), _Scores(held_out)
    for fold in range(count):
        images, texts = (side[held_out == fold, fold] for side in training.margins)
        width = _width(images, texts)
        accuracy.add(
            fold,
            ((images <= 0) * 0.5) + ((texts > 0) * 0.5),
            (-0.5 * _kernel(images / width) / width, 0.5 * _kernel(texts / width) / width),
        )
        above, below = _placements(images, texts), 1.0 - _placements(texts, images)
        auc.add(
            fold,
            above + below - above.mean(),
            (-_density(texts, images, width), _density(images, texts, width)),
        )
    (parts, error), (auc_parts, auc_error) = (s.parts_and_error(training) for s in (accuracy, auc))
    return Separability(accuracy.mean, auc.mean, count, error, auc_error, parts, auc_parts)


class _Scores:
    """A score of all folds as a mean over held-out pairs, and how it follows the margins.

    Attributes:
        own: Part of each pair, ``(n,)``; the mean over a fold is the score of the fold.
        slopes: Derivative of the score by the margins of images and texts, ``(2, n)``.
    """

    def __init__(self, held_out: np.ndarray) -> None:
        self.held_out = held_out
        sizes = np.bincount(held_out[held_out >= 0])
        # The mean over folds of means over their pairs; pairs that are never held out weigh 0.
        self.weight = np.append(1.0 / (len(sizes) * sizes), 0.0)[held_out]
        self.folds: list[float] = []
        self.own = np.zeros(len(held_out))
        self.slopes = np.zeros((2, len(held_out)))

    def add(self, fold: int, own: np.ndarray, slopes: tuple[np.ndarray, np.ndarray]) -> None:
        """Enter one fold; ``slopes`` are those of its pairs' parts."""
        test = self.held_out == fold
        self.folds.append(float(own.mean()))
        self.own[test] = own
        self.slopes[:, test] = np.stack(slopes) * self.weight[test]

    @property
    def mean(self) -> float:
        """The score, the mean over folds."""
        return float(np.mean(self.folds))

    def parts_and_error(self, training: _Training) -> tuple[np.ndarray, float]:
        """Return what each pair adds, and the standard error over the draw of the pairs."""
        count = int((self.held_out >= 0).sum())
        own = self.weight * (self.own - self.mean)
        if count < 2:
            return own, NAN
        if not own.any():
            # No row differs: an error as if four more rows had been seen, two of each kind.
            return own, share_with_error(np.full(2 * count, self.mean))[1]
        both = own + training.influence(self.slopes)
        variance = float(both @ both) - training.interactions(self.slopes)
        error = math.sqrt(max(variance, float(own @ own)) * count / (count - 1))
        return both * len(both), error


class _Training:
    """Classifiers of all folds, and what each pair's part in their training does to a score."""

    def __init__(
        self,
        x: np.ndarray,
        y: np.ndarray,
        held_out: np.ndarray,
        *,
        C: float,
        moments: Moments | None,
        tolerance: float,
        seed: int,
    ) -> None:
        self.rows, self.held_out = (x, y), held_out
        self.train = held_out[:, None] != np.arange(held_out.max() + 1)
        self.problem = Logistic(x, y, self.train, C=C, moments=moments)
        w, self.curvature = self.problem.fit(tolerance=tolerance)
        self.margins = [_times(rows, w) for rows in self.rows]
        # derivative of a pair's loss by its margins: C (p − label)
        self.losses = [
            C * self.train * (0.5 * (1.0 + np.tanh(margin / 2)) - label)
            for label, margin in enumerate(self.margins)
        ]
        self.chosen = np.sort(np.random.default_rng(seed).permutation(len(x))[:_INTERACTING])

    def influence(self, slopes: np.ndarray) -> np.ndarray:
        """Return what each pair changes by being trained on, ``(n,)``.

        It moves the coefficients of a fold by −H⁻¹ times the gradient of its loss.
        """
        weights = [~self.train * slope[:, None] for slope in slopes]
        target = _gradient(self.rows, weights)
        step = self.problem.nearly_solve(self.curvature, target)
        change = -sum(
            loss * _times(rows, step) for rows, loss in zip(self.rows, self.losses, strict=True)
        )
        # What every pair does alike is no influence of the draw.
        return (change - self.train * (change.sum(axis=0) / self.train.sum(axis=0))).sum(axis=1)

    def interactions(self, slopes: np.ndarray) -> float:
        """Return the variance that interactions of training and held-out pairs are counted twice.

        c_ij is what training on i does to the part of held-out pair j; the sum over i and j of
        c_ij² + c_ij c_ji, from all pairs of a sample.
        """
        some = self.chosen
        fold = self.held_out[some]
        rows = [side[some] for side in self.rows]
        target = _gradient(rows, [np.diag(slope[some]) for slope in slopes])
        steps = self.problem.nearly_solve(self.curvature[fold], target)
        change = -sum(
            loss[some][:, fold] * _times(side, steps)
            for side, loss in zip(rows, self.losses, strict=True)
        )
        counted = (self.train[some][:, fold] & (fold >= 0)).sum()
        everywhere = (self.train.sum(axis=0) * (~self.train).sum(axis=0)).sum()
        return float((change * (change + change.T)).sum() * everywhere / max(1, counted))


def _times(rows: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """Margins of rows, ``(n, f)``; the last coefficient is the intercept."""
    return rows @ coefficients[:-1].astype(rows.dtype) + coefficients[-1]


def _gradient(sides: Sequence[np.ndarray], weights: Sequence[np.ndarray]) -> np.ndarray:
    """Derivative by the coefficients, ``(d + 1, f)``, from those by the margins, ``(n, f)``."""
    images, texts = (
        np.vstack([rows.T @ weight.astype(rows.dtype), weight.sum(axis=0)])
        for rows, weight in zip(sides, weights, strict=True)
    )
    return images + texts


def _width(negative: np.ndarray, positive: np.ndarray) -> float:
    """Bandwidth for densities of the margins, by Silverman's rule within the classes.

    Infinite if no margin differs: then the density is 0, and training moves nothing.
    """
    spread = math.sqrt((negative.var() + positive.var()) / 2)
    return 1.06 * spread * (2 * len(negative)) ** -0.2 or math.inf


def _kernel(z: np.ndarray) -> np.ndarray:
    """Density of the standard normal distribution."""
    return np.exp(-0.5 * np.square(z, dtype=np.float64)) / math.sqrt(2 * math.pi)


def _density(values: np.ndarray, at: np.ndarray, width: float) -> np.ndarray:
    """Smoothed density of values at some points, from counts on a grid."""
    low, high = min(values.min(), at.min()), max(values.max(), at.max())
    counts, edges = np.histogram(values, _GRID, (low, high))
    step = edges[1] - edges[0]
    grid = np.arange(1 - _GRID, _GRID) * step
    smooth = np.convolve(counts, _kernel(grid / width), "valid") / (width * len(values))
    return np.interp(at, edges[:-1] + step / 2, smooth)


def _placements(negative: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """For each positive, the share of negatives below it; a tie counts half."""
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, side="left")
    upto = np.searchsorted(ordered, positive, side="right")
    return (below + upto) / (2 * len(negative))


def check_folds(folds: int | str) -> None:
    """Refuse anything but a number of folds and ``"paper"``.

    Raises:
        GeomkitError: Naming what was given.
    """
    if folds != "paper" and (not isinstance(folds, int) or folds < 2):
        raise GeomkitError(f"folds: expected a number >= 2 or 'paper', got {folds!r}")


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
    check_folds(folds)
    order = np.random.default_rng(seed).permutation(n)
    held_out = np.full(n, -1)
    if folds == "paper":
        held_out[order[: max(1, round(0.2 * n))]] = 0
        return held_out
    assert isinstance(folds, int)
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
