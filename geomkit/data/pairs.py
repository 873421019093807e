"""PairData: pictures with captions and ids, the one shape in which every data set arrives."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from geomkit.errors import GeomkitError

__all__ = ["PairData", "seeded_hash"]


@dataclass(frozen=True)
class PairData:
    """Pictures with captions.

    Attributes:
        spec: the DATA spec that makes it again.
        split: ``train``, ``val`` or ``all``.
        images: ``(n, size, size, 3)`` uint8, memory-mapped where it comes from a file.
        index: ``(n,)``, the rows of ``images`` that belong, in order.
        captions: the captions of each picture, the first being its main one.
        ids: a stable name for each picture.
        source: package and version, or folder, that the pictures come from.
        licence: under which the pictures may be used.
        attribution: to be shown with the pictures.
    """

    spec: str
    split: str
    images: np.ndarray
    index: np.ndarray
    captions: tuple[tuple[str, ...], ...]
    ids: tuple[str, ...]
    source: str
    licence: str = ""
    attribution: str = ""

    def __len__(self) -> int:
        return len(self.index)

    def pictures(self, rows: Sequence[int] | np.ndarray | slice = slice(None)) -> np.ndarray:
        """Pictures by row number, ``(k, size, size, 3)`` uint8, read from disk only now."""
        return self.images[self.index[rows]]

    @property
    def names(self) -> list[str]:
        """The main caption of each picture."""
        return [captions[0] for captions in self.captions]

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What identifies this data: source, count, and a hash of ids, captions and pixels."""
        digest = hashlib.sha256()
        for name, captions in zip(self.ids, self.captions, strict=True):
            digest.update("\x1f".join([name, *captions, "\x1e"]).encode())
        for start in range(0, len(self), 1024):
            digest.update(self.pictures(slice(start, start + 1024)).tobytes())
        return {"source": self.source, "count": len(self), "sha256": digest.hexdigest()}

    def take(self, rows: np.ndarray, *, split: str | None = None) -> PairData:
        """The same data, cut down to some of its rows."""
        return replace(
            self,
            split=split or self.split,
            index=self.index[rows],
            captions=tuple(self.captions[i] for i in rows),
            ids=tuple(self.ids[i] for i in rows),
        )

    def subset(self, n: int, *, seed: int) -> PairData:
        """``n`` pairs, chosen by a seeded hash of their ids: a smaller subset lies in a larger one.

        Raises:
            GeomkitError: if there are fewer.
        """
        if not 2 <= n <= len(self):
            raise GeomkitError(
                f"n: expected 2 to {len(self)} pairs of '{self.spec}' ({self.split}), got {n}"
            )
        order = sorted(range(len(self)), key=lambda i: seeded_hash(self.ids[i], seed, "subset"))
        return self.take(np.array(sorted(order[:n])))


def seeded_hash(name: str, seed: int, purpose: str) -> float:
    """A number in [0, 1) that depends on its arguments and on nothing else.

    >>> seeded_hash("1F600", 0, "split") == seeded_hash("1F600", 0, "split")
    True
    """
    digest = hashlib.sha256(f"{purpose}:{seed}:{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
