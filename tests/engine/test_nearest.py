"""Nearest neighbours against a full sort in float64, ties by their expectation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from conftest import unit

from geomkit.embeddings.embeddings import Embeddings
from geomkit.engine import nearest
from geomkit.engine.nearest import Nearest, distinct
from geomkit.engine.neighbours import Neighbours, SampledNeighbours, TopK
from geomkit.engine.pairwise import Pairs, walk
from geomkit.engine.precision import unit64
from geomkit.engine.sampled import Sample, scan
from geomkit.metrics import gap

K = 10
Pair = tuple[np.ndarray, np.ndarray]


def shares(scores: np.ndarray) -> np.ndarray:
    """Probability of each column to be among the k highest of a row, by sorting the row."""
    width = 1e-13
    last = -np.sort(-scores, axis=1)[:, K - 1 : K]
    above, tied = scores > last + width, abs(scores - last) <= width
    return above + tied * ((K - above.sum(axis=1)) / tied.sum(axis=1))[:, None]


def oracle(x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    x, y = (unit(rows.astype(np.float64)) for rows in (x, y))
    n, alone = len(x), 9 * np.eye(len(x))
    xx, yy, xy = x @ x.T - alone, y @ y.T - alone, x @ y.T
    out = {
        "overlap": (shares(xx) * shares(yy)).sum(axis=1) / K,
        "counts image": shares(xy.T).sum(axis=0),
        "counts text": shares(xy).sum(axis=0),
    }
    for modality, both in (("image", np.hstack([xx, xy])), ("text", np.hstack([yy, xy.T]))):
        share = shares(both)
        out[f"own {modality}"] = share[:, :n].sum(axis=1)
        out[f"partner {modality}"] = share[range(n), range(n, 2 * n)]
    return out


def found(near: Nearest, *, counts: bool = True) -> dict[str, np.ndarray]:
    out = {"overlap": near.overlap()}
    for modality in ("image", "text"):
        out[f"own {modality}"], out[f"partner {modality}"] = near.mixed(modality)
        if counts:
            out[f"counts {modality}"] = near.counts(modality)
    return out


def exact(e: Embeddings) -> Nearest:
    reducer = Neighbours(K)
    walk(Pairs(e.image, e.text, e.image_index, e.first_texts(), tile=64), [reducer])
    return reducer.near


def normal(n: int, d: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d))


def prototypes(n: int, d: int, of: int, seed: int) -> np.ndarray:
    return normal(of, d, seed)[np.random.default_rng(seed).integers(0, of, n)]


def half(n: int, d: int) -> Pair:
    x, y = normal(n, d, 1), normal(n, d, 2)
    x[: n // 2], y[n // 4 : 3 * n // 4] = x[0], y[n // 4]
    return x, y


CLOUDS: dict[str, Callable[[int, int], Pair]] = {
    "no ties": lambda n, d: (normal(n, d, 1), normal(n, d, 2)),
    "ten texts": lambda n, d: (normal(n, d), prototypes(n, d, 10, 1)),
    "few of both": lambda n, d: (prototypes(n, d, 7, 1), prototypes(n, d, 9, 2)),
    "constant": lambda n, d: (np.ones((n, d)), normal(n, d)),
    "both constant": lambda n, d: (np.ones((n, d)), -np.ones((n, d))),
    "half constant": half,
    "pairs twice": lambda n, d: (np.tile(normal(n // 2, d, 1), (2, 1)),) * 2,
    # Distinct rows at equal distances, more than a list holds.
    "codes": lambda n, d: (2.0 * (normal(n, d, 1) > 0) - 1, 2.0 * (normal(n, d, 2) > 0) - 1),
    # float32 products cannot tell these rows apart.
    "narrow": lambda n, d: (1 + 3e-4 * normal(n, d, 1), 1 + 3e-4 * normal(n, d, 2)),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("n", "d"), [(12, 5), (18, 3), (300, 5), (200, 24)])
@pytest.mark.parametrize("cloud", CLOUDS)
def test_neighbours_equal_a_full_sort(cloud: str, n: int, d: int, dtype: type) -> None:
    x, y = (rows.astype(dtype) for rows in CLOUDS[cloud](n, d))
    e = Embeddings.of(x, y)
    expected = oracle(e.image, e.text)
    for name, value in found(exact(e)).items():
        np.testing.assert_allclose(value, expected[name], atol=1e-9, err_msg=name)
    tensors = Embeddings.of(torch.from_numpy(e.image), torch.from_numpy(e.text))
    expected = oracle(tensors.image.numpy(), tensors.text.numpy())
    for name, value in found(exact(tensors)).items():
        np.testing.assert_allclose(value, expected[name], atol=1e-9, err_msg=name)
    reducer = SampledNeighbours(K)
    sample = Sample(e.image, e.text, e.image_index, e.first_texts(), queries=n // 2)
    scan(sample, [reducer])
    expected = oracle(e.image, e.text)
    for name, value in found(reducer.near, counts=False).items():
        np.testing.assert_allclose(value, expected[name][sample.rows], atol=1e-9, err_msg=name)


def test_several_captions_take_the_paired_text() -> None:
    x, first, more = normal(150, 6, 1), prototypes(150, 6, 12, 2), normal(150, 6, 3)
    index = np.tile(np.arange(150), 2)
    one = found(exact(Embeddings.of(x, first)))
    e = Embeddings.of(x, np.concatenate([first, more]), index)
    reducer = SampledNeighbours(K)
    scan(Sample(e.image, e.text, e.image_index, e.first_texts(), queries=150), [reducer])
    for name, value in found(exact(e)).items():
        np.testing.assert_allclose(value, one[name], atol=1e-12)
    for name, value in found(reducer.near, counts=False).items():
        np.testing.assert_allclose(value, one[name], atol=1e-12)


@pytest.mark.parametrize("limit", [10_000, 100])
def test_the_order_of_pairs_changes_nothing(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = normal(400, 16) + prototypes(400, 16, 10, 1), prototypes(400, 16, 10, 1)
    names = ["mutual_knn", "hubness_image", "hubness_text", "modality_bias_image"]
    monkeypatch.setattr("geomkit.metrics.statistics.QUERIES", 400)
    whole = gap(x, y, metrics=names, exact_limit=limit)
    order = np.random.default_rng(0).permutation(400)
    again = gap(x[order], y[order], metrics=names, exact_limit=limit)
    assert again.metrics == pytest.approx(whole.metrics, rel=1e-9, nan_ok=True)
    assert again.stderr == pytest.approx(whole.stderr, rel=1e-6)
    assert again.null == pytest.approx(whole.null, rel=1e-9)
    assert np.isnan(whole.metrics["hubness_text"]) == (limit == 100)


@pytest.mark.parametrize("n", [20, 300])
@pytest.mark.parametrize("scaled", [False, True])
def test_a_constant_modality_has_no_hubs(n: int, scaled: bool) -> None:
    scale = np.linspace(1, 3, n)[:, None] if scaled else 1.0  # unit rows up to rounding
    x = (scale * np.tile(normal(1, 24), (n, 1))).astype(np.float32)
    names = ["mutual_knn", "hubness_image", "hubness_text", "modality_bias_image"]
    y = normal(n, 24, 3)
    r = gap(x, y, metrics=names)
    assert r.metrics["modality_bias_image"] == 1
    assert exact(Embeddings.of(x, y)).counts("image") == pytest.approx(K)
    assert np.isnan(r.metrics["hubness_image"])
    assert "equally often" in r.meta["reasons"]["hubness_image"]
    assert r.metrics["mutual_knn"] == pytest.approx(K / (n - 1), rel=1e-9)
    # Ten texts are the neighbours of all images.
    p = K / n
    assert r.metrics["hubness_text"] == pytest.approx((1 - 2 * p) / (p * (1 - p)) ** 0.5)


def test_heavy_ties_cost_what_equal_rows_do(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []

    def unit_rows(rows: np.ndarray) -> np.ndarray:
        taken.append(len(rows))
        return unit64(rows)

    monkeypatch.setattr(nearest, "unit64", unit_rows)
    x, y = normal(3000, 8), prototypes(3000, 8, 10, 1)
    near = exact(Embeddings.of(x, y))
    near.overlap(), near.counts("image"), near.counts("text")
    assert sum(taken) < 3 * 3000


def test_distinct_rows() -> None:
    rows = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, -0.0], [0.0, 1.0], [0.6, 0.8]])
    for array in (rows, torch.from_numpy(rows), rows.astype(np.float32)):
        groups = distinct(lambda which, array=array: array[which], 5)
        assert groups.group.tolist() == [0, 1, 0, 1, 2]
        assert groups.first.tolist() == [0, 1, 4]
        assert groups.copies.tolist() == [2, 2, 1]


def test_top_k_of_rising_scores() -> None:
    # Every tile holds higher scores than all before it, and more equal ones than fit.
    top, gram = TopK(50, 16), np.zeros((50, 700), np.float32)
    gram += np.repeat(np.arange(7, dtype=np.float32), 100)
    for start in range(0, 700, 100):
        top.keep(range(50), *top.candidates(gram[:, start : start + 100], range(50), range(100)))
    from geomkit._core.parallel import SOLO

    score, _ = top.finish(SOLO)
    assert (score == 6).all()
