"""Contrastive losses: terms built on the formulas of :mod:`geomkit.functional`.

All terms use t = 2, squared distances, the mean before the log, and weight 1 unless asked.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from geomkit import functional
from geomkit.loss_spec import LossSpec, parse_loss

__all__ = ["TERMS", "ContrastiveLoss"]

Term = Callable[[Tensor, Tensor, Tensor, Tensor | float], Tensor]


def _clip(x: Tensor, y: Tensor, scale: Tensor, bias: Tensor | float) -> Tensor:
    return functional.contrastive(x, y, scale, bias)


def _uniformity(x: Tensor, y: Tensor, scale: Tensor, bias: Tensor | float) -> Tensor:
    return 0.5 * (functional.uniformity(x) + functional.uniformity(y))


def _cross_uniformity(x: Tensor, y: Tensor, scale: Tensor, bias: Tensor | float) -> Tensor:
    return functional.cross_uniformity(x, y)


def _alignment(x: Tensor, y: Tensor, scale: Tensor, bias: Tensor | float) -> Tensor:
    return functional.alignment(x, y)


TERMS: dict[str, Term] = {
    "clip": _clip,
    "uniformity": _uniformity,
    "cross_uniformity": _cross_uniformity,
    "alignment": _alignment,
}
"""Every term of :data:`geomkit.loss_spec.TERM_NAMES`: from images, texts, logit scale and bias to a
scalar."""


class ContrastiveLoss(nn.Module):
    r"""A weighted sum of terms over a batch of paired features; drops into open_clip's loop.

    .. math:: \sum_k w_k \, L_k(x, y), \quad
        L_k \in \{\mathrm{clip}, \mathrm{uniformity}, \mathrm{cross\_uniformity},
        \mathrm{alignment}\}

    (Fahim, Murphy and Fyshe, arXiv 2405.18570.) Computed in float32 at least, outside autocast,
    whatever the precision of the encoder.

    Args:
        loss: a preset's name, a weighted sum, or a parsed :class:`LossSpec`.

    Raises:
        GeomkitError: if the loss does not parse.

    >>> loss = ContrastiveLoss("cua")
    >>> x = torch.eye(4)
    >>> terms = loss(x, x, torch.tensor(100.0), output_dict=True)
    >>> {name: round(float(value), 4) for name, value in terms.items()}
    {'clip_loss': 0.0, 'uniformity_loss': -4.0, 'alignment_loss': 0.0}
    """

    def __init__(self, loss: str | LossSpec = "clip") -> None:
        super().__init__()
        self.spec = parse_loss(loss) if isinstance(loss, str) else loss

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
                loss is ``clip`` or ``alignment`` alone.
            logit_scale: s = 1/τ, a scalar.
            logit_bias: added to the logits, as open_clip's models may have one.
            output_dict: return the weighted terms by name (keys end in ``_loss``; they add up to
                the loss) rather than their sum.
        """
        with torch.autocast(image_features.device.type, enabled=False):
            x = _at_least_float32(image_features)
            y = _at_least_float32(text_features)
            bias: Tensor | float = 0.0 if logit_bias is None else logit_bias
            terms = {
                f"{term}_loss": weight * TERMS[term](x, y, logit_scale, bias)
                for term, weight in self.spec.weights.items()
            }
        return terms if output_dict else torch.stack(list(terms.values())).sum()

    def extra_repr(self) -> str:
        """The sum, for ``print(model)``."""
        return str(self.spec)


def _at_least_float32(features: Tensor) -> Tensor:
    return features if features.dtype == torch.float64 else features.float()
