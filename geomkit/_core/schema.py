"""What a file holds, compared with the types that a dataclass or an annotation declares."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from numbers import Integral, Real
from typing import Any

from geomkit.errors import GeomkitError

__all__ = ["check_entries", "check_schema", "once"]

_NUMBERS = {int: Integral, float: Real}
_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text",
          Mapping: "an object", dict: "an object", Sequence: "a list", list: "a list",
          tuple: "a list"}  # fmt: skip
_SHOWN = 60
_LARGEST = 2**63


def check_schema(value: Any, hint: Any, where: str, *, names: Mapping[str, Any] = {}) -> None:
    """Refuse a value that is not of the type an annotation declares, down to the last entry.

    Args:
        value: Plain value that a file holds: objects for dataclasses, lists for tuples.
        hint: Type: a dataclass, a plain type, or a container of such.
        where: Name of the entry in errors; or of the file, with ``: `` at its end.
        names: Types by name that the module of a dataclass imports for annotations alone.

    Raises:
        GeomkitError: Naming the entry, what was expected and what was found.

    >>> check_schema({"a": [1, "x"]}, dict[str, list[int]], "a.json: ")
    Traceback (most recent call last):
    geomkit.errors.GeomkitError: a.json: a[1]: expected a whole number, got 'x'
    """
    found = _misfit(value, hint, "", names)
    if found is not None:
        place, said = found
        place = f"{where}{place}" if not where.endswith(" ") else where + place.removeprefix(".")
        raise GeomkitError(f"{place}: {said}")


def check_entries(content: Mapping[str, Any], known: Mapping[str, Any], where: str) -> None:
    """Refuse known entries of a wrong type; others, and those without a value, are left alone.

    Args:
        content: Object that a file holds.
        known: Types of its entries.
        where: Name of the file and object in errors, before the name of an entry.

    Raises:
        GeomkitError: As :func:`check_schema`.

    >>> check_entries({"a": 1, "b": None, "c": "x"}, {"a": int, "b": int}, "a.json: ")
    """
    for name, hint in known.items():
        if content.get(name) is not None:
            check_schema(content[name], hint, f"{where}{name}")


_Misfit = tuple[str, str] | None


def _misfit(value: Any, hint: Any, place: str, names: Mapping[str, Any]) -> _Misfit:
    """Place and description of the first value that does not fit."""
    kind = typing.get_origin(hint) or hint
    inner = typing.get_args(hint)
    if hint is Any:
        return None
    if kind in (typing.Union, types.UnionType):
        options = [option for option in inner if option is not type(None)]
        misfits = [_misfit(value, option, place, names) for option in reversed(options)]
        if None in misfits or (value is None and len(options) < len(inner)):
            return None
        # The option that fits furthest says what is wrong.
        return max((m for m in misfits if m is not None), key=lambda m: len(m[0]))
    if is_dataclass(kind):
        return _of_class(value, kind, place, names)
    if kind in (Mapping, dict):
        if not isinstance(value, Mapping):
            return place, _said(kind, value)
        held = inner[1] if inner else Any
        return (
            _first(((f"{place}.{k}", v, held) for k, v in value.items()), names) if inner else None
        )
    if kind in (list, tuple, Sequence):
        if not isinstance(value, list | tuple):
            return place, _said(kind, value)
        kinds = inner if kind is tuple and inner[-1:] != (...,) else inner[:1] * len(value)
        if inner and len(kinds) != len(value):
            return place, f"expected {len(kinds)} entries, got {len(value)}"
        each = zip(value, kinds, strict=True) if inner else ()
        return _first(((f"{place}[{i}]", v, k) for i, (v, k) in enumerate(each)), names)
    fits = isinstance(value, _NUMBERS.get(kind, kind or type(None)))
    if fits and kind in _NUMBERS:
        fits = not isinstance(value, bool) and (kind is float or abs(value) < _LARGEST)
    return None if fits else (place, _said(kind, value))


def _first(entries: typing.Iterable[tuple[str, Any, Any]], names: Mapping[str, Any]) -> _Misfit:
    found = (_misfit(value, hint, place, names) for place, value, hint in entries)
    return next((misfit for misfit in found if misfit is not None), None)


def _of_class(value: Any, kind: Any, place: str, names: Mapping[str, Any]) -> _Misfit:
    if not isinstance(value, Mapping):
        return place, _said(dict, value)
    hints = typing.get_type_hints(kind, localns=dict(names))
    known: dict[str, Field] = {field.name: field for field in fields(kind)}
    for name in value:
        if name not in known:
            return place, f"unknown entry {_shown(name)}"
    for name, field in known.items():
        if name in value:
            misfit = _misfit(value[name], hints[name], f"{place}.{name}", names)
            if misfit is not None:
                return misfit
        elif field.default is MISSING and field.default_factory is MISSING:
            return place, f"no '{name}'"
    return None


def _said(kind: Any, value: Any) -> str:
    word = _WORDS.get(kind) or f"a {getattr(kind, '__name__', kind)}"
    return f"expected {word}, got {_shown(value)}"


def _shown(value: Any) -> str:
    """The value as Python writes it, or its type if that is long."""
    if isinstance(value, str | int | float | type(None)):
        text = repr(value) if not isinstance(value, str) else repr(value[: 2 * _SHOWN])
        return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
    return f"a {type(value).__name__}"


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON, for ``object_pairs_hook``; a key given twice is refused.

    Raises:
        ValueError: If it is, as for JSON that is damaged.

    >>> import json
    >>> json.loads('{"a": 1, "a": 2}', object_pairs_hook=once)
    Traceback (most recent call last):
    ValueError: the key 'a' appears twice in one object
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for k, key in enumerate(keys) if key in keys[:k])
        raise ValueError(f"the key {_shown(twice)} appears twice in one object")
    return found
