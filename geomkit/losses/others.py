"""Terms of other papers that act on the gap or on what makes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from geomkit.losses.declarations import Features, Preset, Term

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "CENTROID_UNIFORMITY", "CROSS_MODAL_CYCLIC", "CYCLIP", "IN_MODAL_CYCLIC",
    "IN_MODAL_SEPARATION", "MODGAP", "NT_XENT", "NT_XENT_ALONE", "SIGLIP", "SIGLIP_ALONE",
]  # fmt: skip

_CHEN = "Chen et al., arXiv 2002.05709"
_CYCLIP = "Goel et al., arXiv 2205.14459"
_MODGAP = "Grassucci et al., arXiv 2601.18525"
_ZHAI = "Zhai et al., arXiv 2303.15343"


def _siglip(f: Features) -> Tensor:
    r"""Binary cross-entropy of each image with each caption.

    .. math:: -\frac1n \sum_{ij} \log σ(z_{ij}(s\, x_i·y_j + b)),
              \quad z_{ij} = 1 \text{ for pairs, else } -1
    """
    import torch
    from torch.nn.functional import logsigmoid

    logits = f.scale * (f.x @ f.all_y.T) + f.bias
    signed = torch.diagonal_scatter(-logits, logits.diagonal(f.offset), f.offset)
    return -logsigmoid(signed).sum() / len(f.x)


def _nt_xent(f: Features) -> Tensor:
    r"""Cross-entropy of the partner of each row among all other rows of both modalities.

    .. math:: -\frac{1}{2n} \sum_{i} \log \frac{e^{s\,z_i·z_{p(i)}}}
              {\sum_{j \ne i} e^{s\,z_i·z_j}},
              \quad z \text{ the } 2n \text{ rows, } p(i) \text{ the partner}
    """
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
    r"""Squared difference of the cosines of two images and of their captions.

    .. math:: \frac1n \sum_{ij} (x_i·x_j - y_i·y_j)^2
    """
    return (f.x @ f.all_x.T - f.y @ f.all_y.T).square().sum() / len(f.x)


def _cross_modal_cyclic(f: Features) -> Tensor:
    r"""Squared difference of the cosines of image i with caption j, and of image j with caption i.

    .. math:: \frac1n \sum_{ij} (x_i·y_j - x_j·y_i)^2
    """
    cosines = f.x @ f.all_y.T
    others = cosines.T if f.alone else f.y @ f.all_x.T
    return (cosines - others).square().sum() / len(f.x)


def _in_modal_separation(f: Features) -> Tensor:
    r"""Cross-entropy of each row with itself among all rows of its modality.

    .. math:: \frac12 (CE(s\,xx^⊤) + CE(s\,yy^⊤))

    AlignCLIP's own loss also multiplies the cosine of two images by the distance of their captions
    in a sentence encoder, which a loss of the model's features does not have. This is the option of
    the authors' code without that encoder.
    """
    import torch
    from torch.nn.functional import cross_entropy

    itself = torch.arange(f.offset, f.offset + len(f.x), device=f.x.device)
    images = cross_entropy(f.scale * (f.x @ f.all_x.T), itself)
    return 0.5 * (images + cross_entropy(f.scale * (f.y @ f.all_y.T), itself))


def _centroid_uniformity(f: Features) -> Tensor:
    r"""Uniformity of the normalised centroids of the pairs.

    .. math:: \log \frac{1}{n(n-1)} \sum_{i \ne j} e^{-2\lVert c_i - c_j \rVert^2},
              \quad c_i = \frac{x_i + y_i}{\lVert x_i + y_i \rVert}
    """
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
    _ZHAI,
    products=1,
    logit_bias=-10.0,
    uses_temperature=True,
    use="For models of the SigLIP kind. Each image is compared with each caption by itself, without"
    " a softmax over the batch, and the model needs a logit bias.",
)
NT_XENT = Term(
    "nt_xent",
    _nt_xent,
    "cross-entropy of each row's partner among all other rows of both modalities",
    _CHEN,
    products=4,
    uses_temperature=True,
    use="Where one index holds both modalities: rows of the own modality are negatives too, so a "
    "gap costs.",
)
IN_MODAL_CYCLIC = Term(
    "in_modal_cyclic",
    _in_modal_cyclic,
    "squared difference of the cosines of two images and of their captions, summed over others",
    _CYCLIP,
    products=2,
    use="Beside clip, to make the images resemble each other as their captions do. It grows with "
    "the batch size, so weights hold for one batch size.",
)
CROSS_MODAL_CYCLIC = Term(
    "cross_modal_cyclic",
    _cross_modal_cyclic,
    "squared difference of the cosines of image i with caption j and j with i, summed over others",
    _CYCLIP,
    products=1,
    use="Beside clip, to make image i as similar to caption j as image j is to caption i. It grows "
    "with the batch size, so weights hold for one batch size.",
)
IN_MODAL_SEPARATION = Term(
    "in_modal_separation",
    _in_modal_separation,
    "cross-entropy of each row with itself among all rows of its modality",
    "Eslami and de Melo, arXiv 2406.17639, without the sentence encoder",
    products=2,
    uses_temperature=True,
    use="Beside clip, to spread each modality at the scale of the temperature. It does not see the "
    "pairs.",
)
CENTROID_UNIFORMITY = Term(
    "centroid_uniformity",
    _centroid_uniformity,
    "log mean Gaussian potential of the pairs' normalised centroids",
    _MODGAP,
    products=1,
    use="Beside alignment, to spread the pairs as wholes: the preset modgap.",
)

SIGLIP_ALONE = Preset(
    "siglip", "siglip", _ZHAI, "#00798c", "h",
    use="To train or fine-tune a model of the SigLIP kind.",
)  # fmt: skip
NT_XENT_ALONE = Preset(
    "nt_xent", "nt_xent", _CHEN, "#7a8c00", "X",
    use="To compare with SimCLR's loss on two modalities.",
)  # fmt: skip
CYCLIP = Preset(
    "cyclip", "clip + 0.25*in_modal_cyclic + 0.25*cross_modal_cyclic", _CYCLIP, "#6b4423", "p",
    use="To compare with CyCLIP: similarities that agree within and across modalities.",
)  # fmt: skip
MODGAP = Preset(
    "modgap", "clip + alignment + centroid_uniformity", _MODGAP, "#c9a800", ">",
    use="To close the gap with one uniformity, that of the pairs, instead of one per modality.",
)  # fmt: skip
