"""Contrastive losses: terms, presets, weighted sums of them, and ContrastiveLoss.

A new term or preset is one more module of this package that declares a :class:`Term` or a
:class:`Preset` at its top level. Names and weights are read without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

# First the declarations: the modules that spec discovers may import them from here.
from geomkit.losses.declarations import Features, Preset, Term
from geomkit.losses.spec import PRESETS, TERMS, LossSpec, parse_loss

if TYPE_CHECKING:
    from geomkit.losses.contrastive import ContrastiveLoss

__all__ = [
    "PRESETS",
    "TERMS",
    "ContrastiveLoss",
    "Features",
    "LossSpec",
    "Preset",
    "Term",
    "parse_loss",
]


def __getattr__(name: str) -> Any:
    if name == "ContrastiveLoss":
        return import_module("geomkit.losses.contrastive").ContrastiveLoss
    raise AttributeError(f"module 'geomkit.losses' has no attribute '{name}'")
