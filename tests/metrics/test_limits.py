"""Every internal size limit: the numbers on one side of it are those on the other."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from conftest import unit

from geomkit.embeddings import read_embeddings
from geomkit.embeddings import rows as rows_module
from geomkit.engine import moments, pairwise, precision, ranks, sampled
from geomkit.metrics import (
    METRICS,
    GapResult,
    gap,
    logistic,
    permutation,
    statistics,
    transport,
)
from geomkit.metrics.definitions import gap as gap_definitions
from geomkit.metrics.definitions import retrieval, spread


def data(n: int = 400, d: int = 12) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs with some texts twice, in float32."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, d)) + np.eye(d)[0]
    y = x + 0.8 * rng.standard_normal((n, d))
    y[::7] = y[0]
    index = np.concatenate([np.arange(n), rng.integers(0, n, 100)])
    y = np.concatenate([y, x[index[n:]] + 0.9 * rng.standard_normal((100, d))])
    return unit(x).astype(np.float32), unit(y).astype(np.float32), index


def assert_same(one: GapResult, other: GapResult, rel: float) -> None:
    for about in ("metrics", "stderr", "null", "p_value"):
        a, b = getattr(one, about), getattr(other, about)
        assert a.keys() == b.keys()
        for name in a:
            assert a[name] == pytest.approx(b[name], rel=rel, abs=rel, nan_ok=True), (about, name)


@pytest.mark.parametrize("exact_limit", [None, 300])
@pytest.mark.parametrize(
    ("module", "name", "low", "high", "rel"),
    [
        (statistics, "_WIDE_PAIRS", 0, 10**9, 2e-5),
        (statistics, "_NARROW", 0.0, 9.0, 2e-5),
        (statistics, "_SEEN", 2, 10**9, 1e-9),
        (moments, "_BLOCK", 64, 10**6, 1e-9),
        (pairwise, "_TILE", {"cpu": 64}, {"cpu": 10**6}, 2e-5),
        (sampled, "_GALLERY", 64, 10**6, 2e-5),
        (precision, "_CHUNK", 64, 10**9, 1e-9),
        (ranks, "_FEW", 0, 10**9, 1e-9),
        (transport, "_MEMORY", 4096, 1 << 30, 1e-9),
        (transport, "_BLOCK", 64, 10**6, 1e-6),
        (logistic, "_SHARD", 64, 10**6, 1e-3),
        (logistic, "_THREADED", 0, 10**9, 1e-3),
        (permutation, "_BLOCK", 4096, 10**5, 1e-9),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_both_sides(
    module: Any, name: str, low: Any, high: Any, rel: float, exact_limit: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    used = [n for n in METRICS if module is logistic or "separability" not in n]
    found = []
    for value in (low, high):
        monkeypatch.setattr(module, name, value)
        found.append(gap(*data(), metrics=used, exact_limit=exact_limit))
    assert_same(*found, rel)


@pytest.mark.parametrize(
    ("module", "name", "low", "high"),
    [(permutation, "_BLOCK", 128, 4096), (permutation, "_TILE", 128, 4096),
     (permutation, "_SHUFFLED", 128, 4096), (gap_definitions, "_SWAPPED", 0, 10**9)],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_p_values_differ_by_their_draws_alone(
    module: Any, name: str, low: int, high: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(5)
    x, y = (unit(rng.standard_normal((500, 5))) for _ in range(2))
    for metric in ("centroid_distance", "paired_cosine"):
        found = []
        for value in (low, high):
            monkeypatch.setattr(module, name, value)
            found.append(gap(x, y, metrics=[metric]).p_value[metric])
        if name != "_SHUFFLED":  # there fewer pairs are another test
            p = max(found)
            assert abs(found[0] - found[1]) < 4 * math.sqrt(2 * p * (1.001 - p) / 999), found
        assert min(found) > 0.001


def test_nulls_with_several_captions_are_drawn_from_some_images(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = []
    for value in (1 << 16, 1 << 23):
        monkeypatch.setattr(retrieval, "_SCORES", value)
        found.append(gap(*data(), metrics=["retrieval"]))
    for name, null in found[0].null.items():
        assert null == pytest.approx(found[1].null[name], rel=0.1), name
    assert found[0].metrics == found[1].metrics and found[0].stderr == found[1].stderr


@pytest.mark.parametrize("pairs", [399, 400, 401])
def test_the_variance_of_a_kernel_from_some_rows(
    pairs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y, index = data()
    found = []
    for value in (256, pairs):
        monkeypatch.setattr(spread, "_PAIRED", value)
        found.append(gap(x, y, index, metrics=["spread", "mmd"]).stderr)
    assert found[0] == pytest.approx(found[1], rel=0.02)


@pytest.mark.parametrize("pairs", [399, 400, 401])
def test_the_classifier_of_all_or_of_some_pairs(
    pairs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y, _ = data(400)
    names = ["linear_separability", "linear_separability_auc"]
    monkeypatch.setattr(statistics, "ROWS", pairs)
    some, every = gap(x, y[:400], metrics=names, exact_limit=300), gap(x, y[:400], metrics=names)
    if pairs >= 400:
        assert some.metrics == pytest.approx(every.metrics, rel=1e-3)
        assert not some.estimated
    else:
        assert set(some.estimated) == set(names)
        for name in names:
            assert abs(some.metrics[name] - every.metrics[name]) < 2 * every.stderr[name]


def test_files_read_whole_or_by_blocks(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, index = data()
    np.savez(tmp_path / "e.npz", image=x, text=y, image_index=index)
    found = []
    for value in (1 << 29, 0):
        monkeypatch.setattr(rows_module, "_IN_MEMORY", value)
        e = read_embeddings(tmp_path / "e.npz")
        assert isinstance(e.image, rows_module.Rows) == (value == 0)
        found.append(gap(e))
    assert_same(*found, 2e-5)
