"""Hard negatives between the two modalities: geodesic multi-modal mixup."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from geomkit.losses.declarations import Features, Preset, Term

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["M2MIX", "M2_MIX"]

_SOURCE = "Oh et al., arXiv 2203.03897"
_NEAR, _FAR = 1e-4, -1 + 1e-3
"""sin²(θ/2) up to which a series stands for a ratio of sines, and the cosine at which θ ends."""


def _m2_mix(f: Features) -> Tensor:
    r"""Symmetric cross-entropy whose negatives lie between an image and its caption.

    .. math:: m_j = \frac{\sin(λ θ_j)}{\sin θ_j} x_j + \frac{\sin((1-λ) θ_j)}{\sin θ_j} y_j,
              \quad \cos θ_j = x_j·y_j, \quad λ \sim \mathrm{Beta}(\frac12, \frac12)

    Each image and each caption is told from all :math:`m_j` of other pairs. One λ is drawn a call
    from torch's generator of the CPU, as :math:`\sin^2(πu/2)` with u uniform, which has this law.
    Of several processes all take that of the first one. Training stores the state of that
    generator, so a resumed run draws what an uninterrupted one would have. The gradient passes
    through :math:`m_j`, as in the authors' code, and is finite for :math:`x_j = y_j`. Rows more
    than 177° apart, between which the geodesic is not defined in the end, are mixed as at 177°.
    """
    import torch
    from torch.nn.functional import cross_entropy

    uniform = torch.rand((), dtype=torch.float64, device="cpu").to(f.x)
    uniform = f.total(uniform if f.offset == 0 else 0.0 * uniform)
    share = torch.sin(0.5 * math.pi * uniform).square()
    cosine = (f.all_x * f.all_y).sum(dim=1, keepdim=True)
    mixed = _weight(cosine, share) * f.all_x + _weight(cosine, 1.0 - share) * f.all_y
    own = (f.x * f.y).sum(dim=1)
    pairs = torch.arange(f.offset, f.offset + len(f.x), device=own.device)

    def against_mixed(rows: Tensor) -> Tensor:
        cosines = torch.diagonal_scatter(rows @ mixed.T, own, f.offset)
        return cross_entropy(f.scale * cosines, pairs)

    return 0.5 * (against_mixed(f.x) + against_mixed(f.y))


def _weight(cosine: Tensor, share: Tensor) -> Tensor:
    r""":math:`\sin(λθ)/\sin θ`, a smooth function of :math:`\cos θ` down to θ = 0."""
    import torch

    half = 0.5 * (1.0 - cosine)  # sin²(θ/2)
    near = half < _NEAR
    left = 1.0 - share.square()
    series = share * (1.0 + left * half * (2 / 3 + 2 / 15 * (3.0 + left) * half))
    angle = torch.acos(torch.where(near, 0.0, cosine).clamp(min=_FAR))
    return torch.where(near, series, torch.sin(share * angle) / torch.sin(angle))


M2_MIX = Term(
    "m2_mix",
    _m2_mix,
    "cross-entropy of each pair against points between other images and their captions",
    _SOURCE,
    products=2,
    uses_temperature=True,
    use="Beside clip with a small weight, to fine-tune against negatives from between the two "
    "modalities.",
)
M2MIX = Preset(
    "m2mix", "clip + 0.02*m2_mix", _SOURCE, "#2f5d3a", "<",
    use="To fine-tune with hard negatives from between the two modalities.",
)  # fmt: skip
"""The authors' code adds 0.01 of the sum of both directions, where the term is their mean."""
