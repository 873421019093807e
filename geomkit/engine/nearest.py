"""Nearest neighbours from the lists of a walk: ties by their expectation, decided in float64.

The k nearest of a row are the k candidates with the highest cosines. Candidates tied with the k-th
share the places that are left in equal parts: the expectation over a random order of them. Tied are
cosines that the rounding of float64 cannot tell apart.

The lists of a walk hold the best few candidates of each row, scored in the precision of its tiles.
Where the rounding of those scores may decide who is among the k nearest, the candidates are scored
again in float64; where a list may leave some of them out, all candidates are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from geomkit._core.array import Array, is_torch, like, namespace, to_numpy
from geomkit._core.parallel import cores, in_order
from geomkit.engine.pairwise import Kind
from geomkit.engine.precision import cosines_at, rounding, unit64

__all__ = ["BOTH", "MORE", "Distinct", "Nearest", "distinct"]

MORE = 6
"""Candidates in a list beyond the k nearest: itself, and those that may be tied with the k-th."""
_ROWS = 512
"""Rows whose ties are decided at once: the memory of heavy ties grows with it."""
_BLOCK = 2048
"""Candidates scored at once."""
_SAME = 4e-14
"""Squared distance up to which rows are equal but for the rounding of float32."""

_NEAR = 1e-6
"""What the cosines of such rows are from 1 at most, in float32 too."""

BOTH: dict[str, tuple[Kind, Kind]] = {"image": ("xx", "xy"), "text": ("yy", "yx")}
"""Kinds of the candidates of both modalities, its own first."""


@dataclass(frozen=True)
class Distinct:
    """Which rows of a matrix are equal.

    Attributes:
        group: For each row, the number of its group of equal rows, ``(n,)``.
        first: First row of each group, ``(u,)``, ascending.
        copies: Number of rows of each group, ``(u,)``.
    """

    group: np.ndarray
    first: np.ndarray
    copies: np.ndarray


class _Listed(NamedTuple):
    """The nearest by the scores of the walk.

    ``number``: numbers of the candidates, nearest first, n added for those of the second kind.
    ``score``: their products.
    ``bar``: a cosine that all k nearest have at least, ``(q,)``.
    ``sure``: whether the rounding of the scores cannot have changed them, ``(q,)``.
    """

    number: np.ndarray
    score: np.ndarray
    bar: np.ndarray
    sure: np.ndarray


class _Entries(NamedTuple):
    """Candidates of some rows, ordered by row.

    ``row``: position of the row. ``kind``: position of the candidate's kind. ``candidate``: number
    of its group of equal rows. ``weight``: copies of it other than the row itself. ``share``:
    probability that a copy is among the k nearest.
    """

    row: np.ndarray
    kind: np.ndarray
    candidate: np.ndarray
    weight: np.ndarray
    share: np.ndarray


class Nearest:
    """The k nearest neighbours of rows, among images and among paired texts.

    Args:
        x: Images, unit rows ``(n, d)``.
        y: Texts, unit rows ``(m, e)``.
        first: For each image, its paired text, ``(n,)``.
        lists: For each kind, scores in descending order and numbers of the best candidates of each
            row, ``(q, c)``, the row itself included; more than k.
        k: Number of neighbours; there are more pairs.
        width: Largest difference of equal cosines in the lists.
        rows: Numbers of the pairs that the lists belong to, ``(q,)``; default: all.
    """

    def __init__(
        self,
        x: Array,
        y: Array,
        first: np.ndarray,
        lists: dict[Kind, tuple[np.ndarray, np.ndarray]],
        k: int,
        *,
        width: float,
        rows: np.ndarray | None = None,
    ) -> None:
        """Decide nothing yet."""
        self.k, self.n = k, len(first)
        self.rows = np.arange(self.n) if rows is None else rows
        self._x, self._y, self._first, self._lists = x, y, first, lists
        self._width = width
        self._groups: dict[str, Distinct] = {}

    def overlap(self) -> np.ndarray:
        """Share of each pair's k nearest images whose texts are its k nearest texts, ``(q,)``.

        The ties of the two modalities are broken independently of each other: of two constant
        modalities it is k/(n − 1), as of shuffled pairs.
        """
        x, y = self._listed("xx"), self._listed("yy")
        both = np.concatenate([x.number[:, : self.k], y.number[:, : self.k]], axis=1)
        both.sort(axis=1)
        share = (both[:, 1:] == both[:, :-1]).sum(axis=1) / self.k
        for rows in _chunks(~(x.sure & y.sure)):
            images, texts = self._decided(x, rows, "xx"), self._decided(y, rows, "yy")
            share[rows] = self._common(images, texts, rows) / self.k
        return share

    def counts(self, modality: str) -> np.ndarray:
        """How often each row of a modality is among the k nearest of a row of the other, ``(n,)``.

        Args:
            modality: ``image`` or ``text``: paired texts.
        """
        kind: Kind = "yx" if modality == "image" else "xy"
        found = self._listed(kind)
        counts = np.bincount(found.number[found.sure, : self.k].ravel(), minlength=self.n).astype(
            float
        )
        for rows in _chunks(~found.sure):
            entries, groups = self._decided(found, rows, kind), self._distinct(kind[1])
            more = np.bincount(entries.candidate, entries.share, minlength=len(groups.first))
            counts += more[groups.group]
        return counts

    def mixed(self, modality: str) -> tuple[np.ndarray, np.ndarray]:
        """Number of each row's k nearest of both modalities that are of its own, ``(q,)``.

        And the probability that its partner is among them, ``(q,)``.

        Args:
            modality: ``image`` or ``text``: paired texts.
        """
        kinds = BOTH[modality]
        found = self._listed(*kinds)
        number = found.number[:, : self.k]
        own = (number < self.n).sum(axis=1).astype(np.float64)
        partner = (number == self.n + self.rows[:, None]).sum(axis=1).astype(np.float64)
        for rows in _chunks(~found.sure):
            e = self._decided(found, rows, *kinds)
            of_own = e.kind == 0
            group = self._distinct(kinds[1][1]).group[self.rows[rows]]
            of_partner = ~of_own & (e.candidate == group[e.row])
            own[rows] = np.bincount(e.row, e.share * e.weight * of_own, minlength=len(rows))
            partner[rows] = np.bincount(e.row, e.share * of_partner, minlength=len(rows))
        return own, partner

    def ring(self, *kinds: Kind) -> tuple[np.ndarray, np.ndarray]:
        """Pair numbers of each row's k nearest candidates, ``(q, k)``, and of a few next ones.

        The row's own number stands where ties leave open which candidate comes next.

        Args:
            kinds: The kinds of candidates: those of one, or the nearest of two.
        """
        found = self._listed(*kinds)
        number, score = found.number % self.n, found.score.astype(np.float64)
        unsure = np.repeat(~found.sure[:, None], number.shape[1], axis=1)
        unsure[:, self.k :] |= score[:, self.k :] <= score[:, -1:] + self._width
        number = np.where(unsure, self.rows[:, None], number)
        return number[:, : self.k], number[:, self.k :]

    def _listed(self, *kinds: Kind) -> _Listed:
        """Return the k nearest among the candidates of one kind or two, as the walk scored them."""
        lists = [self._lists[kind] for kind in kinds]
        score = np.concatenate([one[0] for one in lists], axis=1)
        number = np.concatenate([one[1] + at * self.n for at, one in enumerate(lists)], axis=1)
        if kinds[0] in ("xx", "yy"):
            score[number == self.rows[:, None]] = -np.inf
        order = np.argsort(-score, axis=1, kind="stable")[:, : self.k + MORE - 1]
        score, number = (np.take_along_axis(a, order, axis=1) for a in (score, number))
        bar = score[:, self.k - 1].astype(np.float64) - self._width
        sure: np.ndarray = np.all(score[:, self.k : self.k + 1] < bar[:, None], axis=1)
        for kind in kinds:
            # Rows that differ by rounding alone are tied, though not all their cosines need to be.
            alike = len(self._distinct(kind[1]).first) == 1
            sure &= ~self._cut(kind, bar) & (not alike)
        return _Listed(number, score, bar, sure)

    def _cut(
        self, kind: Kind, bar: np.ndarray, rows: slice | np.ndarray = slice(None)
    ) -> np.ndarray:
        """Whether the lists of some rows may leave out candidates that reach the bar."""
        score = self._lists[kind][0][rows]
        return (score[:, -1] >= bar) & (score.shape[1] < self.n)

    def _take(self, side: str, pairs: np.ndarray) -> Array:
        """Return the images (``x``) or paired texts (``y``) of some pairs."""
        if side == "x":
            return self._x[like(pairs, self._x)]
        return self._y[like(self._first[pairs], self._y)]

    def _distinct(self, side: str) -> Distinct:
        """Return the groups of equal images (``x``) or paired texts (``y``).

        They are looked for only where many candidates are tied. Else each row is a group.
        """
        if side not in self._groups:
            lists = {kind: score for kind, (score, _) in self._lists.items() if kind[1] == side}
            crowded = lists["xx" if side == "x" else "yy"].min() > 1 - _NEAR or any(
                (score[:, -1] >= score[:, : self.k + 1][:, -1] - self._width).any()
                for score in lists.values()
            )
            alone = Distinct(np.arange(self.n), np.arange(self.n), np.ones(self.n, np.int64))
            found = distinct(lambda rows: self._take(side, rows), self.n) if crowded else alone
            self._groups[side] = found
        return self._groups[side]

    def _decided(self, found: _Listed, rows: np.ndarray, *kinds: Kind) -> _Entries:
        """Return the k nearest of some rows, with the shares of tied ones.

        Args:
            found: What the lists say of all rows.
            rows: Positions of the rows, ascending.
            kinds: The kinds of candidates.
        """
        sure = np.flatnonzero(found.sure[rows])
        number = found.number[rows[sure], : self.k].ravel()
        row, kind = np.repeat(sure, self.k), number // self.n
        parts = []
        for at, name in enumerate(kinds):
            ours = kind == at
            group = self._distinct(name[1]).group[number[ours] - at * self.n]
            certain = row[ours], group, np.full(len(group), np.inf)
            unsure = np.flatnonzero(~found.sure[rows])
            again, candidate, score = self._scored(name, rows[unsure], found.bar[rows[unsure]])
            scored = unsure[again], candidate, score
            one, two, three = (np.concatenate(pair) for pair in zip(certain, scored, strict=True))
            parts.append(
                (one, np.full(len(one), at), two, three, self._weight(name, rows, one, two))
            )
        row, kind, candidate, score, weight = (np.concatenate(p) for p in zip(*parts, strict=True))
        # The copies of a candidate in a list are one entry.
        order = np.lexsort((candidate, kind, row))
        same = [np.diff(a[order]) == 0 for a in (row, kind, candidate)]
        order = order[~np.concatenate([[False], np.logical_and.reduce(same)])]
        order = order[np.lexsort((-score[order], row[order]))]
        row, kind, candidate, score, weight = (
            a[order] for a in (row, kind, candidate, score, weight)
        )
        share = self._shares(row, score, weight, len(rows))
        some = share > 0
        return _Entries(row[some], kind[some], candidate[some], weight[some], share[some])

    def _weight(
        self, kind: Kind, rows: np.ndarray, row: np.ndarray, group: np.ndarray
    ) -> np.ndarray:
        """Copies of each candidate, the row itself not counted."""
        groups = self._distinct(kind[1])
        own = (group == groups.group[self.rows[rows[row]]]) & (kind in ("xx", "yy"))
        return groups.copies[group] - own

    def _shares(
        self, row: np.ndarray, score: np.ndarray, weight: np.ndarray, rows: int
    ) -> np.ndarray:
        """Probability of each candidate to be among the k nearest; scores descend in each row."""
        total = np.concatenate([[0], np.cumsum(weight)])
        begin = np.searchsorted(row, np.arange(rows))
        reached = np.flatnonzero(total[1:] - total[begin][row] >= self.k)
        last = np.full(rows, np.inf)
        last[row[reached][::-1]] = score[reached][::-1]  # the first that reaches k stays
        width = rounding(max(self._x.shape[1], self._y.shape[1]))
        sure = np.isinf(score)
        with np.errstate(invalid="ignore"):
            ahead = np.where(sure, np.inf, score - last[row])
        above, tied = ahead > width, abs(ahead) <= width
        left = self.k - np.bincount(row, weight * above, minlength=rows)
        places = np.bincount(row, weight * tied, minlength=rows)
        return above + tied * (left / np.maximum(places, 1))[row]

    def _scored(
        self, kind: Kind, rows: np.ndarray, bar: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the candidates of some rows that may reach a bar: row, group, float64 cosine."""
        cut = self._cut(kind, bar, rows)
        whole = np.flatnonzero(~cut)
        score, number = (part[rows[whole]] for part in self._lists[kind])
        row, col = np.nonzero(score >= bar[whole, None] - self._width)
        several = len(self._distinct(kind[1]).first) > 1
        above = several & (score[row, col] > bar[whole[row]] + 2 * self._width)
        number, row = number[row, col], whole[row]
        cosine = np.full(len(row), np.inf)  # certainly above the k-th
        if not above.all():
            queries = self._take(kind[0], self.rows[rows])
            once, which = np.unique(number[~above], return_inverse=True)
            some = self._take(kind[1], once)
            cosine[~above] = cosines_at(queries, some, row[~above], which)
        more = self._scan(kind, rows[cut], bar[cut])
        row = np.concatenate([row, np.flatnonzero(cut)[more[0]]])
        candidate = np.concatenate([self._distinct(kind[1]).group[number], more[1]])
        return row, candidate, np.concatenate([cosine, more[2]])

    def _scan(
        self, kind: Kind, rows: np.ndarray, bar: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Score all candidates of some rows, and return those that may be among the nearest."""
        if not len(rows):
            return np.empty(0, int), np.empty(0, int), np.empty(0)
        asked = self._distinct(kind[0])
        query, which = np.unique(asked.group[self.rows[rows]], return_inverse=True)
        queries = unit64(self._take(kind[0], asked.first[query]))
        lowest = np.full(len(query), np.inf)
        np.minimum.at(lowest, which, bar)
        first = self._distinct(kind[1]).first
        # One more than k: the row itself may be among the highest.
        highest = np.full((len(query), self.k + 1), -np.inf)
        width = self._width

        def work(start: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            score = to_numpy(queries @ unit64(self._take(kind[1], first[start : start + _BLOCK])).T)
            row, col = np.nonzero(score >= lowest[:, None])
            return row, col + start, score[row, col]

        found = []
        threads = 1 if is_torch(self._x) else cores()
        for part in in_order(work, range(0, len(first), _BLOCK), threads=threads):
            found.append(part)
            row, _, score = part
            order = np.lexsort((-score, row))
            place = np.arange(len(row)) - np.searchsorted(row, row)
            top = order[place < self.k + 1]
            block = np.full_like(highest, -np.inf)
            block[row[top], place[place < self.k + 1]] = score[top]
            highest = np.sort(np.concatenate([highest, block], axis=1), axis=1)[:, -self.k - 1 :]
            lowest = np.maximum(lowest, highest[:, 0] - width)
        row, candidate, score = (np.concatenate(parts) for parts in zip(*found, strict=True))
        near = score >= lowest[row]
        order = np.flatnonzero(near)[np.argsort(row[near], kind="stable")]
        row, candidate, score = row[order], candidate[order], score[order]
        # Equal rows asked once.
        begin, end = (
            np.searchsorted(row, np.arange(len(query)), side) for side in ("left", "right")
        )
        at, entry = _ranges(begin[which], end[which])
        return at, candidate[entry], score[entry]

    @cached_property
    def _joint(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Groups of equal pairs: image group, text group, copies; and the group of each pair."""
        x, y = self._distinct("x"), self._distinct("y")
        size = len(y.first)
        key, group, copies = np.unique(
            x.group * size + y.group, return_inverse=True, return_counts=True
        )
        return key // size, key % size, copies, group

    def _common(self, images: _Entries, texts: _Entries, rows: np.ndarray) -> np.ndarray:
        """Expected number of pairs that are among the k nearest in both modalities, ``(r,)``."""
        of_image, of_text, copies, group = self._joint
        own = group[self.rows[rows]]
        sides = (images, of_image, of_text, texts), (texts, of_text, of_image, images)
        ways = []
        for entries, of_entry, _, _ in sides:
            size = np.bincount(of_entry)[entries.candidate]
            ways.append(np.bincount(entries.row, size, minlength=len(rows)))
        common = np.zeros(len(rows))
        for (entries, of_entry, of_other, others), mine in zip(
            sides, (ways[0] <= ways[1], ways[0] > ways[1]), strict=True
        ):
            # The pairs of all candidates of the modality in which they are fewer.
            some = np.flatnonzero(mine[entries.row])
            order = np.argsort(of_entry, kind="stable")
            begin, end = (
                np.searchsorted(of_entry[order], entries.candidate[some], side)
                for side in ("left", "right")
            )
            at, place = _ranges(begin, end)
            entry, pair = some[at], order[place]
            row = entries.row[entry]
            weight = copies[pair] - (pair == own[row])
            size = len(of_other) + 1
            known = others.row * size + others.candidate
            sort = np.argsort(known)
            asked = row * size + of_other[pair]
            where = np.searchsorted(known[sort], asked)
            where = sort[np.minimum(where, len(known) - 1)]
            both = entries.share[entry] * others.share[where] * (known[where] == asked)
            common += np.bincount(row, both * weight, minlength=len(rows))
        return common


def distinct(take: Callable[[np.ndarray], Array], n: int) -> Distinct:
    """Group the equal rows of a matrix, by 64-bit hashes of their bits.

    Two different rows of a million have one hash with a probability of 1e-7. If all rows are equal
    but for rounding, they are one group.

    Args:
        take: Function of row numbers that returns these rows.
        n: Number of rows.
    """
    start = take(np.arange(1))
    factors = np.random.default_rng(0).integers(-(2**63), 2**63, 2 * start.shape[1]) | 1

    def work(begin: int) -> tuple[np.ndarray, float]:
        rows = take(np.arange(begin, min(begin + _BLOCK, n)))
        xp = namespace(rows)
        off = xp.max(xp.sum((rows - start) ** 2, axis=1))
        words = (rows + 0.0).view(xp.int32)  # −0 becomes 0
        mixed = xp.astype(words, xp.int64) * like(factors[: words.shape[1]], rows)
        return to_numpy(xp.sum(mixed ^ (mixed >> 32), axis=1)), float(off)

    threads = 1 if is_torch(start) else cores()
    parts = list(in_order(work, range(0, n, _BLOCK), threads=threads))
    if max(off for _, off in parts) <= _SAME:
        return Distinct(np.zeros(n, np.int64), np.zeros(1, np.int64), np.array([n]))
    keys = np.concatenate([key for key, _ in parts])
    _, first, group = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty(len(first), np.int64)
    rank[order] = np.arange(len(first))
    group = rank[group]
    return Distinct(group, first[order], np.bincount(group))


def _chunks(mask: np.ndarray) -> Iterator[np.ndarray]:
    """Positions of the true entries, some at a time."""
    where = np.flatnonzero(mask)
    for start in range(0, len(where), _ROWS):
        yield where[start : start + _ROWS]


def _ranges(begin: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of several ranges one after the other; and for each, the number of its range."""
    size = end - begin
    at = np.repeat(np.arange(len(size)), size)
    return at, np.arange(len(at)) - (np.cumsum(size) - size)[at] + begin[at]
