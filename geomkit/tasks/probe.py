"""Linear probe: how well a linear classifier reads the classes off a model's image rows.

Multinomial logistic regression (scikit-learn's, L-BFGS, at most 1,000 iterations) on unit rows,
each coordinate standardised by the training part's mean and deviation. The inverse strength C of
its L2 penalty is swept as in the CLIP paper (arXiv 2103.00020, A.3): seven powers of ten from 1e-6
to 1e6, then finer steps about the best; by stratified cross-validation within the training part,
standardised anew in each fold. The test part is only ever scored.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from geomkit.data.labelled.classes import ClassData
from geomkit.errors import GeomkitError
from geomkit.models.checkpoints.checkpoint import Checkpoint
from geomkit.tasks.features import image_rows
from geomkit.tasks.result import TaskResult, model_names
from geomkit.tasks.scores import score

__all__ = ["FOLDS", "GRID", "MAX_ITERATIONS", "Probe", "fit_probe", "probe"]

GRID = tuple(10.0**power for power in range(-6, 7, 2))
"""The C tried first."""
FINEST = 0.5
"""The last step about the best C, in powers of ten."""
FOLDS = 5
MAX_ITERATIONS = 1000

_THREADED = 1 << 21
"""Numbers in a matrix from which several threads pay."""


@dataclass(frozen=True)
class Probe:
    """A fitted linear classifier.

    Attributes:
        C: inverse strength of its penalty.
        chosen: whether C was found by cross-validation.
        cross_validation: accuracy by C tried; empty if C was given.
        folds: of the cross-validation.
        converged: whether the fit ended before its iterations did.
        classes: labels the training part has.
        model: scikit-learn's standardisation and regression.
    """

    C: float
    chosen: bool
    cross_validation: dict[float, float]
    folds: int
    converged: bool
    classes: np.ndarray
    model: Any

    def scores(self, rows: np.ndarray, classes: int) -> np.ndarray:
        """Scores ``(n, classes)``; −∞ for a class that training never saw."""
        found = self.model.decision_function(np.asarray(rows, np.float64))
        if found.ndim == 1:  # two classes have one score between them
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
    progress: Callable[[float, float], None] | None = None,
) -> Probe:
    """Fit the classifier, choosing C by cross-validation unless it is given.

    Args:
        rows: ``(n, d)``.
        labels: ``(n,)`` whole numbers.
        C: inverse strength of the L2 penalty.
        folds: of the cross-validation; fewer where no class has so many pictures.
        max_iterations: of L-BFGS.
        seed: of the folds.
        progress: called with each C tried and its accuracy.

    Raises:
        GeomkitError: for fewer than two classes, a C that is not positive, or classes too small
            to cross-validate.

    >>> rng = np.random.default_rng(0)
    >>> rows = np.concatenate([rng.normal(-3, 1, (20, 2)), rng.normal(3, 1, (20, 2))])
    >>> probe = fit_probe(rows, np.repeat([0, 1], 20))
    >>> bool((probe.scores(rows, 2).argmax(axis=1) == np.repeat([0, 1], 20)).all())
    True
    """
    rows = np.asarray(rows, np.float64)
    present, counts = np.unique(labels, return_counts=True)
    if len(present) < 2:
        raise GeomkitError(f"probe: expected two classes or more to train on, got {len(present)}")
    if C is not None and not (np.isfinite(C) and C > 0):
        raise GeomkitError(f"C: expected a positive number, got {C:g}")
    tried: dict[float, float] = {}
    chosen = C is None
    if C is None:
        folds = min(folds, int(counts.max()))
        if folds < 2:
            raise GeomkitError("probe: one picture a class; choose C yourself (--C)")
        C = _sweep(rows, labels, tried, folds, max_iterations, seed, progress)
    model, converged = _fit(rows, labels, C, max_iterations)
    return Probe(C, chosen, tried, folds if chosen else 0, converged, present, model)


def _sweep(
    rows: np.ndarray,
    labels: np.ndarray,
    tried: dict[float, float],
    folds: int,
    max_iterations: int,
    seed: int,
    progress: Callable[[float, float], None] | None,
) -> float:
    from sklearn.model_selection import StratifiedKFold

    with warnings.catch_warnings():  # classes smaller than the folds
        warnings.simplefilter("ignore", UserWarning)
        parts = StratifiedKFold(folds, shuffle=True, random_state=seed).split(rows, labels)
        # Of two classes, one with a single picture, a fold may leave only one to train on.
        parts = [(train, held) for train, held in parts if len(np.unique(labels[train])) > 1]

    def best(candidates: list[float]) -> float:
        for candidate in candidates:
            if candidate not in tried:
                right = []
                for train, held_out in parts:
                    model, _ = _fit(rows[train], labels[train], candidate, max_iterations)
                    right.append(model.predict(rows[held_out]) == labels[held_out])
                tried[candidate] = float(np.concatenate(right).mean())
                if progress:
                    progress(candidate, tried[candidate])
        # Of equals the strongest penalty.
        return max(sorted(tried), key=lambda c: tried[c])

    peak = best(list(GRID))
    step = 1.0
    while step >= FINEST:
        peak = best([c for c in (_times(peak, -step), _times(peak, step)) if 1e-6 <= c <= 1e6])
        step /= 2
    return peak


def _times(C: float, powers: float) -> float:
    """C some powers of ten away, rounded so that no C is tried twice."""
    return 10.0 ** round(float(np.log10(C)) + powers, 3)


def _fit(rows: np.ndarray, labels: np.ndarray, C: float, max_iterations: int) -> tuple[Any, bool]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    regression = LogisticRegression(C=C, solver="lbfgs", max_iter=max_iterations)
    model = make_pipeline(StandardScaler(), regression)
    # Threads that wait for each other at every step of a small fit make it eight times slower.
    threads = 1 if rows.size < _THREADED else None
    with warnings.catch_warnings(), threadpool_limits(threads, user_api="blas"):
        warnings.simplefilter("ignore", ConvergenceWarning)  # said by the caller, once
        model.fit(rows, labels)
    return model, bool(regression.n_iter_.max() < max_iterations)


def probe(
    loaded: Checkpoint,
    train: ClassData,
    test: ClassData,
    *,
    C: float | None = None,
    seed: int = 0,
    device: str = "cpu",
    precision: str = "fp32",
    batch_size: int = 256,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> TaskResult:
    """Fit a linear probe on one part of a data set and score it on another.

    Args:
        loaded: the model; it is moved to ``device``.
        train, test: as :func:`geomkit.tasks.load_parts` gives them.
        C: inverse strength of the L2 penalty; chosen by cross-validation if not given.
        seed: of the folds.
        device, precision: as resolved.
        batch_size: pictures at a time.
        workers: processes that decode; ``None`` for one a core.
        progress: called with pictures done and in all, of each part.

    Returns:
        ``meta`` holds ``C``, ``C_chosen``, ``cross_validation``, ``converged``, ``train_n``,
        ``train_split`` and the classes that training never saw.

    Raises:
        GeomkitError: as :func:`fit_probe` and :func:`~geomkit.tasks.features.image_rows`.
    """
    options: dict[str, Any] = {
        "device": device,
        "precision": precision,
        "batch_size": batch_size,
        "workers": workers,
        "progress": progress,
    }
    x_train, kept, bad_train = image_rows(loaded, train.data, **options)
    y_train = train.labels[kept]
    x_test, kept, bad_test = image_rows(loaded, test.data, **options)
    fitted = fit_probe(x_train, y_train, C=C, seed=seed)
    classes = len(test.class_names)
    unseen = np.setdiff1d(np.unique(test.labels[kept]), fitted.classes)
    return TaskResult(
        task="linear_probe",
        scored=score([(fitted.scores(x_test, classes), test.labels[kept])], classes),
        class_names=test.class_names,
        dataset=test.dataset,
        split=test.data.split,
        **model_names(loaded),
        bad=(*bad_train, *bad_test),
        meta={
            "data": test.data.spec,
            "data_source": test.data.source,
            "licence": test.data.licence,
            "attribution": test.data.attribution,
            "train_split": train.data.split,
            "train_n": len(x_train),
            "C": fitted.C,
            "C_chosen": fitted.chosen,
            "cross_validation": {f"{c:g}": a for c, a in sorted(fitted.cross_validation.items())},
            "folds": fitted.folds,
            "converged": fitted.converged,
            "unseen_classes": [test.class_names[i] for i in unseen],
            "standardised": "each coordinate, by the training part's mean and deviation",
            "seed": seed,
            "device": device,
            "precision": precision,
        },
    )
