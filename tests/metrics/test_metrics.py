"""Metrics against sklearn and float64 double loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import torch
from conftest import clouds, unit
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from geomkit import functional
from geomkit.embeddings.embeddings import Embeddings
from geomkit.errors import GeomkitError
from geomkit.metrics import METRICS, gap, linear_separability, select
from geomkit.metrics.definitions.spectrum import eigenvalues, principal_components
from geomkit.metrics.logistic import Logistic
from geomkit.metrics.separability import assign_folds, roc_auc
from geomkit.metrics.statistics import Statistics

TIGHT = {"rel": 1e-9, "abs": 1e-9}


def song(k: np.ndarray, m: np.ndarray) -> float:
    """Unbiased HSIC of two kernel matrices (Song et al., 2012), from its definition."""
    n = len(k)
    k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
    one = np.ones(n)
    both = (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2))
    return float((np.trace(k @ m) + both - 2 / (n - 2) * (one @ k @ m @ one)) / (n * (n - 3)))


def oracle(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Every closed-form metric by its definition, in float64, one pair at a time."""
    n = len(x)
    pairs = [(i, j) for i in range(n) for j in range(n) if i != j]

    def mean(values) -> float:
        values = list(values)
        return math.fsum(values) / len(values)

    def uniformity(a: np.ndarray, b: np.ndarray) -> float:
        return math.log(mean(math.exp(-2 * float(((a[i] - b[j]) ** 2).sum())) for i, j in pairs))

    paired = mean(float(a @ b) for a, b in zip(x, y, strict=True))
    cosine = {m: mean(float(a[i] @ a[j]) for i, j in pairs) for m, a in (("image", x), ("text", y))}
    p = (1 - paired) / 2
    q = ((1 - cosine["image"]) / 2 + (1 - cosine["text"]) / 2) / 2
    out = {
        "centroid_distance": float(np.linalg.norm(x.mean(0) - y.mean(0))),
        "relative_modality_gap": p / (p + q),
        "paired_cosine": paired,
        "alignment": mean(float(((a - b) ** 2).sum()) for a, b in zip(x, y, strict=True)),
        "uniformity_image": uniformity(x, x),
        "uniformity_text": uniformity(y, y),
        "cross_uniformity": uniformity(x, y),
        "intra_cosine_image": cosine["image"],
        "intra_cosine_text": cosine["text"],
    }
    out["uniformity"] = (out["uniformity_image"] + out["uniformity_text"]) / 2
    for name, rows in (("image", x), ("text", y)):
        ratio = np.cumsum(PCA().fit(rows).explained_variance_ratio_)
        out[f"explained_variance_auc_{name}"] = float(ratio.mean())
        for share in (80, 90):
            out[f"components_to_{share}_{name}"] = float((ratio < share / 100).sum() + 1)
        s = np.linalg.svd(rows, compute_uv=False)
        s = s / s.sum()
        out[f"effective_rank_{name}"] = float(np.exp(-(s * np.log(s)).sum()))
        eigenvalues = np.linalg.svd(rows - rows.mean(0), compute_uv=False) ** 2
        full = np.zeros(rows.shape[1])
        full[: len(eigenvalues)] = eigenvalues
        scaled = np.sqrt(len(full)) * full / np.linalg.norm(full)
        root = len(full) - math.sqrt(len(full))
        phi = (len(full) - ((scaled - 1) ** 2).sum() / 2) ** 2 / len(full) ** 2
        assert root > 0
        out[f"isoscore_{name}"] = float((len(full) * phi - 1) / (len(full) - 1))
        kept = eigenvalues[eigenvalues > 1e-10 * eigenvalues[0]]
        slope = np.polyfit(np.log(np.arange(1, len(kept) + 1)), np.log(kept), 1)[0]
        out[f"spectral_decay_{name}"] = float(-slope)
        centre = rows.mean(0) / np.linalg.norm(rows.mean(0))
        out[f"conformity_{name}"] = mean(float(row @ centre) for row in rows)
        out[f"participation_ratio_{name}"] = float(eigenvalues.sum() ** 2 / (eigenvalues**2).sum())
    mean_x, mean_y = x.mean(0), y.mean(0)
    noise = np.trace(np.cov((x - y).T)) / n
    out["centroid_distance_unbiased"] = math.sqrt(max(0.0, out["centroid_distance"] ** 2 - noise))
    for name, rows in (("image", x), ("text", y)):
        pca = PCA().fit(rows)
        k = int((np.cumsum(pca.explained_variance_ratio_) < 0.5).sum() + 1)
        along = pca.components_[:k] @ (mean_x - mean_y)
        out[f"gap_alignment_{name}"] = float(
            np.linalg.norm(along) / np.linalg.norm(mean_x - mean_y)
        )
    gap_squares = np.sort((mean_x - mean_y) ** 2)[::-1]
    out["centroid_gap"] = float(gap_squares.sum())
    out["distribution_gap"] = mean(
        float((((a - mean_x) - (b - mean_y)) ** 2).sum()) for a, b in zip(x, y, strict=True)
    )
    share = np.cumsum(gap_squares) / gap_squares.sum()
    out["gap_dimensions_90"] = float((share < 0.9).sum() + 1)
    out["mmd"] = (
        math.exp(out["uniformity_image"])
        + math.exp(out["uniformity_text"])
        - 2 * math.exp(out["cross_uniformity"])
    )
    a, b = np.cov(x.T), np.cov(y.T)
    cross = scipy.linalg.sqrtm((a + 1e-12 * np.eye(len(a))) @ (b + 1e-12 * np.eye(len(a)))).real
    out["frechet_distance"] = float(gap_squares.sum() + np.trace(a + b - 2 * cross))
    out["cka"] = song(x @ x.T, y @ y.T) / math.sqrt(song(x @ x.T, x @ x.T) * song(y @ y.T, y @ y.T))

    def nearest(scores: np.ndarray) -> list[set[int]]:
        return [set(np.argsort(-row, kind="stable")[:10].tolist()) for row in scores]

    near_x = nearest(x @ x.T - 9 * np.eye(n))
    near_y = nearest(y @ y.T - 9 * np.eye(n))
    out["mutual_knn"] = mean(len(p & q) / 10 for p, q in zip(near_x, near_y, strict=True))
    for name, table in (("image", y @ x.T), ("text", x @ y.T)):
        hits = [j for found in nearest(table) for j in found]
        out[f"hubness_{name}"] = float(scipy.stats.skew(np.bincount(hits, minlength=n)))
    scores = x @ y.T
    for direction, table in (("text", scores), ("image", scores.T)):
        ranks = np.array([1 + (row > row[i]).sum() for i, row in enumerate(table)])
        out[f"{direction}_retrieval_mean_rank"] = float(ranks.mean())
        out[f"{direction}_retrieval_median_rank"] = float(np.median(ranks))
        out[f"{direction}_retrieval_mrr"] = float((1 / ranks).mean())
    for k in (1, 3, 5, 10):
        for direction, table in (("text", scores), ("image", scores.T)):
            hits = [i in np.argsort(-row)[:k] for i, row in enumerate(table)]
            out[f"{direction}_retrieval_recall@{k}"] = float(np.mean(hits))
            same = x @ x.T if direction == "text" else y @ y.T
            index = np.concatenate([table, same - 9 * np.eye(n)], axis=1)
            hits = [i in np.argsort(-row)[:k] for i, row in enumerate(index)]
            out[f"mixed_{direction}_retrieval_recall@{k}"] = float(np.mean(hits))
    for name, own, other in (("image", x, y), ("text", y, x)):
        found = nearest(np.concatenate([own @ own.T - 9 * np.eye(n), own @ other.T], axis=1))
        out[f"modality_bias_{name}"] = mean(sum(j < n for j in near) / 10 for near in found)
    return out


