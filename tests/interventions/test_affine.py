"""Affine interventions: equal to scikit-learn's and scipy's, or to what their formulas promise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import clouds, unit
from safetensors.numpy import save_file
from scipy.linalg import sqrtm
from sklearn.covariance import oas
from sklearn.linear_model import Ridge as Reference
from sklearn.preprocessing import StandardScaler

from geomkit.engine.moments import Moments
from geomkit.errors import GeomkitError
from geomkit.interventions import (
    INTERVENTIONS,
    Affine,
    Centring,
    ComponentRemoval,
    Coral,
    DimensionRemoval,
    GapProjection,
    GaussianTransport,
    JointWhitening,
    Ridge,
    Standardisation,
    Translation,
    Whitening,
    load,
)
from geomkit.interventions.affine import shrunk

AFFINE = sorted(name for name, kind in INTERVENTIONS.items() if issubclass(kind, Affine))
x, y = clouds(200, 8, seed=2)


def moved(fitted: Affine, rows: np.ndarray, modality: str) -> np.ndarray:
    """Rows before they are normalised."""
    centre, matrix, offset = (
        getattr(fitted, f"{modality}_{part}") for part in ("centre", "matrix", "offset")
    )
    rows = rows - (0.0 if centre is None else centre)
    if matrix is not None:
        rows = rows * matrix if matrix.ndim == 1 else rows @ matrix
    return rows + (0.0 if offset is None else offset)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_row_of_which_rounding_alone_is_left_is_refused(dtype: type) -> None:
    """All images are one row and all texts another: without the gap's direction nothing is left."""
    one, other = unit(np.ones((9, 6))), unit(np.ones((9, 6)) * [1, 1, 1, 1, 1, -0.3])
    for kind in (GapProjection, Translation, Centring):
        fitted = kind.fit(one, -one)
        with pytest.raises(GeomkitError, match="nothing is left of a row"):
            fitted.apply(one.astype(dtype))
    assert GapProjection.fit(one, other).apply(other.astype(dtype)).shape == (9, 6)


@pytest.mark.parametrize("on", ["both", "image", "text"])
def test_translation_brings_the_centroids_together(on: str) -> None:
    for strength in (1.0, 0.25, 0.0, -0.5):
        fitted = Translation.fit(x, y, strength=strength, on=on)
        gap = moved(fitted, x, "image").mean(0) - moved(fitted, y, "text").mean(0)
        np.testing.assert_allclose(gap, (1 - strength) * (x.mean(0) - y.mean(0)), atol=1e-14)
    if on != "both":
        other, rows = ("text", y) if on == "image" else ("image", x)
        assert fitted.apply(rows, other) is rows


def test_centring_and_standardisation_are_scikit_learns() -> None:
    for kind, scales in ((Centring, False), (Standardisation, True)):
        fitted = kind.fit(x, y)
        for rows, modality in ((x, "image"), (y, "text")):
            fresh = clouds(30, 8, seed=5)[0]
            expected = StandardScaler(with_std=scales).fit(rows).transform(fresh)
            np.testing.assert_allclose(fitted.apply(fresh, modality), unit(expected), atol=1e-12)
    flat = x.copy()
    flat[:, 3] = 0.0
    image = Standardisation.fit(unit(flat), y).image_matrix
    assert image is not None and image[3] == 0.0 and np.isfinite(np.asarray(image)).all()


def test_whitened_rows_have_identity_covariance() -> None:
    fitted = Whitening.fit(x, y, shrinkage=0.0)
    for rows, modality in ((x, "image"), (y, "text")):
        white = moved(fitted, rows, modality)
        np.testing.assert_allclose(white.mean(0), 0.0, atol=1e-13)
        np.testing.assert_allclose(np.cov(white.T, bias=True), np.eye(8), atol=1e-12)
    joint = JointWhitening.fit(x, y, shrinkage=0.0)
    both = [moved(joint, x, "image"), moved(joint, y, "text")]
    pooled = sum(np.cov(rows.T, bias=True) for rows in both) / 2
    np.testing.assert_allclose(pooled, np.eye(8), atol=1e-12)
    # no covariance to speak of: shrunk to a multiple of the identity, whitening only scales
    whole = Whitening.fit(x, y, shrinkage=1.0).image_matrix
    np.testing.assert_allclose(whole, np.asarray(whole)[0, 0] * np.eye(8), atol=1e-12)


