"""The text encoder of transformers that a model config names: where its own config is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from geomkit.errors import GeomkitError
from geomkit.models.architectures import ModelConfig
from geomkit.models.checkpoints.folder_inputs import read_json

__all__ = ["HUB_NAME", "local_text_model", "text_model_config"]

HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
"""What the name of a model on the Hub looks like; anything else is a path."""


def local_text_model(config: ModelConfig, source: str) -> tuple[ModelConfig, dict[str, Any]]:
    """Return a config whose text encoder is a folder of this machine, and that encoder's config.

    A name on the Hub is looked up in the local cache.

    Raises:
        GeomkitError: If there is no such config, or it names code.
    """
    name = config["text_cfg"].get("hf_model_name")
    if not name:
        return config, {}
    file = Path(name) / "config.json"
    if not Path(name).is_absolute():
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(name, "config.json") if HUB_NAME.fullmatch(name) else None
        file = Path(found) if isinstance(found, str) else Path()
    if not file.is_file():
        raise GeomkitError(
            f"{source}: its text encoder is {name!r} of transformers, whose config.json is not on "
            "this machine; put it into the folder, or --download fetches it"
        )
    text = {**config["text_cfg"], "hf_model_name": str(file.parent)}
    return {**config, "text_cfg": text}, text_model_config(file)


def text_model_config(file: Path) -> dict[str, Any]:
    """Return what a ``config.json`` of transformers says.

    Raises:
        GeomkitError: If it cannot be read, or names code to run.
    """
    described = read_json(file)
    if "auto_map" in described or "/" in str(described.get("attn_implementation")):
        raise GeomkitError(f"{file}: asks to run code that comes with the model; refused")
    return described
