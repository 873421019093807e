"""What :func:`geomkit.gap` is given: arrays, embeddings, a dictionary, a path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from geomkit._core.array import Array, is_torch, to_numpy
from geomkit._core.files import from_home
from geomkit.embeddings.contents import (
    Foreign,
    dense,
    held,
    interpret,
    is_matrix,
    modality_of,
    with_owners,
)
from geomkit.embeddings.embeddings import Clouds, Embeddings, from_loaded
from geomkit.embeddings.formats import read
from geomkit.embeddings.ownership import key_of
from geomkit.embeddings.rows import ArrayShard, Rows
from geomkit.errors import GeomkitError
from geomkit.models.checkpoints.kinds import find_kind

__all__ = ["Given", "given"]


@dataclass(frozen=True)
class Given:
    """What to measure.

    Attributes:
        parts: Embeddings of each pair of modalities, or clouds without pairs.
        source: Path of the file, if it was one.
        split: Split, if it is known.
    """

    parts: Sequence[Embeddings | Clouds]
    source: str = ""
    split: str | None = None


def given(image: Any, text: Any = None, image_index: Any = None, *, paired: bool = True) -> Given:
    """Return what to measure, whatever form it has.

    Args:
        image: As the first argument of :func:`geomkit.gap`.
        text: Text rows, if ``image`` is rows.
        image_index: For each text, the index of its image.
        paired: Whether row i of one belongs to row i of the other.

    Raises:
        GeomkitError: If it is nothing that can be measured.
    """
    found = _given(image, text, image_index)
    if paired:
        return found
    return replace(found, parts=[Clouds.without_pairs(part) for part in found.parts])


def _given(image: Any, text: Any, image_index: Any) -> Given:
    split = None
    if isinstance(image, tuple) and len(image) == 2 and isinstance(image[0], Embeddings | Clouds):
        image, split = image  # what load_source returns
    whole = isinstance(image, Embeddings | Clouds | Mapping | str | Path)
    if whole and not (text is None and image_index is None):
        raise GeomkitError(f"text: {type(image).__name__} given, which holds all; give it alone")
    if isinstance(image, Embeddings | Clouds):
        return Given([image], split=split)
    if isinstance(image, Mapping):
        return Given(from_loaded(None, _of_mapping(image)))
    if isinstance(image, str | Path):
        image = from_home(image)
        if find_kind(image) is not None:
            raise GeomkitError(f"{image}: a model; gap(load_source({image!r})) embeds its data")
        loaded = read(Path(image))
        return Given(from_loaded(Path(image), loaded), str(image), loaded.split)
    if text is None:
        return Given([Clouds.of({"image": _rows("image", image)})])
    _check_labels(image, text)
    x: Any = _rows("image", image)
    y: Any = _rows("text", text)
    if is_torch(x) != is_torch(y):
        x, y = (to_numpy(rows) if is_torch(rows) else rows for rows in (x, y))
    shape = tuple(y.shape)
    meta: dict[str, Any] = {}
    if len(shape) == 3 and (shape[0], shape[2]) == tuple(x.shape):
        if image_index is not None:
            raise GeomkitError(f"text: shape {shape}, and image_index; give one of them")
        meta["notes"] = [f"text: shape {shape} is read as {shape[1]} rows for each image"]
        image_index = np.repeat(np.arange(len(x)), shape[1])
        y = y.reshape(-1, shape[2])
    if image_index is None and len(x) != len(y):
        return Given([Clouds.of({"image": x, "text": y}, meta=meta)])
    return Given([Embeddings.of(x, y, image_index, meta=meta)])


def _of_mapping(content: Mapping[str, Any]) -> Any:
    """The embeddings among the values of a dictionary; a name that is not known is a modality."""
    frames = [value for value in content.values() if hasattr(value, "iloc")]
    for frame in frames[1:]:
        _check_labels(frames[0], frame)
    arrays = {str(name): held(value) for name, value in content.items() if value is not None}
    roles: dict[str, str] = {}
    for name, array in arrays.items():
        role = key_of(name) or modality_of(name)
        if role is None and is_matrix(array):
            role = name
        if role is not None and (role == name or role not in roles):
            roles[role] = name
    if not any(key_of(role) is None for role in roles):
        raise GeomkitError(f"expected matrices by modality, got {', '.join(arrays) or 'nothing'}")
    return interpret(arrays, with_owners(arrays, roles))


def _rows(name: str, value: Any) -> Array | Rows:
    """Rows as they are, or as an array if Python or pandas holds them."""
    if is_torch(value):
        return dense(value)
    if isinstance(value, np.ma.MaskedArray) and np.any(value.mask):
        raise GeomkitError(f"{name}: a masked array, {value.mask.sum()} are masked; fill them")
    if isinstance(value, Rows):
        return value
    if hasattr(value, "__array__") and not hasattr(value, "iloc"):
        value = np.asarray(value)
        if value.dtype != object:
            return value
    array = held(value)
    if isinstance(array, Foreign):
        raise GeomkitError(f"{name}: expected an (n, d) matrix, got {array.what}")
    assert isinstance(array, ArrayShard)
    return array.array


def _check_labels(image: Any, text: Any) -> None:
    """Refuse pandas objects whose rows have the same labels in another order."""
    if not (hasattr(image, "iloc") and hasattr(text, "iloc")):
        return
    one, other = image.index, text.index
    if len(one) == len(other) and set(one) == set(other) and not one.equals(other):
        raise GeomkitError(
            "image and text: their indexes hold the same labels in another order; give "
            "text.loc[image.index]"
        )
