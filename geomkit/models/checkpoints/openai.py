"""``openai:FILE``: OpenAI's archives of CLIP, a TorchScript program with its weights.

The weights are read, the program is not run; the architecture follows from their shapes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from geomkit.errors import GeomkitError
from geomkit.models.checkpoints.checkpoint import Checkpoint
from geomkit.models.checkpoints.fit import fitted
from geomkit.models.checkpoints.weights import read_weights
from geomkit.models.preprocess import Preprocess
from geomkit.models.tokenizers import Tokenizer

__all__ = ["architecture_of_shapes", "open_openai"]

VOCABULARY = 49408
"""Of the byte-pair tokenizer that OpenAI's models share."""


def open_openai(file: str, *, source: str, download: bool = False) -> Checkpoint:
    """A CLIP of OpenAI's.

    Args:
        file: the ``.pt`` archive, or a state dict in the same names.
        source: the SOURCE that names it.
        download: without effect; the file is here or it is not.

    Raises:
        GeomkitError: if the file is missing or damaged, or its weights are of another kind.
    """
    weights, facts = read_weights(Path(file))
    config = architecture_of_shapes(weights, source)
    model = fitted(config, weights, source, what="an architecture of OpenAI's")
    facts["preprocess_from"] = "OpenAI's own"
    preprocess, tokenizer = Preprocess.for_model(config).explicit(), Tokenizer.for_model(config)
    return Checkpoint(model, "openai", source, config, preprocess, tokenizer, facts)


def architecture_of_shapes(weights: dict[str, Tensor], source: str) -> dict[str, Any]:
    """open_clip's config of an OpenAI CLIP, a ViT or a ResNet, from its weights.

    Raises:
        GeomkitError: if a weight that tells is missing.
    """

    def shape(key: str) -> tuple[int, ...]:
        if key not in weights:
            raise GeomkitError(f"{source}: not a CLIP in OpenAI's names, missing '{key}'")
        return tuple(weights[key].shape)

    def count(start: str) -> int:
        depth = start.count(".")
        return len({k.split(".")[depth] for k in weights if k.startswith(start)})

    width = shape("ln_final.weight")[0]
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
        vision_width, _, _, patch = shape("visual.conv1.weight")
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
            "width": shape("visual.layer1.0.conv1.weight")[0],
            "patch_size": None,
        }
    dim = shape("text_projection")[1]
    return {"embed_dim": dim, "quick_gelu": True, "vision_cfg": vision, "text_cfg": text}
