"""Data sets by name; each gives pictures, captions and ids as :class:`PairData`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from geomkit.data.pairs import PairData
from geomkit.data.registry import DATASETS, Dataset, parse_spec, with_options
from geomkit.errors import unknown_name

__all__ = ["DATASETS", "Dataset", "PairData", "load_data", "parse_spec", "with_options"]


def load_data(
    spec: str = "openmoji",
    *,
    split: str = "train",
    preprocess: dict[str, Any] | None = None,
    size: int = 32,
    n: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> PairData:
    """Load a split of a data set.

    Args:
        spec: ``NAME[:PATH][,key=value…]``.
        split: ``train``, ``val`` or ``all`` (or ``test``, where a data set has it).
        preprocess: a model's: the pictures come as it takes them, see
            :func:`geomkit.data.decode.prepare`; OpenMoji is drawn at its size.
        size: side of the pictures in px, where no ``preprocess`` is given.
        n: only so many pairs; an ``n`` in the spec goes first, and counts training pairs.
        progress: called with pictures done and in all while something is prepared.

    Raises:
        GeomkitError: see :func:`parse_spec` and the data set's own loader.
    """
    name, _, options = parse_spec(spec)
    dataset = DATASETS[name]
    if split not in dataset.splits:
        raise unknown_name("split", split, dataset.splits)
    asked = options.pop("n", n)
    limit = asked if split in ("train", "all") else None
    side = preprocess["size"] if preprocess else size
    return dataset.load(split=split, size=side, n=limit, spec=spec, progress=progress, **options)
