"""``paper:FILE``: checkpoints of the paper's own code, github.com/abrar-fahim/contrastive-gap.

It stores ``model_state_dict`` of two encoders, each a CLIP tower of transformers with a projection
of the dimension asked for; which of the two takes the pictures is a setting of each run.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from geomkit.errors import GeomkitError
from geomkit.models.checkpoints.checkpoint import Checkpoint
from geomkit.models.checkpoints.fit import fitted
from geomkit.models.checkpoints.openai import architecture_of_shapes
from geomkit.models.checkpoints.own import read_torch_file
from geomkit.models.checkpoints.transformers_names import clip_names
from geomkit.models.checkpoints.weights import strip_prefixes
from geomkit.models.preprocess import Preprocess
from geomkit.models.tokenizers import Tokenizer

__all__ = ["open_paper"]

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
_BESIDES = ("intra_modality_logit_scale",)
"""Stored, but without a part in the embeddings."""


def open_paper(file: str, *, source: str, download: bool = False) -> Checkpoint:
    """A model that the paper's code trained: one image and one text encoder.

    Args:
        file: with ``epoch``, ``model_state_dict`` and ``dataloader_enumerator_index``.
        source: the SOURCE that names it.
        download: without effect; the file is here or it is not.

    Raises:
        GeomkitError: if the file is missing, damaged, or holds another layout of encoders.
    """
    path = Path(file)
    content = read_torch_file(path)
    weights = content.get("model_state_dict") if isinstance(content, dict) else None
    if not isinstance(weights, dict) or not all(isinstance(v, Tensor) for v in weights.values()):
        raise GeomkitError(f"{path}: no model_state_dict in it; not a checkpoint of the paper's")
    found = clip_names(_as_transformers(strip_prefixes(weights), source), source)
    config = architecture_of_shapes(found, source)
    dims = {found[k].shape[1] for k in ("visual.proj", "text_projection")}
    if len(dims) > 1:
        raise GeomkitError(f"{source}: the encoders project to {min(dims)} and {max(dims)} numbers")
    model = fitted(config, found, source, what="the paper's model")
    facts = {"weights": "model_state_dict", "preprocess_from": "OpenAI's, as the paper's code"}
    if isinstance(content.get("epoch"), int):
        facts["epoch"] = content["epoch"]
    if isinstance(content.get("dataloader_enumerator_index"), int):
        facts["batch"] = content["dataloader_enumerator_index"]
    preprocess, tokenizer = Preprocess.for_model(config).explicit(), Tokenizer.for_model(config)
    return Checkpoint(model, "paper", source, config, preprocess, tokenizer, facts)


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
            if name not in (*_BESIDES, "logit_scale")
        }
    kinds = {
        encoder: {name.split(".")[1] for name in weights if name.startswith(f"{encoder}.")}
        for encoder in ("encoder1", "encoder2")
    }
    if sorted(map(sorted, kinds.values())) != [["image_model"], ["text_model"]]:
        described = " and ".join("+".join(sorted(kind)) or "nothing" for kind in kinds.values())
        raise GeomkitError(
            f"{source}: expected an image and a text encoder, found {described}; experiments with "
            "two encoders of the same kind are no model of two modalities"
        )
    found: dict[str, Tensor] = {}
    for stored, tensor in weights.items():
        if stored in _BESIDES:
            continue
        name, inner = stored, stored.removeprefix("encoder1.").removeprefix("encoder2.")
        for start, to in _TOWERS.items():
            if inner.startswith(start):
                name = to + inner.removeprefix(start)
        found[name] = tensor
    if "logit_scale" in found:  # stored in float64
        found["logit_scale"] = found["logit_scale"].to(torch.float32)
    return found
