"""TwoEncoder: an open_clip model with the inputs and outputs that training and extraction use.

The model is open_clip's own class, built from open_clip's model config, so open_clip can load
whatever is trained here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geomkit._core.runtime import send
from geomkit.errors import GeomkitError, reason
from geomkit.models.architectures import ModelConfig
from geomkit.models.blocks import pooled, without_copies
from geomkit.models.hub import closed
from geomkit.models.preprocess import Preprocess

__all__ = ["MAX_LOG_SCALE", "TwoEncoder", "build"]

MAX_LOG_SCALE = math.log(100.0)
"""Largest log 1/τ: a trained temperature stays at 0.01 or above, as in CLIP."""


class TwoEncoder(nn.Module):
    """An open_clip model that takes pixels and token ids and returns unit rows.

    Unlike open_clip's own classes, it takes token ids of any width up to the context length, so
    that :meth:`trim` can cut a batch to its longest caption.

    Attributes:
        clip: The open_clip model. Its ``state_dict`` is what a checkpoint stores.
        after: Function of unit rows and their modality, ``image`` or ``text``, to the rows that the
            encoders return instead; ``None`` for none. It is not stored.

    Example:
        >>> from geomkit.models import Preprocess, Tokenizer, model_config
        >>> config = model_config("nano", dim=3)
        >>> model = build(config)
        >>> pixels = model.pixels(torch.zeros(2, 32, 32, 3, dtype=torch.uint8), Preprocess(32))
        >>> tokens = model.tokens(Tokenizer.for_model(config).encode(["a cat", "a dog"]))
        >>> [tuple(rows.shape) for rows in model(pixels, tokens)]
        [(2, 3), (2, 3), ()]
    """

    def __init__(self, clip: nn.Module) -> None:
        """Wrap an open_clip model."""
        super().__init__()
        without_copies(clip)
        self.clip = clip
        self.after: Callable[[Tensor, str], Tensor] | None = None

    def forward(self, images: Tensor, tokens: Tensor) -> tuple[Tensor, ...]:
        """Return unit image rows ``(n, d)``, unit text rows ``(n, d)`` and the logit scale 1/τ.

        The logit bias follows if the model has one, as in open_clip's own models.
        """
        scale: Tensor = self.clip.logit_scale.exp()  # type: ignore[operator]
        bias = [] if self.logit_bias is None else [self.logit_bias]
        return (self.encode_image(images), self.encode_text(tokens), scale, *bias)

    @property
    def logit_bias(self) -> nn.Parameter | None:
        """Bias added to the logits, as SigLIP has; ``None`` for a model without one."""
        return getattr(self.clip, "logit_bias", None)

    def encode_image(self, images: Tensor) -> Tensor:
        """Return unit rows ``(n, d)`` of standardised pixels ``(n, 3, h, w)``."""
        model: Any = self.clip
        if not _has_class_token(model):
            return self._unit(model.encode_image(images), "image")
        tower = model.visual
        x = tower.ln_post(pooled(tower.transformer, tower._embeds(images), 0, None))
        return self._unit(x if tower.proj is None else x @ tower.proj, "image")

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Return unit rows ``(n, d)`` of token ids ``(n, length)``, trimmed or not."""
        model: Any = self.clip
        length = tokens.shape[1]
        if not _can_trim(model) or length == model.context_length:
            return self._unit(model.encode_text(tokens), "text")
        end = tokens.argmax(dim=-1)
        cast = model.transformer.get_cast_dtype()
        x = model.token_embedding(tokens).to(cast)
        x = x + model.positional_embedding[:length].to(cast)
        mask = model.attn_mask[:length, :length]
        x = model.ln_final(pooled(model.transformer, x, end, mask))
        projection = model.text_projection
        x = projection(x) if isinstance(projection, nn.Linear) else x @ projection
        return self._unit(x, "text")

    def _unit(self, features: Tensor, modality: str) -> Tensor:
        # In half precision a norm is wrong in the third digit.
        wide = features if features.dtype == torch.float64 else features.float()
        rows = F.normalize(wide, dim=-1)
        if self.after is None:
            return rows
        with torch.autocast(rows.device.type, enabled=False):
            return self.after(rows, modality)

    def keep_tokens(self, ids: Sequence[int]) -> None:
        """Keep the embeddings of some token ids alone; they get the ids from 0 in this order."""
        clip: Any = self.clip
        rows = clip.token_embedding.weight.detach()[list(ids)]
        clip.token_embedding = nn.Embedding.from_pretrained(rows, freeze=False)
        clip.vocab_size = len(rows)

    def pixels(self, images: Tensor, preprocess: Preprocess) -> Tensor:
        """Return standardised pixels ``(n, 3, h, w)`` of uint8 images ``(n, h, w, 3)``.

        They are on the model's device and in its precision, as :meth:`encode_image` takes them.
        """
        weight = self.get_parameter("clip.logit_scale")
        return preprocess.to_pixels(images, device=weight.device).to(weight.dtype)

    def tokens(self, tokens: Tensor) -> Tensor:
        """Return token ids ``(n, context)`` trimmed and on the model's device."""
        return send(self.trim(tokens), str(self.get_parameter("clip.logit_scale").device))

    def trim(self, tokens: Tensor) -> Tensor:
        """Return token ids ``(n, context)`` cut after the longest caption of the batch.

        Under a causal mask no token after the end token influences it, so the rows equal
        open_clip's at a fraction of the work. Call it before the token ids are copied to a device:
        reading them there would make the device wait.
        """
        return tokens[:, : int(tokens.argmax(dim=-1).max()) + 1] if _can_trim(self.clip) else tokens


def _can_trim(model: Any) -> bool:
    from open_clip.model import CLIP

    return (
        type(model) is CLIP
        and model.text_pool_type == "argmax"
        and model.attn_mask is not None
        and model.text_projection is not None
    )


def _has_class_token(model: Any) -> bool:
    """Whether an image's features are a class token's, of a tower that is known to the letter."""
    from open_clip.transformer import VisionTransformer

    tower: Any = getattr(model, "visual", None)
    return (
        type(tower) is VisionTransformer
        and tower.attn_pool is None
        and tower.pool_type == "tok"
        and not tower.output_tokens
    )


def build(
    config: ModelConfig, *, temperature: float = 0.07, learn_temperature: bool = True
) -> TwoEncoder:
    """Return a model with fresh weights, drawn from torch's global random state.

    Args:
        config: open_clip's model config; see :func:`geomkit.models.towers.open_clip_model`.
        temperature: Initial τ, in [0.01, 1].
        learn_temperature: Whether τ is trained.

    Raises:
        GeomkitError: For a temperature out of range or a config that open_clip refuses.

    Example:
        >>> from geomkit.models import model_config
        >>> build(model_config("nano", dim=3)).encode_image(torch.zeros(1, 3, 32, 32)).shape
        torch.Size([1, 3])
    """
    if not 0.01 <= temperature <= 1.0:
        raise GeomkitError(f"temperature: expected 0.01 to 1, got {temperature:g}")
    from geomkit.models.towers import open_clip_model

    try:
        with closed():
            model: Any = open_clip_model(config, init_logit_scale=math.log(1.0 / temperature))
    except Exception as error:  # open_clip and timm check no values: anything can be raised
        raise GeomkitError(f"model config: open_clip cannot build it ({reason(error)})") from error
    model.logit_scale.requires_grad_(learn_temperature)
    return TwoEncoder(model)
