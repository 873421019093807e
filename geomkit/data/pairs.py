"""PairData: images with captions and ids, the one shape in which every data set arrives."""

from __future__ import annotations

import ast
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Protocol, TypedDict

import numpy as np

from geomkit.errors import GeomkitError

__all__ = [
    "Bad",
    "Fingerprint",
    "Images",
    "LeftOut",
    "PairData",
    "caption_lines",
    "from_lists",
    "in_utf8",
    "seeded_hash",
    "several",
]


class Images(Protocol):
    """Images that are decoded when they are asked for; picklable, for workers."""

    @property
    def size(self) -> int:
        """Side in px."""
        ...

    def read(self, row: int) -> np.ndarray:
        """One image, uint8, shape ``(size, size, 3)``.

        Raises:
            GeomkitError: If it does not decode; the message is the reason, without its name.
        """
        ...

    def describe(self, row: int) -> str:
        """What identifies one image without decoding it, such as its length in bytes."""
        ...

    def state(self, row: int) -> tuple[int, ...]:
        """What changes when the file of an image is written or replaced.

        Length and time of the last change of content; then, what a copy of the file does not keep:
        time of the last change of anything, and inode. Empty for a file that is missing.
        """
        ...


@dataclass(frozen=True, order=True)
class Bad:
    """An image that does not decode.

    Attributes:
        row: Row of the data set.
        id: Name of the image.
        reason: Why it does not decode.
    """

    row: int
    id: str
    reason: str


@dataclass(frozen=True)
class LeftOut:
    """Images that the user gave and that are not used, for one reason.

    Attributes:
        what: What they are and why, such as ``samples without an image``.
        count: Number of them.
        first: Names of the first few.
    """

    what: str
    count: int
    first: tuple[str, ...]

    @classmethod
    def of(cls, what: str, names: Sequence[str]) -> tuple[LeftOut, ...]:
        """One entry for the names, or none if there are no names.

        >>> print(*LeftOut.of("samples without an image", ["a", "b", "c", "d"]))
        4 samples without an image (a, b, c, …)
        """
        return (cls(what, len(names), tuple(map(in_utf8, names[:_SHOWN]))),) if names else ()

    def __str__(self) -> str:
        more = ", …" if self.count > len(self.first) else ""
        return f"{self.count:,} {self.what} ({', '.join(self.first)}{more})"


_SHOWN = 3


class Fingerprint(TypedDict):
    """What identifies a data set, as checkpoints and manifests store it."""

    source: str
    count: int
    sha256: str


