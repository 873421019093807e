"""Names of data sets, and the DATA specs that name them with a path and options."""

from __future__ import annotations

import os
import re
from functools import cache
from typing import Any, NamedTuple

from geomkit._core.discovery import registry
from geomkit._core.files import refusing
from geomkit.data.declarations import Dataset, Request, Value, read_value
from geomkit.errors import GeomkitError, unknown_name
from geomkit.models.preprocess import Preprocess

__all__ = [
    "DataSpec", "datasets", "find_data", "parse_spec", "requested", "spec_forms", "with_options",
]  # fmt: skip

_KINDS = {
    "pairs": "data set",
    "classes": "data set with classes",
    "queries": "data set with queries",
}


@cache
def datasets(kind: str = "pairs") -> dict[str, Dataset]:
    """Every data set of a kind by name: OpenMoji, then the others in alphabetical order.

    Args:
        kind: ``pairs``, ``classes`` (labelled images) or ``queries`` (multimodal arithmetic).

    >>> list(datasets())
    ['openmoji', 'coco', 'csv', 'imagefolder', 'webdataset']
    """
    found = [
        *registry("geomkit.data", Dataset, skip=["loading"]).values(),
        *registry("geomkit.data.labelled", Dataset).values(),
    ]
    ordered = sorted(found, key=lambda dataset: (dataset.name != "openmoji", dataset.name))
    return {dataset.name: dataset for dataset in ordered if kind in dataset.kinds}


def spec_forms(kind: str = "pairs") -> str:
    """How the specs of a kind's data sets are written, as a list for help texts.

    >>> spec_forms()
    'openmoji, coco:ROOT, csv:FILE, imagefolder:DIR or webdataset:PATTERN'
    """
    *first, last = (dataset.spec for dataset in datasets(kind).values())
    return f"{', '.join(first)} or {last}"


class DataSpec(NamedTuple):
    """The parts of a DATA spec ``NAME[:PATH][,key=value…]``.

    Attributes:
        name: Name of the data set.
        path: Path, or ``None`` if the data set takes none.
        options: Options by name.
    """

    name: str
    path: str | None
    options: dict[str, Value]


def parse_spec(spec: str, kind: str = "pairs") -> DataSpec:
    """Parse a DATA spec, ``NAME[:PATH][,key=value…]``.

    A path may hold commas, colons and equals signs: only parts at the very end that name an option
    of the data set are options.

    Args:
        spec: DATA spec.
        kind: ``pairs``, ``classes`` or ``queries``.

    Raises:
        GeomkitError: If the data set or an option is unknown, a path is missing or not allowed, or
            a value does not fit.

    >>> parse_spec("openmoji,skin_tones=true,n=64")
    DataSpec(name='openmoji', path=None, options={'skin_tones': True, 'n': 64})
    """
    name = re.split("[:,]", spec, maxsplit=1)[0]
    rest = spec[len(name) :]
    known = datasets(kind)
    if name not in known:
        raise unknown_name(_KINDS[kind], name, known)
    dataset = known[name]
    if rest.startswith(":") and not dataset.path:
        raise GeomkitError(f"data '{spec}': {name} takes no path; write {name} or {name},key=value")
    path, *parts = rest[1:].split(",") if rest.startswith(":") else rest.split(",")
    if dataset.path:
        # What is no option belongs to the path, and so does everything before it.
        last = max((i + 1 for i, p in enumerate(parts) if not _names_option(p, dataset)), default=0)
        path, parts = ",".join([path, *parts[:last]]), parts[last:]
        if not path:
            raise GeomkitError(f"data '{spec}': {name} needs a path; write {dataset.spec}")
    path = os.path.expanduser(path)  # noqa: PTH111 - keeps a path with a URL's slashes as it is
    return DataSpec(name, path or None, _options(spec, dataset, parts))


def requested(spec: str, kind: str = "pairs", **asked: Any) -> tuple[Request, dict[str, Any]]:
    """What a DATA spec asks a data set for, and the options of that data set's own.

    Args:
        spec: DATA spec.
        kind: ``pairs``, ``classes`` or ``queries``.
        asked: Other attributes of the request; options in the spec have precedence.

    Raises:
        GeomkitError: As :func:`parse_spec`.
    """
    name, path, options = parse_spec(spec, kind)
    dataset = datasets(kind)[name]
    own = {key: options.pop(key) for key in dataset.options if key in options}
    return Request(dataset, spec, path or "", **(asked | options)), own


def _names_option(part: str, dataset: Dataset) -> bool:
    key, equals, _ = part.partition("=")
    return bool(equals) and key in dataset.all_options


def _options(spec: str, dataset: Dataset, parts: list[str]) -> dict[str, Value]:
    known = dataset.all_options
    options: dict[str, Value] = {}
    for part in parts:
        key, equals, text = part.partition("=")
        if not equals:
            raise GeomkitError(f"data '{spec}': expected key=value, got '{part}'")
        if key not in known:
            raise unknown_name(f"option of {dataset.name}", key, known)
        if key in options:
            raise GeomkitError(f"data '{spec}': {key} is given twice")
        with refusing(ValueError, says=f"data '{spec}': {key}: '{text}' does not fit"):
            options[key] = read_value(known[key], text)
    return options


def find_data(spec: str, kind: str = "pairs") -> None:
    """Refuse a DATA spec whose path leads nowhere, at little cost.

    Args:
        spec: DATA spec.
        kind: ``pairs``, ``classes`` or ``queries``.

    Raises:
        GeomkitError: As :func:`parse_spec`, or if there is nothing at the path.
    """
    request, _ = requested(spec, kind, split="", preprocess=Preprocess(1))
    request.dataset.find(request)


def with_options(spec: str, **options: object) -> str:
    """A DATA spec with more options.

    Args:
        spec: DATA spec.
        options: Options to add; those that are ``None`` are left out.

    Raises:
        GeomkitError: As :func:`parse_spec`, or if the spec has one of them already.

    >>> with_options("openmoji,n=64", seed=1, language=None, skin_tones=True)
    'openmoji,n=64,seed=1,skin_tones=true'
    """
    name, _, given = parse_spec(spec)
    known = datasets()[name].all_options
    for key, value in options.items():
        if value is None:
            continue
        if key == "draft" and key not in known:
            raise GeomkitError(f"data '{spec}': has no JPEG files to decode fast")
        if key not in known:
            raise unknown_name(f"option of {name}", key, known)
        if key in given:
            raise GeomkitError(f"data '{spec}': {key} is in the spec already; give it once")
        text = str(value).lower() if isinstance(value, bool) else str(value)
        if "," in text:
            raise GeomkitError(f"data '{spec}': {key}: '{text}' holds a comma, which ends options")
        spec = f"{spec},{key}={text}"
    parse_spec(spec)
    return spec
