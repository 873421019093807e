"""Stand-ins for what torch files hold beside tensors: numpy's numbers and arrays, and options.

They let torch's restricted unpickler read such a file. Each takes numbers, strings and bytes alone,
so that a file can no more run code or write into memory than one of plain tensors can.
"""

from __future__ import annotations

import argparse
import pickle
import re
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["PLAIN_VALUES", "NotPlainError"]

_PLAIN_TYPE = re.compile(r"[biufcSU]\d+")


class NotPlainError(pickle.UnpicklingError):
    """A value that is no tensor, number or text; its message says what it is."""


class _Type:
    """A numpy type of numbers or text; numpy's own lets a file set flags that it trusts."""

    def __init__(self, code: str, *_: Any) -> None:
        if not isinstance(code, str) or not _PLAIN_TYPE.fullmatch(code):
            raise NotPlainError(f"an array of type {code!r}")
        self.value = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if any(entry is not None for entry in state[2:5]):
            raise NotPlainError("an array of records")
        if state[1] in ("<", ">"):
            self.value = self.value.newbyteorder(state[1])


class _Array(np.ndarray):
    def __new__(cls, *_: Any) -> _Array:
        return super().__new__(cls, (0,), "f4")

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, data = state
        if not isinstance(kind, _Type) or not isinstance(data, bytes):
            raise NotPlainError("a damaged array")
        super().__setstate__((1, shape, kind.value, fortran, data))


def _named(name: str, value: Callable[..., Any]) -> Callable[..., Any]:
    """A value under the name that a pickle calls it by."""
    value.__module__, _, value.__qualname__ = name.rpartition(".")
    value.__name__ = value.__qualname__
    return value


def _scalar(name: str) -> Callable[..., Any]:
    def scalar(kind: _Type, data: bytes) -> Any:
        return np.frombuffer(data, kind.value, count=1)[0]

    return _named(name, scalar)


def _reconstruct(name: str) -> Callable[..., Any]:
    return _named(name, lambda *_: _Array())


PLAIN_VALUES: list[Any] = [
    argparse.Namespace,
    _named("builtins.bytes", lambda: b""),  # of an empty array
    _named("numpy.dtype", _Type),
    _named("numpy.ndarray", _Array),
    *(
        make(f"numpy.{core}.multiarray.{name}")
        for core in ("core", "_core")
        for name, make in (("scalar", _scalar), ("_reconstruct", _reconstruct))
    ),
]
"""What a torch file may name beside what torch allows, for ``torch.serialization.safe_globals``."""
