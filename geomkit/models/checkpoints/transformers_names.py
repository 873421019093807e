"""transformers' names of CLIP and SigLIP weights, translated to open_clip's.

An unknown name is passed on unchanged, so that the error about weights that do not fit names it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from geomkit.errors import GeomkitError

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
_CLIP = {
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.weight": "ln_final.weight",
    "text_model.final_layer_norm.bias": "ln_final.bias",
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.pre_layrnorm.weight": "visual.ln_pre.weight",
    "vision_model.pre_layrnorm.bias": "visual.ln_pre.bias",
    "vision_model.post_layernorm.weight": "visual.ln_post.weight",
    "vision_model.post_layernorm.bias": "visual.ln_post.bias",
}
_POOL = "visual.trunk.attn_pool."
_SIGLIP = {
    "text_model.embeddings.token_embedding.weight": "text.token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "text.positional_embedding",
    "text_model.final_layer_norm.weight": "text.ln_final.weight",
    "text_model.final_layer_norm.bias": "text.ln_final.bias",
    "text_model.head.weight": "text.text_projection.weight",
    "text_model.head.bias": "text.text_projection.bias",
    "vision_model.embeddings.patch_embedding.weight": "visual.trunk.patch_embed.proj.weight",
    "vision_model.embeddings.patch_embedding.bias": "visual.trunk.patch_embed.proj.bias",
    "vision_model.post_layernorm.weight": "visual.trunk.norm.weight",
    "vision_model.post_layernorm.bias": "visual.trunk.norm.bias",
    "vision_model.head.probe": f"{_POOL}latent",
    "vision_model.head.attention.out_proj.weight": f"{_POOL}proj.weight",
    "vision_model.head.attention.out_proj.bias": f"{_POOL}proj.bias",
    "vision_model.head.layernorm.weight": f"{_POOL}norm.weight",
    "vision_model.head.layernorm.bias": f"{_POOL}norm.bias",
    "vision_model.head.mlp.fc1.weight": f"{_POOL}mlp.fc1.weight",
    "vision_model.head.mlp.fc1.bias": f"{_POOL}mlp.fc1.bias",
    "vision_model.head.mlp.fc2.weight": f"{_POOL}mlp.fc2.weight",
    "vision_model.head.mlp.fc2.bias": f"{_POOL}mlp.fc2.bias",
}


def clip_names(state_dict: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """Return weights of transformers' CLIPModel under the names of open_clip's CLIP.

    Raises:
        GeomkitError: If a layer lacks one of its query, key and value weights.
    """
    found, rest = _layers(
        state_dict,
        {"text": ("", _OPEN_CLIP_BLOCK), "vision": ("visual.", _OPEN_CLIP_BLOCK)},
        "transformer.resblocks.",
        source,
    )
    for name, tensor in rest.items():
        if name == "visual_projection.weight":
            found["visual.proj"] = tensor.T
        elif name == "text_projection.weight":
            found["text_projection"] = tensor.T
        else:
            found[_CLIP.get(name, name)] = tensor
    return found


def siglip_names(state_dict: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """Return weights of transformers' SiglipModel under the names of open_clip's models.

    Raises:
        GeomkitError: If a layer lacks one of its query, key and value weights.
    """
    found, rest = _layers(
        state_dict, {"text": ("text.", _OPEN_CLIP_BLOCK)}, "transformer.resblocks.", source
    )
    vision, rest = _layers(rest, {"vision": ("visual.trunk.", _TIMM_BLOCK)}, "blocks.", source)
    found |= vision
    for name, tensor in rest.items():
        if name == "vision_model.embeddings.position_embedding.weight":
            found["visual.trunk.pos_embed"] = tensor[None]
        elif name.startswith("vision_model.head.attention.in_proj_"):
            end = name.removeprefix("vision_model.head.attention.in_proj_")
            width = tensor.shape[0] // 3
            found[f"{_POOL}q.{end}"] = tensor[:width]
            found[f"{_POOL}kv.{end}"] = tensor[width:]
        else:
            found[_SIGLIP.get(name, name)] = tensor
    return found


def _layers(
    state_dict: dict[str, Tensor],
    towers: dict[str, tuple[str, dict[str, str]]],
    blocks: str,
    source: str,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The layers of some towers, renamed, with query, key and value in one; and the rest."""
    import torch

    found: dict[str, Tensor] = {}
    rest: dict[str, Tensor] = {}
    parts: dict[tuple[str, str], dict[str, Tensor]] = {}
    for name, tensor in state_dict.items():
        match = _LAYER.fullmatch(name)
        if match is None or match[1] not in towers:
            rest[name] = tensor
            continue
        tower, number, inner, end = match.groups()
        prefix, names = towers[tower]
        stem = f"{prefix}{blocks}{number}."
        if inner in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"):
            key = (f"{stem}{names['qkv']}{end}", name.replace(inner, "self_attn.?_proj"))
            parts.setdefault(key, {})[inner[10]] = tensor
        elif inner in names:
            found[f"{stem}{names[inner]}.{end}"] = tensor
        else:
            rest[name] = tensor
    for (name, pattern), three in parts.items():
        for letter in "qkv":
            if letter not in three:
                raise GeomkitError(f"{source}: missing '{pattern.replace('?', letter)}'")
        found[name] = torch.cat([three[letter] for letter in "qkv"])
    return found, rest
