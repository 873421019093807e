"""Which pairs make up a step: every pair once an epoch, shares of ranks, distinct captions."""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import count, pairwise, takewhile

import numpy as np
import pytest
import torch

from geomkit._core.texts import Texts
from geomkit.data import loading
from geomkit.data.loading import batches
from geomkit.data.pairs import PairData
from geomkit.errors import GeomkitError
from geomkit.models.tokenizers import Tokenizer
from geomkit.training.order import Order, plan_order
from geomkit.training.preparation import _tokens


def pairs(captions: list[tuple[str, ...]]) -> PairData:
    n = len(captions)
    images = np.arange(n, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    ids = tuple(f"p{i}" for i in range(n))
    return PairData("made", "train", images, np.arange(n), tuple(captions), ids, "made")


class Fragile:
    """Pictures of which some do not decode."""

    size = 2

    def __init__(self, n: int, bad: set[int]) -> None:
        self.n, self.bad = n, bad

    def __len__(self) -> int:
        return self.n

    def read(self, row: int) -> np.ndarray:
        if row in self.bad:
            raise GeomkitError("does not decode")
        return np.full((2, 2, 3), row, np.uint8)

    def state(self, row: int) -> tuple[int, ...]:
        return ()

    def describe(self, row: int) -> str:
        return str(row)


SINGLE = [(f"caption {i}",) for i in range(23)]


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_an_epoch_holds_each_pair_once_and_ranks_share_every_batch(ranks: int) -> None:
    shares = [
        plan_order(pairs(SINGLE), batch_size=4, seed=3, rank=rank, ranks=ranks)
        for rank in range(ranks)
    ]
    epochs = []
    for epoch in range(2):
        steps = range(epoch * 5, epoch * 5 + 5)
        rows = [np.concatenate([share.rows(step) for share in shares]) for step in steps]
        for step, batch in zip(steps, rows, strict=True):
            np.testing.assert_array_equal(batch, shares[0].batch(step))
        seen = np.concatenate(rows).tolist()
        assert len(set(seen)) == len(seen) == 20
        epochs.append(seen)
    assert epochs[0] != epochs[1]
    other = plan_order(pairs(SINGLE), batch_size=4, seed=4)
    assert other.batch(0).tolist() != epochs[0][:4]


def test_a_step_does_not_depend_on_the_steps_before() -> None:
    order = plan_order(pairs(SINGLE), batch_size=4, seed=0, captions="random")
    forwards = [order.batch(step).tolist() for step in range(12)]
    backwards = [order.batch(step).tolist() for step in reversed(range(12))]
    assert forwards == backwards[::-1]


def test_no_caption_stands_twice_in_a_batch() -> None:
    captions = [(f"c{i % 9}",) for i in range(40)]
    order = plan_order(pairs(captions), batch_size=8, seed=0)
    plain = plan_order(pairs(captions), batch_size=8, seed=0, distinct=False)
    repeated = changed = 0
    for step in range(order.steps_per_epoch):
        rows, before = order.batch(step), plain.batch(step)
        texts = [captions[row] for row in rows]
        assert len(set(texts)) == 8
        repeated += len({captions[row] for row in before}) < 8
        # The first of equal captions, and every other pair, keep their places.
        first = np.unique([captions[row][0] for row in before], return_index=True)[1]
        np.testing.assert_array_equal(rows[first], before[first])
        changed += (rows != before).sum()
    assert repeated and changed


def test_captions_of_an_image_are_drawn_anew_each_epoch() -> None:
    captions = [tuple(f"{i} {k}" for k in range(1 + i % 5)) for i in range(20)]
    order = plan_order(pairs(captions), batch_size=20, seed=0, captions="random")
    flat = [text for group in captions for text in group]
    drawn = []
    for epoch in range(200):
        texts = [flat[number] for number in order.texts(epoch, np.arange(20))]
        assert all(text in group for text, group in zip(texts, captions, strict=True))
        drawn.append(texts[4])
    counts = np.array([drawn.count(text) for text in captions[4]])
    assert counts.sum() == 200 and (np.abs(counts - 40) < 4 * np.sqrt(200 * 0.2 * 0.8)).all()
    first = plan_order(pairs(captions), batch_size=20, seed=0)
    assert first.texts(7, np.array([3, 1])).tolist() == [3, 1]  # numbers of main captions


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_pictures_place_is_taken_by_another_pair(workers: int) -> None:
    broken = {2, 7, 11}
    data = replace(pairs(SINGLE), images=Fragile(23, broken))
    orders = [plan_order(data, batch_size=4, seed=0, rank=rank, ranks=2) for rank in range(2)]
    named: set[int] = set()
    for step in range(5):
        rows = []
        for order in orders:
            (batch,) = batches(
                data, [step], rows_of=order.rows, instead=order.instead, workers=workers
            )
            assert batch.images[:, 0, 0, 0].tolist() == batch.rows.tolist()
            rows += batch.rows.tolist()
            named |= {bad.row for bad in batch.bad}
        wanted = orders[0].batch(step).tolist()
        assert len(set(rows)) == 4 and not broken & set(rows)
        assert all(a == b for a, b in zip(rows, wanted, strict=True) if b not in broken)
    planned = np.concatenate([orders[0].batch(step) for step in range(5)])
    assert named >= broken & set(planned.tolist())


def test_any_images_may_be_bad_and_a_batch_keeps_its_captions_apart() -> None:
    rng = np.random.default_rng(0)
    captions = [(f"text {rng.integers(40)}",) for _ in range(103)]
    orders = [
        plan_order(pairs(captions), batch_size=6, seed=0, rank=rank, ranks=2) for rank in range(2)
    ]
    for step in (0, 5, 16, 17, 40):
        batch = orders[0].batch(step)
        found = [
            (order.rank, place, row)
            for order in orders
            for place in range(3)
            for row in takewhile(
                lambda row: row is not None,
                (order.instead(step, place, attempt) for attempt in count(1)),
            )
        ]
        own = {captions[row] for row in batch}
        assert len(found) > 6 and not own & {captions[row] for *_, row in found}
        owners: dict[tuple[str, ...], set[tuple[int, int]]] = {}
        for rank, place, row in found:
            owners.setdefault(captions[row], set()).add((rank, place))
        assert all(len(places) == 1 for places in owners.values())


def test_without_another_pair_a_batch_stays_short() -> None:
    data = replace(pairs(SINGLE[:4]), images=Fragile(4, {1}))
    order = plan_order(data, batch_size=4, seed=0)
    (batch,) = batches(data, [0], rows_of=order.rows, instead=order.instead)
    assert sorted(batch.rows.tolist()) == [0, 2, 3] and [b.id for b in batch.bad] == ["p1"]


def test_batches_come_in_order_whatever_the_workers_and_draw_nothing_at_random() -> None:
    import torch

    data = replace(pairs(SINGLE), images=Fragile(23, set()))
    jobs = [np.array(pair) for pair in pairwise(range(23))]
    before = torch.get_rng_state()
    for workers in (0, 3):
        rows = [batch.rows.tolist() for batch in batches(data, jobs, workers=workers)]
        assert rows == [job.tolist() for job in jobs]
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"batch_size": 24}, "more than the 23 training pairs"),
        ({"batch_size": 9, "ranks": 2}, "cannot be shared evenly by 2 ranks"),
    ],
)
def test_a_batch_that_cannot_be_made_is_refused(options: dict, says: str) -> None:
    with pytest.raises(GeomkitError, match=says):
        plan_order(pairs(SINGLE), seed=0, **options)


