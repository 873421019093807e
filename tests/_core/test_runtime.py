"""Devices, precision and the way of batches to them, as far as a machine without a GPU can tell."""

from __future__ import annotations

import time
from collections.abc import Iterator
from threading import Event, Thread

import pytest
import torch
from torch import nn

import geomkit
from geomkit._core import runtime as _runtime
from geomkit._core.parallel import in_order
from geomkit.data.loading import _ahead
from geomkit.errors import GeomkitError
from geomkit.metrics import measure
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


def rounding() -> list[object]:
    """How torch is set to round float32 products, by whichever of its two APIs it has."""
    backends = torch.backends
    if not hasattr(backends.cuda.matmul, "fp32_precision"):
        return [torch.get_float32_matmul_precision(), backends.cudnn.allow_tf32]
    places = [backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn, backends.mkldnn.matmul]
    return [place.fp32_precision for place in places]


@pytest.fixture
def default_rounding() -> Iterator[None]:
    before = rounding()
    yield
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = True
    if hasattr(torch.backends, "fp32_precision"):
        torch.backends.fp32_precision = "none"
        places = [torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.cudnn.rnn]
        for place, value in zip([*places, torch.backends.mkldnn.matmul], before, strict=True):
            place.fp32_precision = value
    assert rounding() == before


@pytest.mark.usefixtures("default_rounding")
@pytest.mark.parametrize("setting", ["default", "high", "allow_tf32", "new tf32", "new ieee"])
@pytest.mark.parametrize("precision", ["fp32", "fp64", "bf16"])
def test_float32_is_no_tf32(precision: str, setting: str) -> None:
    if setting == "high":
        torch.set_float32_matmul_precision("high")
    elif setting == "allow_tf32":
        torch.backends.cuda.matmul.allow_tf32 = True
    elif setting.startswith("new"):
        if not hasattr(torch.backends, "fp32_precision"):
            pytest.skip("this torch has one API")
        torch.backends.fp32_precision = setting.removeprefix("new ")
    before = rounding()
    with pytest.raises(KeyError), _runtime.numerics(precision):
        if precision == "bf16":
            assert rounding() == before
        else:
            assert set(rounding()) <= {"ieee", "highest", False}
        raise KeyError
    assert rounding() == before


@pytest.mark.usefixtures("default_rounding")
def test_tensors_are_measured_without_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    real = measure.Statistics

    def watched(*args: object, **options: object) -> object:
        seen.extend(rounding())
        return real(*args, **options)

    monkeypatch.setattr(measure, "Statistics", watched)
    torch.set_float32_matmul_precision("high")
    x = torch.nn.functional.normalize(torch.randn(8, 4), dim=1).requires_grad_()
    result = geomkit.gap(x, x.flip(0), metrics=["centroid_distance"])
    assert seen and set(seen) <= {"ieee", "highest", False}
    assert result.metrics["centroid_distance"] == pytest.approx(0, abs=1e-6)
    assert torch.get_float32_matmul_precision() == "high"


@pytest.mark.parametrize(("native", "expected"), [(True, "bf16"), (False, "fp32")])
def test_auto_is_bf16_only_where_it_is_computed(
    native: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        torch.cuda,
        "is_bf16_supported",
        lambda including_emulation=True: native or including_emulation,
    )
    assert _runtime.resolve_precision("auto", "cuda:1") == expected
    assert _runtime.resolve_precision("auto", "cpu") == "fp32"


def test_threads_that_share_the_limit_of_blas_leave_it_as_it_was() -> None:
    from threadpoolctl import threadpool_info, threadpool_limits

    def limits() -> list[int]:
        return [lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"]

    def run(items: int, first: Event, then: Event) -> None:
        for k, _ in enumerate(in_order(lambda x: x, range(items), threads=2)):
            if not k:
                first.set()
                assert then.wait(10)

    with threadpool_limits(2, user_api="blas"):
        before = limits()
        began, ended, other = Event(), Event(), Event()
        one = Thread(target=run, args=(9, began, other))
        one.start()
        assert began.wait(10)
        two = Thread(target=run, args=(9, other, ended))
        two.start()  # begins while the limit of the first is in force, and ends after it
        one.join(10)
        ended.set()
        two.join(10)
        assert limits() == before


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
    monkeypatch.setattr("gc.freeze", lambda: None)
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