@pytest.mark.parametrize(("n", "d"), [(50, 8), (20, 40)])
def test_every_key_equals_its_definition(n: int, d: int) -> None:
    x, y = clouds(n, d)
    result = gap(x, y)
    expected = oracle(x, y)
    assert set(result.metrics) == set(METRICS)
    # the rest have tests of their own below
    others = {"linear_separability", "linear_separability_auc", "sliced_wasserstein"}
    assert set(METRICS) - set(expected) == others
    for name, value in expected.items():
        # a square root of rank-deficient covariances keeps half the digits
        tolerance = {"rel": 1e-4} if name == "frechet_distance" else TIGHT
        assert result.metrics[name] == pytest.approx(value, **tolerance), name


def test_torch_and_half_precision_inputs() -> None:
    x, y = clouds(60, 16)
    truth = gap(x, y).metrics
    tensors = gap(torch.from_numpy(x), torch.from_numpy(y)).metrics
    half = gap(x.astype(np.float16), y.astype(np.float16)).metrics
    counted = ("components", "dimensions", "hubness", "knn", "decay")
    smooth = [
        n for n in METRICS
        if METRICS[n].group not in ("retrieval", "mixed") and not any(word in n for word in counted)
    ]  # fmt: skip
    for name in truth:
        assert tensors[name] == pytest.approx(truth[name], **TIGHT), name
    for name in smooth:
        assert half[name] == pytest.approx(truth[name], abs=0.02, rel=5e-3), name


