"""What shows that a report is as the run left it: hashes of its files, its code and its machine."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import geomkit
from geomkit._core.files import refusing

__all__ = ["code_sha256", "content_sha256", "file_sha256", "hashes", "machine"]

_SOURCES = (".py", ".jinja", ".csv", ".txt")
"""Suffixes of the package's files that decide numbers and texts."""


@cache
def code_sha256() -> str:
    """SHA-256 of the installed package's sources: their paths and contents, in order of paths."""
    root = Path(geomkit.__file__).parent
    found = hashlib.sha256()
    for path in sorted(p for p in root.rglob("*") if p.suffix in _SOURCES and p.is_file()):
        # A checkout on Windows has other ends of lines, and the same code.
        content = path.read_bytes().replace(b"\r\n", b"\n")
        found.update(f"{path.relative_to(root).as_posix()} {len(content)}\n".encode() + content)
    return found.hexdigest()


def content_sha256(content: Mapping[str, Any]) -> str:
    """SHA-256 of the content of a JSON file, whatever its layout.

    >>> content_sha256({"a": 1, "b": [2]}) == content_sha256({"b": [2], "a": 1})
    True
    """
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file.

    Raises:
        GeomkitError: If it cannot be read.
    """
    with refusing(OSError, says=f"{path}: cannot be read"), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hashes(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """SHA-256 of files of a folder, by name."""
    return {name: file_sha256(folder / name) for name in names}


def machine(device: str) -> dict[str, str]:
    """What of this machine decides how numbers are rounded.

    Args:
        device: Device of the run, ``auto`` included.

    >>> sorted(machine("cpu"))
    ['cpu', 'device']
    """
    import torch

    from geomkit._core.runtime import resolve_device

    device = resolve_device(device)
    if device.startswith("cuda"):
        device = f"cuda {torch.cuda.get_device_name(device)}"
    return {
        "device": device,
        "cpu": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
    }
