"""Tables of vectors: a row per pair, or in long form a row per vector with its modality.

Parquet, CSV and JSON Lines come here as pyarrow tables. A vector is one cell (a list, or its text)
or one column per number (``image_0``, ``image_1``, …).
"""

from __future__ import annotations

import json
import re
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from geomkit.embeddings.contents import Deferred, Foreign, in_order, modality_of
from geomkit.embeddings.ownership import key_of
from geomkit.embeddings.reading import Contents
from geomkit.embeddings.rows import ArrayShard, Shard
from geomkit.errors import GeomkitError

if TYPE_CHECKING:
    from pyarrow import ChunkedArray, Table

__all__ = ["ID_NAMES", "KIND_NAMES", "of_table"]

KIND_NAMES = ("modality", "kind", "modal", "type")
"""Names of the column that says in long form which modality a row is of."""
ID_NAMES = ("id", "key", "image_id", "pair_id", "item_id", "sample_id")
"""Names of the column of ids: the first there counts."""
_OF_ROWS = ("id", "key")


def of_table(table: Table) -> Contents:
    """What a table holds: matrices of its vectors by name, and ids.

    Raises:
        GeomkitError: If a vector is missing, not numbers, or of another length than the others; or
            a modality or id is empty.
    """
    names = table.column_names
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise GeomkitError(f"columns named twice: {', '.join(repeated)}; rename them")
    lower = {name.strip().lower(): name for name in names}
    kind = next((lower[name] for name in KIND_NAMES if name in lower), None)
    # In long form an id may be that of the row, and another that of its pair or image.
    owners = sorted(ID_NAMES, key=_OF_ROWS.__contains__) if kind is not None else ID_NAMES
    number = next((lower[name] for name in owners if name in lower), None)
    vectors, rest = _vectors(table.select([n for n in names if n not in (kind, number)]))
    found: dict[str, Shard | Deferred | Foreign] = {n: ArrayShard(v) for n, v in vectors.items()}
    if kind is not None and not (len(vectors) == 1 and _names_modalities(table, kind)):
        rest, kind = [*rest, kind], None
    if kind is not None:
        (rows,) = vectors.values()
        found = dict(_long(table, rows, kind, number))
    else:
        for name in rest:
            if key_of(name):
                raise GeomkitError(
                    f"{name}: a row holds an image and its text; for several texts per image give "
                    "a row per vector with columns modality, id and embedding, or use .npz"
                )
        if number is not None:
            found["image_id"] = ArrayShard(_words(table, number))
    kinds = {name: str(table.column(name).type) for name in rest}
    found |= {n: Foreign(f"a column of {kind}", (), kind) for n, kind in kinds.items()}
    reading = "a row per pair" if kind is None else f"a row per vector, its modality in '{kind}'"
    return Contents(found, reading + (f", ids in '{number}'" if number is not None else ""))


def _names_modalities(table: Table, kind: str) -> bool:
    """Whether a column says of what modality each row is: ``type`` may mean anything."""
    return kind.lower().startswith("modal") or any(map(modality_of, _words(table, kind).tolist()))


def _long(table: Table, vectors: np.ndarray, kind: str, number: str | None) -> dict[str, Shard]:
    """The arrays of a table with a row per vector: ids say what belongs together."""
    words = _words(table, kind)
    groups: dict[str, np.ndarray] = {}
    for word in dict.fromkeys(words.tolist()):
        modality = modality_of(word) or word
        if modality in groups:
            raise GeomkitError(f"{kind}: '{word}' is one of two words for {modality}; use one")
        groups[modality] = np.flatnonzero(words == word)
    order = in_order(groups)
    found: dict[str, Shard] = {
        modality: ArrayShard(vectors[groups[modality]]) for modality in order
    }
    if number is None:
        if len(order) > 1:
            raise GeomkitError(
                f"{kind}: rows of {' and '.join(order[:2])}, but no column id says which belong "
                "together; add one"
            )
        return found
    ids = {modality: _words(table, number)[rows] for modality, rows in groups.items()}
    own = ids[order[0]].tolist()
    found["image_id"] = ArrayShard(ids[order[0]])
    if len(order) > 1:
        found["text_image_id"] = ArrayShard(ids[order[1]])
    for modality in order[2:]:
        if sorted(ids[modality].tolist()) != sorted(own):
            raise GeomkitError(f"{number}: {modality} and {order[0]} do not have the same ids")
        place = dict(zip(ids[modality].tolist(), groups[modality].tolist(), strict=True))
        found[modality] = ArrayShard(vectors[[place[name] for name in own]])
    return found


