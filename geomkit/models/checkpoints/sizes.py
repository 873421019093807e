"""Image size and context length as the shapes of weights have them."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from geomkit.models.architectures import ModelConfig

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["fit_sizes"]

_IMAGE = ("visual.positional_embedding", "visual.attnpool.positional_embedding",
          "visual.trunk.pos_embed")  # fmt: skip
_TEXT = ("positional_embedding", "text.positional_embedding")
_RESNET_STRIDE = 32


def fit_sizes(config: ModelConfig, weights: dict[str, Tensor]) -> list[str]:
    """Change a config's image size and context length, in place, to those of the weights.

    Args:
        config: open_clip's model config.
        weights: Weights in open_clip's names.

    Returns:
        What was changed, in words.
    """
    notes = []
    vision, text = config["vision_cfg"], config["text_cfg"]
    side = next((_side(weights[k]) for k in _IMAGE if k in weights), None)
    before, patch = vision.get("image_size", 224), _patch(vision)
    if side and patch and isinstance(before, int) and before // patch != side:
        vision["image_size"] = side * patch
        notes.append(f"image size {vision['image_size']} px, from its weights, not {before}")
    length = next((len(weights[k]) for k in _TEXT if k in weights), None)
    expected = text.get("context_length", 77)
    # CoCa's weights have one place more, for its own token.
    if length is not None and length != expected + bool(text.get("embed_cls")):
        text["context_length"] = length - bool(text.get("embed_cls"))
        notes.append(f"context length {text['context_length']}, from its weights, not {expected}")
    return notes


def _side(positions: Tensor) -> int | None:
    """Patches along a side of the image; some models have a place for a class token, too."""
    if positions.ndim > 3:
        return None
    count = positions.shape[-2]
    return next((math.isqrt(n) for n in (count, count - 1) if n == math.isqrt(n) ** 2), None)


def _patch(vision: ModelConfig) -> int | None:
    """Side of a patch in px, if the config has it."""
    if isinstance(vision.get("layers"), list | tuple):
        return _RESNET_STRIDE
    if "timm_kwargs" in vision:
        return vision["timm_kwargs"].get("patch_size")
    if "timm_model_name" in vision:
        written = re.search(r"patch(\d+)", vision["timm_model_name"])
        return int(written[1]) if written else None
    return vision.get("patch_size", 16)
