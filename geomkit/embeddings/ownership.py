"""Which image each text belongs to: the one rule for files, folders and arrays.

A file says it by ``image_index`` (for each text, the index of its image), or by ``image_id`` (one
per image) and ``text_image_id`` (one per text), as COCO numbers them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from geomkit._core.array import Array, to_numpy
from geomkit.embeddings.rows import Shard
from geomkit.errors import GeomkitError

__all__ = ["KEYS", "check_ids", "check_index", "integers", "key_of", "resolve", "snake_case"]

KEYS = ("image_index", "image_id", "text_image_id")
"""Names of the arrays that say which image each text belongs to."""
_OTHER_NAMES = {
    **dict.fromkeys(("image_indices", "image_idx", "image_idxs", "img_index", "img_idx",
                     "text_image_index", "texts_image_index", "text_to_image", "text2image",
                     "txt2img"), "image_index"),
    **dict.fromkeys(("image_ids", "img_id", "img_ids"), "image_id"),
    **dict.fromkeys(("text_image_ids", "text_img_id", "text_img_ids", "caption_image_id",
                     "caption_image_ids"), "text_image_id"),
}  # fmt: skip


def snake_case(name: str) -> str:
    """A name in lower case with underscores.

    >>> snake_case("imageIndex"), snake_case("image-index")
    ('image_index', 'image_index')
    """
    parts = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.strip())
    return re.sub(r"[^0-9a-z]+", "_", parts.lower()).strip("_")


def key_of(name: str) -> str | None:
    """Which of :data:`KEYS` the name of an array stands for; ``None`` for another array.

    >>> key_of("image_index"), key_of("img_ids"), key_of("labels")
    ('image_index', 'image_id', None)
    """
    word = snake_case(name)
    return word if word in KEYS else _OTHER_NAMES.get(word)


def integers(name: str, shard: Shard) -> np.ndarray:
    """The integers of a one-dimensional array.

    Raises:
        GeomkitError: If it holds anything else.
    """
    if len(shard.shape) != 1 or not shard.dtype.startswith(("int", "uint")):
        raise GeomkitError(
            f"{name}: expected integers in one dimension, got {shard.dtype} of shape {shard.shape}"
        )
    return shard.read(0, shard.shape[0]).astype(np.int64)


def resolve(arrays: Mapping[str, Shard]) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """For each text the index of its image, and one name per image, as far as a file has them.

    Args:
        arrays: Arrays of a file by name; :data:`KEYS` are used.

    Raises:
        GeomkitError: If ids of texts come without those of images or with an index as well, or
            name an unknown image.
    """
    index = integers("image_index", arrays["image_index"]) if "image_index" in arrays else None
    images, texts = (
        _identities(key, arrays[key]) if key in arrays else None
        for key in ("image_id", "text_image_id")
    )
    if texts is not None:
        if images is None:
            raise GeomkitError("text_image_id: needs image_id; add one per image")
        if index is not None:
            raise GeomkitError("image_index and text_image_id: found both; give one of them")
        place = {name: row for row, name in enumerate(images)}
        for row, name in enumerate(texts):
            if name not in place:
                raise GeomkitError(
                    f"text_image_id: row {row} names image {name}, which image_id does not have"
                )
        index = np.array([place[name] for name in texts], np.int64)
    return index, tuple(images or ())


def _identities(name: str, shard: Shard) -> list[str]:
    """Ids as text: integers or strings in one dimension."""
    if not shard.dtype.startswith(("str", "bytes")):
        return list(map(str, integers(name, shard).tolist()))
    if len(shard.shape) != 1:
        raise GeomkitError(f"{name}: expected ids in one dimension, got shape {shard.shape}")
    values = shard.read(0, shard.shape[0])
    return [v.decode(errors="replace") if isinstance(v, bytes) else str(v) for v in values.tolist()]


def check_index(
    image_index: Array | None, n: int, m: int, modalities: tuple[str, str] = ("image", "text")
) -> np.ndarray:
    """For each of m texts the index of its image; without ``image_index``, text i has image i.

    Args:
        image_index: ``(m,)`` integers in 0..n−1, each of them at least once.
        n: Number of images.
        m: Number of texts.
        modalities: Names of the two for an error.

    Raises:
        GeomkitError: If it is anything else, or is needed and not given.
    """
    a, b = modalities
    if image_index is None:
        if n != m:
            raise GeomkitError(
                f"{a} and {b}: expected equal numbers of rows, got {n} and {m}; "
                f"give `image_index` if an image has several texts"
            )
        return np.arange(n)
    index = to_numpy(image_index)
    if index.shape != (m,) or not np.issubdtype(index.dtype, np.integer):
        raise GeomkitError(
            f"image_index: expected {m} integers, one per {b} row, "
            f"got shape {index.shape} of {index.dtype}"
        )
    index = index.astype(np.int64)
    if m and (index.min() < 0 or index.max() >= n):
        raise GeomkitError(
            f"image_index: expected values in 0..{n - 1}, got {index.min()}..{index.max()}"
        )
    counts = np.bincount(index, minlength=n)
    if not counts.all():
        raise GeomkitError(f"image_index: image {int(np.argmin(counts))} has no {b} row")
    return index


def check_ids(ids: tuple[str, ...], n: int) -> None:
    """Refuse ids that are neither absent nor one per image, each different.

    Raises:
        GeomkitError: If there are too few or too many, or two are equal.
    """
    if ids and len(ids) != n:
        raise GeomkitError(f"ids: expected one per image ({n}), got {len(ids)}")
    first: dict[str, int] = {}
    for row, name in enumerate(ids):
        if first.setdefault(name, row) != row:
            raise GeomkitError(f"ids: '{name}' appears twice, at rows {first[name]} and {row}")
