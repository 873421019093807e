"""The same rows give the same numbers, however they are ordered, stored, typed and split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import unit

from geomkit.embeddings import read_embeddings
from geomkit.metrics import METRICS, GapResult, gap

FOLDED = ("linear_separability", "linear_separability_auc")
"""Pairs are assigned to folds by number, so another order is another set of folds."""


def cloud(kind: str, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images, texts and index of one kind of data, rounded to float32."""
    rng = np.random.default_rng(n)
    x = rng.standard_normal((n, 6))
    y = x + 0.4 * rng.standard_normal((n, 6)) + np.eye(6)[0]
    index = np.arange(n)
    if kind == "ties":
        labels = rng.integers(0, 12, n)
        x, y = x[labels], y[labels]
    elif kind == "half tied":
        y = y[rng.integers(0, 12, n)]
    elif kind == "constant":
        y = np.tile(y[:1], (n, 1))
    elif kind == "captions":
        index = np.concatenate([index, rng.integers(0, n, n // 2)])
        y = np.concatenate([y, y[index[n:]] + 0.2 * rng.standard_normal((n // 2, 6))])
    return unit(x).astype(np.float32), unit(y).astype(np.float32), index


def assert_same(one: GapResult, other: GapResult, *, rel: float, without: tuple = ()) -> None:
    for about in ("metrics", "stderr", "null"):
        a, b = getattr(one, about), getattr(other, about)
        assert set(a) == set(b), about
        for name in a:
            if name not in without:
                # Errors take some numbers from some of the rows.
                within = max(rel, 5e-3) if about == "stderr" and rel > 1e-6 else rel
                same = pytest.approx(b[name], rel=within, abs=rel, nan_ok=True)
                assert a[name] == same, (about, name)
    assert one.meta["reasons"] == other.meta["reasons"]


@pytest.mark.parametrize(
    ("kind", "n"),
    [(kind, n) for kind in ("plain", "ties", "half tied", "constant") for n in (150, 2100)]
    + [("captions", 150), ("captions", 1400)],  # 2,100 texts
)
def test_order_type_and_library(kind: str, n: int) -> None:
    names = [name for name in METRICS if n < 1000 or not name.startswith("linear_sep")]
    x, y, index = cloud(kind, n)
    truth = gap(x.astype(np.float64), y.astype(np.float64), index, metrics=names)

    assert_same(gap(x, y, index, metrics=names), truth, rel=2e-5, without=FOLDED)
    tensors = gap(torch.from_numpy(x), torch.from_numpy(y), torch.from_numpy(index), metrics=names)
    assert_same(tensors, truth, rel=2e-5, without=FOLDED)

    rng = np.random.default_rng(1)
    images = rng.permutation(n)  # the captions of each image keep their order
    place = np.argsort(images)
    texts = np.argsort(place[index], kind="stable")
    shuffled = gap(x[images], y[texts], place[index][texts], metrics=names)
    assert_same(shuffled, truth, rel=2e-5, without=FOLDED)


@pytest.mark.parametrize("limit", [None, 100])
def test_one_array_and_shards(limit: int | None, tmp_path: Path) -> None:
    x, y, _ = cloud("half tied", 300)
    for name, rows in (("img_emb", x), ("text_emb", y)):
        (tmp_path / name).mkdir()
        for k, part in enumerate(np.array_split(rows, [70, 190])):
            np.save(tmp_path / name / f"{name}_{k}.npy", part)
    loaded = read_embeddings(tmp_path)
    assert_same(gap(loaded, exact_limit=limit), gap(x, y, exact_limit=limit), rel=1e-9)
