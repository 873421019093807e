"""``.parquet`` with a pair per row: vectors ``image`` and ``text``, optionally an ``id``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from geomkit.embeddings.ownership import KEYS
from geomkit.embeddings.reading import Format, Loaded
from geomkit.embeddings.rows import ArrayShard
from geomkit.errors import GeomkitError

if TYPE_CHECKING:
    from pyarrow import ChunkedArray

__all__ = ["FORMAT"]


def _read(path: Path) -> Loaded:
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path)
    names = table.column_names
    if not {"image", "text"} <= set(names):
        raise GeomkitError(f"expected columns 'image' and 'text', found {', '.join(names)}")
    for key in KEYS:
        if key in names:
            raise GeomkitError(
                f"{key}: a row holds an image and its text; for several texts per image use .npz "
                "or .safetensors"
            )
    image, text = (ArrayShard(_vectors(key, table.column(key))) for key in ("image", "text"))
    ids = table.column("id").to_pylist() if "id" in names else ()
    return Loaded([image], [text], None, tuple(map(str, ids)))


def _vectors(key: str, column: ChunkedArray) -> np.ndarray:
    import pyarrow.compute
    import pyarrow.types as kinds

    if column.null_count:
        raise GeomkitError(f"{key}: {column.null_count} empty cells")
    lists = (kinds.is_list, kinds.is_large_list, kinds.is_fixed_size_list)
    if not any(is_kind(column.type) for is_kind in lists):
        raise GeomkitError(f"{key}: expected vectors, got {column.type}")
    cells = column.combine_chunks()
    lengths = pyarrow.compute.list_value_length(cells).to_numpy(zero_copy_only=False)
    if len(np.unique(lengths)) != 1:
        raise GeomkitError(f"{key}: expected vectors of one length")
    return cells.flatten().to_numpy(zero_copy_only=False).reshape(len(cells), -1)


FORMAT = Format(".parquet", matches=lambda path, head: head.startswith(b"PAR1"), read=_read)
