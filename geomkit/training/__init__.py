"""Training: configuration, the loop, its monitor and trackers.

The configuration is read without torch; training needs it.
"""

from typing import TYPE_CHECKING

from geomkit._core.lazy import lazy_exports
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


__getattr__ = lazy_exports(
    __name__, {"loop": ["Event", "Interrupted", "train"], "trackers": ["TRACKERS", "tracker"]}
)
