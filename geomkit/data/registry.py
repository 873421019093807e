"""The data sets geomkit knows, and the DATA specs that name them with their options."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from geomkit.data import coco
from geomkit.data.folder import load_folder
from geomkit.data.openmoji import ATTRIBUTION, LICENCE, load_openmoji
from geomkit.data.pairs import PairData
from geomkit.data.shards import load_shards
from geomkit.data.table import load_table
from geomkit.errors import GeomkitError, unknown_name

__all__ = ["DATASETS", "FILE_OPTIONS", "Dataset", "parse_spec", "with_options"]


@dataclass(frozen=True)
class Dataset:
    """One data set geomkit can load.

    Attributes:
        load: from options to :class:`PairData`.
        summary: one line.
        options: name → how a string becomes its value.
        licence, attribution: of the pictures, where they are always the same.
        path: what stands behind ``NAME:``, such as ``ROOT``; empty if nothing may.
        splits: the splits it may have.
    """

    load: Callable[..., PairData]
    summary: str
    options: dict[str, Callable[[str], Any]]
    licence: str = ""
    attribution: str = ""
    path: str = ""
    splits: tuple[str, ...] = ("train", "val", "all")


def _flag(text: str) -> bool:
    if text.lower() in ("true", "yes", "1", "on"):
        return True
    if text.lower() in ("false", "no", "0", "off"):
        return False
    raise ValueError("expected true or false")


def _share(text: str) -> float:
    share = float(text)
    if not 0.0 <= share <= 1.0:
        raise ValueError("expected a share, 0 to 1")
    return share


FILE_OPTIONS: dict[str, Callable[[str], Any]] = {
    "n": int,
    "seed": int,
    "max_bad": _share,
    "draft": _flag,
    "distinct": _flag,
}
"""Options of every data set that lies in files: only so many pairs, the seed that chooses them and
a fifth held out, the share of pictures that may fail to decode, whether the JPEG decoder may reduce
large pictures, only the first picture of each main caption."""

DATASETS: dict[str, Dataset] = {
    "openmoji": Dataset(
        load_openmoji,
        "OpenMoji's pictures with their names, drawn on this machine; the embedded default",
        {
            "skin_tones": _flag,
            "language": str,
            "captions": int,
            "hold_out": str,
            "n": int,
            "seed": int,
        },
        LICENCE,
        ATTRIBUTION,
    ),
    "coco": Dataset(
        coco.load_coco,
        "COCO Captions: 2017, 2014 or Karpathy's split, folders or zips as downloaded",
        {"year": str, "captions": int, **FILE_OPTIONS},
        coco.LICENCE,
        coco.ATTRIBUTION,
        path="ROOT",
        splits=("train", "val", "test", "all"),
    ),
    "csv": Dataset(
        load_table,
        "a .csv, .tsv or .parquet of picture files and captions",
        {
            "image_column": str,
            "caption_column": str,
            "id_column": str,
            "split_column": str,
            "separator": str,
            **FILE_OPTIONS,
        },
        path="FILE",
        splits=("train", "val", "test", "all"),
    ),
    "imagefolder": Dataset(
        load_folder,
        "pictures in a folder a class, or with a .txt beside each",
        {"template": str, **FILE_OPTIONS},
        path="DIR",
        splits=("train", "val", "test", "all"),
    ),
    "webdataset": Dataset(
        load_shards,
        "tars of pictures and captions, such as img2dataset writes",
        dict(FILE_OPTIONS),
        path="PATTERN",
    ),
}
"""Every data set by name."""


def parse_spec(spec: str) -> tuple[str, str | None, dict[str, Any]]:
    """A DATA spec, ``NAME[:PATH][,key=value…]``, as a name, a path and options.

    A path may hold commas, colons and equals signs: only parts at the very end that name an option
    of the data set are options.

    Raises:
        GeomkitError: for an unknown data set or option, a path missing or too many, or a value
            that does not fit.

    >>> parse_spec("openmoji,skin_tones=true,n=64")
    ('openmoji', None, {'skin_tones': True, 'n': 64})
    """
    name = re.split("[:,]", spec, maxsplit=1)[0]
    rest = spec[len(name) :]
    if name not in DATASETS:
        raise unknown_name("data set", name, DATASETS)
    dataset = DATASETS[name]
    if rest.startswith(":") and not dataset.path:
        raise GeomkitError(f"data '{spec}': {name} takes no path; write {name} or {name},key=value")
    path, *parts = rest[1:].split(",") if rest.startswith(":") else rest.split(",")
    if dataset.path:
        # What is no option belongs to the path, and everything before it.
        last = max((i + 1 for i, p in enumerate(parts) if not _names_option(p, dataset)), default=0)
        path, parts = ",".join([path, *parts[:last]]), parts[last:]
        if not path:
            raise GeomkitError(f"data '{spec}': {name} needs a path; write {name}:{dataset.path}")
    return name, path or None, _options(spec, name, parts)


def _names_option(part: str, dataset: Dataset) -> bool:
    key, equals, _ = part.partition("=")
    return bool(equals) and key in dataset.options


def _options(spec: str, name: str, parts: list[str]) -> dict[str, Any]:
    known = DATASETS[name].options
    options: dict[str, Any] = {}
    for part in parts:
        key, equals, value = part.partition("=")
        if not equals:
            raise GeomkitError(f"data '{spec}': expected key=value, got '{part}'")
        if key not in known:
            raise unknown_name(f"option of {name}", key, known)
        if key in options:
            raise GeomkitError(f"data '{spec}': {key} is given twice")
        try:
            options[key] = known[key](value)
        except ValueError as error:
            raise GeomkitError(f"data '{spec}': {key}: '{value}' does not fit ({error})") from None
    return options


def with_options(spec: str, **options: Any) -> str:
    """A DATA spec with more options.

    Args:
        spec: the spec.
        options: to be added; those that are ``None`` are not.

    Raises:
        GeomkitError: as :func:`parse_spec`, or if the spec has one of them already.

    >>> with_options("openmoji,n=64", seed=1, language=None, skin_tones=True)
    'openmoji,n=64,seed=1,skin_tones=true'
    """
    name, _, given = parse_spec(spec)
    for key, value in options.items():
        if value is None:
            continue
        if key not in DATASETS[name].options:
            raise unknown_name(f"option of {name}", key, DATASETS[name].options)
        if key in given:
            raise GeomkitError(f"data '{spec}': {key} is in the spec already; give it once")
        text = str(value).lower() if isinstance(value, bool) else str(value)
        if "," in text:
            raise GeomkitError(f"data '{spec}': {key}: '{text}' holds a comma, which ends options")
        spec = f"{spec},{key}={text}"
    parse_spec(spec)
    return spec