@dataclass(frozen=True)
class PairData:
    """Images with captions.

    Attributes:
        spec: DATA spec that loads it again.
        split: ``train``, ``val`` or ``all`` (or ``test``, where a data set has it).
        images: Pixels, uint8, shape ``(n, size, size, 3)``, memory-mapped if they come from a
            file; or :class:`Images`, decoded when they are asked for.
        index: Rows of ``images`` that belong to the data, in order.
        captions: Captions of each image; the first is its main one.
        ids: Stable name of each image.
        source: Package and version, or folder, that the images come from.
        licence: Licence of the images.
        attribution: Attribution to show with the images.
        max_bad: Largest share of images that may fail to decode.
        note: Remark for the user, such as the count found and the one expected.
        reading: How the files were understood, such as the separator of a table.
        given: Number of images that the user gave, over all splits, left out or not.
        left_out: Those of them that are in no split, by reason.
        origin: The data whose decoded images ``images`` holds, row by row; both are one data set
            with one fingerprint.
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
    reading: str = ""
    given: int = 0
    left_out: tuple[LeftOut, ...] = ()
    origin: PairData | None = None

    def __len__(self) -> int:
        """Count of pairs."""
        return len(self.index)

    @property
    def size(self) -> int:
        """Side of the images in px."""
        return self.images.shape[1] if isinstance(self.images, np.ndarray) else self.images.size

    @property
    def remarks(self) -> str:
        """The note, and what was left out."""
        return "; ".join(filter(None, [self.note, *(f"left out: {x}" for x in self.left_out)]))

    @property
    def fast_decode(self) -> bool | None:
        """Whether JPEGs may be decoded at a reduced size; ``None`` if no file is decoded."""
        return getattr(self.undecoded[0], "draft", None)

    @property
    def in_memory(self) -> bool:
        """Whether the images are pixels already and need no decoding."""
        return isinstance(self.images, np.ndarray)

    def pixels(self, rows: Sequence[int] | np.ndarray | slice = slice(None)) -> np.ndarray:
        """Pixels of some images, uint8, shape ``(k, size, size, 3)``, read from disk now.

        Args:
            rows: Row numbers of ``k`` images; default: all.

        Raises:
            GeomkitError: If one of them does not decode.
        """
        pixels, _, bad = self.read(rows)
        if bad:
            raise GeomkitError(f"'{self.spec}': image {bad[0].id} {bad[0].reason}")
        return pixels

    def read(
        self, rows: Sequence[int] | np.ndarray | slice = slice(None)
    ) -> tuple[np.ndarray, np.ndarray, list[Bad]]:
        """Read those of the images that decode.

        Args:
            rows: Row numbers; default: all.

        Returns:
            Pixels, shape ``(k, size, size, 3)``, the ``k`` rows they have, and the bad images.
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

    def without(self, bad: Sequence[Bad]) -> tuple[LeftOut, ...]:
        """What is left out, with images that do not decode."""
        ids = [f"{image.id}, which {image.reason}" for image in sorted(bad)[:1]]
        ids += [image.id for image in sorted(bad)[1:]]
        return self.left_out + LeftOut.of("images that do not decode", ids)

    def check_bad(self, bad: Sequence[Bad]) -> None:
        """Refuse more images that do not decode than ``max_bad`` allows.

        Raises:
            GeomkitError: If there are more; the message names the first and counts the rest.
        """
        if len(bad) > self.max_bad * len(self):
            first = min(bad)
            rest = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
            raise GeomkitError(
                f"'{self.spec}' ({self.split}): image {first.id} {first.reason}{rest}: "
                f"{len(bad)} of {len(self)} images, more than the share of {self.max_bad:g} "
                "allowed; repair them or raise --max-bad"
            )

    @property
    def names(self) -> list[str]:
        """The main caption of each image."""
        return [captions[0] for captions in self.captions]

    @property
    def undecoded(self) -> tuple[np.ndarray | Images, np.ndarray]:
        """The images as the data set has them, and the rows of them that belong to the data."""
        if self.origin is None:
            return self.images, self.index
        return self.origin.images, self.origin.index[self.index]

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """Identity of this data, by source, count and a hash.

        The hash is over ids, captions and the pixels of images in memory; of images in files, over
        their length in bytes instead.
        """
        digest = hashlib.sha256()
        for name, captions in zip(self.ids, self.captions, strict=True):
            digest.update("\x1f".join([name, *captions, "\x1e"]).encode())
        images, index = self.undecoded
        if isinstance(images, np.ndarray):
            for start in range(0, len(self), 1024):
                digest.update(self.pixels(slice(start, start + 1024)).tobytes())
        else:
            for row in index:
                digest.update(images.describe(int(row)).encode() + b"\x1e")
        return {"source": self.source, "count": len(self), "sha256": digest.hexdigest()}

    @property
    def marks(self) -> dict[str, Any]:
        """What ranks must have alike of this data, by what it is in words."""
        found = self.fingerprint
        return {"number of images": found["count"], f"data set ({self.split})": found["sha256"]}

    def state(self, *, copied: bool = False) -> str:
        """A hash over what changes when the file of an image is written or replaced.

        Args:
            copied: Whether a copy of the files that keeps their times has the same hash.

        Returns:
            Hash, see :meth:`Images.state`; empty for images in memory.
        """
        images, index = self.undecoded
        if isinstance(images, np.ndarray):
            return ""
        digest = hashlib.sha256()
        for row in index:
            digest.update(str(images.state(int(row))[: 2 if copied else None]).encode())
        return digest.hexdigest()

    def account(self, bad: Sequence[Bad] = ()) -> dict[str, Any]:
        """What of the data was used and how it was read, as JSON; empty entries are left out.

        Args:
            bad: Images that do not decode.

        Returns:
            ``given``, ``left_out`` (a list of ``what``, ``count`` and ``first``), ``reading``,
            ``note`` and ``fast_decode``.
        """
        found = {
            "given": self.given,
            "left_out": [asdict(some) for some in self.without(bad)],
            "reading": self.reading,
            "note": self.note,
        }
        kept = {name: value for name, value in found.items() if value}
        return kept if self.fast_decode is None else {**kept, "fast_decode": self.fast_decode}

    def lines(self, bad: Sequence[Bad] = ()) -> list[str]:
        """What to say of the data: the note, and how much of what was given is used.

        Args:
            bad: Images that do not decode.
        """
        lines = [self.note] if self.note else []
        if left_out := self.without(bad):
            used, given = len(self) - len(bad), self.given or len(self)
            reasons = "; ".join(map(str, left_out))
            lines.append(f"{used:,} images used of {given:,} given; not used: {reasons}")
        return lines

    def take(self, rows: np.ndarray, *, split: str | None = None) -> PairData:
        """The same data with only some of its rows."""
        return replace(
            self,
            split=split or self.split,
            index=self.index[rows],
            captions=tuple(self.captions[i] for i in rows),
            ids=tuple(self.ids[i] for i in rows),
        )

    def distinct(self) -> PairData:
        """Only the first image of each main caption, as the paper's validation has it.

        Two images with one caption cannot be told apart by it: retrieval would count a right
        answer as wrong.
        """
        first: dict[str, int] = {}
        for row, name in enumerate(self.names):
            first.setdefault(name, row)
        rows = list(first.values())
        more = [self.ids[row] for row in sorted(set(range(len(self))) - set(rows))]
        return replace(
            self.take(np.array(rows, int)),
            given=self.given or len(self),
            left_out=self.left_out + LeftOut.of("images with the main caption of another", more),
        )

    def with_note(self, text: str) -> PairData:
        """The same data with one more remark for the user."""
        return replace(self, note="; ".join(filter(None, [self.note, text])))

    def subset(self, n: int, *, seed: int) -> PairData:
        """``n`` pairs, chosen by a seeded hash of their ids.

        A smaller subset is part of a larger one.

        Raises:
            GeomkitError: If there are fewer.
        """
        if not 2 <= n <= len(self):
            raise GeomkitError(
                f"n: expected 2 to {len(self)} pairs of '{self.spec}' ({self.split}), got {n}; "
                "choose with --pairs, or n= in the spec"
            )
        order = sorted(range(len(self)), key=lambda i: seeded_hash(self.ids[i], seed, "subset"))
        return self.take(np.array(sorted(order[:n])))


