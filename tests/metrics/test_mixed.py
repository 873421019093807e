"""Recall in one index of images and texts, against double loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import clouds, unit

from geomkit.metrics import gap, select
from geomkit.metrics import statistics as statistics_module
from geomkit.metrics.definitions.retrieval import RECALL_AT

NAMES = [f"mixed_{way}_retrieval_recall@{k}" for k in RECALL_AT for way in ("text", "image")]


def hit(best: float, others: np.ndarray, right: int, k: int) -> float:
    """Chance that one of ``right`` rows that score ``best`` is in the top k, ties in any order."""
    greater, tied = (others > best + 1e-13).sum(), (abs(others - best) <= 1e-13).sum()
    missed = 1.0
    for place in range(max(0, k - greater)):
        missed *= max(0, tied - place) / max(1, tied + right - place)
    return 1 - missed


def slow(x: np.ndarray, y: np.ndarray, index: np.ndarray) -> list[float]:
    """Mixed recall one query at a time, in the order of NAMES."""
    xy, xx, yy = x @ y.T, x @ x.T, y @ y.T
    out = []
    for k in RECALL_AT:
        images, texts = [], []
        for i in range(len(x)):
            own = index == i
            best = xy[i, own].max()
            others = np.concatenate([xy[i, ~own], np.delete(xx[i], i)])
            images.append(hit(best, others, (xy[i, own] >= best - 1e-13).sum(), k))
        for j, i in enumerate(index):
            others = np.concatenate([np.delete(xy[:, j], i), np.delete(yy[j], j)])
            texts.append(hit(xy[i, j], others, 1, k))
        out += [float(np.mean(images)), float(np.mean(texts))]
    return out


@pytest.mark.parametrize("n", [2, 3, 70, 140])
@pytest.mark.parametrize("most", [1, 3])
@pytest.mark.parametrize("coarse", [False, True])
def test_mixed_recall_equals_a_double_loop(n: int, most: int, coarse: bool) -> None:
    rng = np.random.default_rng(n)
    index = rng.permutation(np.repeat(np.arange(n), rng.integers(1, most + 1, n)))
    x = rng.standard_normal((n, 5))
    x, y = unit(x), unit(x[index] + 0.4 * rng.standard_normal((len(index), 5)))
    if coarse:  # few distinct rows, so that ties are everywhere
        x, y = np.eye(4)[rng.integers(0, 4, n)], np.eye(4)[rng.integers(0, 4, len(index))]
    expected = pytest.approx(dict(zip(NAMES, slow(x, y, index), strict=True)), abs=1e-12)
    for pair in ((x, y), (torch.from_numpy(x), torch.from_numpy(y))):
        for limit in (None, 1):  # past the limit all rows are sampled here
            r = gap(*pair, index, metrics=NAMES, exact_limit=limit)
            assert r.metrics == expected
            assert r.exact is (limit is None) and set(r.stderr) == set(r.null) == set(NAMES)
    order = rng.permutation(n)
    place = np.argsort(order)
    other = rng.permutation(len(index))
    assert gap(x[order], y[other], place[index[other]], metrics=NAMES).metrics == expected


def test_the_group_in_the_order_of_tables() -> None:
    assert [name for name in select(["mixed"]) if "recall" in name] == sorted(
        NAMES, key=lambda name: ("image" in name, int(name.split("@")[1]))
    )
    assert gap(*clouds(), metrics=["mixed"]).ideal[NAMES[0]] == 1


@pytest.mark.parametrize("captions", [1, 2])
@pytest.mark.parametrize("d", [2, 12])
def test_float32_on_either_side_of_the_limit(
    monkeypatch: pytest.MonkeyPatch, captions: int, d: int
) -> None:
    rng = np.random.default_rng(0)
    index = np.repeat(np.arange(400), captions)
    x = rng.standard_normal((400, d)).astype(np.float32)
    y = (x[index] + 1e-3 * rng.standard_normal((400 * captions, d))).astype(np.float32)
    y[::7] = y[0]
    found = []
    for limit in (399, 400 * captions):
        monkeypatch.setattr(statistics_module, "_WIDE_PAIRS", limit)
        found += [gap(x, y, index, metrics=NAMES, exact_limit=e).metrics for e in (None, 1)]
    for other in found[1:]:
        assert other == pytest.approx(found[0], rel=1e-12)


def test_without_a_gap_and_a_relation_it_is_at_chance() -> None:
    found = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        index = np.repeat(np.arange(60), rng.integers(1, 5, 60))
        y = rng.standard_normal((len(index), 6))
        r = gap(rng.standard_normal((60, 6)), y, index, metrics=NAMES)
        found.append([[r.metrics[name], r.null[name]] for name in NAMES])
    means = np.mean(found, axis=0)
    spread = np.std(found, axis=0)[:, 0] / np.sqrt(40)
    assert (abs(means[:, 0] - means[:, 1]) < 3.5 * spread).all(), means


@pytest.mark.parametrize("captions", [1, 3])
def test_a_collapsed_model_and_a_constant_modality(captions: int) -> None:
    index = np.repeat(np.arange(40), captions)
    collapsed = gap(np.ones((40, 4)), np.ones((len(index), 4)), index, metrics=NAMES)
    for name in NAMES:  # between its knots the null is interpolated
        near = 1e-12 if captions == 1 or "image" in name else 0.02
        assert collapsed.metrics[name] == pytest.approx(collapsed.null[name], rel=near), name
    # Images that are all one row hide every text from each other, and a text finds all or none.
    x = np.repeat(np.eye(4)[:1], 40, axis=0)
    y = unit(np.random.default_rng(0).standard_normal((len(index), 4)))
    constant = gap(x, y, index, metrics=NAMES).metrics
    assert constant == pytest.approx(dict(zip(NAMES, slow(x, y, index), strict=True)), abs=1e-12)
    assert constant["mixed_text_retrieval_recall@10"] == 0


def test_a_gap_hides_the_partners_that_the_other_modality_alone_would_show() -> None:
    x, y = clouds(200, 8, shift=3.0)
    near, far = gap(*clouds(200, 8, shift=0.0)).metrics, gap(x, y).metrics
    for name in NAMES:
        assert far[name] <= far[name.removeprefix("mixed_")]
    assert far["mixed_text_retrieval_recall@10"] < 0.02 < near["mixed_text_retrieval_recall@10"]


def test_estimates_cover_the_exact_value(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    index = np.repeat(np.arange(300), 2)
    x = rng.standard_normal((300, 8))
    y = x[index] + 0.5 * rng.standard_normal((600, 8))
    y[300:] += rng.standard_normal((300, 8))
    whole = gap(x, y, index, metrics=NAMES).metrics
    monkeypatch.setattr(statistics_module, "QUERIES", 75)
    inside = dict.fromkeys(NAMES, 0)
    for seed in range(60):
        r = gap(x, y, index, metrics=NAMES, exact_limit=1, seed=seed)
        for name in NAMES:
            inside[name] += abs(r.metrics[name] - whole[name]) < 1.96 * r.stderr[name]
    assert min(inside.values()) >= 52, inside
