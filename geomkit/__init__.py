"""geomkit: train, measure and see the embedding geometry of CLIP-like models."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from geomkit.embeddings import Embeddings
    from geomkit.errors import GeomkitError
    from geomkit.extraction import extract, load_source
    from geomkit.losses import ContrastiveLoss
    from geomkit.metrics import METRICS, GapResult, gap
    from geomkit.training import TrainConfig, configure, train

__all__ = [
    "METRICS",
    "ContrastiveLoss",
    "Embeddings",
    "GapResult",
    "GeomkitError",
    "TrainConfig",
    "configure",
    "extract",
    "gap",
    "load_source",
    "train",
]

_HOMES = {
    "ContrastiveLoss": "losses",
    "Embeddings": "embeddings",
    "GapResult": "metrics",
    "GeomkitError": "errors",
    "METRICS": "metrics",
    "TrainConfig": "training",
    "configure": "training",
    "extract": "extraction",
    "gap": "metrics",
    "load_source": "extraction",
    "train": "training",
}


def __getattr__(name: str) -> Any:
    # Lazily, so that measuring a file of embeddings never waits for torch.
    if name in _HOMES:
        value = getattr(import_module(f"geomkit.{_HOMES[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'geomkit' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
