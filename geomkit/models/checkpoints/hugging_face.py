"""``hf:DIR``: a folder that transformers' CLIPModel or SiglipModel was saved in.

The weights are put into open_clip's classes. transformers itself is needed only for a tokenizer
that open_clip does not have.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geomkit.errors import GeomkitError
from geomkit.models.architectures import ModelConfig
from geomkit.models.checkpoints.checkpoint import Checkpoint
from geomkit.models.checkpoints.fit import fitted
from geomkit.models.checkpoints.folder_inputs import (
    as_written,
    folder_preprocess,
    read_json,
    tokenizer_in,
)
from geomkit.models.checkpoints.kinds import CheckpointKind
from geomkit.models.checkpoints.other_folders import hint, hub_hint
from geomkit.models.checkpoints.transformers_names import clip_names, siglip_names
from geomkit.models.checkpoints.weights import read_weights

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["KIND"]

# What transformers assumes where a config.json says nothing.
_TOWER = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}
_VISION = {"num_channels": 3, "image_size": 224}
_SIGLIP = {"hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6}
_CLIP_TEXT = {
    **_TOWER,
    "vocab_size": 49408,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "eos_token_id": 49407,
}
_CLIP_VISION = {**_TOWER, **_VISION, "patch_size": 32}
_SIGLIP_TEXT = {**_TOWER, **_SIGLIP, "vocab_size": 32000, "max_position_embeddings": 64}
_SIGLIP_VISION = {**_TOWER, **_VISION, **_SIGLIP, "patch_size": 16, "vision_use_head": True}
_WHOLE = ("model.safetensors", "pytorch_model.bin")
_INDEX = ".index.json"
_TANH = ("gelu_pytorch_tanh", "gelu_new", "gelu_fast")


def _open(place: str, *, source: str, download: bool) -> Checkpoint:
    path = Path(place)
    if not path.is_dir():
        what = f"a file; name its folder, hf:{path.parent}"
        if not path.exists():
            what = f"no such folder{hub_hint(place)}"
        raise GeomkitError(f"{source}: {what}; hf: takes a folder that save_pretrained wrote")
    file = path / "config.json"
    if not file.exists():
        told = hint(path) or "; hf: takes a folder transformers saved"
        raise GeomkitError(f"{source}: no config.json in it{told}")
    described = read_json(file)
    kind = described.get("model_type")
    if not isinstance(kind, str) or kind not in _TYPES:
        raise GeomkitError(
            f"{source}: a model of type '{kind}'; supported are clip and siglip, with both encoders"
        )
    config_of, names_of = _TYPES[kind]
    with as_written(file):
        config = config_of(described, source)
    weights, weights_file = _weights(path, source)
    model = fitted(config, names_of(weights, source), source, what="the model of its config.json")
    text = config["text_cfg"]
    tokenizer, notes = tokenizer_in(
        path, context_length=text["context_length"], vocab_size=text["vocab_size"], kind=kind
    )
    if weights_file.removesuffix(_INDEX) not in _WHOLE:
        notes.append(f"weights of {weights_file}, the only ones in its folder")
    return Checkpoint(
        model,
        "hf",
        source,
        config,
        folder_preprocess(path, config["vision_cfg"]["image_size"]),
        tokenizer,
        {
            "weights": weights_file,
            "model_type": kind,
            "preprocess_from": "the folder's own file",
            "notes": notes,
        },
    )


def _clip_config(config: dict[str, Any], source: str) -> ModelConfig:
    text, vision = _part(config, "text", _CLIP_TEXT), _part(config, "vision", _CLIP_VISION)
    acts = {text["hidden_act"], vision["hidden_act"]}
    if "quick_gelu" in acts and len(acts) > 1:
        raise GeomkitError(
            f"{source}: hidden_act differs between the encoders ({', '.join(sorted(acts))}); "
            "open_clip has one QuickGELU switch for both"
        )
    whole = {
        "embed_dim": config.get("projection_dim", 512),
        "vision_cfg": {
            "image_size": _side(vision["image_size"], "image_size", source),
            "patch_size": _side(vision["patch_size"], "patch_size", source),
            "layers": vision["num_hidden_layers"],
            "width": vision["hidden_size"],
            "head_width": vision["hidden_size"] // vision["num_attention_heads"],
            **_finer(vision, source),
        },
        "text_cfg": {**_text(text), **_finer(text, source)},
    }
    if vision["num_channels"] != 3:
        raise GeomkitError(f"{source}: {vision['num_channels']} colour channels; expected 3")
    if acts == {"quick_gelu"}:
        whole["quick_gelu"] = True
    # open_clip takes the largest id for the end token; any other must be looked for.
    end = text["eos_token_id"]
    if end not in (2, text["vocab_size"] - 1):
        whole["text_cfg"] |= {"pool_type": "eos", "eos_id": end}
    return whole


def _siglip_config(config: dict[str, Any], source: str) -> ModelConfig:
    text, vision = _part(config, "text", _SIGLIP_TEXT), _part(config, "vision", _SIGLIP_VISION)
    width = vision["hidden_size"]
    if not vision["vision_use_head"] or vision["num_channels"] != 3:
        raise GeomkitError(f"{source}: expected a vision head and 3 colour channels")
    act = vision["hidden_act"]
    if act not in ("gelu", "quick_gelu", *_TANH):
        raise GeomkitError(f"{source}: hidden_act '{act}' is not supported")
    options: dict[str, Any] = {
        "patch_size": _side(vision["patch_size"], "patch_size", source),
        "embed_dim": width,
        "depth": vision["num_hidden_layers"],
        "num_heads": vision["num_attention_heads"],
        "mlp_ratio": _ratio(width, vision["intermediate_size"]),
        "act_layer": "gelu_tanh" if act in _TANH else act,
    }
    if vision["layer_norm_eps"] != 1e-6:
        options["norm_eps"] = vision["layer_norm_eps"]
    whole = {
        "embed_dim": text.get("projection_size") or text["hidden_size"],
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": {
            "image_size": _side(vision["image_size"], "image_size", source),
            "timm_model_name": "vit_base_patch16_siglip_224",
            "timm_model_pretrained": False,
            "timm_pool": "map",
            "timm_proj": "none",
            "timm_kwargs": options,
        },
        "text_cfg": {
            **_text(text),
            "no_causal_mask": True,
            "proj_bias": True,
            "pool_type": "last",
            **_finer(text, source),
        },
    }
    if text["hidden_act"] == "quick_gelu":
        whole["quick_gelu"] = True
    return whole


def _part(config: dict[str, Any], name: str, assumed: dict[str, Any]) -> dict[str, Any]:
    # Old versions repeat what differs from text_config under text_config_dict.
    written = (config.get(f"{name}_config"), config.get(f"{name}_config_dict"))
    return {**assumed, **(written[0] or {}), **(written[1] or {})}


def _text(text: dict[str, Any]) -> dict[str, Any]:
    return {
        "context_length": text["max_position_embeddings"],
        "vocab_size": text["vocab_size"],
        "width": text["hidden_size"],
        "heads": text["num_attention_heads"],
        "layers": text["num_hidden_layers"],
    }


def _finer(part: dict[str, Any], source: str) -> dict[str, Any]:
    """The entries of open_clip's config that differ from its defaults."""
    found: dict[str, Any] = {}
    act = part["hidden_act"]
    if act in _TANH:
        found["act_kwargs"] = {"approximate": "tanh"}
    elif act not in ("gelu", "quick_gelu"):
        raise GeomkitError(f"{source}: hidden_act '{act}' is not supported")
    if part["layer_norm_eps"] != 1e-5:
        found["norm_kwargs"] = {"eps": part["layer_norm_eps"]}
    ratio = _ratio(part["hidden_size"], part["intermediate_size"])
    if ratio != 4.0:
        found["mlp_ratio"] = ratio
    return found


