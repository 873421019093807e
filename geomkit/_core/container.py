"""What this process has: cores and memory, as a container may limit them, and a CUDA driver."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

__all__ = ["core_limit", "has_cuda_driver", "memory_limits"]

_CUDA = (Path("/dev/nvidiactl"), Path("/dev/dxg"), Path("C:/Windows/System32/nvcuda.dll"))
_ROOT, _OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


@cache
def core_limit() -> float | None:
    """Return the number of cores that the control group may use; ``None`` without a limit."""
    limits = []
    for folder in _groups("cpu"):
        quota = _numbers(folder / "cpu.max") or [
            *_numbers(folder / "cpu.cfs_quota_us"), *_numbers(folder / "cpu.cfs_period_us"),
        ]  # fmt: skip
        if len(quota) == 2 and min(quota) > 0:
            limits.append(quota[0] / quota[1])
    return min(limits, default=None)


def memory_limits() -> Iterator[int]:
    """Yield the bytes that the control group, and each one that it is in, may still take."""
    for folder in _groups("memory"):
        for most, used in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            limit, held = _numbers(folder / most), _numbers(folder / used)
            if limit and held:
                # Pages of files that were read are held too, and given up where memory is needed.
                yield max(0, limit[0] - held[0] + _cached(folder / "memory.stat"))


def has_cuda_driver() -> bool:
    """Whether this machine may have a CUDA device; torch, which knows, takes seconds to load."""
    return any(map(Path.exists, _CUDA))


def _groups(controller: str) -> Iterator[Path]:
    """Folders of this process's group and of those that it is in, of both versions."""
    for line in _lines(_OWN):
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers and controller not in controllers.split(","):
            continue
        root = _ROOT / controller if controllers else _ROOT
        # In a container the path may be that outside of it; the root is the container's own.
        parts = [part for part in path.split("/") if part not in ("", "..")]
        yield from (root.joinpath(*parts[:count]) for count in range(len(parts) + 1))


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError:
        return []


def _numbers(file: Path) -> list[int]:
    """The numbers in a file; none if it is not there, or has a word for no limit."""
    words = " ".join(_lines(file)).split()
    return [int(word) for word in words] if all(map(str.isdecimal, words)) else []


def _cached(file: Path) -> int:
    entries = dict(line.split(" ", 1) for line in _lines(file) if " " in line)
    return int(entries.get("inactive_file", 0))
