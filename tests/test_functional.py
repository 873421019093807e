"""The formulas against closed forms, float64 double loops and autograd. Tolerance 1e-12."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from conftest import clouds, unit
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from geomkit import functional as F
from geomkit.errors import GeomkitError
from geomkit.metrics import uniform_sphere_limit

TIGHT = {"rel": 1e-12, "abs": 1e-12}


def test_alignment_is_a_double_loop() -> None:
    x, y = clouds()
    expected = sum(
        sum((a - b) ** 2 for a, b in zip(u, v, strict=True)) for u, v in zip(x, y, strict=True)
    )
    assert F.alignment(x, y) == pytest.approx(expected / len(x), **TIGHT)


def test_alignment_keeps_the_digits_of_a_small_distance() -> None:
    x = np.eye(3, dtype=np.float32)
    y = x.copy()
    y[:, 0] += np.float32(1e-4)
    # 2 − 2x·y in float32 would give 0 or 1.2e-7 a row; the truth is 1e-8.
    assert F.alignment(x, y) == pytest.approx(1e-8, rel=1e-3)


@pytest.mark.parametrize("t", [0.5, 2.0, 7.0])
def test_uniformity_is_a_double_loop(t: float) -> None:
    x, y = clouds()
    n = len(x)
    within = [math.exp(-t * sum((x[i] - x[j]) ** 2)) for i in range(n) for j in range(i + 1, n)]
    across = [math.exp(-t * sum((x[i] - y[j]) ** 2)) for i in range(n) for j in range(n) if i != j]
    assert F.uniformity(x, t) == pytest.approx(math.log(sum(within) / len(within)), **TIGHT)
    assert F.cross_uniformity(x, y, t) == pytest.approx(
        math.log(sum(across) / len(across)), **TIGHT
    )


@pytest.mark.parametrize("t", [1.0, 2.0])
@pytest.mark.parametrize("n", [2, 5])
def test_orthonormal_rows_have_uniformity_minus_2t(n: int, t: float) -> None:
    assert F.uniformity(np.eye(n), t) == pytest.approx(-2 * t, **TIGHT)


def test_collapsed_rows_have_uniformity_zero() -> None:
    x = unit(np.ones((5, 3)))
    assert F.uniformity(x) == pytest.approx(0, abs=1e-12)
    assert F.cross_uniformity(x, x) == pytest.approx(0, abs=1e-12)
    assert F.cross_uniformity(x, -x) == pytest.approx(-8, **TIGHT)


@pytest.mark.parametrize("cosine", [-0.4, 0.0, 0.9])
def test_cross_uniformity_of_collapsed_clouds_outweighs_alignment_past_a_half(
    cosine: float,
) -> None:
    x = np.tile([1.0, 0.0, 0.0], (5, 1))
    y = np.tile([cosine, math.sqrt(1 - cosine**2), 0.0], (5, 1))
    for weight in (0.4, 0.5, 1.0):
        push = F.alignment(x, y) + weight * F.cross_uniformity(x, y)
        assert push == pytest.approx((1 - 2 * weight) * (2 - 2 * cosine), **TIGHT)


@pytest.mark.parametrize(
    ("dim", "expected"), [(3, -2.0798), (8, -3.0825), (32, -3.7518), (512, -3.9844)]
)
def test_limit_on_the_uniform_sphere(dim: int, expected: float) -> None:
    assert uniform_sphere_limit(dim) == pytest.approx(expected, abs=5e-5)
    from scipy.special import hyp0f1

    assert uniform_sphere_limit(dim) == pytest.approx(-4 + math.log(hyp0f1(dim / 2, 4)), rel=1e-13)


def test_uniformity_reaches_the_limit_on_a_fibonacci_sphere() -> None:
    k = np.arange(3000) + 0.5
    z, phi = 1 - 2 * k / len(k), k * np.pi * (1 + 5**0.5)
    r = np.sqrt(1 - z * z)
    points = np.stack([r * np.cos(phi), r * np.sin(phi), z], axis=1)
    # Without the self-pairs the mean over n points is lower by about (1 − e^U)/(n e^U).
    limit = uniform_sphere_limit(3)
    expected = math.log((math.exp(limit) - 1 / len(k)) / (1 - 1 / len(k)))
    assert F.uniformity(points) == pytest.approx(expected, abs=1e-5)


def test_contrastive_is_cross_entropy_both_ways() -> None:
    x, y = (torch.from_numpy(rows) for rows in clouds())
    logits = 14.3 * x @ y.T + 0.7
    labels = torch.arange(len(x))
    expected = (
        torch.nn.functional.cross_entropy(logits, labels)
        + torch.nn.functional.cross_entropy(logits.T, labels)
    ) / 2
    assert float(F.contrastive(x, y, 14.3, 0.7)) == pytest.approx(float(expected), **TIGHT)


@pytest.mark.parametrize("n", [2, 17])
def test_contrastive_of_a_collapsed_model_is_log_n(n: int) -> None:
    x = unit(np.ones((n, 3)))
    assert F.contrastive(x, x, 100.0) == pytest.approx(math.log(n), **TIGHT)


def test_relative_modality_gap_at_its_ends() -> None:
    assert F.relative_modality_gap(1.0, 0.3, 0.2) == 0
    assert F.relative_modality_gap(0.0, 0.0, 0.0) == 0.5
    assert F.relative_modality_gap(-1.0, 1.0, 1.0) == 1


@pytest.mark.parametrize(
    "formula",
    [
        lambda x, y: F.alignment(x, y),
        lambda x, y: F.uniformity(x),
        lambda x, y: F.cross_uniformity(x, y),
        lambda x, y: F.contrastive(x, y, 10.0),
    ],
)
def test_numpy_and_torch_agree_and_gradients_are_right(formula) -> None:
    x, y = clouds(n=6, d=4)
    a, b = (torch.from_numpy(rows).requires_grad_() for rows in (x, y))
    assert float(formula(a.detach(), b.detach())) == pytest.approx(float(formula(x, y)), **TIGHT)
    assert torch.autograd.gradcheck(formula, (a, b))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 20), st.integers(2, 6))
def test_invariance_under_rotation_permutation_and_swap(seed: int, n: int, d: int) -> None:
    x, y = clouds(n, d, seed=seed)
    rng = np.random.default_rng(seed)
    q, _ = np.linalg.qr(rng.standard_normal((d, d)))
    p = rng.permutation(n)
    for formula in (
        F.alignment,
        F.cross_uniformity,
        lambda a, b: F.uniformity(a) + F.uniformity(b),
        lambda a, b: F.contrastive(a, b, 5.0),
    ):
        value = formula(x, y)
        for a, b in ((x @ q, y @ q), (x[p], y[p]), (y, x)):
            assert formula(a, b) == pytest.approx(value, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("formula", [F.alignment, F.cross_uniformity])
def test_unequal_shapes_are_refused(formula) -> None:
    with pytest.raises(GeomkitError, match=r"\(3, 3\) and \(4, 4\)"):
        formula(np.eye(3), np.eye(4))


def test_one_row_is_refused() -> None:
    with pytest.raises(GeomkitError, match="n >= 2"):
        F.uniformity(np.eye(1))


def test_the_diagonal_is_left_out_without_a_mask() -> None:
    class Matrices(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            new = isinstance(out, torch.Tensor) and not func._schema.is_mutable
            self.count += new and out.shape == (5, 9) and not out._is_view()
            return out

    torch.manual_seed(0)
    others = torch.nn.functional.normalize(torch.randn(9, 3, dtype=torch.float64), dim=1)
    rows = others[2:7].clone().requires_grad_()
    with Matrices() as matrices:
        total = F.potential_sum(rows, others, offset=2)
    assert matrices.count <= 6  # 8 with a mask, its complement and a product
    (slope,) = torch.autograd.grad(total, rows)
    kept = 1 - torch.eye(5, 9).roll(2, dims=1)
    masked = (F.gaussian_potential(rows @ others.T) * kept).sum()
    assert total == masked and slope.equal(torch.autograd.grad(masked, rows)[0])
