"""load_data(): image-caption pairs from a DATA spec."""

from __future__ import annotations

from geomkit.data.cache import cached
from geomkit.data.declarations import Progress
from geomkit.data.pairs import PairData
from geomkit.data.registry import requested
from geomkit.errors import unknown_name
from geomkit.models.preprocess import Preprocess

__all__ = ["load_data"]


def load_data(
    spec: str = "openmoji",
    *,
    split: str = "train",
    preprocess: Preprocess | None = None,
    size: int = 32,
    n: int | None = None,
    progress: Progress | None = None,
    cache_images: bool = False,
    workers: int | None = None,
) -> PairData:
    """Load a split of a data set of image-caption pairs.

    Args:
        spec: DATA spec, ``NAME[:PATH][,key=value…]``; ``geomkit data`` lists the names.
        split: ``train``, ``val`` or ``all`` (or ``test``, where a data set has it).
        preprocess: Preprocessing of the model the images are for; its size and geometry are
            applied, see :func:`geomkit.data.decode.prepare`. OpenMoji is drawn at its size.
        size: Side of the images in px, if no ``preprocess`` is given.
        n: Number of training pairs; default: all. An ``n`` in the spec has precedence.
        progress: Function called with the count of images done and the total, while the data set
            is prepared.
        cache_images: Decode every image once and keep its pixels, see
            :func:`geomkit.data.cache.cached`.
        workers: Processes that decode for the cache; default: one per core.

    Returns:
        The pairs. Images in files are decoded when they are asked for.

    Raises:
        GeomkitError: If the spec or the split is unknown, or the data set cannot be read.

    >>> data = load_data("openmoji", n=2)
    >>> data.pixels().shape
    (2, 32, 32, 3)
    """
    geometry = preprocess or Preprocess(size)
    request, own = requested(spec, split=split, preprocess=geometry, n=n, progress=progress)
    if split not in request.dataset.splits:
        raise unknown_name("split", split, request.dataset.splits)
    data: PairData = request.dataset.load(request, **own)
    if request.distinct:
        data = data.distinct()
    if request.n is not None and split in ("train", "all"):
        data = data.subset(request.n, seed=request.seed)
    return cached(data, geometry, workers=workers, progress=progress) if cache_images else data
