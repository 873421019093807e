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
    r"""Symmetric cross-entropy of each pair among all pairs.

    .. math:: \frac12 (CE(s\,xy^⊤) + CE(s\,yx^⊤))
    """
    from geomkit.functional import contrastive, contrastive_rows

    if f.alone:
        return contrastive(f.x, f.y, f.scale, f.bias)
    return contrastive_rows(f.x, f.y, f.all_x, f.all_y, f.scale, f.bias, offset=f.offset)


def _uniformity(f: Features) -> Tensor:
    r"""Mean over both modalities of the log of the mean Gaussian potential.

    .. math:: \frac12 (U(x) + U(y)), \quad
              U(x) = \log \frac{1}{n(n-1)} \sum_{i \ne j} e^{-2\lVert x_i - x_j \rVert^2}
    """
    from geomkit.functional import log_mean_potential, potential_sum, uniformity

    if f.alone:
        return 0.5 * (uniformity(f.x) + uniformity(f.y))
    import torch

    sums = [potential_sum(a, b, offset=f.offset) for a, b in ((f.x, f.all_x), (f.y, f.all_y))]
    return 0.5 * log_mean_potential(f.total(torch.stack(sums)), len(f.all_x)).sum()


def _cross_uniformity(f: Features) -> Tensor:
    r"""Log of the mean Gaussian potential of images and captions of different pairs.

    .. math:: \log \frac{1}{n(n-1)} \sum_{i \ne j} e^{-2\lVert x_i - y_j \rVert^2}
    """
    from geomkit.functional import cross_uniformity, log_mean_potential, potential_sum

    if f.alone:
        return cross_uniformity(f.x, f.y)
    total = f.total(potential_sum(f.x, f.all_y, offset=f.offset))
    return log_mean_potential(total, len(f.all_x))


def _alignment(f: Features) -> Tensor:
    r"""Mean squared distance of the pairs.

    .. math:: \frac1n \sum_i \lVert x_i - y_i \rVert^2
    """
    from geomkit.functional import alignment

    return alignment(f.x, f.y)


CLIP = Term(
    "clip",
    _clip,
    "cross-entropy of each pair among all pairs of the batch, in both directions",
    "Radford et al., arXiv 2103.00020",
    products=1,
    uses_temperature=True,
    use="The baseline, and the term that tells pairs apart: keep it in nearly every sum. At a low "
    "temperature it leaves a gap.",
)
UNIFORMITY = Term(
    "uniformity",
    _uniformity,
    "log mean Gaussian potential within each modality, averaged over the two",
    _WANG,
    products=2,
    use="To spread each modality over the sphere; with alignment it closes the gap. It does not "
    "see the pairs.",
)
CROSS_UNIFORMITY = Term(
    "cross_uniformity",
    _cross_uniformity,
    "log mean Gaussian potential of images and captions of different pairs",
    _PAPER,
    products=1,
    use="To push images away from the captions of other pairs. With weight w beside alignment it "
    "drives narrow clouds, as random initial weights give, apart for w > ½: from scratch in few "
    "dimensions use less.",
)
ALIGNMENT = Term(
    "alignment",
    _alignment,
    "mean squared distance of the pairs",
    _WANG,
    products=0,
    use="To pull the pairs together. Alone it is lowest for one point: add a term that spreads.",
)
