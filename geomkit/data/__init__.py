"""Data sets by name; each gives pictures, captions and ids as :class:`PairData`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from geomkit.data.cache import cached
from geomkit.data.folder import image_folder_classes
from geomkit.data.pairs import PairData
from geomkit.data.registry import DATASETS, Dataset, parse_spec, with_options
from geomkit.errors import unknown_name
from geomkit.models.preprocess import Preprocess

__all__ = [
    "DATASETS",
    "Dataset",
    "PairData",
    "cached",
    "image_folder_classes",
    "load_data",
    "parse_spec",
    "with_options",
]


def load_data(
    spec: str = "openmoji",
    *,
    split: str = "train",
    preprocess: Preprocess | None = None,
    size: int = 32,
    n: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    cache_images: bool = False,
    workers: int | None = None,
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
        cache_images: decode every picture once and keep the pixels, see
            :func:`geomkit.data.cache.cached`.
        workers: processes that decode for the cache; a core each if not given.

    Raises:
        GeomkitError: see :func:`parse_spec` and the data set's own loader.
    """
    name, path, options = parse_spec(spec)
    dataset = DATASETS[name]
    if split not in dataset.splits:
        raise unknown_name("split", split, dataset.splits)
    asked = options.pop("n", n)
    limit = asked if split in ("train", "all") else None
    if path is None:
        side = preprocess.size if preprocess else size
        return dataset.load(
            split=split, size=side, n=limit, spec=spec, progress=progress, **options
        )
    geometry = preprocess or Preprocess(size)
    distinct, max_bad = options.pop("distinct", False), options.pop("max_bad", None)
    data = dataset.load(
        path, split=split, preprocess=geometry, spec=spec, progress=progress, **options
    )
    if max_bad is not None:
        data = replace(data, max_bad=max_bad)
    if distinct:
        data = data.distinct()
    if limit is not None:
        data = data.subset(limit, seed=options.get("seed", 0))
    return cached(data, geometry, workers=workers, progress=progress) if cache_images else data
