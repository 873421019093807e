"""INTERVENTIONS: every intervention by name, and reading one from a file."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from geomkit._core.discovery import modules
from geomkit.errors import GeomkitError, unknown_name
from geomkit.interventions.base import FORMAT, SCHEMA_VERSION, Intervention

__all__ = ["INTERVENTIONS", "load"]

INTERVENTIONS: dict[str, type[Intervention]] = {
    kind.name: kind
    for module in modules("geomkit.interventions", skip=("base", "registry"))
    for kind in vars(module).values()
    if isinstance(kind, type) and issubclass(kind, Intervention) and kind is not Intervention
}
"""Every intervention by name, found in the modules of this package."""


def load(path: str | Path) -> Intervention:
    """Return the fitted intervention that a file holds.

    Args:
        path: A .safetensors file that :meth:`Intervention.save` wrote.

    Raises:
        GeomkitError: If the file is missing, damaged, not an intervention, or written by a newer
            version of geomkit.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from geomkit.interventions import Procrustes
        >>> fitted = Procrustes.fit(np.eye(3), np.eye(3)[[1, 2, 0]])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     fitted.save(f"{folder}/map.safetensors")
        ...     again = load(f"{folder}/map.safetensors")
        >>> bool((again.matrix == fitted.matrix).all())
        True
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            about: dict[str, str] = file.metadata() or {}
            held: dict[str, Any] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except OSError as error:
        raise GeomkitError(f"{path}: cannot be read ({error.strerror or error})") from None
    except SafetensorError as error:
        reason = str(error).splitlines()[0]
        raise GeomkitError(f"{path}: not safetensors, or truncated ({reason})") from None
    if about.get("format") != FORMAT:
        raise GeomkitError(f"{path}: not an intervention written by geomkit")
    version = int(about["schema_version"])
    if version > SCHEMA_VERSION:
        raise GeomkitError(
            f"{path}: written with schema version {version}, this geomkit knows "
            f"{SCHEMA_VERSION}; upgrade geomkit"
        )
    if about["intervention"] not in INTERVENTIONS:
        raise unknown_name(f"intervention in {path}", about["intervention"], INTERVENTIONS)
    kind = INTERVENTIONS[about["intervention"]]
    held |= json.loads(about["options"])
    missing = {f.name for f in fields(kind)} - set(held)
    if missing:
        raise GeomkitError(f"{path}: damaged, missing {', '.join(sorted(missing))}; fit it again")
    return kind(**held)
