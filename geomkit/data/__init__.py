"""Data sets by name; each gives pictures, captions and ids as :class:`PairData`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from geomkit.data.openmoji import ATTRIBUTION, LICENCE, load_openmoji
from geomkit.data.pairs import PairData
from geomkit.errors import GeomkitError, unknown_name

__all__ = ["DATASETS", "Dataset", "PairData", "load_data", "parse_spec"]


@dataclass(frozen=True)
class Dataset:
    """One data set geomkit can load.

    Attributes:
        load: from options to :class:`PairData`.
        summary: one line.
        options: name → how a string becomes its value.
        licence, attribution: of the pictures.
    """

    load: Callable[..., PairData]
    summary: str
    options: dict[str, Callable[[str], Any]]
    licence: str = ""
    attribution: str = ""


def _flag(text: str) -> bool:
    if text.lower() in ("true", "yes", "1", "on"):
        return True
    if text.lower() in ("false", "no", "0", "off"):
        return False
    raise ValueError("expected true or false")


DATASETS: dict[str, Dataset] = {
    "openmoji": Dataset(
        load_openmoji,
        "OpenMoji's pictures with their names, drawn on this machine; the embedded default",
        {"skin_tones": _flag, "language": str, "captions": int, "n": int, "seed": int},
        LICENCE,
        ATTRIBUTION,
    ),
}
"""Every data set by name."""


def parse_spec(spec: str) -> tuple[str, dict[str, Any]]:
    """A DATA spec, ``NAME[,key=value…]``, as a name and its options.

    Raises:
        GeomkitError: for an unknown data set or option, or a value that does not fit.

    >>> parse_spec("openmoji,skin_tones=true,n=64")
    ('openmoji', {'skin_tones': True, 'n': 64})
    """
    name, *parts = spec.split(",")
    if name not in DATASETS:
        raise unknown_name("data set", name, DATASETS)
    known = DATASETS[name].options
    options = {}
    for part in parts:
        key, equals, value = part.partition("=")
        if not equals:
            raise GeomkitError(f"data '{spec}': expected key=value, got '{part}'")
        if key not in known:
            raise unknown_name(f"option of {name}", key, known)
        try:
            options[key] = known[key](value)
        except ValueError as error:
            raise GeomkitError(f"data '{spec}': {key}: '{value}' does not fit ({error})") from None
    return name, options


def load_data(
    spec: str = "openmoji",
    *,
    split: str = "train",
    size: int = 32,
    n: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> PairData:
    """Load a split of a data set.

    Args:
        spec: ``NAME[,key=value…]``.
        split: ``train``, ``val`` or ``all``.
        size: side of the pictures in px.
        n: only so many pairs; an ``n`` in the spec goes first, and counts training pairs.
        progress: called with pictures done and in all while something is prepared.

    Raises:
        GeomkitError: see :func:`parse_spec` and the data set's own loader.
    """
    name, options = parse_spec(spec)
    asked = options.pop("n", n)
    limit = asked if split == "train" or (split == "all" and asked) else None
    return DATASETS[name].load(
        split=split, size=size, n=limit, spec=spec, progress=progress, **options
    )
