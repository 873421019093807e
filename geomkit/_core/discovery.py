"""Registries without a list: what the modules of a package declare is found by importing them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType
from typing import Protocol, TypeVar

from geomkit.errors import GeomkitError

__all__ = ["modules", "registry"]


class Named(Protocol):
    """A value with a name."""

    @property
    def name(self) -> str:
        """Name in the registry."""


T = TypeVar("T", bound=Named)


def modules(
    package: str, *, first: Sequence[str] = (), skip: Sequence[str] = ()
) -> Iterator[ModuleType]:
    """Import and yield every module of a package: those named in ``first``, then by name.

    Args:
        package: Dotted name of the package.
        first: Modules that come first, in this order.
        skip: Modules to leave out.
    """
    names = {info.name for info in iter_modules(import_module(package).__path__)}
    for name in [*first, *sorted(names - {*first, *skip})]:
        yield import_module(f"{package}.{name}")


def registry(
    package: str, kind: type[T], *, first: Sequence[str] = (), skip: Sequence[str] = ()
) -> dict[str, T]:
    """Return every value of a type that a package's modules hold at their top level, by name.

    A file placed in the package is found without being listed anywhere. Order: the modules named
    in ``first``, then the others by name; within a module, as written. A list at the top level
    counts as its items.

    Args:
        package: Dotted name of the package.
        kind: Type of the values; each has a ``name``.
        first: Modules that come first, in this order.
        skip: Modules to leave out.

    Raises:
        GeomkitError: If two different values have one name.
    """
    found: dict[str, T] = {}
    for module in modules(package, first=first, skip=skip):
        for held in vars(module).values():
            for value in held if isinstance(held, list) else [held]:
                if isinstance(value, kind) and found.setdefault(value.name, value) is not value:
                    raise GeomkitError(
                        f"{module.__name__}: the name '{value.name}' is taken; choose another"
                    )
    return found