def _vectors(table: Table) -> tuple[dict[str, np.ndarray], list[str]]:
    """Matrices of columns of vectors and of columns of numbers that are one; the other columns."""
    import pyarrow.types as kinds

    found: dict[str, np.ndarray] = {}
    wide: dict[str, dict[int, str]] = {}
    rest: list[str] = []
    for name in table.column_names:
        column = table.column(name)
        is_text = kinds.is_string(column.type) or kinds.is_large_string(column.type)
        if _is_list(column.type):
            found[name] = _of_lists(name, column)
        elif is_text and len(column) and str(column[0]).lstrip().startswith("["):
            found[name] = _of_text(name, column)
        elif match := re.fullmatch(r"(.*?)[ _.\[-]?(\d+)\]?", name):
            columns = wide.setdefault(match[1] or "embedding", {})
            if int(match[2]) in columns:
                raise GeomkitError(f"{name} and {columns[int(match[2])]}: one number, two columns")
            columns[int(match[2])] = name
        else:
            rest.append(name)
    for name, columns in wide.items():
        places = sorted(columns)
        if len(places) == 1 or name in found:
            rest += columns.values()
            continue
        if gap := next((a + 1 for a, b in pairwise(places) if b > a + 1), None):
            raise GeomkitError(f"{name}: column {gap} of its vectors is missing")
        parts = [_of_numbers(columns[place], table.column(columns[place])) for place in places]
        found[name] = np.stack(parts, axis=1)
    return found, rest


def _is_list(kind: object) -> bool:
    import pyarrow.types as kinds

    return any(f(kind) for f in (kinds.is_list, kinds.is_large_list, kinds.is_fixed_size_list))


def _no_nulls(name: str, column: ChunkedArray) -> None:
    if column.null_count:
        raise GeomkitError(f"{name}: {column.null_count} empty cells")


def _of_lists(name: str, column: ChunkedArray) -> np.ndarray:
    """``(n, d)``, or ``(n, k, d)`` of cells with k vectors."""
    import pyarrow.compute

    _no_nulls(name, column)
    cells, shape = column.combine_chunks(), [len(column)]
    while _is_list(cells.type):
        lengths = pyarrow.compute.list_value_length(cells).to_numpy(zero_copy_only=False)
        if len(np.unique(lengths)) != 1 or np.isnan(lengths).any():
            raise GeomkitError(f"{name}: expected vectors of one length")
        shape.append(int(lengths[0]))
        cells = cells.flatten()
    if cells.null_count:
        raise GeomkitError(f"{name}: {cells.null_count} empty numbers in its vectors")
    return cells.to_numpy(zero_copy_only=False).reshape(shape)


def _of_text(name: str, column: ChunkedArray) -> np.ndarray:
    """Vectors written as text: ``[0.1, 0.2]``, or as numpy prints them."""
    _no_nulls(name, column)
    rows: list[np.ndarray] = []
    for row, cell in enumerate(column.to_pylist()):
        try:
            rows.append(_numbers(cell))
        except (ValueError, TypeError):
            raise GeomkitError(f"{name}: no vector in row {row}: {cell[:40]!r}") from None
        if rows[-1].shape != rows[0].shape:
            shape, first = (" x ".join(map(str, rows[i].shape)) for i in (-1, 0))
            raise GeomkitError(
                f"{name}: expected vectors of one length, and as many in each row; got {shape} "
                f"numbers in row {row}, {first} in row 0"
            )
    return np.stack(rows)


def _numbers(cell: str) -> np.ndarray:
    """A vector, or several in brackets of their own.

    >>> _numbers("[1, 2]").shape, _numbers("[1. 2.]").shape, _numbers("[[1, 2], [3, 4]]").shape
    ((2,), (2,), (2, 2))
    """
    try:
        return np.array(json.loads(cell), np.float64)
    except ValueError:  # as numpy prints it
        if not cell.rstrip().endswith("]"):  # cut short, its last number perhaps too
            raise
        words = cell.replace(",", " ").strip().removeprefix("[").removesuffix("]").split()
        return np.array(words, np.float64)


def _of_numbers(name: str, column: ChunkedArray) -> np.ndarray:
    import pyarrow.types as kinds

    _no_nulls(name, column)
    if not (kinds.is_floating(column.type) or kinds.is_integer(column.type)):
        raise GeomkitError(f"{name}: expected numbers, got {column.type}")
    return column.to_numpy().astype(np.float64)


def _words(table: Table, name: str) -> np.ndarray:
    _no_nulls(name, table.column(name))
    return np.array([str(value) for value in table.column(name).to_pylist()])
