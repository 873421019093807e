"""Mutual neighbours and modality bias: their nulls, errors and ends."""

from __future__ import annotations

import math

import numpy as np
import pytest
from conftest import clouds

from geomkit.metrics import gap
from geomkit.metrics import statistics as statistics_module

BIAS = ["modality_bias_image", "modality_bias_text"]


def test_coinciding_pairs_share_nine_of_ten_places() -> None:
    x = np.random.default_rng(0).standard_normal((100, 6))
    r = gap(x, x, metrics=[*BIAS, "mutual_knn"])
    for name in BIAS:
        assert r.metrics[name] == pytest.approx(0.45, rel=1e-12)
        assert r.null[name] == pytest.approx(0.45, rel=1e-12)
        assert r.ideal[name] == 0.45
    assert r.metrics["mutual_knn"] == 1
    assert r.stderr["mutual_knn"] > 0


def test_a_wide_gap_shows_only_the_own_kind() -> None:
    x, y = clouds(60, 6)
    x[:, 0], y[:, 0] = 50, -50
    r = gap(x, y, metrics=BIAS)
    for name in BIAS:
        assert r.metrics[name] == 1 and r.null[name] == 0.5
        assert 0 < r.stderr[name] < 0.05


def test_the_null_is_the_mean_over_exchanges_within_pairs() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((150, 5))
    y = x + 0.5 * rng.standard_normal((150, 5))
    y[:, 0] += 1
    found = []
    for _ in range(60):
        swap = rng.random((150, 1)) < 0.5
        r = gap(np.where(swap, x, y), np.where(swap, y, x), metrics=BIAS)
        found.append(np.mean([r.metrics[name] for name in BIAS]))
    r = gap(x, y, metrics=BIAS)
    assert r.null[BIAS[0]] == r.null[BIAS[1]] < 0.5 < min(r.metrics.values())
    assert abs(np.mean(found) - r.null[BIAS[0]]) < 3.5 * np.std(found) / math.sqrt(60)


@pytest.mark.parametrize(("n", "names"), [(6, BIAS), (11, ["mutual_knn"])])
def test_the_fewest_pairs(n: int, names: list[str]) -> None:
    few, enough = gap(*clouds(n - 1, 4), metrics=names), gap(*clouds(n, 4), metrics=names)
    for name in names:
        assert math.isnan(few.metrics[name]) and "pairs" in few.meta["reasons"][name]
        assert 0 < enough.metrics[name] <= 1


@pytest.mark.parametrize("name", ["mutual_knn", "modality_bias_image"])
def test_errors_match_the_spread(name: str) -> None:
    # Independent rows would give 0.8 of the spread of mutual_knn.
    values, errors = [], []
    for seed in range(120):
        rng = np.random.default_rng(seed)
        z = rng.standard_normal((200, 8))
        x, y = (z + 0.7 * rng.standard_normal((200, 8)) for _ in range(2))
        x[:, 0] += 1
        r = gap(x, y, metrics=[name])
        values.append(r.metrics[name])
        errors.append(r.stderr[name])
    ratio = np.sqrt(np.mean(np.square(errors))) / np.std(values, ddof=1)
    assert 0.85 < ratio < 1.4  # the spread itself is known to 6%


def test_estimates_cover_the_exact_value(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [*BIAS, "mutual_knn"]
    x, y = clouds(400, 6, shift=0.5)
    whole = gap(x, y, metrics=names).metrics
    monkeypatch.setattr(statistics_module, "QUERIES", 80)
    inside = dict.fromkeys(names, 0)
    for seed in range(60):
        r = gap(x, y, metrics=names, exact_limit=1, seed=seed)
        assert set(r.estimated) == set(names)
        for name in names:
            inside[name] += abs(r.metrics[name] - whole[name]) < 1.96 * r.stderr[name]
    assert min(inside.values()) >= 52, inside