def _ratio(width: int, hidden: int) -> float:
    """A ratio that open_clip's ``int(width * ratio)`` turns into ``hidden`` again.

    >>> int(1152 * _ratio(1152, 4304))
    4304
    """
    ratio = hidden / width
    while int(width * ratio) < hidden:
        ratio = math.nextafter(ratio, math.inf)
    return ratio


def _side(value: Any, name: str, source: str) -> int:
    sides = set(value) if isinstance(value, list | tuple) else {value}
    if len(sides) > 1:
        raise GeomkitError(f"{source}: {name} {value}: expected a square")
    return int(sides.pop())


def _weights(folder: Path, source: str) -> tuple[dict[str, Tensor], str]:
    """All tensors of a folder, and the file that names them; a variant if that is all there is."""
    names = list(_WHOLE)
    if not any((folder / f"{name}{end}").exists() for name in names for end in ("", _INDEX)):
        variants = sorted(
            file.name.removesuffix(_INDEX)
            for pattern in ("model.*.safetensors", "pytorch_model.*.bin")
            for file in [*folder.glob(pattern), *folder.glob(f"{pattern}{_INDEX}")]
            if not re.search(r"-\d+-of-\d+\.", file.name)
        )
        if len(variants) > 1:
            raise GeomkitError(
                f"{source}: holds variants of the weights only ({', '.join(variants)}); rename the "
                f"one to read to {names[0] if variants[0].endswith('s') else names[1]}"
            )
        names = variants
    for name in names:
        if (folder / name).exists():
            return read_weights(folder / name)[0], name
        index = folder / f"{name}{_INDEX}"
        if not index.exists():
            continue
        places = read_json(index).get("weight_map")
        if not isinstance(places, dict) or not places:
            raise GeomkitError(f"{index}: no weight_map in it")
        found: dict[str, Tensor] = {}
        for shard in sorted(set(map(str, places.values()))):
            if Path(shard).name != shard:
                raise GeomkitError(f"{index}: names a file outside its folder ({shard})")
            found |= read_weights(folder / shard)[0]
        missing = [key for key in places if key not in found]
        if missing:
            raise GeomkitError(
                f"{index}: '{missing[0]}' and {len(missing) - 1} more are in no shard"
            )
        return found, index.name
    raise GeomkitError(
        f"{source}: no weights in it (model.safetensors, pytorch_model.bin, or their index)"
        f"{hint(folder) if (folder / 'adapter_config.json').exists() else ''}"
    )


_TYPES = {"clip": (_clip_config, clip_names), "siglip": (_siglip_config, siglip_names)}
KIND = CheckpointKind("hf", "folder that transformers saved", _open, ("hf:DIR",))
