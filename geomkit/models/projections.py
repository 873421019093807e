"""A pretrained model with another embedding dimension."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import torch

from geomkit.errors import GeomkitError
from geomkit.models.checkpoints.checkpoint import Checkpoint
from geomkit.models.freezing import projection_names, without_biases
from geomkit.models.two_encoder import TwoEncoder, build

__all__ = ["change_dim"]


def change_dim(
    checkpoint: Checkpoint, dim: int, *, keep_projection: bool = False, seed: int = 0
) -> Checkpoint:
    """Return the same encoders with fresh bias-free projections to ``dim`` dimensions.

    As in the paper, both projections are replaced even if the dimension stays. Their weights are
    drawn as torch draws a linear layer's, uniformly from ±1/√width.

    Args:
        checkpoint: Pretrained model; it is not changed.
        dim: Embedding dimension.
        keep_projection: Keep the projections; the model must have that dimension already.
        seed: Random seed for the fresh weights.

    Raises:
        GeomkitError: If the projections are to be kept and the dimension differs, or if an encoder
            has no linear projection that can be replaced.
    """
    own = checkpoint.model_config["embed_dim"]
    if keep_projection:
        if dim != own:
            raise GeomkitError(
                f"{checkpoint.source}: has {own} dimensions, so its projections cannot be kept at "
                f"--dim {dim}; leave out --keep-projection or give --dim {own}"
            )
        return checkpoint
    config = copy.deepcopy(checkpoint.model_config)
    config["embed_dim"] = dim
    if config["vision_cfg"].get("timm_model_name"):  # some have none: their width is the dimension
        config["vision_cfg"]["timm_proj"] = "linear"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build(config)
        fresh = projection_names(model)
        sides = {name.startswith("visual.") for name in fresh}
        if sides != {True, False}:
            side = "image" if True not in sides else "text"
            raise GeomkitError(
                f"{checkpoint.source}: its {side} encoder has no linear projection to replace; "
                f"give --keep-projection --dim {own}"
            )
        _redraw(model, fresh)
    without_biases(model)
    state = {k: v for k, v in checkpoint.model.clip.state_dict().items() if k not in fresh}
    wanted = model.clip.state_dict()
    unfit = [k for k, v in state.items() if k in wanted and wanted[k].shape != v.shape]
    missing = [k for k in wanted if k not in state and k not in fresh]
    if unfit or missing:
        raise GeomkitError(
            f"{checkpoint.source}: its dimension cannot be changed, since "
            f"{(unfit + missing)[0]} depends on it; give --keep-projection --dim {own}"
        )
    model.clip.load_state_dict({k: v for k, v in state.items() if k in wanted}, strict=False)
    scale = checkpoint.model.get_parameter("clip.logit_scale")
    model.get_parameter("clip.logit_scale").requires_grad_(scale.requires_grad)
    return replace(checkpoint, model=model.eval(), model_config=config)


def _redraw(model: TwoEncoder, names: list[str]) -> None:
    for name in names:
        weight = model.get_parameter(f"clip.{name}")
        with torch.no_grad():
            if weight.ndim < 2:  # a bias that the architecture requires
                weight.zero_()
                continue
            # A matrix stored as a parameter is applied from the right, a layer's from the left.
            inputs = weight.shape[1] if name.endswith(".weight") else weight.shape[0]
            weight.uniform_(-1.0 / math.sqrt(inputs), 1.0 / math.sqrt(inputs))
