"""What a container allows is what there is: control groups of both versions, and shared texts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from geomkit._core import container, memory
from geomkit._core.parallel import cores
from geomkit._core.texts import Texts


@pytest.fixture
def group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Writes files of control groups, and the line of this process."""

    def write(own: str, **files: str) -> None:
        for name, content in files.items():
            file = tmp_path / "cgroup" / name.replace("__", "/").replace("_dot_", ".")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
        (tmp_path / "own").write_text(own)
        monkeypatch.setattr(container, "_ROOT", tmp_path / "cgroup")
        monkeypatch.setattr(container, "_OWN", tmp_path / "own")
        container.core_limit.cache_clear()

    yield write
    container.core_limit.cache_clear()


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(96)), raising=False)
    monkeypatch.setattr(memory, "_on_machine", lambda: 10**12)


def test_of_version_2(group, machine: None) -> None:
    group(
        "0::/a/b\n",
        a__cpu_dot_max="350000 100000\n",
        a__b__cpu_dot_max="max 100000\n",
        a__memory_dot_max="8000\n",
        a__memory_dot_current="5000\n",
        a__memory_dot_stat="anon 1\ninactive_file 1500\n",
        a__b__memory_dot_max="max\n",
        a__b__memory_dot_current="5000\n",
    )
    assert container.core_limit() == 3.5 and cores() == 4
    assert memory.available_memory() == 4500


def test_of_version_1_in_a_container(group, machine: None) -> None:
    group(
        "4:memory:/far/away\n3:cpu,cpuacct:/far/away\n",
        cpu__cpu_dot_cfs_quota_us="200000\n",
        cpu__cpu_dot_cfs_period_us="100000\n",
        memory__memory_dot_limit_in_bytes="7000\n",
        memory__memory_dot_usage_in_bytes="9000\n",
    )
    assert cores() == 2 and memory.available_memory() == 0


@pytest.mark.parametrize("own", ["", "0::/\n", "garbage\n", "3:cpu:/\n"])
def test_without_limits(group, machine: None, own: str) -> None:
    group(own, cpu__cpu_dot_cfs_quota_us="-1\n", cpu__cpu_dot_cfs_period_us="100000\n")
    assert cores() == 96 and memory.available_memory() == 10**12


def test_texts_of_any_characters() -> None:
    given = ["", "a\x00b", "猫 🦊", "bad \udc80 byte", "last"]
    words = Texts(given)
    assert list(words) == given and words[-1] == "last" and words[1:3] == given[1:3]
    with pytest.raises(IndexError):
        words[5]
    assert list(Texts([])) == []
