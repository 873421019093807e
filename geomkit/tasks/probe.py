"""Linear probe: the accuracy of a linear classifier on image embeddings.

Multinomial logistic regression (scikit-learn, L-BFGS, at most 1,000 iterations) on unit rows. Each
coordinate is standardised by the mean and standard deviation of the training split. The inverse
strength C of the L2 penalty is chosen as in the CLIP paper (arXiv 2103.00020, A.3): seven powers of
ten from 1e-6 to 1e6, then finer steps around the best, by stratified cross-validation within the
training split with standardisation in each fold. The test split is only scored.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np

from geomkit.data.labelled.classes import ClassData
from geomkit.errors import GeomkitError
from geomkit.models.checkpoints.checkpoint import Checkpoint
from geomkit.tasks.features import Runner, Running
from geomkit.tasks.result import TaskResult, class_result

__all__ = ["FOLDS", "GRID", "MAX_ITERATIONS", "Probe", "fit_probe", "probe"]

GRID = tuple(10.0**power for power in range(-6, 7, 2))
"""Values of C that are tried first."""
FINEST = 0.5
"""Last step around the best C, in powers of ten."""
FOLDS = 5
MAX_ITERATIONS = 1000

_THREADED = 1 << 21
"""Size of a matrix from which several threads are faster than one."""


@dataclass(frozen=True)
class Probe:
    """A fitted linear classifier.

    Attributes:
        C: Inverse strength of the L2 penalty.
        chosen: Whether C was chosen by cross-validation.
        cross_validation: Accuracy for each C tried; empty if C was given.
        folds: Number of folds of the cross-validation.
        converged: Whether the fit converged before its last iteration.
        classes: Labels in the training split.
        model: Standardisation and regression of scikit-learn.
    """

    C: float
    chosen: bool
    cross_validation: dict[float, float]
    folds: int
    converged: bool
    classes: np.ndarray
    model: Any

    def scores(self, rows: np.ndarray, classes: int) -> np.ndarray:
        """Return scores ``(n, classes)``; −∞ for a class without a training image."""
        found = self.model.decision_function(np.asarray(rows, np.float64))
        if found.ndim == 1:  # two classes share one score
            found = np.stack([-found, found], axis=1)
        whole = np.full((len(rows), classes), -np.inf)
        whole[:, self.classes] = found
        return whole


def fit_probe(
    rows: np.ndarray,
    labels: np.ndarray,
    *,
    C: float | None = None,
    folds: int = FOLDS,
    max_iterations: int = MAX_ITERATIONS,
    seed: int = 0,
) -> Probe:
    """Fit the classifier; cross-validation chooses C unless it is given.

    Args:
        rows: Image embeddings, ``(n, d)``.
        labels: Class of each row, whole numbers, ``(n,)``.
        C: Inverse strength of the L2 penalty; ``None`` to choose it.
        folds: Number of folds; fewer if no class has that many images.
        max_iterations: Largest number of iterations of L-BFGS.
        seed: Random seed of the folds.

    Returns:
        The fitted classifier.

    Raises:
        GeomkitError: For fewer than two classes, a C that is not positive, a seed out of range, or
            classes too small for cross-validation.

    >>> rng = np.random.default_rng(0)
    >>> rows = np.concatenate([rng.normal(-3, 1, (20, 2)), rng.normal(3, 1, (20, 2))])
    >>> probe = fit_probe(rows, np.repeat([0, 1], 20))
    >>> bool((probe.scores(rows, 2).argmax(axis=1) == np.repeat([0, 1], 20)).all())
    True
    """
    rows = np.asarray(rows, np.float64)
    present, counts = np.unique(labels, return_counts=True)
    if len(present) < 2:
        raise GeomkitError(
            f"probe: expected at least two classes in the training split, got {len(present)}"
        )
    if C is not None and not (np.isfinite(C) and C > 0):
        raise GeomkitError(f"C: expected a positive number, got {C:g}")
    if not 0 <= seed < 2**32:
        raise GeomkitError(f"seed: expected 0 to 2**32 - 1, got {seed}")
    tried: dict[float, float] = {}
    chosen = C is None
    if C is None:
        folds = min(folds, int(counts.max()))
        if folds < 2:
            raise GeomkitError("probe: one image per class is too few to choose C; give --C")
        parts = _parts(rows, labels, folds, seed)

        def accuracy(C: float) -> float:
            right = []
            for train, held_out in parts:
                model, _ = _fit(rows[train], labels[train], C, max_iterations)
                right.append(model.predict(rows[held_out]) == labels[held_out])
            return float(np.concatenate(right).mean())

        tried = _sweep(accuracy)
        C = _best(tried)
    model, converged = _fit(rows, labels, C, max_iterations)
    return Probe(C, chosen, tried, folds if chosen else 0, converged, present, model)


def _parts(rows: np.ndarray, labels: np.ndarray, folds: int, seed: int) -> list[Any]:
    """Return the rows to train on and the rows held out in each fold."""
    from sklearn.model_selection import StratifiedKFold

    with warnings.catch_warnings():  # for classes smaller than the number of folds
        warnings.simplefilter("ignore", UserWarning)
        parts = StratifiedKFold(folds, shuffle=True, random_state=seed).split(rows, labels)
        # With two classes, one of a single image, a fold may leave only one class to train on.
        return [(train, held) for train, held in parts if len(np.unique(labels[train])) > 1]


def _sweep(accuracy: Callable[[float], float]) -> dict[float, float]:
    """Return the accuracy of each C tried: the grid, then finer steps around the best."""
    tried = {C: accuracy(C) for C in GRID}
    step = 1.0
    while step >= FINEST:
        near = [_times(_best(tried), powers) for powers in (-step, step)]
        tried |= {C: accuracy(C) for C in near if C not in tried and 1e-6 <= C <= 1e6}
        step /= 2
    return tried


def _best(tried: dict[float, float]) -> float:
    """Return the C of the highest accuracy; the strongest penalty wins a tie."""
    return max(sorted(tried), key=lambda C: tried[C])


def _times(C: float, powers: float) -> float:
    """Return C times a power of ten, rounded so that no C is tried twice."""
    return 10.0 ** round(float(np.log10(C)) + powers, 3)


def _fit(rows: np.ndarray, labels: np.ndarray, C: float, max_iterations: int) -> tuple[Any, bool]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    regression = LogisticRegression(C=C, solver="lbfgs", max_iter=max_iterations)
    model = make_pipeline(StandardScaler(), regression)
    # In a small fit, threads that synchronise at every step are eight times slower than one.
    threads = 1 if rows.size < _THREADED else None
    with warnings.catch_warnings(), threadpool_limits(threads, user_api="blas"):
        warnings.simplefilter("ignore", ConvergenceWarning)  # the caller reports it once
        model.fit(rows, labels)
    return model, bool(regression.n_iter_.max() < max_iterations)


def probe(
    checkpoint: Checkpoint,
    train: ClassData,
    test: ClassData,
    *,
    C: float | None = None,
    seed: int = 0,
    **running: Unpack[Running],
) -> TaskResult:
    """Fit a linear probe on one split of a data set and score it on another.

    Args:
        checkpoint: The model; it is moved to the device.
        train: Labelled images to fit on, see :func:`geomkit.data.labelled.load_parts`.
        test: Labelled images to score.
        C: Inverse strength of the L2 penalty; ``None`` for cross-validation.
        seed: Random seed of the folds.
        running: Device, precision, batch size, workers and progress (for each split), see
            :class:`~geomkit.tasks.features.Running`.

    Returns:
        The scores; ``meta`` holds ``C``, ``C_chosen``, ``cross_validation``, ``converged``,
        ``train_n``, ``train_split`` and the classes without a training image.

    Raises:
        GeomkitError: As :func:`fit_probe` and :meth:`~geomkit.tasks.features.Runner.image_rows`.
    """
    on = Runner(checkpoint, **running)
    x_train, kept, bad_train = on.image_rows(train.data)
    y_train = train.labels[kept]
    x_test, kept, bad_test = on.image_rows(test.data)
    y_test = test.labels[kept]
    fitted = fit_probe(x_train, y_train, C=C, seed=seed)
    unseen = np.setdiff1d(y_test, fitted.classes)
    return class_result(
        "linear_probe",
        on,
        test,
        [(fitted.scores(x_test, len(test.class_names)), y_test)],
        kept,
        bad_train + bad_test,
        train_split=train.data.split,
        train_n=len(x_train),
        C=fitted.C,
        C_chosen=fitted.chosen,
        cross_validation={f"{c:g}": a for c, a in sorted(fitted.cross_validation.items())},
        folds=fitted.folds,
        converged=fitted.converged,
        unseen_classes=[test.class_names[i] for i in unseen],
        standardised="each coordinate, by the training part's mean and deviation",
        seed=seed,
    )
