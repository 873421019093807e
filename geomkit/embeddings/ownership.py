"""Which image each text belongs to: the one rule for files, folders and arrays.

A file says it by ``image_index`` (for each text, the index of its image), or by ``image_id`` (one
per image) and ``text_image_id`` (one per text), as COCO numbers them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from geomkit._core.array import Array, to_numpy
from geomkit.embeddings.rows import Shard
from geomkit.errors import GeomkitError

__all__ = ["KEYS", "are_ids", "check_ids", "check_index", "integers", "is_text_id", "key_of",
           "lists_texts", "named_among", "resolve", "snake_case"]  # fmt: skip

KEYS = ("image_index", "image_id", "text_image_id")
"""Names of the arrays that say which image each text belongs to."""
_IMAGE, _TEXT = r"(?:image|img)s?", r"(?:text|txt|caption|cap)s?"
_INDEX = r"(?:index|indices|indexes|idxs?)"
_NAMES = {
    "image_index": rf"(?:{_TEXT}_)?{_IMAGE}_{_INDEX}|{_TEXT}_?(?:2|to_?){_IMAGE}(?:_{_INDEX})?",
    "image_id": rf"{_IMAGE}_ids?",
    "text_image_id": rf"{_TEXT}_(?:to_)?{_IMAGE}_ids?",
}
"""Patterns of their usual names."""
_TEXT_IDS = rf"{_TEXT}_ids?"
_TEXTS_OF_IMAGES = rf"{_IMAGE}_?(?:2|to_?){_TEXT}(?:_(?:{_INDEX}|ids?))?"


def snake_case(name: str) -> str:
    """A name in lower case with underscores.

    >>> snake_case("imageIndex"), snake_case("image-index")
    ('image_index', 'image_index')
    """
    parts = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.strip())
    return re.sub(r"[^0-9a-z]+", "_", parts.lower()).strip("_")


def key_of(name: str) -> str | None:
    """Which of :data:`KEYS` the name of an array stands for; ``None`` for another array.

    >>> [key_of(name) for name in ("image_index", "img_ids", "txt2img", "labels")]
    ['image_index', 'image_id', 'image_index', None]
    """
    word = snake_case(name)
    return next((key for key, names in _NAMES.items() if re.fullmatch(names, word)), None)


def is_text_id(name: str) -> bool:
    """Whether a name is that of ids of texts, which may be those of their images."""
    return bool(re.fullmatch(_TEXT_IDS, snake_case(name)))


def lists_texts(name: str) -> bool:
    """Whether a name is that of the texts of each image, such as ``img2txt``."""
    return bool(re.fullmatch(_TEXTS_OF_IMAGES, snake_case(name)))


def are_ids(array: Any) -> bool:
    """Whether an array can hold ids: integers or strings in one dimension."""
    return len(array.shape) == 1 and array.dtype.startswith(("int", "uint", "str", "bytes"))


def named_among(texts: Shard, images: Shard) -> bool:
    """Whether all ids of texts are ids of images."""
    return set(_identities("", texts)) <= set(_identities("", images))


def integers(name: str, shard: Shard) -> np.ndarray:
    """The integers of a one-dimensional array.

    Raises:
        GeomkitError: If it holds anything else.
    """
    return _whole_numbers(name, shard).astype(np.int64)


def _whole_numbers(name: str, shard: Shard) -> np.ndarray:
    if len(shard.shape) != 1 or not shard.dtype.startswith(("int", "uint")):
        raise GeomkitError(
            f"{name}: expected integers in one dimension, got {shard.dtype} of shape {shard.shape}"
        )
    return shard.read(0, shard.shape[0])


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
        check_ids(tuple(images), len(images))
        index = np.array([place[name] for name in texts], np.int64)
    return index, tuple(images or ())


def _identities(name: str, shard: Shard) -> list[str]:
    """Ids as text: integers or strings in one dimension."""
    if not shard.dtype.startswith(("str", "bytes")):
        return list(map(str, _whole_numbers(name, shard).tolist()))
    if len(shard.shape) != 1:
        raise GeomkitError(f"{name}: expected ids in one dimension, got shape {shard.shape}")
    values = shard.read(0, shard.shape[0])
    return [
        v.decode(errors="backslashreplace") if isinstance(v, bytes) else str(v)
        for v in values.tolist()
    ]


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
