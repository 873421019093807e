"""ContrastiveLoss: a weighted sum of terms over a batch, on one process or several."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

from geomkit._core.collectives import check_equal_counts, gather_rows
from geomkit.errors import GeomkitError
from geomkit.losses.declarations import Features
from geomkit.losses.spec import TERMS, LossSpec, parse_loss

__all__ = ["ContrastiveLoss"]

_UNIT = 0.01
"""Largest deviation of a norm from 1: more than bfloat16 rounds."""


class ContrastiveLoss(nn.Module):
    r"""A weighted sum of terms over a batch of paired features; drops into open_clip's loop.

    .. math:: \sum_k w_k \, L_k(x, y), \quad L_k \text{ the terms}

    (Fahim, Murphy and Fyshe, arXiv 2405.18570.) Computed outside autocast, in float32 or, for
    float64 features, float64. ``m2_mix`` draws a number a call from torch's generator of the CPU;
    of several processes all take that of the first one.

    Args:
        loss: Name of a preset, a weighted sum, or a parsed :class:`LossSpec`.
        global_batch: Whether the features of all ranks of torch.distributed form one batch. Each
            rank then returns its share: the mean over ranks is the loss of the global batch, and
            with DistributedDataParallel, which averages, so are the gradients. The contrastive
            term and the alignment differ by rank; the uniformities are the same on each.
        normalize: Whether to divide the features by their norms first. Without it the first call
            refuses features that are not of unit length.

    Raises:
        GeomkitError: If the loss does not parse.

    >>> loss = ContrastiveLoss("cua")
    >>> x = torch.eye(4)
    >>> terms = loss(x, x, torch.tensor(100.0), output_dict=True)
    >>> {name: round(float(value), 4) for name, value in terms.items()}
    {'clip_loss': 0.0, 'uniformity_loss': -4.0, 'alignment_loss': 0.0}
    """

    def __init__(
        self, loss: str | LossSpec = "clip", *, global_batch: bool = False, normalize: bool = False
    ) -> None:
        """Parse the loss."""
        super().__init__()
        self.spec = parse_loss(loss) if isinstance(loss, str) else loss
        self.global_batch = global_batch
        self.normalize = normalize
        self._checked = False

    def forward(
        self,
        image_features: Tensor,
        text_features: Tensor,
        logit_scale: Tensor,
        logit_bias: Tensor | None = None,
        output_dict: bool = False,
    ) -> Tensor | dict[str, Tensor]:
        """Return the loss of one batch.

        Args:
            image_features: **Normalised** rows (unless the loss has ``normalize``), shape
                ``(n, d)``, the same n on each rank; n ≥ 2 unless the loss is ``clip`` or
                ``alignment`` alone.
            text_features: **Normalised** rows of their captions, shape ``(n, d)``.
            logit_scale: Scalar s = 1/τ.
            logit_bias: Scalar added to the logits, for models that have one.
            output_dict: Whether to return the weighted terms by name rather than their sum.

        Returns:
            The scalar loss; with ``output_dict`` its weighted terms, which add up to it, under
            names that end in ``_loss``.

        Raises:
            GeomkitError: On the first call, if rows are not of unit length; with ``global_batch``,
                on each rank, if the ranks do not have the same number of rows.
        """
        with torch.autocast(image_features.device.type, enabled=False):
            x = _at_least_float32(image_features)
            y = _at_least_float32(text_features)
            if self.normalize:
                x, y = nn.functional.normalize(x, dim=-1), nn.functional.normalize(y, dim=-1)
            elif not (self._checked or torch.compiler.is_compiling()):
                _check_length("image_features", x)
                _check_length("text_features", y)
                self._checked = True  # once: it waits for the device
            all_x, all_y, offset = x, y, 0
            if self.global_batch and dist.is_initialized() and dist.get_world_size() > 1:
                if not torch.compiler.is_compiling():
                    check_equal_counts(len(x), "image_features")
                # Both in one message: the wait for it costs more than its bytes.
                both = gather_rows(torch.cat([x, y], dim=1))
                all_x, all_y = both.split([x.shape[1], y.shape[1]], dim=1)
                offset = dist.get_rank() * len(x)
            bias: Tensor | float = 0.0 if logit_bias is None else logit_bias
            features = Features(x, y, all_x, all_y, offset, logit_scale, bias)
            terms = {
                f"{name}_loss": weight * TERMS[name].compute(features)
                for name, weight in self.spec.weights.items()
            }
        return terms if output_dict else torch.stack(list(terms.values())).sum()

    def extra_repr(self) -> str:
        """Return the sum, for ``print(model)``."""
        return str(self.spec)


def _check_length(name: str, features: Tensor) -> None:
    norms = torch.linalg.vector_norm(features.detach(), dim=-1)
    if bool(((norms - 1).abs() > _UNIT).any()):
        raise GeomkitError(
            f"{name}: expected rows of unit length, got norms from {norms.min():.4g} to "
            f"{norms.max():.4g}; normalise them, or give ContrastiveLoss normalize=True"
        )


def _at_least_float32(features: Tensor) -> Tensor:
    return features if features.dtype == torch.float64 else features.float()
