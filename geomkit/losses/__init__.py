"""Losses: terms, presets and ContrastiveLoss."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from geomkit.losses.spec import PRESETS, TERM_NAMES, LossSpec, parse_loss

if TYPE_CHECKING:
    from geomkit.losses.contrastive import ContrastiveLoss

__all__ = ["PRESETS", "TERM_NAMES", "ContrastiveLoss", "LossSpec", "parse_loss"]


def __getattr__(name: str) -> Any:
    # Names and weights are read without torch; computing a loss needs it.
    if name == "ContrastiveLoss":
        return import_module("geomkit.losses.contrastive").ContrastiveLoss
    raise AttributeError(f"module 'geomkit.losses' has no attribute '{name}'")
