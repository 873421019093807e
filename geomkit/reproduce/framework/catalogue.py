"""Every experiment by name, found in the modules of :mod:`geomkit.reproduce.experiments`."""

from __future__ import annotations

from collections.abc import Sequence

from geomkit._core.discovery import registry
from geomkit.errors import unknown_name
from geomkit.reproduce.framework.experiment import Experiment

__all__ = ["all_experiments", "chosen"]


def all_experiments() -> dict[str, Experiment]:
    """Every experiment by name, in the order of a report."""
    found = registry("geomkit.reproduce.experiments", Experiment).values()
    return {e.name: e for e in sorted(found, key=lambda e: (e.order, e.name))}


def chosen(names: Sequence[str]) -> tuple[Experiment, ...]:
    """Experiments of these names, each once; all of them if one name is ``all``.

    Raises:
        GeomkitError: For an unknown name.
    """
    known = all_experiments()
    for name in names:
        if name != "all" and name not in known:
            raise unknown_name("experiment", name, ["all", *known])
    return tuple(known[name] for name in (known if "all" in names else dict.fromkeys(names)))
