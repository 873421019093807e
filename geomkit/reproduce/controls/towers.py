"""Two encoders of any kinds as one module, and their inputs."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geomkit.errors import GeomkitError, unknown_name
from geomkit.models.preprocess import Preprocess
from geomkit.models.tokenizers import Tokenizer
from geomkit.models.two_encoder import TwoEncoder, build
from geomkit.reproduce.controls.views import Inputs

__all__ = ["ENCODERS", "Towers", "build_towers", "inputs_of"]

ENCODERS = ("separate", "copied", "shared")
"""Separate weights; equal weights at the start; one encoder for both sides."""
_BATCH = 256


class Pictures(nn.Module):
    """Image encoder of a model: uint8 images ``(n, h, w, 3)`` to unit rows ``(n, d)``."""

    def __init__(self, model: TwoEncoder, preprocess: Preprocess) -> None:
        super().__init__()
        self.visual: Any = model.clip.visual
        self.preprocess = preprocess

    def forward(self, images: Tensor) -> Tensor:
        """Unit rows of images."""
        pixels = self.preprocess.to_pixels(images, device=next(self.parameters()).device)
        return F.normalize(self.visual(pixels).float(), dim=-1)


class Texts(nn.Module):
    """Text encoder of a model: token ids ``(n, length)`` to unit rows ``(n, d)``."""

    def __init__(self, model: TwoEncoder) -> None:
        super().__init__()
        model.clip.visual = nn.Identity()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        """Unit rows of token ids."""
        return self.model.encode_text(self.model.tokens(tokens))


class Towers(nn.Module):
    """Two encoders as a training step uses them: inputs in, unit rows and scale out.

    Attributes:
        first: First encoder, :class:`Pictures` or :class:`Texts`.
        second: Second encoder, likewise.
        turn: Fixed orthogonal map of the second encoder's rows, ``(d, d)``.
        scale: 1/τ, fixed.
    """

    turn: Tensor
    scale: Tensor

    def __init__(self, first: nn.Module, second: nn.Module, dim: int, scale: Tensor) -> None:
        """Join two encoders of dimension ``dim`` with the identity as map."""
        super().__init__()
        self.first: Any = first
        self.second: Any = second
        self.register_buffer("turn", torch.eye(dim))
        self.register_buffer("scale", scale)

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Unit rows ``(n, d)`` of both sides, and 1/τ."""
        x, y = self.first(a), self.second(b)
        with torch.autocast(y.device.type, enabled=False):  # unit rows stay unit rows in bf16 too
            y = y @ self.turn.T
        return x, y, self.scale

    def rows(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """Unit rows of all inputs, float32 on the CPU, without gradients."""
        was_training = self.training
        self.eval()
        with torch.no_grad():
            parts = [self(a[i : i + _BATCH], b[i : i + _BATCH]) for i in range(0, len(a), _BATCH)]
        self.train(was_training)
        x, y = (torch.cat([part[side].float().cpu() for part in parts]) for side in (0, 1))
        return x, y


def build_towers(
    first: str,
    second: str,
    architecture: dict[str, Any],
    *,
    encoders: str,
    temperature: float,
    tokens: Sequence[int] | None = None,
) -> Towers:
    """Fresh encoders, initialised from torch's global random state.

    Args:
        first: View of the first encoder; its last word says picture or name.
        second: View of the second encoder.
        architecture: open_clip's model config.
        encoders: How the weights are related, one of :data:`ENCODERS`.
        temperature: τ.
        tokens: Token ids whose embeddings are kept; default: all.

    Raises:
        GeomkitError: For unknown encoders, or if encoders of images and of texts shall share
            weights.
    """
    if encoders not in ENCODERS:
        raise unknown_name("encoders", encoders, ENCODERS)

    preprocess = Preprocess.for_model(architecture)
    of_images = [view.endswith("picture") for view in (first, second)]

    def fresh() -> TwoEncoder:
        model = build(architecture, temperature=temperature, learn_temperature=False)
        if tokens is not None:
            model.keep_tokens(tokens)
        return model

    def tower(side: int, model: TwoEncoder) -> nn.Module:
        return Pictures(model, preprocess) if of_images[side] else Texts(model)

    model = fresh()
    scale = model.get_parameter("clip.logit_scale").detach().exp()
    one = tower(0, model)
    if of_images[0] != of_images[1]:
        if encoders != "separate":
            raise GeomkitError("control: encoders of images and of texts cannot share weights")
        # The two halves of one model, as an ordinary training draws them.
        other = tower(1, model)
    elif encoders == "shared":
        other = one
    else:
        other = copy.deepcopy(one) if encoders == "copied" else tower(1, fresh())
    return Towers(one, other, architecture["embed_dim"], scale)


def inputs_of(values: Inputs, tokenizer: Tokenizer) -> Tensor:
    """Images as uint8 tensors, captions as token ids."""
    if isinstance(values, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(values))
    return tokenizer.encode(values)
