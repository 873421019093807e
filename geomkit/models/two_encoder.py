"""Two-encoder models, built from open_clip's own classes, and how to run them.

A model is described by open_clip's model config (``embed_dim``, ``vision_cfg``, ``text_cfg``) and
a preprocessing config (size, mean, std, ...), so open_clip can load whatever is trained here.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geomkit._core.runtime import send
from geomkit.errors import GeomkitError, unknown_name
from geomkit.models.preprocess import Preprocess

__all__ = [
    "MAX_LOG_SCALE",
    "OWN_CONFIGS",
    "TwoEncoder",
    "build",
    "model_config",
    "model_names",
]

MAX_LOG_SCALE = math.log(100.0)
"""A learned temperature is kept at 0.01 or above, as CLIP's is."""


def _small(width: int, layers: int) -> dict[str, Any]:
    return {
        "embed_dim": width,
        "vision_cfg": {
            "image_size": 32,
            "layers": layers,
            "width": width,
            "head_width": 32,
            "patch_size": 8,
        },
        "text_cfg": {
            "context_length": 32,
            "vocab_size": 49408,
            "width": width,
            "heads": width // 32,
            "layers": layers,
        },
    }


OWN_CONFIGS: dict[str, dict[str, Any]] = {"tiny": _small(128, 4), "nano": _small(64, 3)}
"""Small ViTs and text transformers for pictures of 32 to 64 px and short captions: ``tiny``, and
``nano`` for the 3-D toy."""


def model_names() -> list[str]:
    """``tiny``, ``nano`` and every architecture that open_clip knows."""
    import open_clip

    return [*OWN_CONFIGS, *open_clip.list_models()]


def model_config(name: str, *, dim: int | None = None, image_size: int | None = None) -> dict:
    """open_clip's config of a model, with the dimension and picture size asked for.

    Args:
        name: ``tiny``, ``nano``, or an architecture of open_clip's such as ``ViT-B-32``.
        dim: embedding dimension, 2 or more; the architecture's own if not given.
        image_size: side of the square pictures in px; the architecture's own if not given.

    Raises:
        GeomkitError: for an unknown name or an unfit size.

    >>> model_config("tiny", dim=3)["embed_dim"]
    3
    """
    if name in OWN_CONFIGS:
        config = copy.deepcopy(OWN_CONFIGS[name])
    else:
        import open_clip

        found = open_clip.get_model_config(name)
        if found is None:
            raise unknown_name("model", name, model_names())
        config = copy.deepcopy(found)
    if dim is not None:
        if dim < 2:
            raise GeomkitError(f"dim: expected 2 or more, got {dim}")
        config["embed_dim"] = dim
    if image_size is not None:
        patch = config["vision_cfg"].get("patch_size") or 1
        if image_size < 1 or image_size % patch:
            raise GeomkitError(
                f"image size: expected a multiple of the model's patch ({patch} px), "
                f"got {image_size}"
            )
        config["vision_cfg"]["image_size"] = image_size
    return config


class TwoEncoder(nn.Module):
    """An open_clip model as the training loop sees it: pictures and tokens in, unit rows out.

    Unlike open_clip's own, it takes token ids of any width up to the context, so that
    :func:`trim` can cut a batch to its longest caption.

    Attributes:
        clip: the open_clip model; its ``state_dict`` is what a checkpoint stores.
    """

    def __init__(self, clip: nn.Module) -> None:
        super().__init__()
        self.clip = clip

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
        """Unit rows of standardised pictures ``(n, 3, h, w)``."""
        return F.normalize(_wide(self.clip.encode_image(images)), dim=-1)  # type: ignore[operator]

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Unit rows of token ids ``(n, length)``, trimmed or not."""
        model: Any = self.clip
        length = tokens.shape[1]
        if not _can_trim(model) or length == model.context_length:
            return F.normalize(_wide(model.encode_text(tokens)), dim=-1)
        end = tokens.argmax(dim=-1)
        cast = model.transformer.get_cast_dtype()
        x = model.token_embedding(tokens).to(cast)
        x = x + model.positional_embedding[:length].to(cast)
        x = model.transformer(x, attn_mask=model.attn_mask[:length, :length])
        x = model.ln_final(x[torch.arange(len(x), device=x.device), end])
        projection = model.text_projection
        x = projection(x) if isinstance(projection, nn.Linear) else x @ projection
        return F.normalize(_wide(x), dim=-1)

    def pixels(self, images: Tensor, preprocess: Preprocess) -> Tensor:
        """Standardised pixels ``(n, 3, h, w)`` of uint8 images ``(n, h, w, 3)``, as the image
        encoder takes them: on the model's device, in its precision.
        """
        weight = self.get_parameter("clip.logit_scale")
        return preprocess.to_pixels(images, device=weight.device).to(weight.dtype)

    def tokens(self, tokens: Tensor) -> Tensor:
        """Token ids ``(n, context)`` as the text encoder takes them: trimmed, on its device."""
        return send(self.trim(tokens), str(self.get_parameter("clip.logit_scale").device))

    def trim(self, tokens: Tensor) -> Tensor:
        """Cut token ids ``(n, context)`` after the longest caption of the batch.

        Under a causal mask nothing behind the end token can reach it, so the rows stay those of
        open_clip at a fraction of the work. Call it before the tokens go to a device: looking at
        them there would make the device wait.
        """
        return tokens[:, : int(tokens.argmax(dim=-1).max()) + 1] if _can_trim(self.clip) else tokens


def _wide(features: Tensor) -> Tensor:
    # Norms in half precision are off in the third digit.
    return features if features.dtype == torch.float64 else features.float()


def _can_trim(model: Any) -> bool:
    from open_clip.model import CLIP

    return (
        type(model) is CLIP
        and model.text_pool_type == "argmax"
        and model.attn_mask is not None
        and model.text_projection is not None
    )


def build(config: dict, *, temperature: float = 0.07, learn_temperature: bool = True) -> TwoEncoder:
    """A model with fresh weights, drawn from torch's global random state.

    Args:
        config: open_clip's model config; see :func:`geomkit.models.towers.open_clip_model`.
        temperature: τ at the start, in [0.01, 1].
        learn_temperature: whether τ is trained or stays.

    Raises:
        GeomkitError: for a temperature out of range or a config open_clip does not take.
    """
    if not 0.01 <= temperature <= 1.0:
        raise GeomkitError(f"temperature: expected 0.01 to 1, got {temperature:g}")
    from geomkit.models.towers import open_clip_model

    try:
        model: Any = open_clip_model(config, init_logit_scale=math.log(1.0 / temperature))
    except Exception as error:  # whatever an unfit value does to open_clip's and timm's classes
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise GeomkitError(f"model config: open_clip cannot build it ({reason})") from error
    model.logit_scale.requires_grad_(learn_temperature)
    return TwoEncoder(model)
