"""Terms of other papers, beside transcriptions of their sources."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import torch
from conftest import clouds
from open_clip.loss import SigLipLoss
from torch.utils.flop_counter import FlopCounterMode

from geomkit.losses import PRESETS, TERMS, ContrastiveLoss, parse_loss
from geomkit.losses.mixing import _weight

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


def log_sum_exp(values: list[float]) -> float:
    return math.log(sum(map(math.exp, values)))


def in_modal_separation() -> float:
    """AlignCLIP's loss within the modalities, as its code has it without semantic supervision."""
    losses = [
        log_sum_exp([7.0 * float(row @ other) for other in rows]) - 7.0 * float(row @ row)
        for rows in (x, y) for row in rows
    ]  # fmt: skip
    return 0.5 * sum(losses) / len(x)


def share() -> float:
    """The λ that m²-mix draws next: its distribution function at λ is that of Beta(½, ½)."""
    torch.manual_seed(5)
    uniform = torch.rand((), dtype=torch.float64).item()
    return float(scipy.stats.beta(0.5, 0.5).ppf(uniform))


def m2_mix() -> float:
    """m²-mix, a row after the other: the pair's own logit beside those of other mixed pairs."""
    part, losses = share(), []
    for rows, i in ((rows, i) for rows in (x, y) for i in range(len(x))):
        logits = []
        for j in range(len(x)):
            angle = math.acos(float(x[j] @ y[j]))
            mixed = math.sin(part * angle) * x[j] + math.sin((1 - part) * angle) * y[j]
            logits.append(7.0 * float(rows[i] @ mixed) / math.sin(angle))
        logits[i] = 7.0 * float(x[i] @ y[i])
        losses.append(log_sum_exp(logits) - logits[i])
    return 0.5 * sum(losses) / len(x)


@pytest.mark.parametrize(
    ("name", "expected"),
    [*cyclip().items(), ("nt_xent", nt_xent()), ("centroid_uniformity", centroid_uniformity()),
     ("in_modal_separation", in_modal_separation()), ("m2_mix", m2_mix())],
)  # fmt: skip
def test_terms_are_those_of_their_sources(name: str, expected: float) -> None:
    torch.manual_seed(5)
    assert float(ContrastiveLoss(name)(x, y, SCALE)) == pytest.approx(expected, rel=1e-12)


def test_presets_are_those_of_their_papers() -> None:
    sums = {
        "cyclip": {"clip": 1, "in_modal_cyclic": 0.25, "cross_modal_cyclic": 0.25},
        "modgap": {"clip": 1, "alignment": 1, "centroid_uniformity": 1},
        "m2mix": {"clip": 1, "m2_mix": 0.02},  # 0.01 of both directions
        "siglip": {"siglip": 1},
        "nt_xent": {"nt_xent": 1},
    }
    assert {name: parse_loss(PRESETS[name].weights).weights for name in sums} == sums


@pytest.mark.parametrize("name", [t.name for t in TERMS.values() if t.products is not None])
def test_a_term_costs_the_products_it_declares(name: str) -> None:
    rows = torch.nn.functional.normalize(torch.randn(32, 16), dim=1)
    with FlopCounterMode(display=False) as counter:
        ContrastiveLoss(name)(rows, rows.flip(0), torch.tensor(7.0))
    assert counter.get_total_flops() == TERMS[name].products * 2 * 32 * 32 * 16


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
    ["siglip", "nt_xent", "in_modal_cyclic", "cross_modal_cyclic", "centroid_uniformity",
     "in_modal_separation", "m2_mix"],
)  # fmt: skip
def test_gradients(name: str) -> None:
    few = [rows[:5].clone().requires_grad_() for rows in (x, y)]
    scale = SCALE.clone().requires_grad_()
    loss = ContrastiveLoss(name)

    def seeded(*inputs: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(5)
        return loss(*inputs)

    assert torch.autograd.gradcheck(seeded, (*few, scale))


@pytest.mark.parametrize("angle", [1e-3, 0.01, 0.0199, 0.0201, 1.0, 3.0])
def test_the_mixing_weight_is_smooth_in_the_cosine(angle: float) -> None:
    """sin(λθ)/sin θ, of which the first part is a series: it ends at θ = 0.02."""
    part = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    cosine = torch.tensor(math.cos(angle), dtype=torch.float64, requires_grad=True)
    value = _weight(cosine, part)
    by_cosine, by_part = torch.autograd.grad(value, (cosine, part))
    sine, inner = math.sin(angle), 0.3 * angle
    assert value.item() == pytest.approx(math.sin(inner) / sine, rel=1e-11)
    assert by_part.item() == pytest.approx(angle * math.cos(inner) / sine, rel=1e-11)
    slope = 0.3 * math.cos(inner) / sine - math.sin(inner) * math.cos(angle) / sine**2
    assert by_cosine.item() == pytest.approx(-slope / sine, rel=1e-5)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_mixing_rows_that_coincide_or_are_opposite_has_finite_gradients(sign: float) -> None:
    for dtype in (torch.float32, torch.float64):
        rows = [x.to(dtype).clone().requires_grad_(), (sign * x).to(dtype).requires_grad_()]
        torch.manual_seed(5)
        value = ContrastiveLoss("m2_mix")(*rows, torch.tensor(100.0, dtype=dtype))
        value.backward()
        assert value.isfinite() and all(t.grad.isfinite().all() for t in rows)
        if sign > 0:  # what lies between x and x is x
            expected = ContrastiveLoss("clip")(x, x, torch.tensor(100.0)).item()
            assert value.item() == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_mixing_draws_one_number_a_call_and_under_autocast_the_same() -> None:
    torch.manual_seed(5)
    half = [rows.bfloat16() for rows in (x, y)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = ContrastiveLoss("m2_mix", normalize=True)(*half, SCALE.float())
    drawn = torch.rand(())
    torch.manual_seed(5)
    exact = ContrastiveLoss("m2_mix", normalize=True)(*(t.double() for t in half), SCALE)
    assert drawn == torch.rand(()) and float(found) == pytest.approx(float(exact), abs=1e-5)
    assert float(ContrastiveLoss("m2_mix")(x, y, SCALE)) != float(exact)


def test_cyclic_terms_vanish_without_a_difference() -> None:
    for name in ("in_modal_cyclic", "cross_modal_cyclic"):
        assert float(ContrastiveLoss(name)(x, x, SCALE)) == pytest.approx(0.0, abs=1e-14)