@pytest.mark.parametrize("n", [6, 20, 200])
def test_the_default_shrinkage_is_scikit_learns(n: int) -> None:
    rows = x[:n]
    expected, _ = oas(rows)
    np.testing.assert_allclose(shrunk(np.cov(rows.T, bias=True), n, None), expected, atol=1e-14)


def test_few_rows_leave_directions_without_variance_out() -> None:
    few_x, few_y = x[:5], y[:5]
    for kind in (Whitening, JointWhitening, Coral, GaussianTransport):
        fitted = kind.fit(few_x, few_y, shrinkage=0.0)
        assert np.isfinite(fitted.apply(few_y, "text")).all()


@pytest.mark.parametrize("kind", [Coral, GaussianTransport])
def test_texts_get_the_images_mean_and_covariance(kind: type[Coral]) -> None:
    fitted = kind.fit(x, y, shrinkage=0.0)
    found = moved(fitted, y, "text")
    np.testing.assert_allclose(found.mean(0), x.mean(0), atol=1e-12)
    np.testing.assert_allclose(np.cov(found.T), np.cov(x.T), atol=1e-12)
    assert fitted.apply(x) is x


def test_gaussian_transport_costs_the_bures_distance() -> None:
    one, two = (np.cov(rows.T, bias=True) for rows in (x, y))
    root = sqrtm(two)
    bures = np.trace(one + two - 2 * sqrtm(root @ one @ root)).real
    least = bures + ((x.mean(0) - y.mean(0)) ** 2).sum()
    cost = {
        kind: float(((moved(kind.fit(x, y, shrinkage=0.0), y, "text") - y) ** 2).sum(1).mean())
        for kind in (GaussianTransport, Coral)
    }
    assert cost[GaussianTransport] == pytest.approx(least, rel=1e-10)
    assert cost[Coral] > least


def test_ridge_is_scikit_learns() -> None:
    fitted = Ridge.fit(x, y, penalty=0.3)
    alpha = 0.3 * len(y) * np.cov(y.T, bias=True).trace() / 8
    expected = Reference(alpha=alpha).fit(y, x).predict(y)
    np.testing.assert_allclose(moved(fitted, y, "text"), expected, atol=1e-12)
    with pytest.raises(GeomkitError, match="ridge: all texts are equal"):
        Ridge.fit(x, np.tile(y[:1], (200, 1)))


def test_what_carries_the_gap_is_removed() -> None:
    gap = x.mean(0) - y.mean(0)
    for kind, options in ((GapProjection, {}), (ComponentRemoval, {}), (DimensionRemoval, {})):
        fitted = kind.fit(x, y, **options)
        left = moved(fitted, x, "image").mean(0) - moved(fitted, y, "text").mean(0)
        share = 0.0 if kind is GapProjection else 0.1
        assert (left @ left) / (gap @ gap) <= share + 1e-12, kind
        np.testing.assert_array_equal(fitted.image_matrix, fitted.text_matrix)
    # the components are those of all rows, uncentred
    _, _, vt = np.linalg.svd(np.concatenate([x, y]))
    most = vt[np.argmax((vt @ gap) ** 2)]
    matrix = ComponentRemoval.fit(x, y, count=1).image_matrix
    np.testing.assert_allclose(matrix, np.eye(8) - np.outer(most, most), atol=1e-12)
    kept = DimensionRemoval.fit(x, y, count=3).image_matrix
    assert kept is not None and np.flatnonzero(np.asarray(kept) == 0).tolist() == sorted(
        np.argsort(-(gap**2))[:3].tolist()
    )
    with pytest.raises(GeomkitError, match="no gap to remove"):
        GapProjection.fit(x, x)


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("translate", {"strength": float("inf")}, "strength: expected a number"),
        ("translate", {"on": "texts"}, "unknown modality 'texts'; did you mean 'text'"),
        ("whiten", {"shrinkage": 1.5}, "shrinkage: expected 0 to 1, got 1.5"),
        ("coral", {"shrinkage": float("nan")}, "shrinkage: expected 0 to 1"),
        ("ridge", {"penalty": 0.0}, "penalty: expected a positive number"),
        ("remove-components", {"count": 0}, "count: expected 1 to 7"),
        ("remove-dimensions", {"count": 8}, "count: expected 1 to 7"),
    ],
)
def test_options_out_of_range_are_refused(name: str, options: dict, says: str) -> None:
    kind: Any = INTERVENTIONS[name]
    with pytest.raises(GeomkitError, match=says):
        kind.fit(x, y, **options)


