"""Device and precision: what ``auto`` means, and what they need; versions of the packages."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator
from importlib import metadata
from typing import Any

import torch

from geomkit.errors import GeomkitError, unknown_name

__all__ = [
    "autocast", "numerics", "resolve_device", "resolve_precision", "send", "use_device", "versions",
]  # fmt: skip

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "fp32", "bf16", "fp64")


def resolve_device(name: str) -> str:
    """Return the name of an available device; ``auto`` is CUDA if available, else the CPU.

    Under torchrun, ``cuda`` without a number is the device of the rank.

    Args:
        name: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    Raises:
        GeomkitError: If the device is unknown or not available.

    >>> resolve_device("cpu")
    'cpu'
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = name.partition(":")
    if kind not in DEVICES or (number and not number.isdecimal()):
        raise unknown_name("device", name, DEVICES)
    if kind == "cuda":
        if not torch.cuda.is_available():
            raise GeomkitError("device 'cuda': not available to torch; try --device auto")
        if number and int(number) >= torch.cuda.device_count():
            raise GeomkitError(
                f"device '{name}': this machine has {torch.cuda.device_count()} CUDA devices, "
                "numbered from 0; choose one of them"
            )
    if kind == "mps" and not torch.backends.mps.is_available():
        raise GeomkitError("device 'mps': not available to torch; try --device auto")
    if name == "cuda" and "LOCAL_RANK" in os.environ:
        return f"cuda:{int(os.environ['LOCAL_RANK']) % torch.cuda.device_count()}"
    return name


def resolve_precision(name: str, device: str) -> str:
    """Return the name of a precision; ``auto`` is bf16 on CUDA that computes in it, else fp32.

    Args:
        name: ``auto``, ``fp32``, ``bf16`` or ``fp64``.
        device: Name of the device.

    Raises:
        GeomkitError: If the precision is unknown.

    >>> resolve_precision("auto", "cpu")
    'fp32'
    """
    if name not in PRECISIONS:
        raise unknown_name("precision", name, PRECISIONS)
    if name != "auto":
        return name
    # Older devices emulate bf16, which is slower than fp32 there.
    fast = device.startswith("cuda") and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if fast else "fp32"


def autocast(device: str, precision: str) -> torch.autocast:
    """Return the autocast context of a precision; weights stay float32 (float64 for ``fp64``)."""
    return torch.autocast(
        device.partition(":")[0], dtype=torch.bfloat16, enabled=precision == "bf16"
    )


@contextlib.contextmanager
def numerics(precision: str = "fp32") -> Iterator[None]:
    """Keep float32 products exact, which torch may be set to round to TF32 or bfloat16.

    The settings are those of the process, and are put back; for ``bf16`` they are left alone.
    """
    backends: Any = torch.backends  # whose parts mypy does not know
    if precision == "bf16":
        yield
    elif hasattr(backends.cuda.matmul, "fp32_precision"):  # since torch 2.9, which mixes no APIs
        places = [
            backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn,
            backends.mkldnn.matmul, backends.mkldnn.conv, backends.mkldnn.rnn,
        ]  # fmt: skip
        before = [place.fp32_precision for place in places]
        try:
            for place in places:
                place.fp32_precision = "ieee"
            yield
        finally:
            for place, value in zip(places, before, strict=True):
                place.fp32_precision = value
    else:
        matmul, convolution = torch.get_float32_matmul_precision(), backends.cudnn.allow_tf32
        try:
            torch.set_float32_matmul_precision("highest")
            backends.cudnn.allow_tf32 = False
            yield
        finally:
            torch.set_float32_matmul_precision(matmul)
            backends.cudnn.allow_tf32 = convolution


def use_device(device: str) -> None:
    """Make a numbered CUDA device the current one; do nothing without a number."""
    place = torch.device(device)
    if place.type == "cuda" and place.index is not None:
        torch.cuda.set_device(place.index)


def send(tensor: torch.Tensor, device: str) -> torch.Tensor:
    """Return a CPU tensor on a device; on CUDA without waiting for running kernels."""
    if device.startswith("cuda"):  # a copy from pageable or strided memory would wait
        return tensor.contiguous().pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def versions() -> dict[str, str]:
    """Return versions of Python, geomkit and the packages that affect the numbers."""
    packages = ("geomkit", "torch", "open_clip_torch", "numpy")
    return {"python": platform.python_version(), **{p: metadata.version(p) for p in packages}}
