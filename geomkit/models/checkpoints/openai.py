"""``openai:FILE``: OpenAI's archives of CLIP, a TorchScript program with its weights.

The weights are read, the program is not run; the architecture follows from their shapes.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from geomkit.errors import GeomkitError
from geomkit.models.architectures import ModelConfig
from geomkit.models.checkpoints.checkpoint import Checkpoint
from geomkit.models.checkpoints.choice import open_fitting, refuse_transformers
from geomkit.models.checkpoints.fit import fitted
from geomkit.models.checkpoints.kinds import CheckpointKind
from geomkit.models.checkpoints.torchscript import activation
from geomkit.models.checkpoints.weights import read_weights, with_key
from geomkit.models.preprocess import Preprocess
from geomkit.models.tokenizers import VOCABULARY, Tokenizer

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["KIND", "opened_by_shapes"]


def opened_by_shapes(
    weights: dict[str, Tensor],
    kind: str,
    source: str,
    meta: dict[str, Any],
    *,
    what: str,
    quick_gelu: bool = True,
) -> Checkpoint:
    """Return the model of CLIP weights in OpenAI's names, with OpenAI's inputs.

    Args:
        weights: Weights of a ViT or a ResNet, and of the text encoder.
        kind: Name of the checkpoint kind.
        source: The SOURCE that names it.
        meta: Facts about the file.
        what: Name of the model in errors.
        quick_gelu: Whether its activation is QuickGELU, as in OpenAI's models.

    Raises:
        GeomkitError: If a weight is missing or does not fit.
    """
    config = {**_config(weights, source), "quick_gelu": quick_gelu}
    model = fitted(config, weights, source, what=what)
    preprocess, tokenizer = Preprocess.for_model(config).explicit(), Tokenizer.for_model(config)
    return Checkpoint(model, kind, source, config, preprocess, tokenizer, meta)


def _config(weights: dict[str, Tensor], source: str) -> ModelConfig:
    """open_clip's config of an OpenAI CLIP, from the shapes of its weights."""

    def shape(key: str, axes: int = 2) -> tuple[int, ...]:
        if key not in weights:
            raise GeomkitError(f"{source}: not a CLIP in OpenAI's names, missing '{key}'")
        found = tuple(weights[key].shape)
        if len(found) != axes:
            raise GeomkitError(f"{source}: damaged, '{key}' has the shape {found}")
        return found

    def count(start: str) -> int:
        depth = start.count(".")
        return len({k.split(".")[depth] for k in weights if k.startswith(start)})

    width = shape("ln_final.weight", 1)[0]
    text = {
        "context_length": shape("positional_embedding")[0],
        "vocab_size": shape("token_embedding.weight")[0],
        "width": width,
        "heads": max(1, width // 64),
        "layers": count("transformer.resblocks."),
    }
    if text["vocab_size"] != VOCABULARY:
        raise GeomkitError(
            f"{source}: a vocabulary of {text['vocab_size']}; OpenAI's models have {VOCABULARY}"
        )
    if "visual.proj" in weights:
        vision_width, _, _, patch = shape("visual.conv1.weight", 4)
        side = round((shape("visual.positional_embedding")[0] - 1) ** 0.5)
        vision: dict[str, Any] = {
            "image_size": side * patch,
            "layers": count("visual.transformer.resblocks."),
            "width": vision_width,
            "patch_size": patch,
        }
    else:
        side = round((shape("visual.attnpool.positional_embedding")[0] - 1) ** 0.5)
        vision = {
            "image_size": side * 32,
            "layers": [count(f"visual.layer{i}.") for i in (1, 2, 3, 4)],
            "width": shape("visual.layer1.0.conv1.weight", 4)[0],
            "patch_size": None,
        }
    dim = shape("text_projection")[1]
    return {"embed_dim": dim, "vision_cfg": vision, "text_cfg": text}


def _open(place: str, *, source: str, download: bool) -> Checkpoint:
    path, key = with_key(place)
    if not path.exists() and re.fullmatch(r"(ViT-|RN)[\w@/-]+", place):
        raise GeomkitError(
            f"{source}: no such file; name OpenAI's own weights open_clip:"
            f"{place.replace('/', '-').replace('@', '-').removesuffix('px')}/openai"
        )
    weights, facts = read_weights(path, key=key)
    refuse_transformers(weights, source, path)
    facts["preprocess_from"] = "OpenAI's own"
    written = activation(path)
    if written is None:
        facts["notes"].append(
            "activation QuickGELU and heads of 64 dimensions assumed, as OpenAI's models have; for "
            f"others, name the architecture: open_clip:NAME/{place}"
        )

    def open_one(found: dict[str, Tensor], facts: dict[str, Any]) -> Checkpoint:
        return opened_by_shapes(
            found,
            "openai",
            source,
            facts,
            what="an architecture of OpenAI's",
            quick_gelu=written != "GELU",
        )

    return open_fitting(weights, facts, source, open_one)


KIND = CheckpointKind("openai", "CLIP in OpenAI's weight names", _open, ("openai:FILE",))
