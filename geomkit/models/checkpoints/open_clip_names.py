"""Names of open_clip's architectures and tags, and what is assumed of weights that have only one.

Importing this module imports neither torch nor open_clip.
"""

from __future__ import annotations

import re
from pathlib import Path

from geomkit.models.architectures import OWN_CONFIGS, QUICK_GELU, ModelConfig, model_names
from geomkit.models.checkpoints.torchscript import activation
from geomkit.models.preprocess import OPENAI_MEAN, OPENAI_STD

__all__ = [
    "assumed_activation", "assumed_preprocessing", "name_and_rest", "or_tags", "tag_of", "tags_of",
]  # fmt: skip

_USUAL = {
    "mean": OPENAI_MEAN,
    "std": OPENAI_STD,
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}
"""open_clip's preprocessing where neither a tag nor a folder says another."""


def name_and_rest(place: str) -> tuple[str | None, str]:
    """Return the architecture that a place begins with, however it is spelled, and what follows it.

    ``ViT-B/32`` and ``vit-b-32`` are ``ViT-B-32``, ``ViT-L/14@336px`` is ``ViT-L-14-336``; a comma
    may stand between a name and a tag.
    """
    known = {name.lower(): name for name in model_names()}
    for count in (1, 2):
        *parts, rest = re.split("[/,]", f"{place}/", maxsplit=count)
        written = "-".join(parts).lower().replace("@", "-").removesuffix("px")
        base = written.removesuffix(QUICK_GELU)
        if found := known.get(written) or (known.get(base) and known[base] + QUICK_GELU):
            return found, rest.removesuffix("/")
    return None, place


def assumed_activation(config: ModelConfig, name: str, rest: str, path: Path) -> list[str]:
    """Return which activation is assumed for the weights of a file, as notes.

    Weights do not say it: OpenAI's, and those fine-tuned from them, have the names and shapes of
    the architecture with GELU. The program of a TorchScript archive does, and changes the config.

    Args:
        config: Config of the architecture, changed in place.
        name: Its name.
        rest: What follows it in the SOURCE.
        path: The file.
    """
    written = activation(path)
    if written is not None and bool(config.get("quick_gelu")) != (written == "QuickGELU"):
        config["quick_gelu"] = written == "QuickGELU"
        named = "GELU" if config["quick_gelu"] else "QuickGELU"
        return [f"activation {written}, as the program in its file has, not {named} as {name}"]
    foreign = "timm_model_name" in config["vision_cfg"] or "hf_model_name" in config["text_cfg"]
    if written is not None or config.get("quick_gelu") or foreign:
        return []
    return [
        f"activation GELU assumed, as {name} has; for OpenAI's weights, and those fine-tuned from "
        f"them, name open_clip:{name}{QUICK_GELU}/{rest}"
    ]


def assumed_preprocessing(name: str) -> list[str]:
    """Return a note if open_clip prepares images otherwise for weights of its own."""
    import open_clip

    for tag in tags_of(name):
        settings = open_clip.get_pretrained_cfg(name, tag)
        found = {k: settings[k] for k, v in _USUAL.items() if settings.get(k) not in (None, "", v)}
        if found:
            shown = [
                f"{k} {'/'.join(map(str, v)) if isinstance(v, tuple) else v}"
                for k, v in found.items()
            ]
            return [
                f"preprocessing assumed to be open_clip's default; the tag {tag} has "
                f"{', '.join(shown)}"
            ]
    return []


def tag_of(name: str, word: str) -> str | None:
    """Return open_clip's spelling of a tag, if it lists it for an architecture."""
    import open_clip

    word = word.lower().replace("-", "_")
    return word if name not in OWN_CONFIGS and open_clip.is_pretrained_cfg(name, word) else None


def tags_of(name: str) -> list[str]:
    """Return the tags of the weights that open_clip has of an architecture."""
    import open_clip

    return [] if name in OWN_CONFIGS else open_clip.list_pretrained_tags_by_model(name)


def or_tags(name: str) -> str:
    """Return the tags of an architecture, to end an error with; nothing if it has none."""
    tags = tags_of(name)
    return f" (open_clip has {', '.join(tags)})" if tags else ""
