"""Extraction: a model's embeddings of a data set, in memory or as resumable shards on disk."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from geomkit.extraction.encode import embed
    from geomkit.extraction.run import Progress, extract
    from geomkit.extraction.store import Manifest

__all__ = ["Manifest", "Progress", "embed", "extract"]

_HOMES = {"Manifest": "store", "Progress": "run", "embed": "encode", "extract": "run"}


def __getattr__(name: str) -> Any:
    # Lazily: the command line checks its options before torch is imported.
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
