"""Which pairs make up a step: a function of (seed, step), not of workers or ranks."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import accumulate

import numpy as np

from geomkit.data.pairs import PairData
from geomkit.errors import GeomkitError

__all__ = ["Order", "plan_order"]


@dataclass
class Order:
    """The order of the pairs, and of several ranks' share in it.

    Attributes:
        n: pairs of the data set.
        batch_size: pairs a step, over all ranks.
        seed: of the order.
        captions: ``first``: an image's main caption; ``random``: another of its captions each
            epoch.
        starts: ``(n + 1,)``, the captions of image i are ``starts[i]`` to ``starts[i + 1]`` of all.
        words: ``(m,)``, equal for equal captions, if no two pairs of a batch may have one caption;
            else ``None``.
        rank, ranks: whose share :meth:`rows` gives.
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
        """Whole batches in a pass over the data."""
        return self.n // self.batch_size

    def rows(self, step: int) -> np.ndarray:
        """This rank's rows of a step, ``(batch_size / ranks,)``."""
        share = self.batch_size // self.ranks
        return self.batch(step)[self.rank * share : (self.rank + 1) * share]

    def texts(self, step: int, rows: np.ndarray) -> np.ndarray:
        """The numbers of the captions that rows have at a step, among all captions."""
        return self._epoch(step)[1][rows]

    def batch(self, step: int) -> np.ndarray:
        """The rows of a step over all ranks, ``(batch_size,)``.

        With ``words``, a pair whose caption stands in the batch already gives its place to the
        next pair of the epoch, counted from the end of the batch, whose caption does not.
        """
        order, texts = self._epoch(step)
        first = step % self.steps_per_epoch * self.batch_size
        rows = order[first : first + self.batch_size]
        if self.words is None:
            return rows
        words = self.words[texts]
        _, kept = np.unique(words[rows], return_index=True)
        if len(kept) == len(rows):
            return rows
        rows, seen = rows.copy(), set(words[rows[kept]].tolist())
        others = iter(np.roll(order, -(first + self.batch_size)))
        for place in np.setdiff1d(np.arange(len(rows)), kept):
            row = next((row for row in others if words[row] not in seen), rows[place])
            seen.add(words[row])
            rows[place] = row
        return rows

    def instead(self, step: int, place: int, attempt: int) -> int | None:
        """The row that takes the place of one whose picture is bad, or ``None`` if none is left.

        The pair that stands at this place in the epoch's next batch, or the one after it: two
        ranks never take the same.
        """
        order, texts = self._epoch(step)
        place += self.rank * (self.batch_size // self.ranks)
        column = order[place :: self.batch_size]
        at = step % self.steps_per_epoch
        batch = self.batch(step)
        taken = set(batch.tolist())
        seen = set() if self.words is None else set(self.words[texts[batch]].tolist())
        fit = [
            int(row)
            for row in np.roll(column, -at)[1:]
            if row not in taken and (self.words is None or self.words[texts[row]] not in seen)
        ]
        return fit[attempt - 1] if attempt <= len(fit) else None

    def _epoch(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """The order of an epoch, and the number of the caption each row has in it."""
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
    """The order in which a data set is trained on.

    Args:
        data: the pairs.
        batch_size: over all ranks.
        seed: of the order.
        captions: ``first`` or ``random``, see :class:`Order`.
        distinct: whether all captions of a batch must differ: of two pairs with one caption each
            would be the other's false negative.
        rank, ranks: whose share to give.

    Raises:
        GeomkitError: if there are fewer pairs, or fewer different captions, than a batch takes, or
            the ranks cannot share it evenly.
    """
    if batch_size > len(data):
        raise GeomkitError(
            f"batch size: {batch_size} is more than the {len(data)} training pairs of "
            f"'{data.spec}'; give --batch-size {len(data)} or less"
        )
    if batch_size % ranks:
        raise GeomkitError(
            f"batch size: {batch_size} pairs cannot be shared evenly by {ranks} ranks"
        )
    counts = [len(texts) if captions == "random" else 1 for texts in data.captions]
    starts = np.array([0, *accumulate(counts)])
    words = None
    if distinct:
        numbers: dict[str, int] = {}
        used = [texts[:count] for texts, count in zip(data.captions, counts, strict=True)]
        words = np.array([numbers.setdefault(t, len(numbers)) for texts in used for t in texts])
        # Of a batch's images with several captions any may be drawn: the least there can be.
        least = len({texts[0] for texts in used})
        if least < batch_size:
            raise GeomkitError(
                f"batch size: {batch_size} pairs of different captions were asked for, "
                f"'{data.spec}' has {least}; give --batch-size {least} or less, or "
                "--repeat-captions"
            )
        if len(numbers) == len(words):
            words = None
    return Order(len(data), batch_size, seed, captions, starts, words, rank, ranks)
