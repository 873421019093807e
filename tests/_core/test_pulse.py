"""Ranks as far as one process can tell: their device, their time limit, what is refused."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
import torch
import torch.distributed as dist

from geomkit._core import pulse
from geomkit._core.parallel import SOLO, Team
from geomkit.errors import GeomkitError


@pytest.fixture
def second_of_two(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The environment of a rank, and what its process group is made with; nothing is connected."""
    made: dict[str, Any] = {}
    places = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    counts = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    for name, value in (places | counts).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(dist, "rendezvous", lambda *_, **__: iter([(dist.HashStore(), 1, 2)]))
    monkeypatch.setattr(dist, "is_nccl_available", lambda: True)
    monkeypatch.setattr(
        dist, "init_process_group", lambda backend, **given: made.update(given, backend=backend)
    )
    monkeypatch.setattr(pulse, "name_of_start", lambda *_: "start")
    monkeypatch.setattr(pulse, "Pulse", lambda *_: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda index: made.update(current=index))
    return made


@pytest.mark.parametrize(
    ("device", "backend", "own", "current"),
    [
        ("auto", "cpu:gloo,cuda:nccl", torch.device("cuda:1"), 1),
        ("cuda", "cpu:gloo,cuda:nccl", torch.device("cuda:1"), 1),
        ("cuda:0", "cpu:gloo,cuda:nccl", None, 0),  # the other rank has it too
        ("cpu", "gloo", None, None),
    ],
)
def test_a_rank_takes_its_own_device_before_it_connects(
    second_of_two: dict[str, Any],
    device: str,
    backend: str,
    own: torch.device | None,
    current: int | None,
) -> None:
    team = Team.from_environment(device)
    assert (team.rank, team.size) == (1, 2)
    assert (second_of_two["backend"], second_of_two["device_id"]) == (backend, own)
    assert second_of_two.get("current") == current


def test_ranks_that_share_a_device_do_not_bind_it(
    second_of_two: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    Team.from_environment("cuda")
    assert second_of_two["device_id"] is None and second_of_two["current"] == 1


def test_the_time_limit_is_that_of_the_environment(
    second_of_two: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    Team.from_environment("cpu")
    assert second_of_two["timeout"] == timedelta(minutes=20)
    monkeypatch.setenv("GEOMKIT_TIMEOUT", "0.5")
    Team.from_environment("cpu")
    assert second_of_two["timeout"] == timedelta(minutes=1)
    for word in ("soon", "0", "nan", "-1"):
        monkeypatch.setenv("GEOMKIT_TIMEOUT", word)
        with pytest.raises(GeomkitError, match=f"GEOMKIT_TIMEOUT: expected minutes, .* '{word}'"):
            Team.from_environment("cpu")


def test_ranks_that_do_not_come_are_waited_for_no_longer_than_that() -> None:
    store = dist.HashStore()
    with pytest.raises(RuntimeError, match="not all of them within 0 seconds"):
        pulse.name_of_start(store, 0, 2, 0.05)
    # What earlier ranks wrote is no answer.
    name = store.get("geomkit/start").decode()
    store.set(f"geomkit/{name}/1", "earlier")
    store.set(f"geomkit/{name}", "some earlier")
    with pytest.raises(RuntimeError, match="not all of them"):
        pulse.name_of_start(store, 1, 2, 0.05)
    with pytest.raises(RuntimeError, match="not all of them"):
        pulse.name_of_start(store, 0, 2, 0.05)
    assert store.get("geomkit/start").decode() != name


def test_a_rank_that_works_is_waited_for_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse, "_REMINDER", 0.05)
    store, said = dist.HashStore(), list[str]()
    first, second = (pulse.Pulse(rank, 2, store, store, 60, said.append) for rank in range(2))

    def work() -> None:
        time.sleep(0.3)
        second.meet()
        second.close()

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(work)
        first.meet()
        first.close()
        done.result()
    assert said and all(line.startswith("waiting for rank 1 for 0 s") for line in said)


def test_one_process_asks_nobody() -> None:
    rows = torch.eye(2)
    assert SOLO.join(rows) is rows and SOLO.first(lambda: 3) == 3 and SOLO.gather(4) == [4]
    assert SOLO.block(5) == slice(0, 5) and Team(1, 2).block(5) == slice(2, 5)
    SOLO.meet()
    SOLO.check_same({"number": 1})
    SOLO.fail("nobody hears it")
    SOLO.close()
