"""Data sets: image-caption pairs and labelled images, by name.

A new data set is one more module of this package, or of :mod:`geomkit.data.labelled`, that
declares a :class:`Dataset` at its top level.
"""

from __future__ import annotations

from geomkit.data.cache import cached
from geomkit.data.declarations import Dataset, Request
from geomkit.data.load import load_data
from geomkit.data.pairs import PairData
from geomkit.data.registry import datasets, find_data, parse_spec, spec_forms, with_options

__all__ = [
    "Dataset",
    "PairData",
    "Request",
    "cached",
    "datasets",
    "find_data",
    "load_data",
    "parse_spec",
    "spec_forms",
    "with_options",
]
