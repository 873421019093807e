"""What open_clip's package says of its architectures, without the seconds that its import takes."""

from __future__ import annotations

import ast
import dataclasses
import json
import re
import sys
import typing
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from geomkit.errors import GeomkitError

__all__ = ["config_classes", "configs", "stored_configs"]

_CLASSES = {"model.py": ("CLIPVisionCfg", "CLIPTextCfg"), "coca_model.py": ("MultimodalCfg",)}


def _folder() -> Path:
    place = find_spec("open_clip")
    if place is None or place.origin is None:
        raise GeomkitError("open_clip is not installed; install open_clip_torch")
    return Path(place.origin).parent


def configs() -> dict[str, dict[str, Any]]:
    """Return open_clip's model configs by name, in its order.

    Where it is imported already, those count that were added to it.
    """
    imported = sys.modules.get("open_clip")
    if imported is None:
        return stored_configs()
    return {name: imported.get_model_config(name) for name in imported.list_models()}


@cache
def stored_configs() -> dict[str, dict[str, Any]]:
    """Return the model configs of open_clip's package by name, in its order."""
    files = (_folder() / "model_configs").glob("*.json")
    found = {path.stem: json.loads(path.read_text("utf-8")) for path in files}
    return {
        name: found[name]
        for name in sorted(found, key=_natural)
        if {"embed_dim", "vision_cfg", "text_cfg"} <= found[name].keys()
    }


def _natural(name: str) -> list[Any]:
    """A key that sorts B-16 before B-32 and B-32 before B-128."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name.lower())]


@cache
def config_classes() -> tuple[type, type, type]:
    """Return the dataclasses of ``vision_cfg``, ``text_cfg`` and ``multimodal_cfg``.

    They hold types and defaults alone, so their definitions are run without the modules around
    them; where another version of open_clip defines them otherwise, it is imported.
    """
    held: dict[str, Any] = {**vars(typing), "dataclass": dataclasses.dataclass}
    held["__name__"] = __name__
    try:
        for file, names in _CLASSES.items():
            whole = ast.parse((_folder() / file).read_text("utf-8"))
            wanted = [n for n in whole.body if isinstance(n, ast.ClassDef) and n.name in names]
            exec(compile(ast.Module([*wanted], []), file, "exec", dont_inherit=True), held)
        return held["CLIPVisionCfg"], held["CLIPTextCfg"], held["MultimodalCfg"]
    except (KeyError, NameError, OSError, SyntaxError):
        from open_clip.coca_model import MultimodalCfg
        from open_clip.model import CLIPTextCfg, CLIPVisionCfg

        return CLIPVisionCfg, CLIPTextCfg, MultimodalCfg