def test_several_captions_use_the_first_but_for_retrieval() -> None:
    x, y = clouds(30, 6)
    rng = np.random.default_rng(0)
    more = unit(rng.standard_normal((30, 6)))
    index = np.concatenate([np.arange(30), np.arange(30)])
    both = gap(x, np.concatenate([y, more]), index).metrics
    single = gap(x, y).metrics
    for name in METRICS:
        if "_retrieval_" not in name:
            assert both[name] == pytest.approx(single[name], rel=1e-12, abs=1e-12), name
    second = gap(x, np.concatenate([y, more]), index, caption_index=1).metrics
    assert second["alignment"] == pytest.approx(float(functional.alignment(x, more)), rel=1e-12)
    # any of an image's texts counts as a hit: CLIP_benchmark's recall
    texts = np.concatenate([y, more])
    top = np.argsort(-(x @ texts.T), axis=1)[:, :5]
    assert both["text_retrieval_recall@5"] == np.mean(
        [(index[t] == i).any() for i, t in enumerate(top)]
    )


def test_a_collapsed_model_is_at_chance_and_undefined_values_have_reasons() -> None:
    x = np.repeat(unit(np.ones((1, 5))), 12, axis=0)
    result = gap(x, x)
    m = result.metrics
    assert m["text_retrieval_recall@1"] == pytest.approx(1 / 12)
    assert m["image_retrieval_recall@5"] == pytest.approx(5 / 12)
    assert m["linear_separability"] == 0.5 and m["linear_separability_auc"] == 0.5
    assert m["uniformity"] == pytest.approx(0, abs=1e-12)
    assert math.isnan(m["relative_modality_gap"])
    assert "all rows are equal" in result.meta["reasons"]["relative_modality_gap"]
    assert result.to_json()["metrics"]["relative_modality_gap"] is None


def test_two_pairs_are_enough() -> None:
    result = gap(np.eye(2), np.eye(2)[::-1])
    assert result.metrics["centroid_distance"] == pytest.approx(0, abs=1e-15)
    assert result.metrics["uniformity_image"] == pytest.approx(-4)


def test_select_expands_groups_and_refuses_unknown_names() -> None:
    assert select(["gap"])[0] == "centroid_distance"
    with pytest.raises(GeomkitError, match="did you mean 'centroid_distance'"):
        select(["centroid_distanse"])


def test_only_what_is_asked_for_is_computed() -> None:
    x, y = clouds()
    assert list(gap(x, y, metrics=["centroid_distance"]).metrics) == ["centroid_distance"]
    retrieval = gap(x, y, metrics=["retrieval"]).metrics
    assert retrieval["text_retrieval_recall@1"] == gap(x, y).metrics["text_retrieval_recall@1"]


# --- linear separability ---------------------------------------------------------------------


@pytest.mark.parametrize("shift", [0.0, 0.1, 0.5, 3.0])
@pytest.mark.parametrize(("n", "d"), [(300, 6), (120, 60)])
def test_coefficients_equal_sklearns(n: int, d: int, shift: float) -> None:
    x, y = clouds(n, d, shift=shift)
    train = np.random.default_rng(0).random((n, 3)) < 0.8
    ours, _ = Logistic(x, y, train).fit()
    for fold in range(3):
        rows = np.concatenate([x[train[:, fold]], y[train[:, fold]]])
        labels = np.repeat([0, 1], train[:, fold].sum())
        sk = LogisticRegression(tol=1e-10, max_iter=10_000).fit(rows, labels)
        np.testing.assert_allclose(ours[:-1, fold], sk.coef_[0], atol=1e-6)
        np.testing.assert_allclose(ours[-1, fold], sk.intercept_[0], atol=1e-6)


