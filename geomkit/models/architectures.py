"""Model configs: geomkit's small architectures and every one that open_clip knows.

Importing this module imports neither torch nor open_clip.
"""

from __future__ import annotations

import copy
from typing import Any

from geomkit.errors import GeomkitError, unknown_name
from geomkit.models.open_clip_source import configs

__all__ = ["OWN_CONFIGS", "QUICK_GELU", "ModelConfig", "model_config", "model_names"]

ModelConfig = dict[str, Any]
"""open_clip's description of an architecture: ``embed_dim``, ``vision_cfg``, ``text_cfg``, ..."""


def _small(width: int, layers: int) -> ModelConfig:
    vision = {"image_size": 32, "layers": layers, "width": width, "head_width": 32, "patch_size": 8}
    text = {
        "context_length": 32,
        "vocab_size": 49408,
        "width": width,
        "heads": width // 32,
        "layers": layers,
    }
    return {"embed_dim": width, "vision_cfg": vision, "text_cfg": text}


OWN_CONFIGS: dict[str, ModelConfig] = {"tiny": _small(128, 4), "nano": _small(64, 3)}
"""geomkit's architectures by name: a small ViT and a small text transformer each, for images of 32
to 64 px and short captions. ``nano`` is the one of the 3-D recipe."""


QUICK_GELU = "-quickgelu"
"""End of the name of an architecture whose activation is QuickGELU, as that of OpenAI's models."""


def model_names() -> list[str]:
    """The names of geomkit's architectures, then of open_clip's."""
    return [*OWN_CONFIGS, *configs()]


def model_config(
    name: str, *, dim: int | None = None, image_size: int | None = None
) -> ModelConfig:
    """The model config of an architecture, with another dimension and image size if given.

    Args:
        name: Name of an architecture: ``tiny``, ``nano``, or one of open_clip's, such as
            ``ViT-B-32``; or one of these with ``-quickgelu`` at its end.
        dim: Embedding dimension, 2 or more; default: the architecture's own.
        image_size: Side of the square images in px; default: the architecture's own.

    Returns:
        A copy that may be changed.

    Raises:
        GeomkitError: For an unknown name, a dimension below 2, or an image size that is not a
            multiple of the patch size.

    Example:
        >>> model_config("tiny", dim=3)["embed_dim"]
        3
    """
    config = _named(name)
    if config is None and (base := _named(name.removesuffix(QUICK_GELU))) is not None:
        config = {**base, "quick_gelu": True}
    if config is None:
        raise unknown_name("model", name, model_names(), see="open_clip.list_models()")
    config = copy.deepcopy(config)
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


def _named(name: str) -> ModelConfig | None:
    return OWN_CONFIGS.get(name) or configs().get(name)
