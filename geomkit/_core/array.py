"""Arrays of numpy or torch: their type, and operations that the array API standard lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeGuard, TypeVar

import array_api_compat
import numpy as np

if TYPE_CHECKING:
    import torch

__all__ = [
    "Array", "accumulator", "is_torch", "like", "namespace", "summable", "to_numpy", "upcast",
]  # fmt: skip


class Array(Protocol):
    """What a numpy array and a torch tensor have in common, for the type checker.

    Results are ``Any`` where their types disagree. Torch is not imported for it.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def ndim(self) -> int: ...
    @property
    def dtype(self) -> Any: ...
    @property
    def T(self) -> Any: ...
    def __len__(self) -> int: ...
    def __getitem__(self, key: Any, /) -> Any: ...
    def __setitem__(self, key: Any, value: Any, /) -> None: ...
    def __array__(self) -> np.ndarray: ...
    def __float__(self) -> float: ...
    def trace(self) -> Any: ...
    def __add__(self, other: Any, /) -> Any: ...
    def __radd__(self, other: Any, /) -> Any: ...
    def __sub__(self, other: Any, /) -> Any: ...
    def __rsub__(self, other: Any, /) -> Any: ...
    def __mul__(self, other: Any, /) -> Any: ...
    def __rmul__(self, other: Any, /) -> Any: ...
    def __truediv__(self, other: Any, /) -> Any: ...
    def __pow__(self, other: Any, /) -> Any: ...
    def __matmul__(self, other: Any, /) -> Any: ...


A = TypeVar("A", bound=Array)
"""A numpy array or a torch tensor; a function returns the kind that it is given."""


def namespace(*arrays: Array) -> Any:
    """Return the array API namespace that the arrays share.

    >>> namespace(np.ones(2)).__name__
    'array_api_compat.numpy'
    """
    return array_api_compat.array_namespace(*arrays)


def is_torch(array: object) -> TypeGuard[torch.Tensor]:
    """Whether an array is a torch tensor; torch is not imported to find out.

    >>> is_torch(np.ones(2))
    False
    """
    return array_api_compat.is_torch_array(array)


def upcast(array: A) -> A:
    """Return half precision as float32, wider arrays as they are: half-precision sums lose digits.

    >>> upcast(np.ones(2, np.float16)).dtype
    dtype('float32')
    """
    xp = namespace(array)
    if array.dtype in (xp.float32, xp.float64):
        return array
    return xp.astype(array, xp.float32)


def to_numpy(array: Array) -> np.ndarray:
    """Return a numpy array of the same values, detached and on the CPU.

    bfloat16, which numpy lacks, becomes float32.
    """
    if is_torch(array):
        array = array.detach().cpu()
        return upcast(array).numpy() if "bfloat16" in str(array.dtype) else array.numpy()
    return np.asarray(array)


def accumulator(shape: tuple[int, ...], dtype: type, near: Array) -> Any:
    """Return zeros to add up what is computed beside ``near``: on its device, if it has float64.

    >>> accumulator((2,), float, np.ones(1)).tolist()
    [0.0, 0.0]
    """
    if not is_torch(near) or near.device.type == "mps":
        return np.zeros(shape, dtype)
    import torch

    kind = torch.float64 if dtype is float else torch.int64
    return torch.zeros(shape, dtype=kind, device=near.device)


def summable(array: Array, dtype: type = float) -> Any:
    """Return an array as :func:`accumulator` adds it up, float64 or int64; it is not moved."""
    if not is_torch(array):
        return np.asarray(array, dtype)
    if array.device.type == "mps":
        return to_numpy(array).astype(dtype)
    return array.double() if dtype is float else array.long()


def like(index: np.ndarray, array: Array) -> Array:
    """Return a numpy array as the kind of array, on the device, that ``array`` is."""
    if is_torch(array):
        import torch

        return torch.from_numpy(index).to(array.device)
    return index
