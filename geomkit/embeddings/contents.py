"""What the arrays of a file stand for: modalities by their names, and whose each text is.

Known names of images, texts and other modalities are understood in any usual spelling (``image``,
``image_features``, ``img_emb``); others are chosen by columns. What was assumed, and what is not
used, is a note.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from geomkit._core.array import to_numpy
from geomkit._core.memory import check_memory
from geomkit.embeddings.ownership import (
    KEYS,
    are_ids,
    is_text_id,
    key_of,
    lists_texts,
    named_among,
    resolve,
    snake_case,
)
from geomkit.embeddings.reading import Loaded
from geomkit.embeddings.rows import NUMBERS, ArrayShard, Shard
from geomkit.errors import GeomkitError

__all__ = ["HINT", "Arrays", "Deferred", "Foreign", "dense", "held", "in_order", "interpret",
           "is_matrix", "modality_of", "one_matrix", "with_owners"]  # fmt: skip

HINT = "choose arrays with --columns image=NAME,text=NAME"

_ALIASES = {
    **dict.fromkeys(("image", "images", "img", "imgs", "visual", "vision", "picture", "pictures",
                     "photo", "photos"), "image"),
    **dict.fromkeys(("text", "texts", "txt", "txts", "caption", "captions", "textual", "language"),
                    "text"),
    **{name: name for name in ("audio", "video", "depth", "thermal", "speech", "sound", "music",
                               "imu", "touch", "tactile", "sketch", "point_cloud", "eeg")},
}  # fmt: skip
_EMBEDDING = r"(?:features?|feats?|embeds?|embeddings?|embs?|vectors?|vecs?|latents?)"
_OWN = ("format", "schema_version")
"""Entries by which geomkit marks a file that it writes."""
_IDS = ("id", "ids", "key", "keys")
"""Names of ids of the rows of a file with one matrix."""
_LISTED = 8
_REPEATS, _FEW = 100, 10**6
"""How many times as many numbers as they store lists may stand for, and a number that is none."""


@dataclass(frozen=True)
class Deferred:
    """An array of which only the header was read.

    Attributes:
        shape: Its shape.
        dtype: Name of its number type.
        open: Function that returns it.
    """

    shape: tuple[int, ...]
    dtype: str
    open: Callable[[], Shard]


@dataclass(frozen=True)
class Foreign:
    """What is no array of numbers or strings.

    Attributes:
        what: What it is, for an error.
        shape: Its shape, if it has one.
        dtype: Name of the type of its entries, if it has one.
    """

    what: str
    shape: tuple[int, ...] = ()
    dtype: str = ""


Arrays = Mapping[str, Shard | Deferred | Foreign]
"""Everything in a file, by name."""


def modality_of(name: str) -> str | None:
    """Modality that the name of an array stands for; ``None`` if it is not a known one.

    >>> [modality_of(n) for n in ("image", "text_features", "imgEmbeds", "audio-emb", "labels")]
    ['image', 'text', 'image', 'audio', None]
    """
    return _ALIASES.get(re.sub(rf"^{_EMBEDDING}_|_{_EMBEDDING}$", "", snake_case(name)))


def held(value: Any) -> Shard | Foreign:
    """The numbers or strings of a list, a numpy array, a torch tensor or a pandas object."""
    lengths: dict[int, int] = {}
    if (count := _count(value, lengths)) > max(_REPEATS * sum(lengths.values()), _FEW):
        return Foreign(f"{type(value).__name__} of few lists that repeat, {count:,} numbers in all")
    array = _plain(value)
    if array is None:
        within = " with entries that are no numbers or strings" * isinstance(value, list | tuple)
        return Foreign(f"{type(value).__name__}{within}")
    if array.dtype.kind == "O":
        return Foreign(f"{type(value).__name__} with rows of unequal length or kind")
    if 0 in array.strides:  # one number that stands for many, which are copied as they are used
        check_memory(array.nbytes, f"an array of shape {array.shape}")
    return ArrayShard(array)


def _count(value: Any, lengths: dict[int, int], counts: dict[int, int] | None = None) -> int:
    """Numbers in lists within lists, of which each is visited once, however many hold it.

    Args:
        value: Value.
        lengths: Gets the length of each list.
        counts: Numbers in the lists that were visited.
    """
    counts = {} if counts is None else counts
    if not isinstance(value, list | tuple):
        return 1
    if id(value) not in counts:
        counts[id(value)], lengths[id(value)] = 0, len(value)
        counts[id(value)] = sum(_count(item, lengths, counts) for item in value)
    return counts[id(value)]


def _plain(value: Any) -> np.ndarray | None:
    """An array; of objects where numpy knows no better type, ``None`` for what is no array."""
    if hasattr(value, "is_sparse") and hasattr(value, "layout"):  # a tensor
        return _of_tensor(value)
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist()) if value.dtype == object else np.asarray(value)
    if isinstance(value, list | tuple):
        items = [v if isinstance(v, bool | int | float | str) else _plain(v) for v in value]
        if not items or any(item is None for item in items):
            return None
        # Numpy would turn numbers beside strings into strings.
        mixed = len({np.asarray(item).dtype.kind in "US" for item in items}) > 1
        uneven = len({np.asarray(item).shape for item in items}) > 1
        return np.empty((), object) if mixed or uneven else np.asarray(items)
    if type(value).__module__.partition(".")[0] == "pandas":
        return _plain(value.to_numpy())
    return None


def _of_tensor(tensor: Any) -> np.ndarray:
    return to_numpy(dense(tensor))


def dense(tensor: Any) -> Any:
    """A torch tensor without gradient, neither sparse nor quantised nor of eight bits a float."""
    import torch

    tensor = tensor.detach()
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    return tensor.float() if "float8" in str(tensor.dtype) else tensor


def interpret(arrays: Arrays, columns: Mapping[str, str] | None = None) -> Loaded:
    """The embeddings among everything in a file.

    Args:
        arrays: Everything by name.
        columns: Name of the array of each modality, and of any of
            :data:`geomkit.embeddings.ownership.KEYS`; default: told by the names.

    Raises:
        GeomkitError: If no array is known, one is ambiguous or of a wrong shape, or as
            :func:`geomkit.embeddings.ownership.resolve`.
    """
    chosen = _given(arrays, columns) if columns else _by_name(arrays)
    first, *rest = [name for name in chosen if name not in KEYS]
    found = {role: _opened(name, arrays[name]) for role, name in chosen.items()}
    notes = [f"{name} is read as {role}" for role, name in chosen.items() if name != role]
    matrices = {first: _matrix(first, found[first])}
    n, d = matrices[first].shape
    index, unused = None, [name for name in arrays if name not in (*chosen.values(), *_OWN)]
    for role in rest:
        shard = found[role]
        shape = shard.shape
        if role == rest[0] and len(shape) == 3 and (shape[0], shape[2]) == (n, d) and shape[1] > 1:
            if keys := [key for key in ("image_index", "text_image_id") if key in chosen]:
                raise GeomkitError(f"{role}: shape {shape}, and {keys[0]}; give one of them")
            index = np.repeat(np.arange(n), shape[1])
            notes.append(f"{role}: shape {shape} is read as {shape[1]} rows for each {first}")
            matrices[role] = shard.reshaped(len(index), d)
        elif role == rest[0] or columns or (shape[:1] == (n,) and _is_flat(shard)):
            matrices[role] = _matrix(role, shard)
        else:
            unused.append(chosen[role])
    for role, shard in matrices.items():
        if shard.dtype.endswith("int8"):
            notes.append(f"{role}: {shard.dtype} numbers, used as they are, without a zero point")
    if unused:
        more = f" and {len(unused) - _LISTED} more" if len(unused) > _LISTED else ""
        notes.append(f"not used: {', '.join(map(repr, unused[:_LISTED]))}{more}")
    owners, ids = resolve({key: found[key] for key in KEYS if key in found})
    return Loaded(
        [matrices[first]],
        [matrices[rest[0]]] if rest else [],
        owners if index is None else index,
        ids,
        modalities=(first, rest[0] if rest else ""),
        others={
            role: [shard] for role, shard in matrices.items() if role not in (first, *rest[:1])
        },
        notes=tuple(notes),
    )


def one_matrix(arrays: Arrays, modality: str) -> Loaded:
    """The only matrix of a file, or the one whose name stands for a modality, as its ``image``.

    Raises:
        GeomkitError: If there is no such matrix, or several, or the file says whose each text is.
    """
    keys = {key: name for name in arrays if (key := key_of(name))}
    if owners := [name for key, name in keys.items() if key != "image_id"]:
        raise GeomkitError(f"holds {owners[0]} too; give it as SOURCE, which uses that")
    matrices = [name for name, array in arrays.items() if is_matrix(array)]
    named = [name for name in matrices if modality in (name, modality_of(name))]
    chosen = matrices if len(matrices) == 1 else named
    if len(chosen) != 1:
        raise GeomkitError(f"expected one (n, d) matrix of floats, found {_listed(arrays)}")
    ids = [n for n in arrays if snake_case(n) in _IDS or (modality == "text" and is_text_id(n))]
    if not keys and (own := next((n for n in ids if are_ids(arrays[n])), None)):
        keys = {"image_id": own}
    rest = {name: array for name, array in arrays.items() if name not in (modality, *chosen)}
    return interpret({modality: arrays[chosen[0]], **rest}, {modality: modality, **keys})


def _given(arrays: Arrays, columns: Mapping[str, str]) -> dict[str, str]:
    for role, name in columns.items():
        if name not in arrays:
            raise GeomkitError(f"columns: no '{name}' for {role}; found {_listed(arrays)}")
    named: dict[str, str] = {}
    for word, name in columns.items():
        lower = word.lower()
        role = key_of(word) or (lower if lower in ("image", "text") else word)
        if role in named:
            raise GeomkitError(f"columns: {role} is named twice; {HINT}")
        named[role] = name
    if not set(named) - set(KEYS):
        raise GeomkitError(f"columns: name the array of a modality, {HINT}")
    return _ordered(named)


def _by_name(arrays: Arrays) -> dict[str, str]:
    """Name of the array of each role: the role itself, or else the one other name for it."""
    chosen: dict[str, str] = {}
    for role_of in (modality_of, key_of):
        names: dict[str, list[str]] = {}
        for name, array in arrays.items():
            role = role_of(name)
            if role and (name == role or role in KEYS or _meant_as_rows(array)):
                names.setdefault(role, []).append(name)
        for role, known in names.items():
            fit = known if role in KEYS else [name for name in known if is_matrix(arrays[name])]
            fit = fit or known  # what is unfit is refused as it is read
            if len(fit) > 1 and role not in fit:
                raise GeomkitError(f"{', '.join(fit)}: each can be the {role}; {HINT}")
            chosen[role] = role if role in fit else fit[0]
    known = [role for role in chosen if role not in KEYS]
    loose = {n: a for n, a in arrays.items() if n not in chosen.values() and is_matrix(a)}
    if not known and len(loose) == 1:  # one cloud, by whatever name
        known = list(loose)
        chosen |= {name: name for name in known}
    elif not known or (len(known) == 1 and loose):
        raise GeomkitError(f"expected arrays 'image' and 'text', found {_listed(arrays)}; {HINT}")
    if {"image", "text"} <= set(known):
        n = arrays[chosen["image"]].shape[:1]
        chosen |= {
            name: name
            for name, array in loose.items()
            if modality_of(name) is None and len(array.shape) == 2 and array.shape[:1] == n
        }
    return _ordered(with_owners(arrays, chosen))


def with_owners(arrays: Arrays, chosen: Mapping[str, str]) -> dict[str, str]:
    """Names by role, with ids of texts that are ids of images, if nothing else says whose they are.

    Raises:
        GeomkitError: If that is said in a form that is not read.
    """
    found = dict(chosen)
    for name, array in arrays.items():
        if {"image_index", "text_image_id"} & found.keys():
            break
        if lists_texts(name) and not is_matrix(array):
            raise GeomkitError(
                f"{name}: lists the texts of each image; give image_index instead, for each text "
                "the index of its image"
            )
        images = arrays.get(found.get("image_id", ""))
        if images is None or not (is_text_id(name) and are_ids(array) and are_ids(images)):
            continue
        if named_among(_opened(name, array), _opened("image_id", images)):
            found["text_image_id"] = name
    return found


def in_order(modalities: Iterable[str]) -> list[str]:
    """Images first, or what has texts, then the texts; whatever else in its order.

    >>> in_order(["text", "audio", "image"]), in_order(["text", "audio"])
    (['image', 'text', 'audio'], ['audio', 'text'])
    """
    known = list(modalities)
    owners = [name for name in ("image", *known) if name in known and name != "text"]
    return [name for name in dict.fromkeys([*owners[:1], "text", *known]) if name in known]


def _ordered(chosen: Mapping[str, str]) -> dict[str, str]:
    roles = in_order(role for role in chosen if role not in KEYS)
    return {role: chosen[role] for role in dict.fromkeys([*roles, *chosen])}


def is_matrix(array: Shard | Deferred | Foreign) -> bool:
    """Whether an array can hold rows: numbers of a fitting type in two or three dimensions."""
    return array.dtype in NUMBERS and len(array.shape) in (2, 3)


def _meant_as_rows(array: Shard | Deferred | Foreign) -> bool:
    """Whether an array is rows of something, fit to be measured or not; captions are not."""
    if isinstance(array, Foreign):
        return not array.dtype
    return len(array.shape) > 1 and not array.dtype.startswith(("str", "bytes"))


def _opened(name: str, array: Shard | Deferred | Foreign) -> Shard:
    if isinstance(array, Foreign):
        raise GeomkitError(f"{name}: expected an array, got {array.what}")
    return array.open() if isinstance(array, Deferred) else array


def _is_flat(shard: Shard) -> bool:
    return is_matrix(shard) and (len(shard.shape) == 2 or shard.shape[1] == 1)


def _matrix(role: str, shard: Shard) -> Shard:
    """A matrix; one of shape (n, 1, d) is one too."""
    shape = shard.shape
    if len(shape) == 3 and shape[1] == 1:
        return shard.reshaped(shape[0], shape[2])
    if len(shape) != 2:
        raise GeomkitError(f"{role}: expected an (n, d) matrix, got shape {shape}")
    return shard


def _listed(arrays: Arrays) -> str:
    """Names with shapes, for an error."""
    names = sorted(arrays)[:_LISTED]
    shown = [
        f"{name} {tuple(arrays[name].shape)}" if arrays[name].shape else name for name in names
    ]
    return ", ".join(shown) or "none"
