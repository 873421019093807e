"""Errors of the linear separability: by refitting, at the ends, and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from conftest import unit
from sklearn.linear_model import LogisticRegression

from geomkit.metrics import linear_separability, separability
from geomkit.metrics.separability import _density, _kernel, _Scores, _Training, assign_folds


def clouds(n: int, d: int, seed: int, *, gap: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d))
    y = 0.6 * x + rng.standard_normal((n, d))
    y[:, 0] += gap
    return unit(x), unit(y)


@pytest.mark.parametrize("folds", [4, "paper"])
def test_influence_is_that_of_leaving_a_pair_out_of_training(folds) -> None:
    # A score that is linear in the margins has the slopes given; its change by refitting is exact.
    n = 120
    x, y = clouds(n, 5, 0, gap=1.0)
    held_out = assign_folds(n, folds, seed=0)
    training = _Training(x, y, held_out, C=1.0, moments=None, tolerance=1e-8, seed=0)
    slopes = np.random.default_rng(1).standard_normal((2, n)) * (held_out >= 0)

    def score(left_out: int | None) -> float:
        total = 0.0
        for fold in range(held_out.max() + 1):
            train = (held_out != fold) & (np.arange(n) != left_out)
            sk = LogisticRegression(tol=1e-10, max_iter=10_000)
            sk.fit(np.concatenate([x[train], y[train]]), np.repeat([0, 1], train.sum()))
            for rows, slope in ((x, slopes[0]), (y, slopes[1])):
                test = held_out == fold
                total += slope[test] @ sk.decision_function(rows[test])
        return total

    some = np.arange(0, n, 8)
    whole = score(None)
    refitted = np.array([whole - score(int(i)) for i in some])
    influence = training.influence(slopes)[some]
    # what leaving out any pair does alike is not part of the influence
    refitted -= refitted.mean()
    influence = influence - influence.mean()
    # one Newton step, with one curvature for all rows
    assert np.abs(influence - refitted).max() < 0.2 * np.abs(refitted).max()
    assert np.corrcoef(influence, refitted)[0, 1] > 0.98


def test_interactions_add_up_to_the_influence() -> None:
    n = 90
    x, y = clouds(n, 4, 0, gap=0.5)
    held_out = assign_folds(n, 3, seed=0)
    training = _Training(x, y, held_out, C=1.0, moments=None, tolerance=1e-8, seed=0)
    slopes = np.random.default_rng(1).standard_normal((2, n))
    each = np.zeros((n, n))
    for j in range(n):
        alone = np.zeros((2, n))
        alone[:, j] = slopes[:, j]
        # influence() leaves out what every pair does alike; the interactions keep it
        change = training.influence(alone)
        each[:, j] = np.where(training.train[:, held_out[j]], change, 0.0)
    np.testing.assert_allclose(each.sum(axis=1), training.influence(slopes), atol=1e-9)
    expected = (each * (each + each.T)).sum()
    assert training.interactions(slopes) == pytest.approx(expected, rel=0.05)


def test_densities_from_a_grid_equal_their_definition() -> None:
    rng = np.random.default_rng(0)
    values, at = rng.standard_normal(500), 1.5 + rng.standard_normal(300)
    expected = _kernel((at[:, None] - values) / 0.2).mean(axis=1) / 0.2
    np.testing.assert_allclose(_density(values, at, 0.2), expected, atol=2e-3)


def test_parts_of_pairs_add_up_to_the_score() -> None:
    held_out = assign_folds(50, "paper", seed=0)
    scores = _Scores(held_out)
    own = np.random.default_rng(0).random(10)
    scores.add(0, own, (np.ones(10), np.ones(10)))
    assert scores.weight @ scores.own == pytest.approx(own.mean(), rel=1e-12)
    assert scores.mean == pytest.approx(own.mean(), rel=1e-12)
    assert scores.slopes.sum() == pytest.approx(2.0, rel=1e-12)


def test_no_error_seen_is_not_no_error() -> None:
    rng = np.random.default_rng(0)
    x = unit(rng.standard_normal((300, 8)))
    far = 5 * np.eye(8)[0]
    found = linear_separability(unit(x + far), unit(x - far))
    assert found.accuracy == found.auc == 1
    # 600 rows without an error: at 95%, up to three in 600 may still be wrong
    for error in (found.accuracy_error, found.auc_error):
        assert 0.8 / 600 < error < 3 / 600
    alike = linear_separability(unit(np.ones((20, 3))), unit(np.ones((20, 3))))
    assert alike.accuracy == alike.auc == 0.5
    assert 0 <= alike.accuracy_error < 0.1 and 0 <= alike.auc_error < 0.1


@pytest.mark.parametrize("n", [2, 3, 7])
def test_few_pairs_have_finite_scores(n: int) -> None:
    found = linear_separability(*clouds(n, 3, 0, gap=1.0), folds=2)
    assert 0 <= found.accuracy <= 1 and 0 <= found.auc <= 1
    assert math.isfinite(found.accuracy_error) and math.isfinite(found.auc_error)
    alone = linear_separability(*clouds(n, 3, 0, gap=1.0), folds="paper")
    assert math.isnan(alone.accuracy_error) and math.isnan(alone.auc_error)


@pytest.mark.parametrize("folds", [5, "paper"])
@pytest.mark.parametrize("gap", [0.0, 1.0])
def test_errors_are_the_spread_over_draws(gap: float, folds) -> None:
    found = [
        linear_separability(*clouds(100, 6, seed, gap=gap), folds=folds, seed=seed)
        for seed in range(120)
    ]
    for name in ("accuracy", "auc"):
        values = np.array([getattr(f, name) for f in found])
        errors = np.array([getattr(f, f"{name}_error") for f in found])
        # 120 draws know the spread to 6.5%
        ratio = math.sqrt((errors**2).mean()) / values.std(ddof=1)
        assert 0.8 < ratio < 1.25, (name, ratio)


def test_interactions_of_some_pairs_stand_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = clouds(600, 6, 0, gap=0.3)
    found = []
    for some in (599, 600, 601, 150):
        monkeypatch.setattr(separability, "_INTERACTING", some)
        found.append(linear_separability(x, y))
    for name in ("accuracy_error", "auc_error"):
        one_less, exact, one_more, few = (getattr(f, name) for f in found)
        assert one_less == pytest.approx(exact, rel=0.01) and one_more == exact
        assert few == pytest.approx(exact, rel=0.1)
