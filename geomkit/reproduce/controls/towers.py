"""Two encoders of any kinds as one module, and the inputs they take."""

from __future__ import annotations

import copy
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
"""Two encoders with weights of their own; the same weights in both at the start; one for both."""
_BATCH = 256


class Pictures(nn.Module):
    """The image half of a model: standardised pixels to unit rows."""

    def __init__(self, model: TwoEncoder) -> None:
        super().__init__()
        self.visual: Any = model.clip.visual

    def ready(self, values: Tensor, preprocess: Preprocess, device: torch.device) -> Tensor:
        """Pixels of uint8 pictures ``(n, h, w, 3)``, on the device."""
        return preprocess.to_pixels(values, device=device)

    def forward(self, pixels: Tensor) -> Tensor:
        """Unit rows ``(n, d)`` of ``(n, 3, h, w)``."""
        return F.normalize(self.visual(pixels).float(), dim=-1)


class Texts(nn.Module):
    """The text half of a model: token ids to unit rows."""

    def __init__(self, model: TwoEncoder) -> None:
        super().__init__()
        model.clip.visual = nn.Identity()
        self.model = model

    def ready(self, values: Tensor, preprocess: Preprocess, device: torch.device) -> Tensor:
        """Token ids, cut after the longest text, on the device."""
        return self.model.tokens(values)

    def forward(self, tokens: Tensor) -> Tensor:
        """Unit rows ``(n, d)`` of token ids ``(n, length)``."""
        return self.model.encode_text(tokens)


class Towers(nn.Module):
    """Two encoders as a training step sees them: inputs in, unit rows and scale out.

    Attributes:
        first, second: :class:`Pictures` or :class:`Texts` each.
        turn: fixed orthogonal map that the second's rows go through, ``(d, d)``.
        scale: 1/τ, fixed.
    """

    turn: Tensor
    scale: Tensor

    def __init__(self, first: nn.Module, second: nn.Module, dim: int, scale: Tensor) -> None:
        super().__init__()
        self.first: Any = first
        self.second: Any = second
        self.register_buffer("turn", torch.eye(dim))
        self.register_buffer("scale", scale)

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Unit rows ``(n, d)`` of either side, and 1/τ."""
        x, y = self.first(a), self.second(b)
        with torch.autocast(y.device.type, enabled=False):  # unit rows stay unit rows in bf16 too
            y = y @ self.turn.T
        return x, y, self.scale

    def ready(self, a: Tensor, b: Tensor, preprocess: Preprocess) -> tuple[Tensor, Tensor]:
        """Pictures and token ids as the encoders take them, on their device."""
        device = self.turn.device
        return (
            self.first.ready(a, preprocess, device),
            self.second.ready(b, preprocess, device),
        )

    def rows(self, a: Tensor, b: Tensor, preprocess: Preprocess) -> tuple[Tensor, Tensor]:
        """Unit rows of all inputs, float32 on the CPU, without gradients."""
        was_training = self.training
        self.eval()
        with torch.no_grad():
            parts = [
                self(*self.ready(a[i : i + _BATCH], b[i : i + _BATCH], preprocess))
                for i in range(0, len(a), _BATCH)
            ]
        self.train(was_training)
        x, y = (torch.cat([part[side].float().cpu() for part in parts]) for side in (0, 1))
        return x, y


def build_towers(
    first: str, second: str, architecture: dict[str, Any], *, encoders: str, temperature: float
) -> Towers:
    """Fresh encoders, drawn from torch's global random state.

    Args:
        first, second: views; their last word says picture or name.
        architecture: open_clip's model config.
        encoders: of :data:`ENCODERS`.
        temperature: τ.

    Raises:
        GeomkitError: for unknown encoders, or a picture's and a text's that are to share weights.
    """
    if encoders not in ENCODERS:
        raise unknown_name("encoders", encoders, ENCODERS)

    def fresh() -> TwoEncoder:
        return build(architecture, temperature=temperature, learn_temperature=False)

    kinds = [Pictures if view.endswith("picture") else Texts for view in (first, second)]
    model = fresh()
    scale = model.get_parameter("clip.logit_scale").detach().exp()
    one = kinds[0](model)
    other: nn.Module
    if kinds[0] is not kinds[1]:
        if encoders != "separate":
            raise GeomkitError("control: encoders of pictures and of texts cannot share weights")
        # The two halves of one model, as an ordinary training draws them.
        other = kinds[1](model)
    elif encoders == "shared":
        other = one
    else:
        other = copy.deepcopy(one) if encoders == "copied" else kinds[1](fresh())
    return Towers(one, other, architecture["embed_dim"], scale)


def inputs_of(values: Inputs, tokenizer: Tokenizer) -> Tensor:
    """Pictures as uint8 tensors, texts as token ids."""
    if isinstance(values, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(values))
    return tokenizer.encode(values)
