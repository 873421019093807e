"""Training: configuration, the loop, its monitor and trackers.

The configuration is read without torch; training needs it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from geomkit.training.config import RECIPES, TrainConfig, configure

if TYPE_CHECKING:
    from geomkit.training.loop import Event, Interrupted, train
    from geomkit.training.trackers import TRACKERS, tracker

__all__ = [
    "RECIPES",
    "TRACKERS",
    "Event",
    "Interrupted",
    "TrainConfig",
    "configure",
    "tracker",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'geomkit.training' has no attribute '{name}'")
    home = "trackers" if name in ("TRACKERS", "tracker") else "loop"
    return getattr(import_module(f"geomkit.training.{home}"), name)
