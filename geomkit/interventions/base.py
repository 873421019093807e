"""What every intervention has: fit, apply and save."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields
from inspect import isabstract
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from geomkit._core.array import Array
from geomkit._core.files import atomic_write, refusing
from geomkit._core.schema import once
from geomkit.embeddings.reading import naming
from geomkit.errors import GeomkitError, unknown_name

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
    def fitted(path: str | Path) -> str:
        """Return what the intervention of a file was fitted on, in words; empty if it does not say.

        Args:
            path: A file that :meth:`load` reads.
        """
        from safetensors import safe_open

        with safe_open(path, framework="numpy") as file:
            return str((file.metadata() or {}).get("fitted", ""))

    @staticmethod
    def load(path: str | Path) -> Intervention:
        """Return the fitted intervention that a file holds.

        Args:
            path: A .safetensors file that :meth:`save` wrote.

        Raises:
            GeomkitError: If the file is missing, damaged, not an intervention, or written by a
                newer version of geomkit.

        Example:
            >>> import tempfile
            >>> from geomkit.interventions import Procrustes
            >>> fitted = Procrustes.fit(np.eye(3), np.eye(3)[[1, 2, 0]])
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     fitted.save(f"{folder}/map.safetensors")
            ...     again = Intervention.load(f"{folder}/map.safetensors")
            >>> bool((again.matrix == fitted.matrix).all())
            True
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="numpy") as file:
                about: dict[str, str] = file.metadata() or {}
                held: dict[str, Any] = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
        except OSError as error:
            raise GeomkitError(f"{path}: cannot be read ({error.strerror or error})") from None
        except SafetensorError as error:
            reason = str(error).splitlines()[0]
            raise GeomkitError(f"{path}: not safetensors, or truncated ({reason})") from None
        if about.get("format") != FORMAT:
            raise GeomkitError(f"{path}: not an intervention written by geomkit")
        damage = (ValueError, RecursionError, KeyError, TypeError)
        with refusing(*damage, says=f"{path}: damaged", advice="; fit it again"):
            version, name = int(about["schema_version"]), about["intervention"]
            held |= json.loads(about["options"], object_pairs_hook=once)
        if version > SCHEMA_VERSION:
            raise GeomkitError(
                f"{path}: written with schema version {version}, this geomkit knows "
                f"{SCHEMA_VERSION}; upgrade geomkit"
            )
        kinds = {kind.name: kind for kind in _below(Intervention)}  # type: ignore[type-abstract]
        if name not in kinds:
            raise unknown_name(f"intervention in {path}", name, kinds)
        with naming(Path(path)):
            return kinds[name].restored(held)

    @classmethod
    def restored(cls, held: dict[str, Any]) -> Self:
        """Return the intervention of the fields that a file holds.

        Args:
            held: Values of the fields by name.

        Raises:
            GeomkitError: If a field is missing or unknown.
        """
        names = {f.name: f.default is MISSING for f in fields(cls)}
        missing = [name for name, needed in names.items() if needed and name not in held]
        for name in [*missing, *(name for name in held if name not in names)]:
            raise GeomkitError(f"damaged, {name} is missing or unknown; fit it again")
        return cls(**held)

    def save(self, path: str | Path, *, fitted: str = "", overwrite: bool = False) -> None:
        """Write what was fitted to a .safetensors file.

        Args:
            path: File to write; :func:`geomkit.interventions.load` reads it.
            fitted: What it was fitted on, in words, for those who apply it later.
            overwrite: Whether to replace an existing file.

        Raises:
            GeomkitError: If the path does not end in .safetensors, the file exists and
                ``overwrite`` is not given, or it cannot be written.
        """
        if Path(path).suffix != ".safetensors":
            raise GeomkitError(f"{path}: an intervention is written to a .safetensors file")
        from safetensors.numpy import save

        held = {f.name: getattr(self, f.name) for f in fields(self)}
        tensors = {k: np.ascontiguousarray(v) for k, v in held.items() if isinstance(v, np.ndarray)}
        options = {k: v for k, v in held.items() if k not in tensors and v is not None}
        about = {
            "format": FORMAT,
            "schema_version": str(SCHEMA_VERSION),
            "intervention": self.name,
            "options": json.dumps(options),
            **({"fitted": fitted} if fitted else {}),
        }
        with atomic_write(Path(path), overwrite=overwrite) as file:
            file.write(save(tensors, about))


def _below(kind: type[Intervention]) -> Iterator[type[Intervention]]:
    """Every kind that is not abstract; the package imports all of its modules."""
    for one in kind.__subclasses__():
        if not isabstract(one):
            yield one
        yield from _below(one)
