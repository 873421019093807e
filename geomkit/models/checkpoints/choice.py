"""Which of the models in a file is read: the one that fits, its wrapper's prefix taken off."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geomkit.errors import GeomkitError
from geomkit.models.checkpoints.checkpoint import Checkpoint
from geomkit.models.checkpoints.weights import left_out, under_prefix

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["open_fitting", "refuse_transformers"]

_PREFIX = re.compile(r"((?:.+?\.)?)visual\.")
"""What is before the name of a model's image encoder, and so before all of its names."""
_SCALARS = ("logit_scale", "logit_bias")
"""Weights of the loss, which some keep outside the model."""


def open_fitting(
    weights: dict[str, Tensor],
    facts: dict[str, Any],
    source: str,
    open_one: Callable[[dict[str, Tensor], dict[str, Any]], Checkpoint],
) -> Checkpoint:
    """Return the model among weights, whatever prefix its names have.

    Args:
        weights: Weights by name: of one model, of one inside another module, or of several.
        facts: Facts about the file, see :func:`read_weights`.
        source: The SOURCE, for errors.
        open_one: Function of a model's weights and facts to the model.

    Raises:
        GeomkitError: If none fits, or several do and none of them is at the top.
    """
    found = {match[1] for k in weights if (match := _PREFIX.match(k))}
    prefixes = sorted(found, key=lambda p: (len(p), p)) or [""]
    if len(prefixes) == 1:
        prefix, own = prefixes[0], {**facts}
        inside = {f"{prefix}{k}": weights[k] for k in _SCALARS if k in weights}
        rest = {k: v for k, v in weights.items() if k not in _SCALARS}
        return open_one(under_prefix({**inside, **rest}, prefix, source, own), own)
    opened: dict[str, Checkpoint] = {}
    errors: list[GeomkitError] = []
    for prefix in prefixes:
        inner = tuple(p for p in prefixes if p != prefix and p.startswith(prefix))
        mine = {k: v for k, v in weights.items() if not k.startswith(inner)}
        others = [k for k in weights if k.startswith(inner)]
        own = {**facts, "notes": [*facts["notes"], *left_out(others, _why(inner))]}
        try:
            opened[prefix] = open_one(under_prefix(mine, prefix, source, own), own)
        except GeomkitError as error:
            errors.append(error)
    if not opened:
        raise errors[0]
    if len(opened) > 1 and "" not in opened:
        keys = " or ".join(f"#{p.rstrip('.')}" for p in opened)
        raise GeomkitError(f"{source}: holds {len(opened)} models that fit; choose with {keys}")
    return opened.get("") or next(iter(opened.values()))


def _why(prefixes: tuple[str, ...]) -> str:
    return f"of another model, read with #{prefixes[0].rstrip('.')}" if prefixes else ""


def refuse_transformers(weights: dict[str, Tensor], source: str, path: Path) -> None:
    """Refuse weights in transformers' names where others are expected.

    Raises:
        GeomkitError: If they are; it says how to name them.
    """
    name = next((k for k in weights if ".text_model.encoder." in f".{k}"), None)
    if name is not None:
        folder = path.parent if (path.parent / "config.json").exists() else "DIR"
        raise GeomkitError(
            f"{source}: weights in transformers' names ('{name}'); name the folder that holds "
            f"them, their config.json and their tokenizer: hf:{folder}"
        )
