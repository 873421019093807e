"""What a folder or file is that a SOURCE names and that its kind does not read, and what does."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from geomkit._core.memory import check_file

__all__ = ["HUB", "hint", "hub_hint"]

_SUFFIXES = (".pt", ".pth", ".npz", ".npy", ".safetensors", ".parquet", ".bin", ".csv", ".jsonl")


HUB = "hf-hub:"
_FILES = (("open_clip_config.json", "open_clip"), ("config.json", "hf"))
_CACHES = ("snapshots/*", "models--*/snapshots/*", "hub/models--*/snapshots/*")


def hub_hint(name: str) -> str:
    """Return how to fetch a name on the Hub, to end an error with; nothing for another name.

    >>> hub_hint("openai/clip")
    '; for a name on the Hub, hf download openai/clip --local-dir DIR, then name that folder'
    """
    name = name.removeprefix(HUB)
    if re.match(r"(?i)(vit-|rn\d|coca_|eva0|convnext)", name):
        return f"; for a model of open_clip, name open_clip:{name}"
    if not re.fullmatch(r"\w[\w-]*/[\w-]+[\w.-]*", name) or name.endswith(_SUFFIXES):
        return ""
    return f"; for a name on the Hub, hf download {name} --local-dir DIR, then name that folder"


def hint(folder: Path, *, below: bool = True) -> str:
    """Return what a folder is and how to name the model in it, to end an error with.

    Nothing if it holds nothing that is known.

    Args:
        folder: Folder.
        below: Whether the folders in it are looked at, too.
    """
    adapter = _json(folder / "adapter_config.json")
    if isinstance(adapter, dict):
        base = adapter.get("base_model_name_or_path")
        return (
            f": an adapter of '{base}' alone, without the model; put it into the model with peft's "
            "merge_and_unload() and save that"
        )
    modules = _json(folder / "modules.json")
    if isinstance(modules, list):
        paths = [str(m.get("path")) for m in modules if isinstance(m, dict) and m.get("path")]
        found = next((p for p in paths if (folder / p / "config.json").exists()), None)
        told = f"; its model is hf:{folder / found}" if found else ""
        return f": a folder of sentence-transformers{told}"
    for name, prefix in _FILES:
        if (folder / name).exists():
            return f"; it holds {name}: name it {prefix}:{folder}"
    found_below = [
        f"{prefix}:{place.parent}"
        for pattern in (*_CACHES, *["*"][:below])
        for name, prefix in _FILES
        for place in sorted(folder.glob(f"{pattern}/{name}"))
    ]
    if not found_below:
        return ""
    more = f" and {len(found_below) - 3} more" if len(found_below) > 3 else ""
    return f"; below it are {', '.join(found_below[:3])}{more}"


def _json(path: Path) -> Any:
    try:
        check_file(path)
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, RecursionError, ValueError):
        return None
