"""Terms of other papers, beside transcriptions of their sources."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from conftest import clouds
from open_clip.loss import SigLipLoss

from geomkit.losses import ContrastiveLoss

x, y = (torch.from_numpy(rows) for rows in clouds(n=9, d=5))
SCALE = torch.tensor(7.0, dtype=torch.float64)


def cyclip() -> dict[str, float]:
    """The two cyclic losses of CyCLIP's training step, whose logits are scaled."""
    logits = {(a, b): SCALE * p @ q.T for a, p in (("i", x), ("t", y))
              for b, q in (("i", x), ("t", y))}  # fmt: skip
    in_modal = (logits["i", "i"] - logits["t", "t"]).square().mean() / (SCALE * SCALE) * len(x)
    cross = (logits["t", "i"] - logits["i", "t"]).square().mean() / (SCALE * SCALE) * len(x)
    return {"in_modal_cyclic": float(in_modal), "cross_modal_cyclic": float(cross)}


def nt_xent() -> float:
    z = np.concatenate([x, y])
    n, losses = len(x), []
    for i in range(2 * n):
        others = [math.exp(7.0 * z[i] @ z[k]) for k in range(2 * n) if k != i]
        partner = math.exp(7.0 * z[i] @ z[(i + n) % (2 * n)])
        losses.append(-math.log(partner / sum(others)))
    return float(np.mean(losses))


def centroid_uniformity() -> float:
    centres = torch.nn.functional.normalize((x + y) / 2.0, dim=-1)
    return float(torch.pdist(centres, p=2).pow(2).mul(-2).exp().mean().log())


@pytest.mark.parametrize(
    ("name", "expected"),
    [*cyclip().items(), ("nt_xent", nt_xent()), ("centroid_uniformity", centroid_uniformity())],
)
def test_terms_are_those_of_their_sources(name: str, expected: float) -> None:
    assert float(ContrastiveLoss(name)(x, y, SCALE)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("bias", [-10.0, 0.5])
def test_siglip_is_open_clips(bias: float) -> None:
    rows = [rows.clone().requires_grad_() for rows in (x, y)]
    numbers = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (7.0, bias)]
    ours = ContrastiveLoss("siglip")(*rows, *numbers)
    theirs = SigLipLoss()(*rows, *numbers)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-12)
    slopes = (torch.autograd.grad(value, [*rows, *numbers]) for value in (ours, theirs))
    for one, other in zip(*slopes, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "name",
    ["siglip", "nt_xent", "in_modal_cyclic", "cross_modal_cyclic", "centroid_uniformity"],
)
def test_gradients(name: str) -> None:
    few = [rows[:5].clone().requires_grad_() for rows in (x, y)]
    scale = SCALE.clone().requires_grad_()
    assert torch.autograd.gradcheck(ContrastiveLoss(name), (*few, scale))


def test_cyclic_terms_vanish_without_a_difference() -> None:
    for name in ("in_modal_cyclic", "cross_modal_cyclic"):
        assert float(ContrastiveLoss(name)(x, x, SCALE)) == pytest.approx(0.0, abs=1e-14)
