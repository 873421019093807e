"""Terms of other papers that act on the gap or on what makes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from geomkit.losses.declarations import Features, Term

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["CENTROID_UNIFORMITY", "CROSS_MODAL_CYCLIC", "IN_MODAL_CYCLIC", "NT_XENT", "SIGLIP"]

_CYCLIP = "Goel et al., arXiv 2205.14459"


def _siglip(f: Features) -> Tensor:
    r""":math:`-\frac1n \sum_{ij} \log σ(±(s\, x_i·y_j + b))`, + for the pairs."""
    import torch
    from torch.nn.functional import logsigmoid

    logits = f.scale * (f.x @ f.all_y.T) + f.bias
    signed = torch.diagonal_scatter(-logits, logits.diagonal(f.offset), f.offset)
    return -logsigmoid(signed).sum() / len(f.x)


def _nt_xent(f: Features) -> Tensor:
    r"""Cross-entropy of each of the 2n rows z: its partner among all others, :math:`s\, z·z'`."""
    import torch
    from torch.nn.functional import cross_entropy

    b, n = len(f.x), len(f.all_x)
    logits = f.scale * (torch.cat([f.x, f.y]) @ torch.cat([f.all_x, f.all_y]).T)
    rows = torch.arange(f.offset, f.offset + b, device=logits.device)
    images, texts = rows, n + rows
    itself = torch.cat([images, texts])[:, None]
    logits = logits.scatter(1, itself, float("-inf"))
    return cross_entropy(logits, torch.cat([texts, images]))


def _in_modal_cyclic(f: Features) -> Tensor:
    r""":math:`\frac1n \sum_{ij} (x_i·x_j - y_i·y_j)^2`."""
    return (f.x @ f.all_x.T - f.y @ f.all_y.T).square().sum() / len(f.x)


def _cross_modal_cyclic(f: Features) -> Tensor:
    r""":math:`\frac1n \sum_{ij} (x_i·y_j - x_j·y_i)^2`."""
    return (f.x @ f.all_y.T - f.y @ f.all_x.T).square().sum() / len(f.x)


def _centroid_uniformity(f: Features) -> Tensor:
    r"""Uniformity of the normalised centroids :math:`(x_i + y_i)/\lVert x_i + y_i \rVert`."""
    from torch.nn.functional import normalize

    from geomkit.functional import log_mean_potential, potential_sum, uniformity

    own = normalize(f.x + f.y, dim=-1)
    if f.alone:
        return uniformity(own)
    everyone = normalize(f.all_x + f.all_y, dim=-1)
    return log_mean_potential(f.total(potential_sum(own, everyone, offset=f.offset)), len(f.all_x))


SIGLIP = Term(
    "siglip",
    _siglip,
    "binary cross-entropy of each image with each caption: of one pair, or of two",
    "Zhai et al., arXiv 2303.15343",
    logit_bias=-10.0,
    uses_temperature=True,
)
NT_XENT = Term(
    "nt_xent",
    _nt_xent,
    "cross-entropy of each row's partner among all other rows of both modalities",
    "Chen et al., arXiv 2002.05709",
    uses_temperature=True,
)
IN_MODAL_CYCLIC = Term(
    "in_modal_cyclic",
    _in_modal_cyclic,
    "squared difference of the cosines of two images and of their captions, summed over others",
    _CYCLIP,
)
CROSS_MODAL_CYCLIC = Term(
    "cross_modal_cyclic",
    _cross_modal_cyclic,
    "squared difference of the cosines of image i with caption j and j with i, summed over others",
    _CYCLIP,
)
CENTROID_UNIFORMITY = Term(
    "centroid_uniformity",
    _centroid_uniformity,
    "log mean Gaussian potential of the pairs' normalised centroids",
    "Grassucci et al., arXiv 2601.18525",
)
