"""How much memory this process held, for tests of what must not take any."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

__all__ = ["at_most", "forget_peak", "peak"]


def forget_peak() -> None:
    """Count the most memory held anew, from now on."""
    Path("/proc/self/clear_refs").write_text("5")


def peak() -> float:
    """The most memory this process held since, in megabytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


@contextlib.contextmanager
def at_most(megabytes: float) -> Iterator[None]:
    """Require that no more memory is taken meanwhile."""
    forget_peak()
    before = peak()
    yield
    assert peak() - before < megabytes, f"{peak() - before:.0f} MB"
