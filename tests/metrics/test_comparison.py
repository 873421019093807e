"""Differences of two results: parts sum to the values, errors are paired, as in closed form."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from conftest import clouds, unit

from geomkit import gap
from geomkit.embeddings.embeddings import Clouds, Embeddings
from geomkit.errors import GeomkitError
from geomkit.metrics import METRICS, Difference, compare
from geomkit.metrics.comparison import alike, difference

x, y = clouds(120, 8, seed=3)
rng = np.random.default_rng(4)
index = np.concatenate([np.arange(120), rng.integers(0, 120, 80)])
many = unit(y[index] + 0.1 * rng.standard_normal((200, 8)))
WITH_PARTS = [name for name, metric in METRICS.items() if metric.parts]
CENTRED = ("linear_separability", "linear_separability_auc", "relative_modality_gap")


@pytest.mark.parametrize("several", [False, True])
def test_the_mean_of_the_parts_is_the_value(several: bool) -> None:
    pairs = (x, many, index) if several else (x, y)
    found = gap(*pairs, metrics=WITH_PARTS, parts=True, errors=False)
    assert set(found.parts) == set(WITH_PARTS) and len(WITH_PARTS) > 20
    for name, parts in found.parts.items():
        assert parts.shape == (120,)
        if name not in CENTRED:
            assert parts.mean() == pytest.approx(found.metrics[name], abs=1e-9), name
    assert "parts" not in found.to_dict() and "parts" not in repr(found)
    assert not gap(*pairs, metrics=["alignment"]).parts


@pytest.mark.parametrize("name", ["centroid_distance", "relative_modality_gap", "paired_cosine",
                                  "alignment"])  # fmt: skip
def test_the_spread_of_the_parts_is_the_error(name: str) -> None:
    found = gap(x, y, metrics=[name], parts=True)
    error = found.parts[name].std(ddof=1) / math.sqrt(120)
    assert error == pytest.approx(found.stderr[name], rel=0.03)


def test_the_parts_of_separability_are_its_jackknife() -> None:
    """Without the interactions, which only make the error smaller."""
    found = gap(x, y, metrics=["linear_separability_auc"], parts=True)
    parts = found.parts["linear_separability_auc"]
    error = parts.std(ddof=1) / math.sqrt(120)
    assert 1.0 <= error / found.stderr["linear_separability_auc"] < 1.6


def test_shares_have_the_error_of_agresti_and_min() -> None:
    other = unit(y + 0.5 * rng.standard_normal(y.shape))
    name = "text_retrieval_recall@1"
    before, after = (gap(x, rows, metrics=[name], parts=True) for rows in (y, other))
    gained = int(((after.parts[name] == 1) & (before.parts[name] == 0)).sum())
    lost = int(((after.parts[name] == 0) & (before.parts[name] == 1)).sum())
    assert gained and lost
    # ((b + c + 1) − (b − c)²/(n + 2))/(n + 2)² with one half more in each cell of n + 2
    n = 120
    squares = gained + lost - (gained - lost) ** 2 / n + 1
    expected = math.sqrt(squares / (n + 1) / (n + 2))
    found = compare(before, after)[name]
    assert found.value == pytest.approx((gained - lost) / n)
    assert found.stderr == pytest.approx(expected, rel=1e-12)
    assert found.p_value == pytest.approx(math.erfc(abs(found.value) / expected / math.sqrt(2)))


def test_what_both_have_in_common_cancels() -> None:
    near = unit(y + 0.01 * rng.standard_normal(y.shape))
    names = ["alignment", "centroid_distance", "text_retrieval_mrr"]
    before, after = (gap(x, rows, metrics=names, parts=True) for rows in (y, near))
    for name, found in compare(before, after).items():
        assert 0 < found.stderr < 0.5 * before.stderr[name]


def test_equal_results_do_not_differ() -> None:
    found = gap(x, y, metrics=["alignment", "image_retrieval_recall@1"], parts=True)
    same = compare(found, found)
    assert same["alignment"] == (0.0, 0.0, 1.0)
    # No query changed, which of 120 is no proof that none would.
    assert 0 < same["image_retrieval_recall@1"].stderr < 0.01
    assert same["image_retrieval_recall@1"].p_value == 1.0


def test_no_error_where_none_is_known() -> None:
    before, after = (gap(x, rows, metrics=["mmd"], parts=True) for rows in (y, y[::-1]))
    found = compare(before, after)["mmd"]
    assert math.isfinite(found.value) and math.isnan(found.stderr) and math.isnan(found.p_value)
    without = gap(x, y, metrics=["alignment"])
    assert math.isnan(compare(without, without)["alignment"].stderr)


def test_a_mean_of_two_is_paired_too() -> None:
    names = [f"{side}_retrieval_recall@1" for side in ("text", "image")]
    before, after = (gap(x, r, metrics=names, parts=True) for r in (y, unit(y + 0.3 * x[::-1])))
    both = difference(names, before, after)
    single = [compare(before, after)[name] for name in names]
    assert both.value == pytest.approx(np.mean([one.value for one in single]))
    assert both.stderr < max(one.stderr for one in single)


def test_other_pairs_are_refused() -> None:
    before, after = (gap(x[:n], y[:n], metrics=["alignment"]) for n in (50, 60))
    with pytest.raises(GeomkitError, match="same pairs, got n = 50 and 60"):
        compare(before, after)


def test_the_error_is_the_spread_over_data_sets() -> None:
    """200 draws of 80 pairs: the ratio is known to 0.05; the full simulation is in simulations/."""
    names = ["centroid_distance", "paired_cosine", "text_retrieval_recall@1",
             "mixed_image_retrieval_recall@10"]  # fmt: skip
    found: dict[str, list[Difference]] = {name: [] for name in names}
    for seed in range(200):
        a, b = clouds(80, 6, seed=seed)
        noise = np.random.default_rng([seed, 1]).standard_normal((2, *b.shape))
        results = [
            gap(a, unit(b + 0.3 * own), metrics=names, parts=True, errors=False) for own in noise
        ]
        for name, one in compare(*results).items():
            found[name].append(one)
    for name, many in found.items():
        value, error, p = np.array(many).T
        assert 0.8 < np.sqrt((error**2).mean()) / value.std(ddof=1) < 1.25, name
        assert 0.005 < (p <= 0.05).mean() < 0.11, name


def test_the_command_compares_sources_on_the_same_pairs(cli, tmp_path: Path) -> None:
    near = unit(y + 0.3 * x[::-1])
    for name, rows in (("a", y), ("b", near), ("short", y[:60])):
        np.savez(tmp_path / f"{name}.npz", image=x[: len(rows)], text=rows)
    np.savez(tmp_path / "three.npz", image=x, text=y, audio=near)
    names = ("--metrics", "alignment,mmd")
    done = cli("gap", "a.npz", "b.npz", *names, "--compare")
    assert done.status == 0
    results = [gap(x, rows, metrics=["alignment", "mmd"], parts=True) for rows in (y, near)]
    found = compare(*results)
    assert "a.npz: has no ids" in done.err and "of the difference: mmd" in done.err
    line = next(line for line in done.out.splitlines() if line.startswith("alignment  ") and
                " p " in line)  # fmt: skip
    assert f"{found['alignment'].value:+.4f} ± {found['alignment'].stderr:.4f}" in line
    printed = json.loads(cli("gap", "a.npz", "b.npz", *names, "--compare", "--json").out)
    (only,) = printed["differences"]
    assert (only["source"], only["less"]) == ("b.npz", "a.npz")
    assert only["metrics"]["alignment"]["stderr"] == pytest.approx(found["alignment"].stderr)
    assert only["metrics"]["mmd"]["stderr"] is None
    for words, said in (
        (("a.npz",), "two sources"),
        (("a.npz", "b.npz", "--csv"), "table or --json"),
        (("three.npz", "a.npz"), "image–audio does not compare with image–text"),
        (("a.npz", "short.npz"), "60 images and 60 texts, a.npz has 120 and 120"),
    ):
        refused = cli("gap", *words, "--compare", *names)
        assert refused.status == 2 and said in refused.err


def test_pairs_in_another_order_are_refused() -> None:
    ids = tuple("abcdef")
    one = Embeddings.of(x[:6], y[:6], ids=ids)
    other = Embeddings.of(x[:6], y[:6], ids=ids[::-1])
    with pytest.raises(GeomkitError, match="b: row 0 has the id f, but a in a"):
        list(alike([("a", one, None), ("b", other, None)]))
    assert len(list(alike([("a", one, None), ("b", other, None)], check=False))) == 2
    with pytest.raises(GeomkitError, match="there is one cloud"):
        list(alike([("a", Clouds.of({"image": x}), None)]))
