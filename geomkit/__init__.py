"""geomkit: train, measure and see the embedding geometry of CLIP-like models."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from geomkit._core.lazy import lazy_exports

if TYPE_CHECKING:
    __version__: str
    from geomkit import data, functional, interventions, losses, metrics, monitoring, plots
    from geomkit.embeddings import Embeddings
    from geomkit.errors import GeomkitError
    from geomkit.extraction import extract, load_source
    from geomkit.losses import ContrastiveLoss
    from geomkit.metrics import METRICS, GapResult, gap
    from geomkit.monitoring import GapMonitor
    from geomkit.reporting import report
    from geomkit.tasks import probe, zeroshot
    from geomkit.training import TrainConfig, configure, train

__all__ = [
    "METRICS",
    "ContrastiveLoss",
    "Embeddings",
    "GapMonitor",
    "GapResult",
    "GeomkitError",
    "TrainConfig",
    "__version__",
    "compare",
    "configure",
    "data",
    "extract",
    "functional",
    "gap",
    "interventions",
    "load_source",
    "losses",
    "metrics",
    "monitoring",
    "plots",
    "probe",
    "report",
    "train",
    "zeroshot",
]

_ROOMS = ("data", "functional", "interventions", "losses", "metrics", "monitoring", "plots")

_name = lazy_exports(
    __name__,
    {
        "embeddings": ("Embeddings",),
        "errors": ("GeomkitError",),
        "extraction": ("extract", "load_source"),
        "losses": ("ContrastiveLoss",),
        "metrics": ("METRICS", "GapResult", "compare", "gap"),
        "monitoring": ("GapMonitor",),
        "reporting": ("report",),
        "tasks": ("probe", "zeroshot"),
        "training": ("TrainConfig", "configure", "train"),
    },
)


def __getattr__(name: str) -> Any:
    # Lazily, so that measuring a file of embeddings never waits for torch.
    if name == "__version__":
        return import_module("importlib.metadata").version("geomkit")
    if name in _ROOMS:
        return import_module(f"geomkit.{name}")
    return _name(name)


def __dir__() -> list[str]:
    return sorted(__all__)
