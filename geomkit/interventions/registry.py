"""INTERVENTIONS: every intervention by name."""

from __future__ import annotations

from inspect import isabstract

from geomkit._core.discovery import modules
from geomkit.interventions.base import Intervention

__all__ = ["INTERVENTIONS"]

_MACHINERY = ("affine", "applying", "base", "closing", "registry")

INTERVENTIONS: dict[str, type[Intervention]] = {
    kind.name: kind
    for module in modules("geomkit.interventions", skip=_MACHINERY)
    for kind in vars(module).values()
    if isinstance(kind, type) and issubclass(kind, Intervention) and not isabstract(kind)
}
"""Every intervention by name, found in the modules of this package."""
