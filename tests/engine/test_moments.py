"""Moments: sums against float64 truth, and merging in any order."""

from __future__ import annotations

from dataclasses import fields
from itertools import pairwise

import numpy as np
import pytest
from conftest import clouds
from hypothesis import given, settings
from hypothesis import strategies as st

from geomkit.engine.moments import Moments
from geomkit.errors import GeomkitError


def assert_equal(a: Moments, b: Moments, rel: float) -> None:
    for f in fields(Moments):
        np.testing.assert_allclose(getattr(a, f.name), getattr(b, f.name), rtol=rel, atol=rel)


def test_sums() -> None:
    x, y = clouds(n=30, d=5)
    m = Moments.of(x, y)
    assert m.n == 30
    np.testing.assert_allclose(m.sum_x, x.sum(0), rtol=1e-13)
    np.testing.assert_allclose(m.xx, sum(np.outer(r, r) for r in x), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(m.xy, sum(map(np.outer, x, y)), rtol=1e-12, atol=1e-13)
    assert m.squared_distance == pytest.approx(((x - y) ** 2).sum(), rel=1e-13)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 39), min_size=1, max_size=5, unique=True), st.randoms())
def test_merging_equals_the_whole_in_any_order(cuts: list[int], random) -> None:
    x, y = clouds(n=40, d=4)
    edges = [0, *sorted(cuts), 40]
    parts = [Moments.of(x[a:b], y[a:b]) for a, b in pairwise(edges)]
    random.shuffle(parts)
    assert_equal(Moments.merge(parts), Moments.of(x, y), rel=1e-12)


def test_float32_blocks_lose_nothing_that_matters() -> None:
    x, y = clouds(n=10_000, d=16)
    narrow = Moments.of(x.astype(np.float32), y.astype(np.float32))
    assert narrow.xx.dtype == np.float64
    assert_equal(narrow, Moments.of(x, y), rel=1e-3)  # sums of 10,000: 1e-7 a row
    np.testing.assert_allclose(narrow.xx / 10_000, Moments.of(x, y).xx / 10_000, atol=1e-6)


def test_no_rows_are_refused() -> None:
    with pytest.raises(GeomkitError, match="at least one row"):
        Moments.of(np.empty((0, 3)), np.empty((0, 3)))


@pytest.mark.parametrize("spread", [1.0, 1e-3])
def test_a_tight_cloud_of_low_rank_keeps_its_spectrum_in_float32(spread: float) -> None:
    # the centre is most of the rows, and seven digits of it would drown what is left
    rng = np.random.default_rng(0)
    x = np.ones(64) / 8 + spread * rng.standard_normal((6000, 8)) @ rng.standard_normal((8, 64)) / 8
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    narrow = Moments.of(x, x).covariance("xx")
    truth = np.linalg.eigvalsh(np.cov(x.astype(np.float64).T, ddof=0))[::-1]
    found = np.linalg.eigvalsh(narrow)[::-1]
    np.testing.assert_allclose(found[:8], truth[:8], rtol=1e-5)
    # normalised rows bend into one dimension more; what lies beyond is rounding
    assert np.abs(found[9:]).max() < 1e-6 * truth[0]
