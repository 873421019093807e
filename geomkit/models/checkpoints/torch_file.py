"""What a torch file holds, without executing anything in it."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

from geomkit.errors import GeomkitError
from geomkit.models.checkpoints.kinds import named_as
from geomkit.models.checkpoints.reading import reading
from geomkit.models.checkpoints.torchscript import is_torchscript

__all__ = ["read_torch_file"]


def read_torch_file(path: str | Path) -> Any:
    """Return what a torch file holds, on the CPU. Only plain tensors and containers are unpickled.

    Raises:
        GeomkitError: If the file is missing, truncated, foreign, or holds a pickle that would have
            to be executed.
    """
    import torch

    path = Path(path)
    if not path.exists():
        raise GeomkitError(f"{path}: no such file")
    if path.is_dir():
        raise GeomkitError(f"{path}: is a folder; name a model in it as {named_as(path)}")
    if is_torchscript(path):
        raise GeomkitError(f"{path}: a TorchScript archive; if it is OpenAI's CLIP, openai:{path}")
    with reading(path, "not a checkpoint, or truncated"):
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            if "weights" in str(error).lower() and "unsupported" in str(error).lower():
                raise GeomkitError(
                    f"{path}: holds more than plain tensors and containers; refused, since loading "
                    "it could run code"
                ) from None
            raise GeomkitError(f"{path}: not a checkpoint, or damaged") from None
