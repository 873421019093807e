"""transformers' names of CLIP and SigLIP weights, translated to open_clip's.

An unknown name is passed on unchanged, so that the error about weights that do not fit names it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from geomkit.errors import GeomkitError, reason

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["clip_names", "siglip_names"]

_LAYER = re.compile(r"(text|vision)_model\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)")
_OPEN_CLIP_BLOCK = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "qkv": "attn.in_proj_",
}
_TIMM_BLOCK = {
    "layer_norm1": "norm1",
    "layer_norm2": "norm2",
    "self_attn.out_proj": "attn.proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
    "qkv": "attn.qkv.",
}
_CLIP_LAYERS = {
    "text": ("transformer.resblocks", _OPEN_CLIP_BLOCK),
    "vision": ("visual.transformer.resblocks", _OPEN_CLIP_BLOCK),
}
_SIGLIP_LAYERS = {
    "text": ("text.transformer.resblocks", _OPEN_CLIP_BLOCK),
    "vision": ("visual.trunk.blocks", _TIMM_BLOCK),
}
# Names with or without the "weight" or "bias" at their end.
_CLIP = {
    "text_model.embeddings.token_embedding": "token_embedding",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm": "ln_final",
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding": "visual.conv1",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.pre_layrnorm": "visual.ln_pre",
    "vision_model.post_layernorm": "visual.ln_post",
}
_POOL = "visual.trunk.attn_pool."
_SIGLIP = {
    "text_model.embeddings.token_embedding": "text.token_embedding",
    "text_model.embeddings.position_embedding.weight": "text.positional_embedding",
    "text_model.final_layer_norm": "text.ln_final",
    "text_model.head": "text.text_projection",
    "vision_model.embeddings.patch_embedding": "visual.trunk.patch_embed.proj",
    "vision_model.post_layernorm": "visual.trunk.norm",
    "vision_model.head.probe": f"{_POOL}latent",
    "vision_model.head.attention.out_proj": f"{_POOL}proj",
    "vision_model.head.layernorm": f"{_POOL}norm",
    "vision_model.head.mlp.fc1": f"{_POOL}mlp.fc1",
    "vision_model.head.mlp.fc2": f"{_POOL}mlp.fc2",
}


def clip_names(state_dict: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """Return weights of transformers' CLIPModel under the names of open_clip's CLIP.

    Raises:
        GeomkitError: If a layer lacks one of its query, key and value weights.
    """
    found = _renamed(state_dict, _CLIP_LAYERS, _CLIP, source)
    for name, to in (
        ("visual_projection.weight", "visual.proj"),
        ("text_projection.weight", "text_projection"),
    ):
        if name in found:
            found[to] = found.pop(name).T
    return found


def siglip_names(state_dict: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """Return weights of transformers' SiglipModel under the names of open_clip's models.

    Raises:
        GeomkitError: If a layer lacks one of its query, key and value weights.
    """
    found = _renamed(state_dict, _SIGLIP_LAYERS, _SIGLIP, source)
    position = "vision_model.embeddings.position_embedding.weight"
    if position in found:
        found["visual.trunk.pos_embed"] = found.pop(position)[None]
    for end in ("weight", "bias"):
        three = found.pop(f"vision_model.head.attention.in_proj_{end}", None)
        if three is not None:
            width = three.shape[0] // 3
            found |= {f"{_POOL}q.{end}": three[:width], f"{_POOL}kv.{end}": three[width:]}
    return found


def _renamed(
    state_dict: dict[str, Tensor],
    layers: dict[str, tuple[str, dict[str, str]]],
    names: dict[str, str],
    source: str,
) -> dict[str, Tensor]:
    """The same weights, renamed, with the query, key and value of a layer in one."""
    import torch

    found: dict[str, Tensor] = {}
    parts: dict[tuple[str, str], dict[str, Tensor]] = {}
    for name, tensor in state_dict.items():
        stem, _, end = name.rpartition(".")
        to = f"{names[stem]}.{end}" if stem in names else names.get(name, name)
        if match := _LAYER.fullmatch(name):
            prefix, inside = layers[match[1]]
            start, inner = f"{prefix}.{match[2]}.", match[3]
            if inner in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"):
                key = (f"{start}{inside['qkv']}{end}", name.replace(inner, "self_attn.?_proj"))
                parts.setdefault(key, {})[inner[10]] = tensor
                continue
            if inner in inside:
                to = f"{start}{inside[inner]}.{end}"
        found[to] = tensor
    for (name, pattern), three in parts.items():
        for letter in "qkv":
            if letter not in three:
                raise GeomkitError(f"{source}: missing '{pattern.replace('?', letter)}'")
        try:
            found[name] = torch.cat([three[letter] for letter in "qkv"])
        except (RuntimeError, TypeError) as error:
            raise GeomkitError(
                f"{source}: '{pattern}': queries, keys and values do not fit ({reason(error)})"
            ) from None
    return found
