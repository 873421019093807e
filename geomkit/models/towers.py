"""open_clip's model of a model config, and the one tower that open_clip cannot size."""

from __future__ import annotations

import copy
from collections import OrderedDict
from functools import partial
from typing import Any

from torch import nn

from geomkit.models.architectures import ModelConfig

__all__ = ["open_clip_model", "timm_tower"]

_STUB = {"image_size": 1, "patch_size": 1, "width": 8, "head_width": 8, "layers": 1}
"""The smallest tower that open_clip builds; it is replaced by one that open_clip cannot build."""


def open_clip_model(config: ModelConfig, *, init_logit_scale: float) -> nn.Module:
    """Return a CLIP, CustomTextCLIP or CoCa with fresh weights, chosen as open_clip does.

    Nothing is downloaded: towers from timm and transformers get fresh weights too.

    Args:
        config: open_clip's model config. ``vision_cfg`` may hold ``timm_kwargs``, arguments for
            the timm model that open_clip's own classes do not pass on.
        init_logit_scale: Initial log 1/τ, instead of the config's.
    """
    from open_clip.coca_model import CoCa
    from open_clip.model import CLIP, CustomTextCLIP

    config = {**copy.deepcopy(config), "init_logit_scale": init_logit_scale}
    vision, text = config["vision_cfg"], config["text_cfg"]
    if "timm_model_name" in vision:
        vision["timm_model_pretrained"] = False
    if "hf_model_name" in text:
        text["hf_model_pretrained"] = False
    custom = config.pop("custom_text", False) or "hf_model_name" in text
    tower = None
    if "timm_kwargs" in vision:
        tower, config["vision_cfg"] = timm_tower(vision, config["embed_dim"]), dict(_STUB)
    kind = (CoCa if "multimodal_cfg" in config else CustomTextCLIP) if custom else CLIP
    model = kind(**config)
    if tower is not None:
        model.visual = tower
    return model


def timm_tower(vision: dict[str, Any], dim: int) -> nn.Module:
    """Return open_clip's TimmModel around a timm model with any arguments.

    Args:
        vision: A ``vision_cfg`` with ``timm_model_name``, ``timm_pool``, ``image_size`` and
            ``timm_kwargs`` (timm's arguments, and ``norm_eps``); its ``timm_proj`` is ``none`` or
            ``linear``.
        dim: Dimension of a linear projection.
    """
    import timm
    from open_clip.timm_model import TimmModel
    from timm.layers import LayerNorm

    options = dict(vision["timm_kwargs"])
    if "norm_eps" in options:
        options["norm_layer"] = partial(LayerNorm, eps=options.pop("norm_eps"))
    tower: Any = TimmModel.__new__(TimmModel)
    nn.Module.__init__(tower)
    tower.image_size = (vision["image_size"], vision["image_size"])
    tower.trunk = timm.create_model(
        vision["timm_model_name"],
        pretrained=False,
        num_classes=0,
        global_pool=vision["timm_pool"],
        img_size=vision["image_size"],
        **options,
    )
    layers: dict[str, nn.Module] = {}
    if vision.get("timm_proj") == "linear":
        layers["proj"] = nn.Linear(tower.trunk.num_features, dim, bias=False)
    tower.head = nn.Sequential(OrderedDict(layers))
    return tower