def in_utf8(name: str) -> str:
    r"""A name with a backslash escape for what is no UTF-8; names of files may hold any byte.

    >>> in_utf8("é\udcff")
    'é\\udcff'
    """
    return name.encode(errors="backslashreplace").decode()


def seeded_hash(name: str, seed: int, purpose: str) -> float:
    """A number in [0, 1) that depends on its arguments and on nothing else.

    >>> seeded_hash("1F600", 0, "split") == seeded_hash("1F600", 0, "split")
    True
    """
    digest = hashlib.sha256(f"{purpose}:{seed}:{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def several(captions: Iterable[Sequence[str]]) -> str:
    """How many captions images have, in words.

    >>> several([["a"], ["b", "c"]]), several([["a"]])
    ('1 to 2 captions per image', '1 caption per image')
    """
    counts = [len(texts) for texts in captions]
    low, high = min(counts), max(counts)
    return (
        f"{low} to {high} captions per image"
        if low < high
        else (f"{low} caption{'s' if low > 1 else ''} per image")
    )


def from_lists(captions: Iterable[Sequence[str]]) -> list[list[str]] | None:
    """The captions in texts that all are lists, as JSON or Python writes them; else ``None``.

    A list without captions is the empty caption.

    >>> from_lists([['["a", "b"]'], ["['c']"], ["[]"]]), from_lists([["[a]"]])
    ([['a', 'b'], ['c'], ['']], None)
    """
    found: list[list[str]] = []
    for texts in captions:
        found.append([])
        for text in texts:
            if (text[:1], text[-1:]) != ("[", "]"):
                return None
            try:
                inner = json.loads(text) if '"' in text[:3] else ast.literal_eval(text)
            except (ValueError, SyntaxError, MemoryError, RecursionError):
                return None
            if not (isinstance(inner, list) and all(isinstance(t, str) for t in inner)):
                return None
            found[-1] += inner or [""]
    return found


def caption_lines(content: bytes) -> tuple[str, ...]:
    r"""The captions of a text file, one a line; of an empty one the empty caption.

    >>> caption_lines(b"a dog\n\na brown dog\n")
    ('a dog', 'a brown dog')
    """
    lines = re.split("[\r\n]", content.decode("utf-8-sig"))
    return tuple(filter(None, map(str.strip, lines))) or ("",)
