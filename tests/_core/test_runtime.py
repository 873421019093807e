"""Devices, precision and the way of batches to them, as far as a machine without a GPU can tell."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from geomkit._core import runtime as _runtime
from geomkit.data.loading import _ahead
from geomkit.errors import GeomkitError
from geomkit.reproduce import Options
from geomkit.reproduce.framework import grid
from geomkit.training.loop import _network


def test_a_device_without_a_number_is_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    for device in ("cpu", "cuda", "cuda:3"):
        _runtime.use_device(device)
    assert chosen == [3]


def test_jobs_take_the_devices_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    assert grid._own_device(Options(), 1).device == "auto"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    found = [
        grid._own_device(Options(device=d), 3).device for d in ("auto", "cuda", "cuda:0", "cpu")
    ]
    assert found == ["cuda:1", "cuda:1", "cuda:0", "cpu"]


@pytest.mark.parametrize(("precision", "kept"), [("fp32", False), ("fp64", False), ("bf16", True)])
def test_float32_is_no_tf32(precision: str, kept: bool) -> None:
    before = torch.backends.cudnn.allow_tf32
    with pytest.raises(KeyError), _runtime.numerics(precision):
        assert torch.backends.cudnn.allow_tf32 == (before and kept)
        raise KeyError
    assert torch.backends.cudnn.allow_tf32 == before


def test_batches_are_made_one_ahead() -> None:
    made: list[int] = []

    def stream() -> Iterator[int]:
        for k in range(4):
            made.append(k)
            yield k
        raise GeomkitError("no more")

    found = _ahead(stream())  # type: ignore[arg-type]
    assert next(found) == 0
    deadline = time.monotonic() + 10
    while len(made) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert made == [0, 1]
    assert [next(found) for _ in range(3)] == [1, 2, 3]
    with pytest.raises(GeomkitError, match="no more"):
        next(found)
    early = _ahead(iter([1, 2, 3]))  # type: ignore[arg-type]
    assert next(early) == 1
    early.close()
    assert list(_ahead(iter([]))) == []


def test_batch_statistics_over_ranks_are_of_the_whole_batch_or_refused() -> None:
    layers = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    assert _network(layers, "cpu", compile=False, alone=True) is layers
    with pytest.raises(GeomkitError, match="batch normalisation over several ranks needs CUDA"):
        _network(layers, "cpu", compile=False, alone=False)


def test_a_worker_ends_with_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each process that a command starts watches its parent, which may be killed."""
    import os
    from multiprocessing import Value
    from threading import Event

    from geomkit._core import parallel
    from geomkit.data import loading

    ended, gone = Event(), Event()

    class Parent:
        def join(self) -> None:
            gone.wait()

    monkeypatch.setattr(os, "_exit", lambda status: ended.set())
    monkeypatch.setattr(parallel, "parent_process", Parent)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    for start in (
        lambda: loading._start_worker(0),
        lambda: grid._start_job(Value("i", 0), None, None),
    ):
        start()
        assert not ended.is_set()
        gone.set()
        assert ended.wait(5)
        ended.clear()
        gone.clear()
