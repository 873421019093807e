"""Many texts in one buffer, which processes share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import overload

import numpy as np

__all__ = ["Texts"]


class Texts(Sequence[str]):
    """Texts in one buffer of bytes with offsets.

    A forked process shares the pages of its parent until one of them writes to it, and to read a
    Python string is to count a reference in it: each worker would end with a copy of all.

    Args:
        texts: The texts.

    >>> words = Texts(["a red ball", "", "猫"])
    >>> len(words), words[2], words[1:]
    (3, '猫', ['', '猫'])
    """

    def __init__(self, texts: Iterable[str]) -> None:
        """Copy the texts."""
        parts = [text.encode("utf-8", "surrogatepass") for text in texts]
        self._ends = np.cumsum([0, *map(len, parts)])
        self._bytes = np.frombuffer(b"".join(parts), np.uint8)

    def __len__(self) -> int:
        """Return the number of texts."""
        return len(self._ends) - 1

    @overload
    def __getitem__(self, number: int) -> str: ...
    @overload
    def __getitem__(self, number: slice) -> list[str]: ...
    def __getitem__(self, number: int | slice) -> str | list[str]:
        """Return the text of a number, or those of a slice."""
        if isinstance(number, slice):
            return [self[i] for i in range(*number.indices(len(self)))]
        number = range(len(self))[number]
        start, end = self._ends[number : number + 2]
        return self._bytes[start:end].tobytes().decode("utf-8", "surrogatepass")
