"""Tensors by name from any file that holds them, without executing anything in it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geomkit.errors import GeomkitError
from geomkit.models.checkpoints.reading import reading
from geomkit.models.checkpoints.torch_file import read_torch_file
from geomkit.models.checkpoints.torchscript import is_torchscript, read_torchscript

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["is_state_dict", "read_weights", "strip_prefixes", "weights_sha256"]

_TRAINED = ("state_dict", "model_state_dict", "model")
_AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "model_ema_state_dict", "ema")
_WRAPPERS = ("module.", "_orig_mod.")
"""Prefixes that DistributedDataParallel and torch.compile add to every name."""


def read_weights(path: Path, *, key: str | None = None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the weights of a file: state dict, training checkpoint, safetensors or TorchScript.

    If a training checkpoint holds both, the trained weights are read, not their running average
    (EMA), unless ``key`` names it.

    Args:
        path: The file.
        key: Entry of a training checkpoint to read.

    Returns:
        The tensors, and facts about the file: ``weights`` (the entry read), ``other_weights`` (the
        entries not read), ``epoch``, ``name``.

    Raises:
        GeomkitError: If the file is missing, foreign, damaged, or would have to be executed.
    """
    if not path.exists():
        raise GeomkitError(f"{path}: no such file")
    reader = None
    if path.suffix == ".safetensors":
        reader, form = _read_safetensors, "safetensors"
    elif is_torchscript(path):
        reader, form = read_torchscript, "TorchScript"
    if reader is not None:
        if key is not None:
            raise GeomkitError(f"{path}: holds one set of weights; leave '#{key}' out")
        return strip_prefixes(reader(path)), {"weights": form}
    content = read_torch_file(path)
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise GeomkitError(f"{path}: expected weights by name, got a {kind}")
    dicts = [k for k, v in content.items() if is_state_dict(v)]
    if key is not None:
        if key not in dicts:
            raise GeomkitError(
                f"{path}: no weights under '{key}' (there are: {', '.join(dicts) or 'none'})"
            )
        chosen = key
    elif is_state_dict(content):
        return strip_prefixes(content), {"weights": "state dict"}
    else:
        known = [k for k in (*_TRAINED, *_AVERAGED) if k in dicts]
        if not known and len(dicts) != 1:
            raise GeomkitError(
                f"{path}: no state dict in it; expected tensors by name or a training checkpoint "
                f"(found: {_some(content)})"
            )
        chosen = (known or dicts)[0]
    facts: dict[str, Any] = {"weights": chosen}
    others = [k for k in dicts if k != chosen and k in (*_TRAINED, *_AVERAGED)]
    if others:
        facts["other_weights"] = others
    for name in ("epoch", "name"):
        if isinstance(content.get(name), int | str):
            facts[name] = content[name]
    return strip_prefixes(content[chosen]), facts


def strip_prefixes(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the same weights without the prefix that a wrapper of the model added to every name.

    >>> import torch
    >>> list(strip_prefixes({"module.a.weight": torch.ones(1)}))
    ['a.weight']
    """
    while True:
        prefix = next((p for p in _WRAPPERS if all(k.startswith(p) for k in state_dict)), None)
        if prefix is None or not state_dict:
            return dict(state_dict)
        state_dict = {k.removeprefix(prefix): v for k, v in state_dict.items()}


def weights_sha256(state_dict: dict[str, Tensor]) -> str:
    """Return a checksum over names, shapes, types and bytes of all weights, in order of names.

    Args:
        state_dict: Weights by name.

    >>> import torch
    >>> weights_sha256({"a": torch.zeros(1)}) == weights_sha256({"a": torch.zeros(1)})
    True
    """
    import torch

    digest = hashlib.sha256()
    for name in sorted(state_dict):
        tensor = state_dict[name].detach().cpu().contiguous()
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def is_state_dict(value: Any) -> bool:
    """Whether a value is a dictionary of tensors by name, and not empty."""
    from torch import Tensor

    return (
        isinstance(value, dict)
        and len(value) > 0
        and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items())
    )


def _some(names: Iterable[Any]) -> str:
    found = [str(name) for name in names]
    return ", ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    with reading(path, "not safetensors, or truncated"):
        return load_file(path)
