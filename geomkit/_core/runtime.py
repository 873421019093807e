"""What ``auto`` means for device and precision, and which versions did the work."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator
from importlib import metadata

import torch

from geomkit.errors import GeomkitError, unknown_name

__all__ = [
    "autocast", "numerics", "resolve_device", "resolve_precision", "send", "use_device", "versions",
]  # fmt: skip

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "fp32", "bf16", "fp64")


def resolve_device(name: str) -> str:
    """``auto`` is CUDA where it is, else the CPU; anything else must be there.

    Under torchrun ``cuda`` without a number is each rank's own.

    Raises:
        GeomkitError: for an unknown device, or one this machine lacks.

    >>> resolve_device("cpu")
    'cpu'
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = name.partition(":")
    if kind not in DEVICES or (number and not number.isdigit()):
        raise unknown_name("device", name, DEVICES)
    if kind == "cuda":
        if not torch.cuda.is_available():
            raise GeomkitError("device 'cuda': none here that torch can use; try --device auto")
        if number and int(number) >= torch.cuda.device_count():
            raise GeomkitError(
                f"device '{name}': this machine has {torch.cuda.device_count()}; numbers start at 0"
            )
    if kind == "mps" and not torch.backends.mps.is_available():
        raise GeomkitError("device 'mps': none here that torch can use; try --device auto")
    if name == "cuda" and "LOCAL_RANK" in os.environ:
        return f"cuda:{int(os.environ['LOCAL_RANK']) % torch.cuda.device_count()}"
    return name


def resolve_precision(name: str, device: str) -> str:
    """``auto`` is bf16 on CUDA, fp32 elsewhere.

    Raises:
        GeomkitError: for an unknown precision.

    >>> resolve_precision("auto", "cpu")
    'fp32'
    """
    if name not in PRECISIONS:
        raise unknown_name("precision", name, PRECISIONS)
    if name != "auto":
        return name
    return "bf16" if device.startswith("cuda") else "fp32"


def autocast(device: str, precision: str) -> torch.autocast:
    """The autocast context of a precision; weights stay float32 (float64 for ``fp64``)."""
    return torch.autocast(
        device.partition(":")[0], dtype=torch.bfloat16, enabled=precision == "bf16"
    )


@contextlib.contextmanager
def numerics(precision: str) -> Iterator[None]:
    """Keep what ``fp32`` promises on CUDA, where convolutions would else round to TF32."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = before and precision == "bf16"
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def use_device(device: str) -> None:
    """Make a numbered CUDA device the current one; without a number it stays as it is."""
    place = torch.device(device)
    if place.type == "cuda" and place.index is not None:
        torch.cuda.set_device(place.index)


def send(tensor: torch.Tensor, device: str) -> torch.Tensor:
    """A tensor of the host's on a device; on CUDA without waiting for what runs there."""
    if device.startswith("cuda"):  # a copy from memory that is not page-locked, or not dense, waits
        return tensor.contiguous().pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def versions() -> dict[str, str]:
    """Versions of Python, geomkit and the packages that touch the numbers."""
    packages = ("geomkit", "torch", "open_clip_torch", "numpy")
    return {"python": platform.python_version(), **{p: metadata.version(p) for p in packages}}
