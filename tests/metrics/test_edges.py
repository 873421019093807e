"""Values at the edges: narrow clouds, constant modalities, few rows, many dimensions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from conftest import clouds, unit

from geomkit.errors import GeomkitError
from geomkit.metrics import METRICS, gap
from geomkit.metrics import statistics as statistics_module

MOMENTS = [n for n, m in METRICS.items() if m.cost == "n·d²"]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("spread", [1e-2, 1e-3, 1e-4, 1e-5])
def test_narrow_clouds_keep_the_digits(spread: float, dtype: type) -> None:
    rng = np.random.default_rng(3)
    base, shared, one, two = (rng.standard_normal((k, 16)) for k in (1, 400, 400, 400))
    wide, narrow = (
        gap(*((base + s * (shared + part)).astype(dtype) for part in (one, two)), metrics=MOMENTS)
        for s in (1e-2, spread)
    )
    # Rows of float32 are themselves only known to 6e-8.
    rel = 0.02 if dtype == np.float64 else 0.02 + 2e-7 / spread
    for name in ("cka", "relative_modality_gap"):
        assert narrow.metrics[name] == pytest.approx(wide.metrics[name], rel=rel), name
    assert narrow.stderr["relative_modality_gap"] == pytest.approx(
        wide.stderr["relative_modality_gap"], rel=2 * rel
    )
    for name in ("alignment", "distribution_gap", "centroid_gap"):
        scale = (spread / 1e-2) ** 2
        assert narrow.metrics[name] == pytest.approx(scale * wide.metrics[name], rel=2 * rel), name
        assert narrow.stderr[name] == pytest.approx(scale * wide.stderr[name], rel=2 * rel), name


@pytest.mark.parametrize("limit", [None, 500])
@pytest.mark.parametrize("spread", [1e-2, 1e-3])
def test_narrow_clouds_of_many_float32_rows(spread: float, limit: int | None) -> None:
    rng = np.random.default_rng(0)
    base, shared, one, two = (rng.standard_normal((k, 32)) for k in (1, 2200, 2200, 2200))
    x, y = (unit((base + spread * (shared + part)).astype(np.float32)) for part in (one, two))
    names = ["spread", "mmd"]
    narrow = gap(x, y, metrics=names, exact_limit=limit)
    wide = gap(x.astype(np.float64), y.astype(np.float64), metrics=names, exact_limit=limit)
    for name in narrow.metrics:
        error = wide.stderr[name]
        assert narrow.metrics[name] == pytest.approx(wide.metrics[name], abs=1e-3 * error), name
        assert narrow.stderr[name] == pytest.approx(error, rel=5e-3), name


@pytest.mark.parametrize("n", [4096, 4097])
def test_sliced_distance_of_narrow_clouds(n: int) -> None:
    rng = np.random.default_rng(0)
    base, one, two = (rng.standard_normal((k, 32)) for k in (1, n, n))
    x, y = (unit((base + 1e-4 * part).astype(np.float32)) for part in (one, two + 1))
    found = gap(x, y, metrics=["sliced_wasserstein"]).metrics["sliced_wasserstein"]
    directions = np.random.default_rng(0).standard_normal((32, 256))
    directions /= np.linalg.norm(directions, axis=0)
    a, b = (np.sort(rows.astype(np.float64) @ directions, axis=0) for rows in (x, y))
    assert found == pytest.approx(math.sqrt(((a - b) ** 2).mean()), rel=1e-4)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("n", [3, 60, 2049])
def test_a_constant_modality_is_undefined_and_says_so(n: int, dtype: type) -> None:
    rng = np.random.default_rng(0)
    same = np.tile(rng.standard_normal((1, 24)), (n, 1)) * rng.uniform(0.5, 2, (n, 1))
    names = [name for name in METRICS if METRICS[name].group == "spectrum"]
    names += ["cka", "gap_alignment_image", "gap_alignment_text"]
    r = gap(same.astype(dtype), rng.standard_normal((n, 24)).astype(dtype), metrics=names)
    for name in names:
        if name.endswith("_text"):
            assert math.isfinite(r.metrics[name]), name
        elif name == "effective_rank_image":
            assert r.metrics[name] == pytest.approx(1.0, abs=1e-3)
        elif name == "conformity_image":
            assert r.metrics[name] == pytest.approx(1.0, abs=1e-6)
        else:
            assert math.isnan(r.metrics[name]), name
            assert r.meta["reasons"][name], name


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_equal_modalities_stay_in_range(dtype: type) -> None:
    rows = np.random.default_rng(0).standard_normal((3000, 32)).astype(dtype)
    r = gap(rows, rows)
    for name, value in r.metrics.items():
        if math.isfinite(value):
            assert METRICS[name].low <= value <= METRICS[name].high, (name, value)
    assert r.metrics["paired_cosine"] == 1 and r.metrics["alignment"] == 0
    assert r.metrics["relative_modality_gap"] == 0


@pytest.mark.parametrize("d", [100, 99, 41])
def test_few_rows_in_many_dimensions(d: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # 50 pairs span at most 100 dimensions; from 100 on they are rotated into these.
    x, y = clouds(50, d, shift=2.0)
    found = gap(x, y)
    monkeypatch.setattr(statistics_module.Statistics, "_basis", lambda self, *parts: None)
    plain = gap(x, y)
    for name, value in plain.metrics.items():
        rel = 1e-4 if "separability" in name or "frechet" in name else 1e-8
        assert found.metrics[name] == pytest.approx(value, rel=rel, nan_ok=True), name
        for about in ("stderr", "null", "ideal", "p_value"):
            mine, other = (getattr(r, about).get(name, 0.0) for r in (found, plain))
            assert mine == pytest.approx(other, rel=max(rel, 1e-6), abs=1e-9), (name, about)
    tensors = gap(torch.from_numpy(x), torch.from_numpy(y))
    assert tensors.metrics == pytest.approx(plain.metrics, rel=1e-4, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("n", [2047, 2048, 2049])
def test_spectra_on_either_side_of_a_limit(n: int) -> None:
    rows = np.random.default_rng(n).standard_normal((n, 64)) * np.arange(1, 65.0) ** -2
    s = np.linalg.svd(unit(rows), compute_uv=False)
    p = s / s.sum()
    truth = np.exp(-(p * np.log(p)).sum())
    eigenvalues = np.linalg.svd(unit(rows) - unit(rows).mean(0), compute_uv=False) ** 2
    slope = np.polyfit(np.log(np.arange(1, 65)), np.log(eigenvalues), 1)[0]
    names = ["effective_rank_image", "spectral_decay_image"]
    for dtype in (np.float64, np.float32):
        found = gap(rows.astype(dtype), rows.astype(dtype), metrics=names).metrics
        assert found[names[0]] == pytest.approx(truth, rel=1e-6)
        assert found[names[1]] == pytest.approx(-slope, rel=1e-5)


@pytest.mark.parametrize("n", [2, 3, 4, 11])
@pytest.mark.parametrize("d", [1, 2, 5])
def test_few_rows_and_few_dimensions(n: int, d: int) -> None:
    x, y = clouds(n, d, seed=n + d)
    r = gap(x, y, folds=2)
    assert set(r.metrics) == set(METRICS)
    for name, value in r.metrics.items():
        if math.isnan(value):
            assert r.meta["reasons"][name] and name not in r.stderr, name
        else:
            assert METRICS[name].low - 1e-12 <= value <= METRICS[name].high + 1e-12, (name, value)
    if n == 2:
        for name in ("mmd", "uniformity_image", "cross_uniformity", "distribution_gap"):
            assert name not in r.stderr, name
    if d == 1:
        for name in ("isoscore_image", "spectral_decay_text"):
            assert "dimension" in r.meta["reasons"][name] or "direction" in r.meta["reasons"][name]
    for k in (1, 3, 5, 10):
        if k >= n:
            assert r.metrics[f"text_retrieval_recall@{k}"] == 1
            assert r.stderr[f"text_retrieval_recall@{k}"] == 0


def test_a_number_that_does_not_converge_loses_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    from geomkit.metrics import logistic

    fit = logistic.Logistic.fit
    monkeypatch.setattr(
        logistic.Logistic, "fit", lambda self, **o: fit(self, **o, max_iterations=0)
    )
    x, y = clouds(40)
    result = gap(x, y)
    assert math.isnan(result.metrics["linear_separability"])
    reason = result.meta["reasons"]["linear_separability"]
    assert reason.startswith("the classifier did not converge in 0 steps")
    assert math.isfinite(result.metrics["mmd"])


def test_folds_are_checked_before_the_walk(monkeypatch: pytest.MonkeyPatch) -> None:
    from geomkit.metrics import measure

    monkeypatch.setattr(measure, "Statistics", None)  # would fail if it were made
    with pytest.raises(GeomkitError, match="folds: expected a number >= 2 or 'paper', got 'papr'"):
        gap(*clouds(40), folds="papr")