def test_float32_rows_reach_the_same_coefficients() -> None:
    x, y = clouds(500, 32, shift=0.2)
    train = np.ones((500, 1), bool)
    wide, _ = Logistic(x, y, train).fit()
    narrow, _ = Logistic(x.astype(np.float32), y.astype(np.float32), train).fit()
    np.testing.assert_allclose(narrow, wide, atol=1e-4)  # the rows themselves differ by 1e-7


def test_held_out_scores_equal_sklearns() -> None:
    x, y = clouds(200, 10, shift=0.15)
    found = linear_separability(x, y, folds=5, seed=3)
    held_out = assign_folds(200, 5, seed=3)
    accuracies, aucs = [], []
    for fold in range(5):
        test = held_out == fold
        labels = np.repeat([0, 1], (~test).sum())
        sk = LogisticRegression(tol=1e-10, max_iter=10_000)
        sk.fit(np.concatenate([x[~test], y[~test]]), labels)
        rows = np.concatenate([x[test], y[test]])
        labels = np.repeat([0, 1], test.sum())
        accuracies.append(sk.score(rows, labels))
        aucs.append(roc_auc_score(labels, sk.decision_function(rows)))
    assert found.accuracy == pytest.approx(np.mean(accuracies), rel=1e-12)
    assert found.auc == pytest.approx(np.mean(aucs), rel=1e-9)


def test_separability_at_its_ends() -> None:
    rng = np.random.default_rng(0)
    x = unit(rng.standard_normal((400, 8)))
    far = np.zeros(8)
    far[0] = 5
    assert linear_separability(unit(x + far), unit(x - far)).accuracy == 1
    same = linear_separability(x, unit(rng.standard_normal((400, 8))))
    assert same.accuracy == pytest.approx(0.5, abs=0.06)


def test_folds_go_by_pair_and_partition() -> None:
    held_out = assign_folds(23, 5, seed=0)
    counts = np.bincount(held_out)
    assert counts.sum() == 23 and counts.max() - counts.min() <= 1
    assert (assign_folds(10, "paper", seed=0) == 0).sum() == 2
    assert (assign_folds(23, 5, seed=0) == held_out).all()
    assert (assign_folds(23, 5, seed=1) != held_out).any()


@pytest.mark.parametrize("folds", [1, "papers", 2.5])
def test_unknown_folds_are_refused(folds) -> None:
    with pytest.raises(GeomkitError, match="expected a number >= 2 or 'paper'"):
        assign_folds(10, folds, seed=0)


def test_roc_auc_equals_sklearns_with_ties() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 6, 50) * 1.0, rng.integers(2, 8, 40) * 1.0
    labels = np.repeat([0, 1], [50, 40])
    expected = roc_auc_score(labels, np.concatenate([a, b]))
    assert roc_auc(a, b) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("n", "d"), [(12, 40), (12, 20), (12, 13), (12, 12), (12, 11)])
def test_eigenvalues_are_squared_singular_values(n: int, d: int) -> None:
    x, y = clouds(n, d)
    s = Statistics(Embeddings.of(x, y))
    found = eigenvalues(s, "image", centred=False)
    np.testing.assert_allclose(found, np.linalg.svd(x, compute_uv=False) ** 2, rtol=1e-9)
    values, vectors = principal_components(s, "text")
    np.testing.assert_allclose(eigenvalues(s, "text", centred=True), values, atol=1e-13)
    pca = PCA().fit(y)
    np.testing.assert_allclose(values, pca.explained_variance_ * (n - 1), atol=1e-13)
    assert len(values) == min(n, d)
    rows = np.asarray(s.span[1])
    projected = np.linalg.norm((rows - rows.mean(0)) @ vectors, axis=0)
    np.testing.assert_allclose(projected**2, values, atol=1e-12)


