"""The tiled engine against float64 double loops, ties and uneven captions included."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from conftest import clouds, unit
from hypothesis import given, settings
from hypothesis import strategies as st

from geomkit import functional
from geomkit.embeddings.embeddings import Embeddings
from geomkit.engine import ranks as ranks_module
from geomkit.engine.pairwise import Pairs, walk
from geomkit.engine.ranks import Ranks
from geomkit.engine.reducers import PotentialSums, RankCounts, SampledRanks
from geomkit.engine.sampled import Sample, scan


def run(e: Embeddings, tile: int | None = None, **kwargs):
    sums, ranks = PotentialSums(), RankCounts()
    walk(Pairs(e.image, e.text, e.image_index, e.first_texts(), tile=tile), [sums, ranks], **kwargs)
    return sums, ranks


def slow_ranks(e: Embeddings):
    """greater and tied, both ways, one comparison at a time."""
    scores = np.array([[float(a @ b) for b in e.text] for a in e.image])
    images, texts = [], []
    for i in range(e.n):
        own = e.image_index == i
        best = scores[i, own].max()
        images.append(((scores[i] > best).sum(), ((scores[i] == best) & ~own).sum()))
    for j in range(e.m):
        own = scores[e.image_index[j], j]
        others = np.arange(e.n) != e.image_index[j]
        texts.append(((scores[:, j] > own).sum(), ((scores[:, j] == own) & others).sum()))
    return np.array(images).T, np.array(texts).T


@pytest.mark.parametrize("n", [2, 63, 64, 65, 200])
@pytest.mark.parametrize("tile", [64, 128, None])
def test_potentials_equal_the_formula(n: int, tile: int | None) -> None:
    x, y = clouds(n=n, d=5)
    sums, _ = run(Embeddings.of(x, y), tile)
    assert sums.log_mean("xx") == pytest.approx(float(functional.uniformity(x)), rel=1e-12)
    assert sums.log_mean("yy") == pytest.approx(float(functional.uniformity(y)), rel=1e-12)
    expected = float(functional.cross_uniformity(x, y))
    assert sums.log_mean("xy") == pytest.approx(expected, rel=1e-12)
    assert sums.yx.sum() == pytest.approx(sums.xy.sum(), rel=1e-12)
    row = sum(math.exp(-2 * ((x[1] - y[j]) ** 2).sum()) for j in range(n) if j != 1)
    assert sums.xy[1] == pytest.approx(row, rel=1e-12)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(2, 150),
    st.integers(1, 4),
    st.integers(0, 2**32 - 1),
    st.booleans(),
    st.sampled_from([64, 128]),
)
def test_ranks_equal_a_double_loop(n: int, most: int, seed: int, coarse: bool, tile: int) -> None:
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, most + 1, n)
    index = rng.permutation(np.repeat(np.arange(n), counts))
    x = rng.standard_normal((n, 3))
    y = rng.standard_normal((len(index), 3))
    if coarse:  # few distinct rows, axis-aligned so that every product is exact: ties everywhere
        x = np.eye(3)[rng.integers(0, 3, n)]
        y = np.eye(3)[rng.integers(0, 3, len(index))]
    e = Embeddings.of(x, y, index)
    _, ranks = run(e, tile)
    images, texts = slow_ranks(e)
    np.testing.assert_array_equal([ranks.text_retrieval.greater, ranks.text_retrieval.tied], images)
    np.testing.assert_array_equal(
        [ranks.image_retrieval.greater, ranks.image_retrieval.tied], texts
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("d", [3, 64, 515])
def test_equal_rows_get_equal_scores_wherever_they_stand(dtype, d: int) -> None:
    # 300 copies of one pair, in blocks of several sizes: a different rounding in any corner of
    # any tile would break a tie.
    rng = np.random.default_rng(0)
    x = np.repeat(rng.standard_normal((1, d)), 300, 0).astype(dtype)
    y = np.repeat(rng.standard_normal((1, d)), 300, 0).astype(dtype)
    _, ranks = run(Embeddings.of(x, y), 128)
    for side in (ranks.text_retrieval, ranks.image_retrieval):
        assert (side.greater == 0).all()
        assert (side.tied == 299).all()
        assert side.recall(1) == pytest.approx(1 / 300, rel=1e-12)


def narrow_rows(n: int, d: int, captions: int, spread: float) -> tuple:
    """Rows in float32 of a narrow cloud, texts near their images, every fifth text of one kind."""
    rng = np.random.default_rng(0)
    index = np.repeat(np.arange(n), captions)
    x = unit(np.eye(d)[0] + spread * rng.standard_normal((n, d)))
    y = x[index] + 1e-2 * spread * rng.standard_normal((n * captions, d))
    y[::5] = y[0]
    return x.astype(np.float32), y.astype(np.float32), index


# Of the products in float32 few are near the right answer's in the first case, many in the last.
@pytest.mark.parametrize(("d", "spread"), [(24, 2.0), (2, 2.0), (3, 1e-2), (24, 1e-4)])
@pytest.mark.parametrize("captions", [1, 3])
@pytest.mark.parametrize("as_torch", [False, True])
def test_float32_decides_near_ties_in_float64(
    d: int, spread: float, captions: int, as_torch: bool
) -> None:
    x, y, index = narrow_rows(200, d, captions, spread)
    e = Embeddings.of(*((torch.from_numpy(x), torch.from_numpy(y)) if as_torch else (x, y)), index)
    assert "float32" in str(e.image.dtype)
    _, walked = run(e, 64)
    sample = Sample(e.image, e.text, e.image_index, e.first_texts(), queries=200)
    scan(sample, [sampled := SampledRanks()])
    scores = unit(np.asarray(e.image, np.float64)) @ unit(np.asarray(e.text, np.float64)).T
    own = index == np.arange(200)[:, None]
    best = np.where(own, scores, -1).max(axis=1)
    for found, ahead, competes, order in (
        (walked.text_retrieval, scores - best[:, None], ~own, slice(None)),
        (sampled.text_retrieval, scores - best[:, None], ~own, slice(None)),
        (walked.image_retrieval, scores.T - scores[index, range(len(y))][:, None], ~own.T, ...),
        (sampled.image_retrieval, scores.T - scores[index, range(len(y))][:, None], ~own.T,
         sample.captions),
    ):  # fmt: skip
        greater = ((ahead > 1e-14) & competes).sum(axis=1)[order]
        tied = ((abs(ahead) <= 1e-14) & competes).sum(axis=1)[order]
        np.testing.assert_array_equal(found.greater, greater)
        np.testing.assert_array_equal(found.tied, tied)


def test_near_ties_are_decided_alike_alone_and_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, index = narrow_rows(200, 3, 1, 1e-2)
    e = Embeddings.of(x, y, index)
    found = []
    for few in (1, 64, 10**9):  # all alone, some alone, none alone
        monkeypatch.setattr(ranks_module, "_FEW", few)
        ranks = run(e, 64)[1].text_retrieval
        found.append([ranks.greater.tolist(), ranks.tied.tolist()])
    assert found[0] == found[1] == found[2]


def test_a_tie_scores_its_expectation() -> None:
    ranks = Ranks(np.array([0, 2, 5]), np.array([3, 0, 0]))
    # one of four places, certain from rank 3 on, never within 5
    assert ranks.recall(1) == pytest.approx((1 / 4 + 0 + 0) / 3)
    assert ranks.recall(3) == pytest.approx((3 / 4 + 1 + 0) / 3)


def test_threads_and_torch_change_nothing() -> None:
    x, y = clouds(n=300, d=6)
    e = Embeddings.of(x, y)
    one, two = run(e, 64, threads=1), run(e, 64, threads=3)
    t = run(Embeddings.of(torch.from_numpy(x), torch.from_numpy(y)), 64)
    for other in (two, t):
        np.testing.assert_allclose(other[0].xx, one[0].xx, rtol=1e-13)
        np.testing.assert_allclose(other[0].xy, one[0].xy, rtol=1e-13)
        np.testing.assert_array_equal(
            other[1].image_retrieval.greater, one[1].image_retrieval.greater
        )


def test_torch_takes_several_captions() -> None:
    rng = np.random.default_rng(1)
    index = rng.permutation(np.repeat(np.arange(70), rng.integers(1, 4, 70)))
    x, y = unit(rng.standard_normal((70, 4))), unit(rng.standard_normal((len(index), 4)))
    _, a = run(Embeddings.of(x, y, index), 64)
    _, b = run(Embeddings.of(torch.from_numpy(x), torch.from_numpy(y), index), 64)
    np.testing.assert_array_equal(a.text_retrieval.greater, b.text_retrieval.greater)


def test_float32_against_float64() -> None:
    x, y = clouds(n=400, d=64)
    sums, _ = run(Embeddings.of(x.astype(np.float32), y.astype(np.float32)), 128)
    assert sums.log_mean("xx") == pytest.approx(float(functional.uniformity(x)), abs=1e-6)


def test_rows_of_two_precisions() -> None:
    x, y = clouds(n=200, d=5)
    mixed, _ = run(Embeddings.of(x.astype(np.float32), y), 64)
    assert mixed.log_mean("yy") == pytest.approx(float(functional.uniformity(y)), rel=1e-12)
    assert mixed.log_mean("xy") == pytest.approx(float(functional.cross_uniformity(x, y)), abs=1e-6)