@pytest.mark.parametrize("name", AFFINE)
def test_parts_files_and_tensors_give_the_same(name: str, tmp_path: Path) -> None:
    kind: Any = INTERVENTIONS[name]
    fitted = kind.fit(x, y)
    parts = kind.of(Moments.of(x[:70], y[:70]) + Moments.of(x[70:], y[70:]))
    fitted.save(tmp_path / "f.safetensors")
    again = Affine.load(tmp_path / "f.safetensors")
    assert type(again) is kind
    for rows, modality in ((x, "image"), (y, "text")):
        found = fitted.apply(rows, modality)
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-12)
        np.testing.assert_allclose(parts.apply(rows, modality), found, atol=1e-9)
        np.testing.assert_array_equal(again(rows, modality=modality), found)
        for dtype, atol in ((torch.float64, 1e-12), (torch.float32, 1e-4)):
            tensor = fitted.apply(torch.from_numpy(rows).to(dtype), modality)
            assert tensor.dtype == dtype
            np.testing.assert_allclose(tensor.numpy(), found, atol=atol)
    with pytest.raises(GeomkitError, match=f"{name}: expected image and text .* equal shape"):
        kind.fit(x, y[:-1])


def test_a_row_of_which_nothing_is_left_is_refused() -> None:
    with pytest.raises(GeomkitError, match="centre: nothing is left of a row of modality image"):
        Centring(image_centre=x[0]).apply(x[:1])
    fitted = Centring.fit(x, y)
    for value in (float("nan"), 1e300, 0.0):
        with pytest.raises(GeomkitError, match="or it overflows"):
            fitted.apply(np.full((1, 8), value))
        with pytest.raises(GeomkitError, match="or it overflows"):
            fitted.apply(torch.full((1, 8), value, dtype=torch.float64))


@pytest.mark.parametrize(
    "content",
    [
        {"text_offset": np.ones((2, 2))},
        {"text_offset": np.ones(3, np.int64)},
        {"text_offset": np.array([1.0, np.nan])},
        {"text_offset": np.ones(3), "image_matrix": np.ones((2, 2))},
        {"image_matrix": np.ones((2, 3))},
    ],
)
def test_damaged_parts_are_refused(tmp_path: Path, content: dict) -> None:
    about = {"format": "geomkit-intervention", "schema_version": "1", "options": "{}"}
    path = tmp_path / "f.safetensors"
    save_file(content, path, about | {"intervention": "coral"})
    with pytest.raises(GeomkitError, match=r"f\.safetensors: .*does not fit; fit it again"):
        load(path)


def test_a_map_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((8, 8)))[0]
    about = {"format": "geomkit-intervention", "schema_version": "1", "options": "{}"}
    save_file({"matrix": turn}, tmp_path / "p.safetensors", about | {"intervention": "procrustes"})
    fitted: Any = load(tmp_path / "p.safetensors")
    np.testing.assert_array_equal(fitted.matrix, turn)
    np.testing.assert_allclose(fitted.apply(y, "text"), y @ turn.T, atol=1e-12)