@pytest.mark.parametrize("spread", [1.0, 1e-3])
def test_spectra_of_many_float32_rows_of_low_rank(spread: float) -> None:
    rng = np.random.default_rng(0)
    rows = np.ones(64) / 8
    rows = rows + spread * rng.standard_normal((5000, 8)) @ rng.standard_normal((8, 64)) / 8
    narrow, wide = unit(rows.astype(np.float32)), unit(rows)
    names = [n for n in METRICS if METRICS[n].group == "spectrum" and n.endswith("image")]
    found = gap(narrow, narrow, metrics=names).metrics
    small = gap(wide[:2048], wide[:2048], metrics=names).metrics  # in float64 throughout
    for name in ("effective_rank_image", "participation_ratio_image", "components_to_90_image"):
        assert found[name] == pytest.approx(small[name], rel=0.03), name
    assert found["explained_variance_auc_image"] == pytest.approx(
        small["explained_variance_auc_image"], abs=2e-3
    )


def test_swapping_the_modalities_swaps_the_keys() -> None:
    x, y = clouds(40, 6)
    one, two = gap(x, y).metrics, gap(y, x).metrics
    for name, value in one.items():
        swapped = name
        if "image" in name:
            swapped = name.replace("image", "text")
        elif "text" in name:
            swapped = name.replace("text", "image")
        assert two[swapped] == pytest.approx(value, rel=1e-9, abs=1e-9), name


def test_rotation_changes_nothing_but_what_counts_coordinates() -> None:
    x, y = clouds(60, 6)
    q, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((6, 6)))
    p = np.random.default_rng(1).permutation(60)
    whole, turned, shuffled = gap(x, y), gap(x @ q, y @ q), gap(x[p], y[p])
    by_basis = {"gap_dimensions_90", "sliced_wasserstein"}
    by_order = {"linear_separability", "linear_separability_auc"}  # other folds
    for name, value in whole.metrics.items():
        if name not in by_basis:
            assert turned.metrics[name] == pytest.approx(value, rel=1e-6, abs=1e-9), name
            if name in whole.stderr:
                assert turned.stderr[name] == pytest.approx(whole.stderr[name], rel=1e-6), name
        if name not in by_order:
            assert shuffled.metrics[name] == pytest.approx(value, rel=1e-9, abs=1e-9), name


def test_the_result_as_table_frame_and_html() -> None:
    x, y = clouds(30, 5)
    result = gap(x, y)
    text, frame, page = str(result), result.to_frame(), result._repr_html_()
    assert list(frame.index) == list(METRICS)
    assert list(frame.columns) == ["value", "stderr", "null", "ideal", "p_value", "estimated"]
    for name, value in result.metrics.items():
        assert f"{name} " in text and f">{name}</th>" in page
        assert frame.loc[name, "value"] == value
    assert frame.loc["centroid_distance", "null"] == result.null["centroid_distance"]
    cell = f"{result.metrics['alignment']:.4f} ± {result.stderr['alignment']:.4f}"
    assert cell in text and cell in page
    with pytest.raises(AttributeError):
        result.n = 3  # type: ignore[misc]


def test_sliced_wasserstein_by_its_definition_and_for_a_shift() -> None:
    x, y = clouds(50, 4)
    directions = np.random.default_rng(5).standard_normal((4, 256))
    directions /= np.linalg.norm(directions, axis=0)
    squares = [((np.sort(x @ d) - np.sort(y @ d)) ** 2).mean() for d in directions.T]
    found = gap(x, y, metrics=["sliced_wasserstein"], seed=5).metrics["sliced_wasserstein"]
    assert found == pytest.approx(math.sqrt(np.mean(squares)), rel=1e-12)
    assert gap(x, x[::-1], metrics=["sliced_wasserstein"]).metrics["sliced_wasserstein"] < 1e-12


def test_embeddings_carry_ids_and_modalities() -> None:
    e = Embeddings.of(np.eye(3), np.eye(3), modalities=("audio", "text"), ids=("a", "b", "c"))
    assert gap(e).to_json()["modalities"] == ["audio", "text"]
    with pytest.raises(GeomkitError, match="ids: expected one per image"):
        Embeddings.of(np.eye(3), np.eye(3), ids=("a",))


def test_values_without_errors_are_the_same() -> None:
    x, y = clouds(20, 4)
    index = np.arange(30) % 20
    e = Embeddings.of(x, y[index], index)
    whole, bare = gap(e), gap(e, errors=False)
    assert bare.metrics == whole.metrics and bare.ideal == whole.ideal
    assert whole.stderr and not (bare.stderr or bare.null or bare.p_value)
