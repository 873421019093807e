"""The terms of the paper's losses: t = 2, squared distances, the mean before the log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from geomkit.losses.declarations import Features, Term

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ALIGNMENT", "CLIP", "CROSS_UNIFORMITY", "UNIFORMITY"]

_PAPER = "Fahim, Murphy and Fyshe, arXiv 2405.18570"
_WANG = "Wang and Isola, arXiv 2005.10242"


def _clip(f: Features) -> Tensor:
    from geomkit.functional import contrastive, contrastive_rows

    if f.alone:
        return contrastive(f.x, f.y, f.scale, f.bias)
    return contrastive_rows(f.x, f.y, f.all_x, f.all_y, f.scale, f.bias, offset=f.offset)


def _uniformity(f: Features) -> Tensor:
    from geomkit.functional import log_mean_potential, potential_sum, uniformity

    if f.alone:
        return 0.5 * (uniformity(f.x) + uniformity(f.y))
    import torch

    sums = [potential_sum(a, b, offset=f.offset) for a, b in ((f.x, f.all_x), (f.y, f.all_y))]
    return 0.5 * log_mean_potential(f.total(torch.stack(sums)), len(f.all_x)).sum()


def _cross_uniformity(f: Features) -> Tensor:
    from geomkit.functional import cross_uniformity, log_mean_potential, potential_sum

    if f.alone:
        return cross_uniformity(f.x, f.y)
    total = f.total(potential_sum(f.x, f.all_y, offset=f.offset))
    return log_mean_potential(total, len(f.all_x))


def _alignment(f: Features) -> Tensor:
    from geomkit.functional import alignment

    return alignment(f.x, f.y)


CLIP = Term(
    "clip",
    _clip,
    "cross-entropy of each pair among all pairs of the batch, in both directions",
    "Radford et al., arXiv 2103.00020",
    products=1,
    uses_temperature=True,
)
UNIFORMITY = Term(
    "uniformity",
    _uniformity,
    "log mean Gaussian potential within each modality, averaged over the two",
    _WANG,
    products=2,
)
CROSS_UNIFORMITY = Term(
    "cross_uniformity",
    _cross_uniformity,
    "log mean Gaussian potential of images and captions of different pairs",
    _PAPER,
    products=1,
)
ALIGNMENT = Term("alignment", _alignment, "mean squared distance of the pairs", _WANG, products=0)
