"""The few array operations that the array API standard lacks, for numpy and torch alike."""

from __future__ import annotations

from typing import Any

import array_api_compat
import numpy as np

__all__ = ["Array", "eye", "is_torch", "like", "namespace", "to_numpy", "upcast"]

Array = Any
"""A numpy array or a torch tensor."""


def namespace(*arrays: Array) -> Any:
    """The array API namespace that the arrays share.

    >>> namespace(np.ones(2)).__name__
    'array_api_compat.numpy'
    """
    return array_api_compat.array_namespace(*arrays)


def is_torch(array: Array) -> bool:
    """Whether the array is a torch tensor; imports nothing to find out.

    >>> is_torch(np.ones(2))
    False
    """
    return array_api_compat.is_torch_array(array)


def upcast(array: Array) -> Array:
    """Half precision becomes float32, anything wider stays: sums in half precision lose digits.

    >>> upcast(np.ones(2, np.float16)).dtype
    dtype('float32')
    """
    xp = namespace(array)
    if array.dtype in (xp.float32, xp.float64):
        return array
    return xp.astype(array, xp.float32)


def eye(n: int, like: Array, *, columns: int | None = None, offset: int = 0) -> Array:
    """Rows ``offset`` to ``offset + n`` of an identity, in the dtype and on the device of ``like``.

    >>> eye(1, np.ones(1), columns=3, offset=1)
    array([[0., 1., 0.]])
    """
    xp = namespace(like)
    device = array_api_compat.device(like)
    return xp.eye(n, columns, k=offset, dtype=like.dtype, device=device)


def to_numpy(array: Array) -> np.ndarray:
    """A numpy array of the same values, detached and on the CPU.

    bfloat16, which numpy lacks, becomes float32.
    """
    if is_torch(array):
        array = array.detach().cpu()
        return upcast(array).numpy() if "bfloat16" in str(array.dtype) else array.numpy()
    return np.asarray(array)


def like(index: np.ndarray, array: Array) -> Array:
    """An index in the form that ``array`` can be indexed with."""
    if is_torch(array):
        import torch

        return torch.from_numpy(index).to(array.device)
    return index
