"""Registries without a list: what the modules of a package declare is found by importing them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pkgutil import iter_modules
from typing import Protocol, TypeVar

from geomkit.errors import GeomkitError

__all__ = ["registry"]


class Named(Protocol):
    """A value with a name."""

    @property
    def name(self) -> str:
        """Name in the registry."""


T = TypeVar("T", bound=Named)


def registry(
    package: str, kind: type[T], *, first: Sequence[str] = (), skip: Sequence[str] = ()
) -> dict[str, T]:
    """Return every value of a type that a package's modules hold at their top level, by name.

    A file placed in the package is found without being listed anywhere. Order: the modules named
    in ``first``, then the others by name; within a module, as written.

    Args:
        package: Dotted name of the package.
        kind: Type of the values; each has a ``name``.
        first: Modules that come first, in this order.
        skip: Modules to leave out.

    Raises:
        GeomkitError: If two different values have one name.
    """
    modules = [info.name for info in iter_modules(import_module(package).__path__)]
    found: dict[str, T] = {}
    for module in [*first, *sorted(set(modules) - {*first, *skip})]:
        for value in vars(import_module(f"{package}.{module}")).values():
            if isinstance(value, kind) and found.setdefault(value.name, value) is not value:
                raise GeomkitError(
                    f"{package}.{module}: the name '{value.name}' is taken; choose another"
                )
    return found
