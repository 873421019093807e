"""Moments: sums against float64 truth, and merging in any order."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from conftest import clouds
from hypothesis import given, settings
from hypothesis import strategies as st

from geomkit.engine.moments import Moments
from geomkit.errors import GeomkitError


def assert_equal(a: Moments, b: Moments, rel: float) -> None:
    assert (a.n, a.dim) == (b.n, b.dim)
    np.testing.assert_allclose(a.mean, b.mean, rtol=rel, atol=rel)
    np.testing.assert_allclose(a.scatter, b.scatter, rtol=rel, atol=rel)


def test_mean_and_scatter() -> None:
    x, y = clouds(n=30, d=5)
    m = Moments.of(x, y)
    z = np.column_stack([x, y, ((x - y) ** 2).sum(axis=1)])
    assert m.n == 30
    np.testing.assert_allclose(m.mean, z.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(m.scatter, 29 * np.cov(z.T), rtol=1e-11, atol=1e-13)


def test_cosines_and_distances_are_means_over_pairs() -> None:
    x, y = clouds(n=30, d=5)
    m = Moments.of(x, y)
    other = ~np.eye(30, dtype=bool)
    assert m.paired == pytest.approx((x * y).sum(axis=1).mean(), rel=1e-13)
    assert m.intra_cosine("image") == pytest.approx((x @ x.T)[other].mean(), rel=1e-12)
    assert m.intra_cosine("text") == pytest.approx((y @ y.T)[other].mean(), rel=1e-12)
    assert m.cross_cosine == pytest.approx((x @ y.T)[other].mean(), rel=1e-12)


def test_different_dimensions_leave_the_rest() -> None:
    x, y = clouds(n=30, d=5)
    m, same = Moments.of(x, y[:, :3]), Moments.of(x, x)
    assert np.isnan(m.paired) and np.isnan(m.cross_cosine)
    np.testing.assert_allclose(m.covariance("xx"), same.covariance("xx"), rtol=1e-13)
    assert m.covariance("xy").shape == (5, 3)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 39), min_size=1, max_size=5, unique=True), st.randoms())
def test_merging_equals_the_whole_in_any_order(cuts: list[int], random) -> None:
    x, y = clouds(n=40, d=4)
    edges = [0, *sorted(cuts), 40]
    parts = [Moments.of(x[a:b], y[a:b]) for a, b in pairwise(edges)]
    random.shuffle(parts)
    assert_equal(Moments.merge(parts), Moments.of(x, y), rel=1e-12)


def test_no_rows_are_refused() -> None:
    with pytest.raises(GeomkitError, match="at least one row"):
        Moments.of(np.empty((0, 3)), np.empty((0, 3)))
    with pytest.raises(GeomkitError, match="at least one row"):
        Moments.merge([])


@pytest.mark.parametrize("rows", [2047, 2048, 2049, 32_767, 32_769])
def test_blocks_of_any_number_of_rows_are_one_sum(rows: int) -> None:
    x, y = clouds(n=rows, d=3)
    narrow = Moments.of(x.astype(np.float32), y.astype(np.float32))
    z = np.column_stack([x, y, ((x - y) ** 2).sum(axis=1)])
    np.testing.assert_allclose(Moments.of(x, y).scatter, (rows - 1) * np.cov(z.T), rtol=1e-9)
    np.testing.assert_allclose(narrow.scatter / (rows - 1), np.cov(z.T), atol=1e-6)


@pytest.mark.parametrize("spread", [1.0, 1e-3, 1e-5])
def test_a_narrow_cloud_of_low_rank_keeps_its_spectrum(spread: float) -> None:
    rng = np.random.default_rng(0)
    x = np.ones(64) / 8 + spread * rng.standard_normal((6000, 8)) @ rng.standard_normal((8, 64)) / 8
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    for dtype in (np.float64, np.float32):
        rows = x.astype(dtype).astype(np.float64)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        truth = np.linalg.svd(rows - rows.mean(axis=0), compute_uv=False)[:8] ** 2 / 6000
        found = np.linalg.eigvalsh(Moments.of(x.astype(dtype), x).covariance("xx"))[::-1][:8]
        np.testing.assert_allclose(found, truth, rtol=1e-7)
