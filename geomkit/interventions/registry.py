"""INTERVENTIONS: every intervention by name, and reading one from a file."""

from __future__ import annotations

import json
from dataclasses import MISSING, fields
from inspect import isabstract
from pathlib import Path
from typing import Any

from geomkit._core.discovery import modules
from geomkit._core.files import refusing
from geomkit._core.schema import once
from geomkit.embeddings.reading import naming
from geomkit.errors import GeomkitError, unknown_name
from geomkit.interventions.base import FORMAT, SCHEMA_VERSION, Intervention
from geomkit.interventions.procrustes import Procrustes

__all__ = ["INTERVENTIONS", "load"]

INTERVENTIONS: dict[str, type[Intervention]] = {
    kind.name: kind
    for module in modules("geomkit.interventions", skip=("affine", "base", "registry"))
    for kind in vars(module).values()
    if isinstance(kind, type) and issubclass(kind, Intervention) and not isabstract(kind)
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
    with refusing(ValueError, RecursionError, KeyError, TypeError, says=f"{path}: damaged",
                  advice="; fit it again"):  # fmt: skip
        version, name = int(about["schema_version"]), about["intervention"]
        held |= json.loads(about["options"], object_pairs_hook=once)
    if version > SCHEMA_VERSION:
        raise GeomkitError(
            f"{path}: written with schema version {version}, this geomkit knows "
            f"{SCHEMA_VERSION}; upgrade geomkit"
        )
    if name not in INTERVENTIONS:
        raise unknown_name(f"intervention in {path}", name, INTERVENTIONS)
    kind = INTERVENTIONS[name]
    if "matrix" in held and kind is Procrustes:  # as earlier versions wrote it
        held["text_matrix"] = held.pop("matrix").T
    needed = {f.name for f in fields(kind) if f.default is MISSING}
    other = {f.name for f in fields(kind)} ^ set(held)
    wrong = sorted((needed - set(held)) | (other & set(held)))
    if wrong:
        raise GeomkitError(f"{path}: damaged, {wrong[0]} is missing or unknown; fit it again")
    with naming(Path(path)):
        return kind(**held)
