"""Checkpoints: one file with everything needed to measure, draw or go on training a model."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from geomkit._core.files import atomic_write
from geomkit.errors import GeomkitError
from geomkit.models.two_encoder import TwoEncoder

__all__ = ["FORMAT", "SCHEMA_VERSION", "load_checkpoint", "load_model", "save_checkpoint"]

FORMAT = "geomkit-checkpoint"
SCHEMA_VERSION = 1

_KEYS = (
    "state_dict",
    "optimizer",
    "epoch",
    "step",
    "rng",
    "model_config",
    "preprocess",
    "tokenizer",
    "loss",
    "config",
    "data",
    "history",
    "snapshots",
    "versions",
)


def save_checkpoint(path: str | Path, content: dict[str, Any]) -> None:
    """Write a checkpoint atomically; an older one at the same place survives until it is whole.

    Args:
        path: the file.
        content: the keys of a checkpoint; ``format`` and ``schema_version`` are added.

    Raises:
        GeomkitError: if it cannot be written.
    """
    missing = [key for key in _KEYS if key not in content]
    if missing:
        raise GeomkitError(f"checkpoint: missing {', '.join(missing)}")
    whole = {"format": FORMAT, "schema_version": SCHEMA_VERSION, **content}
    try:
        with atomic_write(Path(path), overwrite=True) as file:
            torch.save(whole, file)
    except RuntimeError as error:
        # torch's zip writer turns the file's own error into one of its own.
        raise GeomkitError(
            f"{path}: cannot be written ({str(error).splitlines()[0]}); what was there is untouched"
        ) from error


def read_torch_file(path: str | Path) -> Any:
    """Whatever a torch file holds, on the CPU; only plain tensors and containers are unpickled.

    Raises:
        GeomkitError: if the file is missing, truncated, foreign, or a pickle that would have to be
            executed.
    """
    path = Path(path)
    if path.is_dir():
        raise GeomkitError(f"{path}: is a folder; name a checkpoint file")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise GeomkitError(f"{path}: no such file") from None
    except PermissionError:
        raise GeomkitError(f"{path}: not readable; check its permissions") from None
    except pickle.UnpicklingError as error:
        if "weights" in str(error).lower() and "unsupported" in str(error).lower():
            raise GeomkitError(
                f"{path}: holds more than plain tensors and containers; refused, since loading it "
                "could run code"
            ) from None
        raise GeomkitError(f"{path}: not a checkpoint, or damaged") from None
    except Exception as error:  # torch raises what its readers raise on a damaged file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise GeomkitError(f"{path}: not a checkpoint, or truncated ({reason})") from None


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU.

    Raises:
        GeomkitError: as :func:`read_torch_file`, or if it is not a checkpoint of ours, incomplete,
            or newer than this version.
    """
    return as_checkpoint(read_torch_file(path), path)


def as_checkpoint(content: Any, path: str | Path) -> dict[str, Any]:
    """Check that what a torch file holds is a checkpoint of ours.

    Raises:
        GeomkitError: if it is not, is incomplete, or newer than this version.
    """
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise GeomkitError(f"{path}: a torch file, but not a checkpoint written by geomkit")
    version = content.get("schema_version")
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise GeomkitError(
            f"{path}: written in schema version {version}, this geomkit reads up to "
            f"{SCHEMA_VERSION}; upgrade geomkit"
        )
    missing = [key for key in _KEYS if key not in content]
    if missing:
        raise GeomkitError(f"{path}: damaged checkpoint, missing {', '.join(missing)}")
    return content


def load_model(checkpoint: dict[str, Any], *, source: str = "checkpoint") -> TwoEncoder:
    """The model of a checkpoint, in evaluation mode on the CPU.

    Args:
        checkpoint: as :func:`load_checkpoint` gives it.
        source: what to call it in an error.

    Raises:
        GeomkitError: if the weights do not fit the stored config.
    """
    from geomkit.models.checkpoints.fit import fitted

    return fitted(checkpoint["model_config"], checkpoint["state_dict"], source)


def weights_sha256(state_dict: dict[str, Tensor]) -> str:
    """A checksum over names, shapes and bytes of all weights, in order of their names.

    >>> weights_sha256({"a": torch.zeros(1)}) == weights_sha256({"a": torch.zeros(1)})
    True
    """
    digest = hashlib.sha256()
    for name in sorted(state_dict):
        tensor = state_dict[name].detach().cpu().contiguous()
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
