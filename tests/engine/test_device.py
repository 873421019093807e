"""What is computed on a device stays there until it is complete; no device is needed to see it."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import clouds
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from geomkit._core import array, runtime
from geomkit.embeddings.embeddings import Embeddings
from geomkit.engine import beaten, neighbours, pairwise, ranks, reducers, sampled
from geomkit.engine.neighbours import Neighbours
from geomkit.engine.pairwise import Pairs, walk
from geomkit.engine.reducers import OwnKindCounts, PotentialSums, RankCounts
from geomkit.errors import GeomkitError
from geomkit.extraction import load
from geomkit.metrics import budget, transport

ALL = (PotentialSums, RankCounts, OwnKindCounts, Neighbours)


def fakes_copies() -> bool:
    try:
        with FakeTensorMode():
            return torch.empty(1).to("cuda").is_cuda
    except RuntimeError:  # older versions of torch look for the driver
        return False


@pytest.mark.skipif(not fakes_copies(), reason="this torch fakes no copy to CUDA without a driver")
@pytest.mark.parametrize("texts", [1, 2])
@pytest.mark.parametrize("reducer", ALL)
def test_a_tile_is_reduced_on_its_device(reducer, texts: int) -> None:
    """Tensors without content: one of another device among them raises, and so does a reading."""
    n = 200
    index = np.arange(n * texts) % n
    with FakeTensorMode():
        x, y = (torch.empty(k, 8, dtype=torch.float64, device="cuda") for k in (n, n * texts))
        pairs = Pairs(x, y, index, np.arange(n), tile=64)
        for block in range(pairs.blocks):
            count = len(pairs.rows(block))
            for of, size in {"best": count, "own": len(pairs.texts(block))}.items():
                made = torch.empty(size, dtype=torch.float64, device="cuda")
                pairs._there[block, of] = made
        found = reducer()
        found.start(pairs)
        for kind in found.kinds:
            for place in ((0, 0), (0, 1)):
                tile = pairs.tile(kind, *place)
                found.add(tile, found.tile(tile))


class _Readings(TorchDispatchMode):
    """Counts numbers that Python reads of tensors: each waits for the device."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.overloadpacket.__name__ == "_local_scalar_dense"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_nothing_is_read_or_sent_for_a_tile(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = (torch.from_numpy(rows).to(dtype) for rows in clouds(384, 8))
    index = np.arange(384)
    moves = SimpleNamespace(count=0)

    def counted(function):
        def move(*values):
            moves.count += any(map(array.is_torch, values))
            return function(*values)

        return move

    for module in (pairwise, ranks, reducers, neighbours, sampled, beaten):
        for name in ("to_numpy", "like"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, counted(getattr(array, name)))
    taken = {}
    for tile in (64, 192):
        pairs = Pairs(x, y, index, index, tile=tile)
        for block in range(pairs.blocks):  # once a block
            for of in ("best", "own"):
                pairs.reference(block, of)
        moves.count = 0
        kinds = (PotentialSums(), RankCounts(), Neighbours())
        with _Readings() as readings:
            walk(pairs, kinds)
        # the entries on the diagonal, which a block has once, are sent for both directions
        taken[tile] = readings.count, moves.count - 4 * pairs.blocks
    assert taken[64][1] == taken[192][1]
    if dtype == torch.float64:
        assert taken[64][0] == taken[192][0]  # with float32: whether products are near a tie


@pytest.mark.parametrize("seed", range(3))
def test_counts_on_a_device_equal_numpys_with_ties(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = clouds(60, 6, seed=seed)
    y = y[rng.integers(0, 12, 60)]  # equal texts
    for dtype in (np.float32, np.float64):
        rows = x.astype(dtype), y.astype(dtype)
        both = []
        for given in (rows, tuple(map(torch.from_numpy, rows))):
            found = RankCounts(), OwnKindCounts()
            walk(Pairs(*given, np.arange(60), np.arange(60), tile=64), found)
            both.append([found[0]._image, found[0]._text, found[1].image, found[1].text])
        for ours, theirs in zip(*both, strict=True):
            assert isinstance(theirs, np.ndarray) and np.array_equal(ours, theirs)


def test_auto_puts_many_rows_on_a_device_that_has_room(monkeypatch: pytest.MonkeyPatch) -> None:
    e = Embeddings.of(*clouds(50, 4))
    monkeypatch.setattr(runtime, "resolve_device", lambda name: "meta")
    monkeypatch.setattr(load, "has_cuda_driver", lambda: True)
    assert load.to_device(e, "auto") is e
    monkeypatch.setattr(load, "_FEW", 49)
    there = load.to_device(e, "auto")
    assert there.image.device.type == there.meta["device"] == "meta"
    assert there.text.shape == (50, 4) and load.to_device(e, "cpu") is e
    monkeypatch.setattr(load, "device_memory", lambda _: 2 * e.image.nbytes + 1)
    assert load.to_device(e, "auto") is e and load.to_device(e, "cuda").meta["device"] == "meta"
    monkeypatch.setattr(load, "device_memory", lambda _: e.image.nbytes)
    with pytest.raises(GeomkitError, match=r"the rows take .* measure on the CPU"):
        load.to_device(e, "cuda")
    monkeypatch.setattr(load, "has_cuda_driver", lambda: False)
    assert load.to_device(e, "auto") is e


def test_budget_and_memory_are_those_of_the_device_and_the_ranks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    e = Embeddings.of(*clouds(50, 4))
    monkeypatch.setattr(budget, "_SURE", 10)
    monkeypatch.setattr(budget, "pairwise_seconds", lambda *_, beside: 500 if beside is None else 1)
    assert budget.within_budget(e, None) == (False, 500)
    assert budget.within_budget(e, None, ranks=8) == (True, 62.5)
    there = replace(e, image=torch.empty(50, 4, device="meta"))
    assert budget.within_budget(there, None) == (True, 1)
    monkeypatch.setattr(budget, "device_memory", lambda _: 10**5)
    with pytest.raises(GeomkitError, match=r"memory of meta: about 0\.0 GiB are needed"):
        budget.check_memory(there, moments=True, pairwise=True)
    monkeypatch.setattr(budget, "device_memory", lambda _: 10**10)
    budget.check_memory(there, moments=True, pairwise=True)


def test_sliced_wasserstein_on_a_device() -> None:
    sides = clouds(300, 6)
    directions = np.random.default_rng(0).standard_normal((6, 5))
    directions /= np.linalg.norm(directions, axis=0)
    centre = sides[0].mean(axis=0)
    there = transport._squared_there(*map(torch.from_numpy, sides), centre, directions, np.float64)
    one, two = (np.sort((rows - centre) @ directions, axis=0) for rows in sides)
    assert float(there) == pytest.approx(float(((one - two) ** 2).mean(axis=0).sum()), rel=1e-12)
    with FakeTensorMode():
        fake = (torch.empty(300, 6, device="cuda") for _ in range(2))
        found = transport._squared_there(*fake, centre, directions, np.float32)
        assert found.device.type == "cuda"
