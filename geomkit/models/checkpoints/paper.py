"""``paper:FILE``: checkpoints of the paper's own code, github.com/abrar-fahim/contrastive-gap.

They store ``model_state_dict`` of two encoders, each a CLIP tower of transformers with a projection
to the embedding dimension. Which of the two encodes images is a setting of each run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from geomkit.errors import GeomkitError
from geomkit.models.checkpoints.checkpoint import Checkpoint
from geomkit.models.checkpoints.kinds import CheckpointKind
from geomkit.models.checkpoints.openai import opened_by_shapes
from geomkit.models.checkpoints.torch_file import read_torch_file
from geomkit.models.checkpoints.transformers_names import clip_names
from geomkit.models.checkpoints.weights import is_state_dict, strip_prefixes

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["KIND"]

_TOWERS = {
    "image_model.vision_model.": "vision_model.",
    "image_model.visual_projection.": "visual_projection.",
    "text_model.text_model.": "text_model.",
    "text_model.text_projection.": "text_projection.",
}
_OTHER_LAYOUTS = {
    "added_projection_layer.": "projections of several layers",
    "common_projection_layer.": "one projection for both encoders",
    "image_model.visual.": "a ResNet as image encoder",
}
_UNUSED = ("intra_modality_logit_scale",)
"""Stored, but not part of the embeddings."""


def _open(place: str, *, source: str, download: bool) -> Checkpoint:
    content = read_torch_file(place)
    weights: Any = content.get("model_state_dict") if isinstance(content, dict) else None
    if weights != {} and not is_state_dict(weights):
        raise GeomkitError(f"{place}: no model_state_dict in it; not a checkpoint of the paper's")
    found = clip_names(_as_transformers(strip_prefixes(weights), source), source)
    dims = {found[k].shape[1] for k in ("visual.proj", "text_projection") if k in found}
    if len(dims) > 1:
        raise GeomkitError(f"{source}: the encoders project to {min(dims)} and {max(dims)} numbers")
    meta = {"weights": "model_state_dict", "preprocess_from": "OpenAI's, as the paper's code"}
    for stored, name in (("epoch", "epoch"), ("dataloader_enumerator_index", "batch")):
        if isinstance(content.get(stored), int):
            meta[name] = content[stored]
    return opened_by_shapes(found, "paper", source, meta, what="the paper's model")


def _as_transformers(weights: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """The weights of both encoders under the names of transformers' CLIPModel."""
    for part, what in _OTHER_LAYOUTS.items():
        if any(f".{part}" in f".{name}" for name in weights):
            raise GeomkitError(
                f"{source}: has {what}; only encoders with a linear projection each are supported"
            )
    if any(name.startswith("model.") for name in weights):  # earlier runs: a whole CLIPModel
        return {
            name.removeprefix("model."): tensor
            for name, tensor in weights.items()
            if name not in (*_UNUSED, "logit_scale")
        }
    encoders = {
        encoder: {name.split(".")[1] for name in weights if name.startswith(f"{encoder}.")}
        for encoder in ("encoder1", "encoder2")
    }
    if sorted(map(sorted, encoders.values())) != [["image_model"], ["text_model"]]:
        described = " and ".join("+".join(sorted(kind)) or "nothing" for kind in encoders.values())
        raise GeomkitError(
            f"{source}: expected an image and a text encoder, found {described}; experiments with "
            "two encoders of the same kind are not supported"
        )
    found: dict[str, Tensor] = {}
    for stored, tensor in weights.items():
        if stored in _UNUSED:
            continue
        name, inner = stored, stored.removeprefix("encoder1.").removeprefix("encoder2.")
        for start, to in _TOWERS.items():
            if inner.startswith(start):
                name = to + inner.removeprefix(start)
        found[name] = tensor
    if "logit_scale" in found:  # stored in float64
        found["logit_scale"] = found["logit_scale"].float()
    return found


KIND = CheckpointKind("paper", "checkpoint of the paper's code", _open, ("paper:FILE",))
