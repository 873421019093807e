"""Tensors by name, out of whatever file holds them, without running anything it contains."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor

from geomkit.errors import GeomkitError
from geomkit.models.checkpoints.own import read_torch_file
from geomkit.models.checkpoints.torchscript import is_torchscript, read_torchscript

__all__ = ["read_weights", "strip_prefixes"]

_TRAINED = ("state_dict", "model_state_dict", "model")
_AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "model_ema_state_dict", "ema")
_WRAPPERS = ("module.", "_orig_mod.")
"""What DistributedDataParallel and torch.compile put before every name."""


def read_weights(path: Path, *, key: str | None = None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state dict of a file: plain, inside a training checkpoint, safetensors or TorchScript.

    Of a training checkpoint that holds both, the trained weights are read, not their running
    average (EMA), unless ``key`` names it.

    Args:
        path: the file.
        key: which entry of a training checkpoint to read.

    Returns:
        The tensors, and what is worth telling: ``weights`` (the entry read), ``other_weights``
        (entries that were not), ``epoch``, ``name``.

    Raises:
        GeomkitError: if the file is missing, foreign, damaged, or would have to be executed.
    """
    if not path.exists():
        raise GeomkitError(f"{path}: no such file")
    if path.suffix == ".safetensors":
        return _named(_read_safetensors(path), path, key), {"weights": "safetensors"}
    if is_torchscript(path):
        return _named(read_torchscript(path), path, key), {"weights": "TorchScript"}
    content = read_torch_file(path)
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise GeomkitError(f"{path}: expected weights by name, got a {kind}")
    dicts = [k for k, v in content.items() if _is_state_dict(v)]
    if key is not None:
        if key not in dicts:
            raise GeomkitError(
                f"{path}: no weights under '{key}' (there are: {', '.join(dicts) or 'none'})"
            )
        chosen = key
    elif _is_state_dict(content):
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
    """The same weights without what a wrapper of the model put before every name.

    >>> list(strip_prefixes({"module.a.weight": Tensor()}))
    ['a.weight']
    """
    while True:
        prefix = next((p for p in _WRAPPERS if all(k.startswith(p) for k in state_dict)), None)
        if prefix is None or not state_dict:
            return dict(state_dict)
        state_dict = {k.removeprefix(prefix): v for k, v in state_dict.items()}


def _named(state_dict: dict[str, Tensor], path: Path, key: str | None) -> dict[str, Tensor]:
    if key is not None:
        raise GeomkitError(f"{path}: holds one set of weights; leave '#{key}' out")
    return strip_prefixes(state_dict)


def _is_state_dict(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and len(value) > 0
        and all(isinstance(k, str) for k in value)
        and all(isinstance(v, Tensor) for v in value.values())
    )


def _some(names: Iterable[Any]) -> str:
    found = [str(name) for name in names]
    return ", ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        reason = (str(error).splitlines() or ["unknown reason"])[0]
        raise GeomkitError(f"{path}: not safetensors, or truncated ({reason})") from None
    except OSError as error:
        raise GeomkitError(f"{path}: cannot be read ({error.strerror or error})") from None