def test_too_few_different_captions_are_refused() -> None:
    data = pairs([("dog",), ("cat",)] * 4)
    with pytest.raises(GeomkitError, match=r"'made' has 2; give --batch-size 2 or less, or --rep"):
        plan_order(data, batch_size=4, seed=0)
    assert len(plan_order(data, batch_size=4, seed=0, distinct=False).batch(0)) == 4


def test_workers_hold_no_order_and_a_step_looks_at_its_own_pairs() -> None:
    import tracemalloc

    n = 100_000
    order = Order(n, 64, 0, "first", np.arange(n + 1), np.arange(n) // 3)
    there = replace(order)
    share = next(order.shares([5]))
    words = Tokenizer(context_length=8)
    texts = Texts(str(number) for number in range(n))
    tokens = _tokens(there, texts, words, None, share, share.rows)
    assert tokens.equal(words.encode([str(row) for row in share.rows])) and there._drawn is None
    step = next(s for s in range(1000) if _equal_captions(order, s))
    tracemalloc.start()
    order.rows(step), order.texts(step, share.rows)
    assert tracemalloc.get_traced_memory()[1] < n
    tracemalloc.stop()


def _equal_captions(order: Order, step: int) -> bool:
    first = step * order.batch_size % (order.n - order.batch_size)
    rows = order._epoch(0)[0][first : first + order.batch_size]
    return len(set((rows // 3).tolist())) < len(rows) and step < order.steps_per_epoch


def test_workers_are_few_and_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "cores", lambda: 192)
    data = replace(pairs(SINGLE), images=Process())
    assert loading.loader(data, [], workers=None).made.num_workers == 8
    stream = loading.loader(data, [[0], [1]], workers=1, keep=True)
    first, again = (
        [batch.images.flatten()[:4].view(torch.int32).item() for batch in stream] for _ in range(2)
    )
    assert first == again and first[0] != os.getpid()


class Process:
    """Images that hold the number of the process that decodes them."""

    size = 4

    def read(self, row: int) -> np.ndarray:
        return np.full((4, 1, 3), os.getpid(), np.int32).view(np.uint8).reshape(4, 4, 3)
