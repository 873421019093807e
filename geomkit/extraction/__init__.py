"""Extraction: a model's embeddings of a data set, in memory or as resumable shards on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from geomkit._core.lazy import lazy_exports

if TYPE_CHECKING:
    from geomkit.extraction.encode import embed
    from geomkit.extraction.load import load_source
    from geomkit.extraction.run import Progress, extract
    from geomkit.extraction.store import Manifest

__all__ = ["Manifest", "Progress", "embed", "extract", "load_source"]

# The command line checks its options before torch is imported.
__getattr__ = lazy_exports(
    __name__,
    {
        "encode": ["embed"],
        "load": ["load_source"],
        "run": ["Progress", "extract"],
        "store": ["Manifest"],
    },
)
