"""A pretrained model made ready for training: another dimension, parts of it frozen."""

from __future__ import annotations

import copy
import math
import re
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from geomkit.errors import GeomkitError, unknown_name
from geomkit.models import FREEZES
from geomkit.models.checkpoints.checkpoint import Checkpoint
from geomkit.models.two_encoder import TwoEncoder, build

__all__ = ["change_dim", "freeze", "projection_names", "without_biases"]

_PROJECTION = re.compile(
    r"^(visual\.(proj|attnpool\.c_proj|head\.proj)|(text\.)?(text_projection|proj))"
    r"(\.(\d+\.)?(weight|bias))?$"
)


def projection_names(model: TwoEncoder) -> list[str]:
    """The parameters of both encoders' last linear maps, as open_clip names them.

    >>> from geomkit.models.two_encoder import model_config
    >>> projection_names(build(model_config("nano")))
    ['text_projection', 'visual.proj']
    """
    return [name for name, _ in model.clip.named_parameters() if _PROJECTION.match(name)]


def change_dim(
    loaded: Checkpoint, dim: int, *, keep_projection: bool = False, seed: int = 0
) -> Checkpoint:
    r"""The same encoders with fresh bias-free projections to ``dim`` dimensions.

    As in the paper both are replaced even where the dimension stays, and drawn as torch draws a
    linear layer, uniformly from ±1/√(width).

    Args:
        loaded: the pretrained model; left as it is.
        dim: the dimension asked for.
        keep_projection: leave the projections alone; the model must have that dimension.
        seed: of the fresh weights.

    Raises:
        GeomkitError: if the dimension differs and the projections were to be kept, or the
            architecture has no linear projection that could be replaced.
    """
    own = loaded.model_config["embed_dim"]
    if keep_projection:
        if dim != own:
            raise GeomkitError(
                f"{loaded.source}: has {own} dimensions, so its projections cannot be kept at "
                f"--dim {dim}; leave out --keep-projection or give --dim {own}"
            )
        return loaded
    config = copy.deepcopy(loaded.model_config)
    config["embed_dim"] = dim
    if config["vision_cfg"].get("timm_model_name"):  # some have none, their width being the dim
        config["vision_cfg"]["timm_proj"] = "linear"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build(config)
        fresh = projection_names(model)
        sides = {name.startswith("visual.") for name in fresh}
        if sides != {True, False}:
            side = "image" if True not in sides else "text"
            raise GeomkitError(
                f"{loaded.source}: its {side} encoder has no linear projection to replace; "
                f"give --keep-projection --dim {own}"
            )
        _redraw(model, fresh)
    without_biases(model)
    state = {k: v for k, v in loaded.model.clip.state_dict().items() if k not in fresh}
    wanted = model.clip.state_dict()
    unfit = [k for k, v in state.items() if k in wanted and wanted[k].shape != v.shape]
    missing = [k for k in wanted if k not in state and k not in fresh]
    if unfit or missing:
        raise GeomkitError(
            f"{loaded.source}: cannot be given another dimension: {(unfit + missing)[0]} depends "
            f"on it; give --keep-projection --dim {own}"
        )
    model.clip.load_state_dict({k: v for k, v in state.items() if k in wanted}, strict=False)
    scale = loaded.model.get_parameter("clip.logit_scale")
    model.get_parameter("clip.logit_scale").requires_grad_(scale.requires_grad)
    return replace(loaded, model=model.eval(), model_config=config)


def _redraw(model: TwoEncoder, names: list[str]) -> None:
    for name in names:
        weight = model.get_parameter(f"clip.{name}")
        with torch.no_grad():
            if weight.ndim < 2:  # a bias the architecture insists on
                weight.zero_()
                continue
            # A matrix kept as a parameter is applied from the right, a layer's from the left.
            inputs = weight.shape[1] if name.endswith(".weight") else weight.shape[0]
            weight.uniform_(-1.0 / math.sqrt(inputs), 1.0 / math.sqrt(inputs))


def without_biases(model: TwoEncoder) -> None:
    """Leave the biases of fresh projections, where an architecture has some, at their zero."""
    for name in projection_names(model):
        weight = model.get_parameter(f"clip.{name}")
        if weight.ndim < 2:
            weight.requires_grad_(False)


def freeze(
    model: TwoEncoder,
    what: str | None = None,
    *,
    lock_image: int | None = None,
    lock_text: int | None = None,
    fresh_projection: bool = False,
) -> None:
    """Stop parts of a model from being trained, in place.

    Args:
        model: whose weights' ``requires_grad`` changes.
        what: ``image`` or ``text``: that encoder (its projection too unless it is fresh);
            ``backbone``: both encoders, so that only the projections are trained.
        lock_image, lock_text: lock the encoder but for its last so many layers, as open_clip
            counts them (its groups of layers for images; the projection is one).
        fresh_projection: whether the projections are new, so that freezing them would be absurd.

    Raises:
        GeomkitError: for an unknown part, or an encoder that cannot be locked layer by layer.
    """
    if what is not None and what not in FREEZES:
        raise unknown_name("part to freeze", what, FREEZES)
    clip: Any = model.clip
    projections = set(projection_names(model))
    trained = {name for name, weight in clip.named_parameters() if weight.requires_grad}
    for side, layers in (("image", lock_image), ("text", lock_text)):
        if layers is not None:
            _lock(clip, side, layers)
            # open_clip's lock begins by locking all: what was frozen before stays so.
            for name, weight in clip.named_parameters():
                if name not in trained:
                    weight.requires_grad_(False)
    sides = {"image": ["image"], "text": ["text"], "backbone": ["image", "text"]}.get(what or "")
    keeps = fresh_projection or what == "backbone"
    for name, weight in clip.named_parameters():
        side = "image" if name.startswith("visual.") else "text"
        if name in ("logit_scale", "logit_bias"):
            continue
        if name in projections and keeps:
            weight.requires_grad_(name in trained)
        elif sides and side in sides:
            weight.requires_grad_(False)
    if sides and "image" in sides and any(isinstance(m, nn.BatchNorm2d) for m in clip.modules()):
        from open_clip.utils import freeze_batch_norm_2d

        clip.visual = freeze_batch_norm_2d(clip.visual)
    if not any(weight.requires_grad for weight in clip.parameters()):
        raise GeomkitError("nothing is left to train; freeze or lock less")


def _lock(clip: Any, side: str, layers: int) -> None:
    if layers < 0:
        raise GeomkitError(f"lock {side}: expected 0 or more layers left unlocked, got {layers}")
    try:
        if side == "image":
            clip.lock_image_tower(unlocked_groups=layers, freeze_bn_stats=True)
        else:
            clip.lock_text_tower(unlocked_layers=layers)
    except (AttributeError, AssertionError, NotImplementedError, IndexError) as error:
        raise GeomkitError(
            f"lock {side}: this architecture cannot be locked layer by layer ({error}); "
            f"give --freeze {side}"
        ) from None
