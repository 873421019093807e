"""Contrastive losses: terms built on the formulas of :mod:`geomkit.functional`.

All terms use t = 2, squared distances, the mean before the log, and weight 1 unless asked. Over
several ranks every term is that of the global batch, and each rank computes its own rows of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from geomkit import functional
from geomkit._core.collectives import gather_rows, sum_over_ranks
from geomkit.losses.spec import LossSpec, parse_loss

__all__ = ["TERMS", "ContrastiveLoss", "Features"]


@dataclass(frozen=True)
class Features:
    """What a term is computed from: the pairs at hand, and all pairs of the batch.

    Attributes:
        x, y: unit rows of this process, ``(b, d)``.
        all_x, all_y: unit rows of every process, ``(n, d)``; the same objects if there is one.
        offset: the first of these rows is row ``offset`` of all.
        scale: s = 1/τ.
        bias: added to the logits.
    """

    x: Tensor
    y: Tensor
    all_x: Tensor
    all_y: Tensor
    offset: int
    scale: Tensor
    bias: Tensor | float

    @property
    def alone(self) -> bool:
        """Whether these rows are all there are."""
        return self.all_x is self.x


def _clip(f: Features) -> Tensor:
    if f.alone:
        return functional.contrastive(f.x, f.y, f.scale, f.bias)
    return functional.contrastive_rows(f.x, f.y, f.all_x, f.all_y, f.scale, f.bias, offset=f.offset)


def _uniformity(f: Features) -> Tensor:
    if f.alone:
        return 0.5 * (functional.uniformity(f.x) + functional.uniformity(f.y))
    sums = [
        functional.potential_sum(f.x, f.all_x, offset=f.offset),
        functional.potential_sum(f.y, f.all_y, offset=f.offset),
    ]
    both = functional.log_mean_potential(sum_over_ranks(torch.stack(sums)), len(f.all_x))
    return 0.5 * both.sum()


def _cross_uniformity(f: Features) -> Tensor:
    if f.alone:
        return functional.cross_uniformity(f.x, f.y)
    total = sum_over_ranks(functional.potential_sum(f.x, f.all_y, offset=f.offset))
    return functional.log_mean_potential(total, len(f.all_x))


def _alignment(f: Features) -> Tensor:
    return functional.alignment(f.x, f.y)


TERMS: dict[str, Callable[[Features], Tensor]] = {
    "clip": _clip,
    "uniformity": _uniformity,
    "cross_uniformity": _cross_uniformity,
    "alignment": _alignment,
}
"""Every term of :data:`geomkit.losses.spec.TERM_NAMES`: from :class:`Features` to a scalar."""


class ContrastiveLoss(nn.Module):
    r"""A weighted sum of terms over a batch of paired features; drops into open_clip's loop.

    .. math:: \sum_k w_k \, L_k(x, y), \quad
        L_k \in \{\mathrm{clip}, \mathrm{uniformity}, \mathrm{cross\_uniformity},
        \mathrm{alignment}\}

    (Fahim, Murphy and Fyshe, arXiv 2405.18570.) Computed in float32 at least, outside autocast,
    whatever the precision of the encoder.

    Args:
        loss: a preset's name, a weighted sum, or a parsed :class:`LossSpec`.
        global_batch: take the features of all ranks of torch.distributed as one batch. Each rank
            then returns its share: the mean over ranks is the loss of the global batch, and with
            DistributedDataParallel, which averages, so are the gradients. The contrastive term and
            the alignment differ by rank; the uniformities are those of all on each.

    Raises:
        GeomkitError: if the loss does not parse.

    >>> loss = ContrastiveLoss("cua")
    >>> x = torch.eye(4)
    >>> terms = loss(x, x, torch.tensor(100.0), output_dict=True)
    >>> {name: round(float(value), 4) for name, value in terms.items()}
    {'clip_loss': 0.0, 'uniformity_loss': -4.0, 'alignment_loss': 0.0}
    """

    def __init__(self, loss: str | LossSpec = "clip", *, global_batch: bool = False) -> None:
        super().__init__()
        self.spec = parse_loss(loss) if isinstance(loss, str) else loss
        self.global_batch = global_batch

    def forward(
        self,
        image_features: Tensor,
        text_features: Tensor,
        logit_scale: Tensor,
        logit_bias: Tensor | None = None,
        output_dict: bool = False,
    ) -> Tensor | dict[str, Tensor]:
        """The loss of one batch.

        Args:
            image_features, text_features: **normalised** rows, shape ``(n, d)``, n ≥ 2 unless the
                loss is ``clip`` or ``alignment`` alone; as many on each rank.
            logit_scale: s = 1/τ, a scalar.
            logit_bias: added to the logits, as open_clip's models may have one.
            output_dict: return the weighted terms by name (keys end in ``_loss``; they add up to
                the loss) rather than their sum.
        """
        with torch.autocast(image_features.device.type, enabled=False):
            x = _at_least_float32(image_features)
            y = _at_least_float32(text_features)
            all_x, all_y, offset = x, y, 0
            if self.global_batch and dist.is_initialized() and dist.get_world_size() > 1:
                # Both in one message: the wait for it costs more than its bytes.
                both = gather_rows(torch.cat([x, y], dim=1))
                all_x, all_y = both.split([x.shape[1], y.shape[1]], dim=1)
                offset = dist.get_rank() * len(x)
            bias: Tensor | float = 0.0 if logit_bias is None else logit_bias
            features = Features(x, y, all_x, all_y, offset, logit_scale, bias)
            terms = {
                f"{term}_loss": weight * TERMS[term](features)
                for term, weight in self.spec.weights.items()
            }
        return terms if output_dict else torch.stack(list(terms.values())).sum()

    def extra_repr(self) -> str:
        """The sum, for ``print(model)``."""
        return str(self.spec)


def _at_least_float32(features: Tensor) -> Tensor:
    return features if features.dtype == torch.float64 else features.float()
