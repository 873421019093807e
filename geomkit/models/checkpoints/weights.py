"""Tensors by name from any file that holds them, without executing anything in it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geomkit._core.memory import check_file
from geomkit.errors import GeomkitError
from geomkit.models.checkpoints.reading import reading
from geomkit.models.checkpoints.torch_file import read_torch_file
from geomkit.models.checkpoints.torchscript import is_torchscript, read_torchscript

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "is_state_dict", "left_out", "read_weights", "strip_prefixes", "under_prefix",
    "weights_sha256", "with_key",
]  # fmt: skip

_TRAINED = ("state_dict", "model_state_dict", "model", "module")
_AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "model_ema_state_dict", "ema")
_WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_forward_module")
"""What DistributedDataParallel, torch.compile, FSDP and Lightning's strategies add to names."""


def with_key(place: str) -> tuple[Path, str | None]:
    """Return the file of a place ``FILE`` or ``FILE#KEY``, and the key.

    >>> with_key("w.pt#state_dict.student")[1]
    'state_dict.student'
    """
    if not Path(place).exists() and "#" in place:
        before, _, key = place.rpartition("#")
        return Path(before), key.rstrip(".")
    return Path(place), None


def read_weights(path: Path, *, key: str | None = None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the weights of a file: state dict, training checkpoint, safetensors or TorchScript.

    If a training checkpoint holds both, the trained weights are read, not their running average
    (EMA), unless ``key`` names it.

    Args:
        path: The file.
        key: Entry of a training checkpoint to read, or names to read of the weights before the
            first dot, or both: ``state_dict_ema``, ``student``, ``state_dict.student``.

    Returns:
        The tensors, and facts about the file: ``weights`` (the entry read), ``other_weights`` (the
        entries not read), ``stripped`` (what was taken off names), ``epoch``, ``name``, ``notes``
        (what was left out).

    Raises:
        GeomkitError: If the file is missing, foreign, damaged, or would have to be executed; if
            nothing has such a key; if its adapters are not merged.
    """
    if not path.exists():
        raise GeomkitError(f"{path}: no such file")
    check_file(path)
    if path.suffix == ".safetensors":
        content, form = _read_safetensors(path), "safetensors"
    elif is_torchscript(path):
        content, form = read_torchscript(path), "TorchScript"
    else:
        content, form = read_torch_file(path), "state dict"
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise GeomkitError(f"{path}: expected weights by name, got a {kind}")
    beside: dict[str, list[str]] = {}
    content = {k: _tensors_alone(v, beside.setdefault(k, [])) for k, v in content.items()}
    content = _tensors_alone(content, beside.setdefault("", []))
    dicts = [k for k, v in content.items() if is_state_dict(v)]
    facts: dict[str, Any] = {"weights": form, "notes": left_out(beside[""], "no tensor")}
    if is_state_dict(content):
        chosen, prefix = content, key
    else:
        entry, prefix = _entry(path, content, dicts, key)
        chosen = content[entry]
        facts |= {"weights": entry, "notes": left_out(beside[entry], "no tensor")}
        others = [k for k in dicts if k != entry and k in (*_TRAINED, *_AVERAGED)]
        if others:
            facts["other_weights"] = others
        for name in ("epoch", "name"):
            if isinstance(content.get(name), np.generic):
                content[name] = content[name].item()
            if isinstance(content.get(name), int | str):
                facts[name] = content[name]
    found = strip_prefixes(chosen)
    wrappers = {w for k in chosen.keys() - found.keys() for w in _WRAPPERS if w in k.split(".")}
    facts["stripped"] = [f"{w}." for w in _WRAPPERS if w in wrappers]
    adapter = next((k for k in found if ".lora_" in k or ".base_layer." in k), None)
    if adapter is not None:
        raise GeomkitError(
            f"{path}: holds adapters that are not merged into the model ('{adapter}'); merge them "
            "with peft's merge_and_unload() and save again"
        )
    if prefix:
        found = under_prefix(found, f"{prefix}.", path, facts)
    return found, facts


def _tensors_alone(value: Any, others: list[str]) -> Any:
    """A state dict with numpy's arrays as tensors, and without numbers, whose names go to a list.

    Any other value is returned as it is.
    """
    import torch

    if not isinstance(value, dict) or not all(isinstance(k, str) for k in value):
        return value
    arrays = (torch.Tensor, np.ndarray)
    rest = [k for k, v in value.items() if not isinstance(v, arrays)]
    numbers = all(isinstance(value[k], int | float | np.generic | None) for k in rest)
    if not numbers or not any("." in k for k in value.keys() - set(rest)):
        return value
    others += rest
    return {k: torch.as_tensor(v) for k, v in value.items() if k not in rest}


def _entry(
    path: Path, content: dict[str, Any], dicts: list[str], key: str | None
) -> tuple[str, str | None]:
    """The entry of a training checkpoint to read, and the prefix that the key names in it."""
    if key is not None and (named := [k for k in dicts if f"{key}.".startswith(f"{k}.")]):
        entry = max(named, key=len)
        return entry, key[len(entry) + 1 :] or None
    known = [k for k in (*_TRAINED, *_AVERAGED) if k in dicts]
    if not known and len(dicts) > 1 and key is None:
        raise GeomkitError(
            f"{path}: holds several sets of weights; choose one by its key, such as "
            f"{path.name}#{dicts[0]} (there are: {', '.join(dicts)})"
        )
    if not known and len(dicts) != 1:
        raise GeomkitError(
            f"{path}: no state dict in it; expected tensors by name or a training checkpoint "
            f"(found: {_some(content)})"
        )
    entry = (known or dicts)[0]
    names = strip_prefixes(content[entry])
    if key is not None and not any(k.startswith(f"{key}.") for k in names):
        raise GeomkitError(f"{path}: no weights under '{key}' (there are: {', '.join(dicts)})")
    return entry, key


def strip_prefixes(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the same weights without what wrappers of a model add to names, wherever it stands.

    >>> import torch
    >>> list(strip_prefixes({"model.module.a._orig_mod.weight": torch.ones(1)}))
    ['model.a.weight']
    """
    bare = {k: ".".join(p for p in k.split(".") if p not in _WRAPPERS) for k in state_dict}
    if len(set(bare.values())) < len(bare):  # a name that has it by itself
        return dict(state_dict)
    return {bare[k]: v for k, v in state_dict.items()}


def under_prefix(
    weights: dict[str, Tensor], prefix: str, source: str | Path, facts: dict[str, Any]
) -> dict[str, Tensor]:
    """Return the weights whose names begin with a prefix, without it.

    Args:
        weights: Weights by name.
        prefix: Prefix, with the dot at its end; or nothing.
        source: Name of the file in errors.
        facts: Facts about the file; ``stripped`` and ``notes`` get what was taken off, left out.

    Raises:
        GeomkitError: If there are none.
    """
    if not prefix:
        return weights
    found = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
    if not found:
        starts = sorted({k.partition(".")[0] for k in weights})
        raise GeomkitError(f"{source}: no weights under '{prefix}' (there are: {_some(starts)})")
    facts["stripped"] = [*facts["stripped"], prefix]
    others = [k for k in weights if not k.startswith(prefix)]
    facts["notes"] = [*facts["notes"], *left_out(others, f"not under '{prefix}'")]
    return found


def left_out(names: Sequence[str], why: str) -> list[str]:
    """Return the note that weights were not read, if there are any.

    >>> left_out(["a.b"], "not needed")
    ["1 weight left out, not needed: 'a.b'"]
    """
    if not names:
        return []
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    plural = "s" * (len(names) > 1)
    return [f"{len(names)} weight{plural} left out, {why}: '{names[0]}'{more}"]


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
