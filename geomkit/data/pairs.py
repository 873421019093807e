"""PairData: pictures with captions and ids, the one shape in which every data set arrives."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from geomkit.errors import GeomkitError

__all__ = ["Bad", "Images", "PairData", "seeded_hash"]


class Images(Protocol):
    """Pictures that are decoded when they are asked for; picklable, for workers."""

    @property
    def size(self) -> int:
        """Side in px."""
        ...

    def __len__(self) -> int: ...

    def read(self, row: int) -> np.ndarray:
        """One picture, ``(size, size, 3)`` uint8.

        Raises:
            GeomkitError: if it does not decode; the message is the reason, without its name.
        """
        ...

    def describe(self, row: int) -> str:
        """What identifies one picture without decoding it, such as its length in bytes."""
        ...


@dataclass(frozen=True)
class Bad:
    """A picture that does not decode.

    Attributes:
        row: of the data set that was asked.
        id: its name.
        reason: why.
    """

    row: int
    id: str
    reason: str


@dataclass(frozen=True)
class PairData:
    """Pictures with captions.

    Attributes:
        spec: the DATA spec that makes it again.
        split: ``train``, ``val`` or ``all`` (or ``test``, where a data set has it).
        images: ``(n, size, size, 3)`` uint8, memory-mapped where it comes from a file; or
            :class:`Images`, decoded when asked for.
        index: ``(n,)``, the rows of ``images`` that belong, in order.
        captions: the captions of each picture, the first being its main one.
        ids: a stable name for each picture.
        source: package and version, or folder, that the pictures come from.
        licence: under which the pictures may be used.
        attribution: to be shown with the pictures.
        max_bad: largest share of pictures that may fail to decode.
        note: a line for the user, such as the count found and the one expected.
        origin: the data whose decoded pictures ``images`` keeps, row by row; they are one data
            set with one fingerprint.
    """

    spec: str
    split: str
    images: np.ndarray | Images
    index: np.ndarray
    captions: tuple[tuple[str, ...], ...]
    ids: tuple[str, ...]
    source: str
    licence: str = ""
    attribution: str = ""
    max_bad: float = 0.01
    note: str = ""
    origin: PairData | None = None

    def __len__(self) -> int:
        return len(self.index)

    @property
    def size(self) -> int:
        """Side of the pictures in px."""
        return self.images.shape[1] if isinstance(self.images, np.ndarray) else self.images.size

    @property
    def in_memory(self) -> bool:
        """Whether the pictures are pixels already and need no decoding."""
        return isinstance(self.images, np.ndarray)

    def pixels(self, rows: Sequence[int] | np.ndarray | slice = slice(None)) -> np.ndarray:
        """Pictures by row number, ``(k, size, size, 3)`` uint8, read from disk only now.

        Raises:
            GeomkitError: if one of them does not decode.
        """
        pixels, _, bad = self.read(rows)
        if bad:
            raise GeomkitError(f"'{self.spec}': picture {bad[0].id} {bad[0].reason}")
        return pixels

    def read(
        self, rows: Sequence[int] | np.ndarray | slice = slice(None)
    ) -> tuple[np.ndarray, np.ndarray, list[Bad]]:
        """Those of the pictures that decode.

        Returns:
            Their pixels ``(k, size, size, 3)``, the ``k`` rows they have, and the bad ones.
        """
        wanted = np.arange(len(self))[rows] if isinstance(rows, slice) else np.asarray(rows, int)
        if isinstance(self.images, np.ndarray):
            return self.images[self.index[wanted]], wanted, []
        pixels, kept, bad = [], [], []
        for row in wanted:
            try:
                pixels.append(self.images.read(int(self.index[row])))
                kept.append(row)
            except GeomkitError as error:
                bad.append(Bad(int(row), self.ids[row], str(error)))
        shape = (0, self.size, self.size, 3)
        stacked = np.stack(pixels) if pixels else np.empty(shape, np.uint8)
        return stacked, np.array(kept, int), bad

    def check_bad(self, bad: Sequence[Bad]) -> None:
        """Refuse more pictures that do not decode than ``max_bad`` allows.

        Raises:
            GeomkitError: naming the first of them and counting the rest.
        """
        if len(bad) > self.max_bad * len(self):
            first = min(bad, key=lambda b: b.row)
            rest = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
            raise GeomkitError(
                f"'{self.spec}' ({self.split}): picture {first.id} {first.reason}{rest}: "
                f"{len(bad)} of {len(self)} pictures, more than the share of {self.max_bad:g} "
                "allowed; mend them or raise --max-bad"
            )

    @property
    def names(self) -> list[str]:
        """The main caption of each picture."""
        return [captions[0] for captions in self.captions]

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What identifies this data: source, count, and a hash.

        The hash is over ids, captions and, of pictures in memory, pixels; of pictures yet to be
        decoded, their length in bytes and the like.
        """
        digest = hashlib.sha256()
        for name, captions in zip(self.ids, self.captions, strict=True):
            digest.update("\x1f".join([name, *captions, "\x1e"]).encode())
        pictures, index = self.images, self.index
        if self.origin is not None:
            pictures, index = self.origin.images, self.origin.index[self.index]
        if isinstance(pictures, np.ndarray):
            for start in range(0, len(self), 1024):
                digest.update(self.pixels(slice(start, start + 1024)).tobytes())
        else:
            for row in index:
                digest.update(pictures.describe(int(row)).encode() + b"\x1e")
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

    def distinct(self) -> PairData:
        """Only the first picture of each main caption, as the paper's validation has it.

        Two pictures under one caption can't be told apart by it: retrieval would count a
        right answer as wrong.
        """
        first: dict[str, int] = {}
        for row, name in enumerate(self.names):
            first.setdefault(name, row)
        return self.take(np.array(list(first.values()), int))

    def with_note(self, text: str) -> PairData:
        """The same data with one more remark for the user."""
        return replace(self, note="; ".join(filter(None, [self.note, text])))

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
