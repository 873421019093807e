"""What every intervention has: fit, apply and save."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar, Self

import numpy as np

from geomkit._core.array import Array
from geomkit._core.files import atomic_write

__all__ = ["FORMAT", "SCHEMA_VERSION", "Intervention"]

FORMAT = "geomkit-intervention"
SCHEMA_VERSION = 1


@dataclass(frozen=True, eq=False)
class Intervention(ABC):
    """A map of unit rows that is fitted on one split and applied to another.

    A subclass is a frozen dataclass in a module of its own in this package; it is then found by
    its name in :data:`geomkit.interventions.INTERVENTIONS`. Its fields are what fitting found:
    numpy arrays, and numbers or strings. They are what :meth:`save` writes.
    """

    name: ClassVar[str]
    """Name in the registry and in files."""

    @classmethod
    @abstractmethod
    def fit(cls, x: Array, y: Array) -> Self:
        """Return the intervention fitted on paired rows.

        Args:
            x: Image embeddings, unit rows ``(n, d)``.
            y: Text embeddings, unit rows ``(n, d)``; row i belongs to row i of ``x``.
        """

    @abstractmethod
    def apply(self, rows: Array, modality: str = "image") -> Array:
        """Return rows of one modality after the intervention.

        Args:
            rows: Unit rows ``(k, d)``, of any split.
            modality: Modality of the rows: ``image`` or ``text``.

        Returns:
            Unit rows ``(k, d)`` of the kind and on the device of ``rows``.
        """

    def __call__(self, rows: Array, modality: str = "image") -> Array:
        """Return :meth:`apply` of the same arguments."""
        return self.apply(rows, modality)

    @staticmethod
    def load(path: str | Path) -> Intervention:
        """Return the fitted intervention that a file holds, as :func:`geomkit.interventions.load`.

        Args:
            path: A .safetensors file that :meth:`save` wrote.

        Raises:
            GeomkitError: If it is missing, damaged or no intervention.
        """
        from geomkit.interventions.registry import load

        return load(path)

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write what was fitted to a .safetensors file.

        Args:
            path: File to write; :func:`geomkit.interventions.load` reads it.
            overwrite: Whether to replace an existing file.

        Raises:
            GeomkitError: If the file exists and ``overwrite`` is not given, or cannot be written.
        """
        from safetensors.numpy import save

        held = {f.name: getattr(self, f.name) for f in fields(self)}
        tensors = {k: np.ascontiguousarray(v) for k, v in held.items() if isinstance(v, np.ndarray)}
        options = {k: v for k, v in held.items() if k not in tensors and v is not None}
        about = {
            "format": FORMAT,
            "schema_version": str(SCHEMA_VERSION),
            "intervention": self.name,
            "options": json.dumps(options),
        }
        with atomic_write(Path(path), overwrite=overwrite) as file:
            file.write(save(tensors, about))
