"""Interventions: the Procrustes map is exact on rotated copies, and files keep what was fitted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import clouds
from safetensors.numpy import save_file
from scipy.linalg import orthogonal_procrustes

from geomkit.errors import GeomkitError
from geomkit.interventions import INTERVENTIONS, Intervention, Procrustes, load


def rotation(d: int, seed: int = 0) -> np.ndarray:
    q, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((d, d)))
    return q


def test_procrustes_recovers_the_rotation_of_a_copy() -> None:
    x, _ = clouds(60, 8)
    q = rotation(8)
    fitted = Procrustes.fit(x, x @ q)
    np.testing.assert_allclose(fitted.matrix, q, atol=1e-12)
    fresh, _ = clouds(20, 8, seed=1)
    np.testing.assert_allclose(fitted.apply(fresh @ q, "text"), fresh, atol=1e-12)
    assert fitted.apply(fresh) is fresh


def test_procrustes_is_the_solution_of_scipy() -> None:
    x, y = clouds(60, 8, seed=3)
    expected, _ = orthogonal_procrustes(y, x)
    np.testing.assert_allclose(Procrustes.fit(x, y).matrix.T, expected, atol=1e-12)


def test_procrustes_is_orthogonal_with_fewer_pairs_than_dimensions() -> None:
    x, y = clouds(5, 16, seed=1)
    fitted = Procrustes.fit(x, y)
    np.testing.assert_allclose(fitted.matrix @ fitted.matrix.T, np.eye(16), atol=1e-12)
    moved = fitted.apply(y, "text")
    assert ((x - moved) ** 2).sum() <= ((x - y) ** 2).sum()
    np.testing.assert_allclose(np.linalg.norm(moved, axis=1), 1.0, atol=1e-12)


@pytest.mark.parametrize(
    ("dtype", "atol"), [(torch.float64, 1e-12), (torch.float32, 1e-6), (torch.bfloat16, 2e-2)]
)
def test_procrustes_maps_tensors_too(dtype: torch.dtype, atol: float) -> None:
    x, y = clouds(40, 6)
    fitted = Procrustes.fit(torch.from_numpy(x), torch.from_numpy(y))
    expected = Procrustes.fit(x, y).apply(y, "text")
    moved = fitted.apply(torch.from_numpy(y).to(dtype), "text")
    assert moved.dtype == (torch.float32 if dtype == torch.bfloat16 else dtype)
    np.testing.assert_allclose(moved.numpy(), expected, atol=atol)


def test_what_does_not_fit_is_refused() -> None:
    x, y = clouds(20, 4)
    with pytest.raises(GeomkitError, match=r"\(20, 4\) and \(19, 4\); give one text per image"):
        Procrustes.fit(x, y[:19])
    fitted = Procrustes.fit(x, y)
    with pytest.raises(GeomkitError, match="rows of 4 dimensions"):
        fitted.apply(x[:, :3], "text")
    with pytest.raises(GeomkitError, match="unknown modality 'txt'; did you mean 'text'"):
        fitted.apply(x, "txt")


def test_a_saved_intervention_comes_back(tmp_path: Path) -> None:
    fitted = Procrustes.fit(*clouds(30, 5))
    path = tmp_path / "map.safetensors"
    fitted.save(path)
    again = load(path)
    assert type(again) is Procrustes
    np.testing.assert_array_equal(again.matrix, fitted.matrix)
    with pytest.raises(GeomkitError, match="exists already"):
        fitted.save(path)
    fitted.save(path, overwrite=True)


def test_every_intervention_is_found_by_name() -> None:
    assert INTERVENTIONS["procrustes"] is Procrustes
    assert all(issubclass(kind, Intervention) for kind in INTERVENTIONS.values())


ABOUT = {
    "format": "geomkit-intervention",
    "schema_version": "1",
    "intervention": "procrustes",
    "options": "{}",
}


@pytest.mark.parametrize(
    ("about", "says"),
    [
        ({"schema_version": "2"}, "written with schema version 2, this geomkit knows 1; upgrade"),
        ({"format": "pt"}, "not an intervention written by geomkit"),
        ({"intervention": "procrustres"}, "did you mean 'procrustes'"),
        ({}, "damaged, other is missing or unknown"),
        ({"schema_version": "one"}, "damaged .*fit it again"),
        ({"options": "[1]"}, "damaged"),
        ({"options": '{"text_offset": 3}'}, "damaged"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path: Path, about: dict, says: str) -> None:
    path = tmp_path / "map.safetensors"
    save_file({"other": np.eye(2)}, path, ABOUT | about)
    with pytest.raises(GeomkitError, match=says) as refusal:
        load(path)
    assert "\n" not in str(refusal.value)


def test_missing_and_damaged_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(GeomkitError, match="cannot be read"):
        load(tmp_path / "none.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(b"\x10")
    with pytest.raises(GeomkitError, match="not safetensors, or truncated"):
        load(tmp_path / "cut.safetensors")
