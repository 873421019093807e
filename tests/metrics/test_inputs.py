"""What gap() takes: rows of any kind, dictionaries, paths, one cloud, clouds without pairs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import clouds

from geomkit import functional
from geomkit.embeddings import Embeddings
from geomkit.errors import GeomkitError
from geomkit.extraction.load import load_source
from geomkit.metrics import METRICS, gap
from geomkit.metrics.result import GapResults

x, y = clouds(30, 6)
KEYS = ["paired_cosine", "uniformity_image", "effective_rank_text"]
EXPECTED = gap(x, y, metrics=KEYS).metrics


@pytest.mark.parametrize(
    "form",
    [
        lambda rows: rows.tolist(),
        lambda rows: tuple(map(tuple, rows)),
        list,
        lambda rows: pd.Series(list(rows)),
        lambda rows: pd.Series(rows.tolist()),
        lambda rows: pd.DataFrame(rows),
        torch.from_numpy,
        lambda rows: list(torch.from_numpy(rows)),
        lambda rows: torch.from_numpy(rows).to_sparse(),
        lambda rows: torch.from_numpy(rows).requires_grad_(),
        lambda rows: rows.astype(object),
    ],
)
def test_rows_of_any_kind(form: Any) -> None:
    for found in (
        gap(form(x), form(y), metrics=KEYS),
        gap({"image": form(x), "text": form(y)}, metrics=KEYS),
    ):
        assert found.metrics == pytest.approx(EXPECTED)


def test_a_path_and_what_load_source_returns(tmp_path: Path) -> None:
    np.savez(tmp_path / "e.npz", image=x, text=y)
    for what in (tmp_path / "e.npz", str(tmp_path / "e.npz"), load_source(tmp_path / "e.npz")):
        assert gap(what, metrics=KEYS).metrics == pytest.approx(EXPECTED)
    assert gap(tmp_path / "e.npz", metrics=KEYS).source == str(tmp_path / "e.npz")
    assert gap((Embeddings.of(x, y), "val"), metrics=KEYS).split == "val"
    with pytest.raises(GeomkitError, match="no such file"):
        gap(tmp_path / "none.npz")


def test_dictionaries_of_any_modalities() -> None:
    found = gap({"touch": x, "smell": y}, metrics=KEYS)
    assert found.modalities == ("touch", "smell") and found.metrics == pytest.approx(EXPECTED)
    several = gap({"text": y, "image": x, "audio": x[::-1]}, metrics=KEYS)
    assert isinstance(several, GapResults)
    assert [r.modalities for r in several] == [
        ("image", "text"), ("image", "audio"), ("audio", "text"),
    ]  # fmt: skip
    assert several[0].metrics == pytest.approx(EXPECTED)
    assert "audio–text" in str(several) and len(several.to_dict()["results"]) == 3
    order = np.random.default_rng(0).permutation(30)
    given = {"image_features": torch.from_numpy(x), "text_features": y[order].tolist()}
    found = gap({**given, "image_index": order.tolist(), "labels": list(range(30))}, metrics=KEYS)
    assert found.metrics == pytest.approx(EXPECTED)
    assert "not used: 'labels'" in found.meta["notes"]


def test_texts_of_each_image_in_one_array() -> None:
    texts = np.stack([y, y[::-1]], axis=1)
    for rows in (texts, torch.from_numpy(texts), texts.tolist()):
        kind = torch.from_numpy(x) if isinstance(rows, torch.Tensor) else x
        found = gap(kind, rows, metrics=KEYS)
        assert found.meta["texts"] == 60
        assert found.metrics["paired_cosine"] == pytest.approx(EXPECTED["paired_cosine"])
        assert found.meta["notes"] == ["text: shape (30, 2, 6) is read as 2 rows for each image"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((pd.DataFrame(x), pd.DataFrame(y)[::-1]), "same labels in another order"),
        (([[1.0, 2.0], [1.0]], y), "image: expected an .n, d. matrix, got list with rows of uneq"),
        ((x, ["a", "b"]), r"text: expected an \(n, d\) matrix"),
        ((np.ma.masked_array(x, mask=x > 0.5), y), "image: a masked array, .* are masked; fill"),
        (({"image": pd.DataFrame(x), "text": pd.DataFrame(y)[::-1]},), "labels in another order"),
        (({"a": 1},), "expected matrices by modality, got a"),
        (({"image": x}, y), "text: dict given, which holds all"),
        ((x, np.stack([y, y], axis=1), np.arange(30)), "and image_index; give one of them"),
        ((np.stack([x, y]),), r"image: expected an \(n, d\) matrix, got shape \(2, 30, 6\)"),
    ],
)
def test_what_is_no_pair_of_matrices(arguments: tuple, says: str) -> None:
    with pytest.raises(GeomkitError, match=says):
        gap(*arguments)


def test_a_tensor_and_a_list() -> None:
    assert gap(torch.from_numpy(x), y.tolist(), metrics=KEYS).metrics == pytest.approx(EXPECTED)


def test_one_group_by_its_name() -> None:
    assert gap(x, y, metrics="gap").metrics == gap(x, y, metrics=["gap"]).metrics
    assert list(gap(x, y, metrics="mmd, cka").metrics) == ["mmd", "cka"]
    with pytest.raises(GeomkitError, match="unknown metric 'gaps'"):
        gap(x, y, metrics="gaps")


def test_a_result_as_a_dictionary_by_both_names() -> None:
    result = gap(x, y, metrics="gap")
    assert result.to_dict() == result.to_json() == json.loads(json.dumps(result.to_dict()))


def test_unpaired_clouds_measure_what_pairs_do_where_no_pair_is_needed() -> None:
    alone, pairs = gap(x, y, paired=False), gap(x, y)
    assert alone.meta["paired"] is False
    same = [m for m in METRICS if not METRICS[m].across and m not in ("cka", "mutual_knn")]
    same += ["centroid_distance", "linear_separability", "linear_separability_auc"]
    same += ["hubness_image", "hubness_text"]
    for name in same:
        assert alone.metrics[name] == pytest.approx(pairs.metrics[name], rel=1e-12), name
    potential = functional.gaussian_potential(x @ y.T)
    assert alone.metrics["cross_uniformity"] == pytest.approx(math.log(potential.mean()))
    within = [math.exp(alone.metrics[f"uniformity_{side}"]) for side in ("image", "text")]
    assert alone.metrics["mmd"] == pytest.approx(sum(within) - 2 * potential.mean())
    needs_pairs = set(METRICS) - set(same) - {"mmd", "cross_uniformity"}
    assert set(alone.meta["reasons"]) == needs_pairs
    assert all(math.isnan(alone.metrics[name]) for name in needs_pairs)
    assert "paired_cosine" not in str(alone)


def test_the_centroid_distance_of_independent_clouds() -> None:
    """Error and null are those of repeated draws."""
    rng = np.random.default_rng(0)
    shift = np.array([1.0, 0, 0, 0])
    draws = [
        gap(rng.standard_normal((60, 4)) + shift, rng.standard_normal((40, 4)),
            metrics=["centroid_distance"])
        for _ in range(200)
    ]  # fmt: skip
    values = [r.metrics["centroid_distance"] for r in draws]
    errors = [r.stderr["centroid_distance"] for r in draws]
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.15)
    a, b = rng.standard_normal((60, 4)), rng.standard_normal((40, 4))
    both = np.concatenate([a, b])
    dealt = []
    for _ in range(500):
        order = rng.permutation(100)
        r = gap(both[order[:60]], both[order[60:]], metrics=["centroid_distance"])
        dealt.append(r.metrics["centroid_distance"] ** 2)
    null = gap(a, b, metrics=["centroid_distance"]).null["centroid_distance"]
    assert math.sqrt(np.mean(dealt)) == pytest.approx(null, rel=0.06)


@pytest.mark.parametrize("side", ["image", "text"])
def test_one_cloud(side: str) -> None:
    found = gap({side: x})
    pairs = gap(x, x)
    assert found.modalities == (side,) and found.n == 30
    own = [m for m in METRICS if m.endswith(f"_{side}") and not METRICS[m].across]
    for name in METRICS:
        if name in own:
            assert found.metrics[name] == pytest.approx(pairs.metrics[name]), name
        else:
            assert math.isnan(found.metrics[name])
            assert found.meta["reasons"][name].startswith(f"there is one cloud, {side}")


def test_clouds_on_the_command_line(cli, refused, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y[:20])
    np.savez(tmp_path / "e.npz", image=x, text=y[:20])
    for words in (("e.npz",), ("--image", "x.npy", "--text", "y.npy")):
        outcome = cli("gap", *words, "--metrics", "gap,pairs", "--json")
        (result,) = json.loads(outcome.out)["results"]
        assert outcome.status == 0 and result["meta"]["paired"] is False
        assert result["metrics"]["centroid_distance"] > 0
        assert result["metrics"]["paired_cosine"] is None
        assert "paired_cosine, alignment" in outcome.err
        assert "30 image and 20 text rows are not paired; image_index says which" in outcome.err
    assert "uniformity_image" in cli("gap", "x.npy").out
    assert "effective_rank_image" in cli("gap", "--image", "x.npy", "--metrics", "all").out
    np.savez(tmp_path / "p.npz", image=x, text=y)
    assert "paired_cosine" not in cli("gap", "p.npz", "--unpaired").out
    refused("plot-pca", "e.npz", says=("e.npz: 30 image and 20 text rows are not paired",))


def test_other_dimensions_are_named_on_stderr(cli, tmp_path: Path) -> None:
    np.savez(tmp_path / "e.npz", image=x, text=y[:, :4])
    outcome = cli("gap", "e.npz", "--json")
    lines = [line for line in outcome.err.splitlines() if "different dimensions" in line]
    assert len(lines) == 1 and "centroid_distance" in lines[0] and "alignment" in lines[0]
