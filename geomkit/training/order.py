"""The pairs of each step: a function of (seed, step), not of workers or ranks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate, chain
from typing import Any, NamedTuple

import numpy as np

from geomkit.data.pairs import PairData
from geomkit.errors import GeomkitError

__all__ = ["Order", "Share", "plan_order"]


class Share(NamedTuple):
    """A rank's share of a step.

    Attributes:
        step: The step.
        rows: Rows of its pairs, ``(b,)``.
        texts: Indices of their captions among all captions, ``(b,)``.
    """

    step: int
    rows: np.ndarray
    texts: np.ndarray


@dataclass
class Order:
    """The order of the pairs, and one rank's share of it.

    Attributes:
        n: Number of pairs.
        batch_size: Pairs per step over all ranks.
        seed: Random seed of the order.
        captions: ``first``: an image's main caption; ``random``: a random one in each epoch.
        starts: Index of each image's first caption among all captions, ``(n + 1,)``.
        words: Numbers that are equal for equal captions, ``(m,)``, if the captions of a batch must
            differ; else ``None``.
        rank, ranks: The rank that :meth:`rows` is for, and the number of ranks.
    """

    n: int
    batch_size: int
    seed: int
    captions: str
    starts: np.ndarray
    words: np.ndarray | None
    rank: int = 0
    ranks: int = 1
    _drawn: tuple[int, np.ndarray, np.ndarray] | None = field(default=None, repr=False)

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in one pass over the data."""
        return self.n // self.batch_size

    def shares(self, steps: Iterable[int]) -> Iterator[Share]:
        """Yield this rank's share of each step: made here, no other process holds the order."""
        for step in steps:
            rows = self.rows(step)
            yield Share(step, rows, self.texts(step, rows))

    def rows(self, step: int) -> np.ndarray:
        """Return this rank's rows of a step, ``(batch_size / ranks,)``."""
        share = self.batch_size // self.ranks
        return self.batch(step)[self.rank * share : (self.rank + 1) * share]

    def texts(self, step: int, rows: np.ndarray) -> np.ndarray:
        """Return the indices, among all captions, of the captions that rows have at a step."""
        if self.captions != "random":
            return self.starts[rows]
        return self._epoch(step)[1][rows]

    def batch(self, step: int) -> np.ndarray:
        """Return the rows of a step over all ranks, ``(batch_size,)``.

        With ``words``, a pair whose caption is in the batch already is replaced by the next pair
        of the epoch after the batch whose caption is not.
        """
        order, _ = self._epoch(step)
        first = step % self.steps_per_epoch * self.batch_size
        last = first + self.batch_size
        rows = order[first:last]
        if self.words is None:
            return rows
        names = self._names(step, rows)
        _, kept = np.unique(names, return_index=True)
        if len(kept) == len(rows):
            return rows
        rows, seen = rows.copy(), set(names[kept].tolist())
        others = chain(order[last:], order[:last])
        for place in np.setdiff1d(np.arange(len(rows)), kept):
            row = next((r for r in others if self._names(step, r) not in seen), rows[place])
            seen.add(int(self._names(step, row)))
            rows[place] = row
        return rows

    def _names(self, step: int, rows: Any) -> Any:
        """Numbers that are equal for rows that must not be in one batch."""
        return rows if self.words is None else self.words[self.texts(step, rows)]

    def instead(self, step: int, place: int, attempt: int) -> int | None:
        """Return the row that replaces one whose image is bad, or ``None`` if none is left.

        It is the pair at this place in the epoch's next batch, or a later one. Whichever images
        of a batch are bad, on whichever ranks, no two of them get the same pair, or with ``words``
        the same caption: a caption is only for the first place that comes to it.
        """
        order, _ = self._epoch(step)
        place += self.rank * (self.batch_size // self.ranks)
        batch, at = self.batch(step), step % self.steps_per_epoch
        seen, taken = set(self._names(step, batch).tolist()), set(batch.tolist())
        slices = -(-self.n // self.batch_size)
        for ahead in range(1, slices):
            first = (at + ahead) % slices * self.batch_size
            rows = order[first : first + self.batch_size]
            names = self._names(step, rows).tolist()
            if place < len(rows) and (row := rows[place]) not in taken:
                name = names[place]
                if name not in seen and name not in names[:place]:
                    attempt -= 1
                    if not attempt:
                        return int(row)
            seen.update(names)
        return None

    def _epoch(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """The order of an epoch, and the index of the caption that each row has in it."""
        epoch = step // self.steps_per_epoch
        if self._drawn is None or self._drawn[0] != epoch:
            order = np.random.default_rng([self.seed, epoch]).permutation(self.n)
            texts = self.starts[:-1]
            if self.captions == "random":
                share = np.random.default_rng([self.seed, epoch, 1]).random(self.n)
                texts = texts + (share * np.diff(self.starts)).astype(int)
            self._drawn = (epoch, order, texts)
        return self._drawn[1:]


def plan_order(
    data: PairData,
    *,
    batch_size: int,
    seed: int,
    captions: str = "first",
    distinct: bool = True,
    rank: int = 0,
    ranks: int = 1,
) -> Order:
    """Return the order in which a data set is trained on.

    Args:
        data: Training pairs.
        batch_size: Pairs per step over all ranks.
        seed: Random seed of the order.
        captions: ``first`` or ``random``, see :class:`Order`.
        distinct: Whether the captions of a batch must differ: two pairs with the same caption are
            false negatives of each other.
        rank: The rank to give the share of.
        ranks: Number of ranks.

    Raises:
        GeomkitError: If a batch has more pairs than the data set has pairs, or different captions,
            or the ranks cannot share it evenly.
    """
    if batch_size > len(data):
        raise GeomkitError(
            f"batch size: {batch_size} is more than the {len(data)} training pairs of "
            f"'{data.spec}'; give --batch-size {len(data)} or less"
        )
    if batch_size % ranks:
        raise GeomkitError(
            f"batch size: {batch_size} pairs cannot be shared evenly by {ranks} ranks; give a "
            f"multiple of {ranks}"
        )
    counts = [len(texts) if captions == "random" else 1 for texts in data.captions]
    starts = np.array([0, *accumulate(counts)])
    words = None
    if distinct:
        numbers: dict[str, int] = {}
        used = [texts[:count] for texts, count in zip(data.captions, counts, strict=True)]
        words = np.array([numbers.setdefault(t, len(numbers)) for texts in used for t in texts])
        # Images with several captions may all draw an equal one: the least there can be.
        least = len({texts[0] for texts in used})
        if least < batch_size:
            smaller = f"--batch-size {least} or less, or " if least > 1 else ""
            raise GeomkitError(
                f"batch size: {batch_size} pairs need as many different captions, "
                f"'{data.spec}' has {least}; give {smaller}--repeat-captions"
            )
        if len(numbers) == len(words):
            words = None
    return Order(len(data), batch_size, seed, captions, starts, words, rank, ranks)
