"""``.csv`` and ``.tsv`` with a pair or a vector per row, or the numbers of one matrix.

The separator is the one that the first line has most of.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from geomkit.embeddings.reading import Contents, Format
from geomkit.embeddings.tables import ID_NAMES, KIND_NAMES, of_table
from geomkit.errors import GeomkitError

__all__ = ["FORMAT"]

_HEAD_BYTES = 1 << 20
_NAMES = {",": "comma", "\t": "tab", ";": "semicolon", "|": "pipe"}


def _read(path: Path) -> Contents:
    import csv

    import pyarrow
    import pyarrow.csv

    with path.open(encoding="utf-8-sig", newline="") as file:
        line = file.readline(_HEAD_BYTES).strip("\r\n")
    split = {mark: next(csv.reader([line], delimiter=mark), []) for mark in _NAMES}
    separator = max(split, key=lambda mark: len(split[mark]))
    cells = [cell.strip() for cell in split[separator]]
    if len(cells) == 1 and all(map(_is_number, line.split(" "))):
        separator, cells = " ", line.split(" ")
    # Numbers that count from 0 are how pandas names the columns of a matrix.
    numbers = all(map(_is_number, cells)) and cells != [str(i) for i in range(len(cells))]
    words = {name: pyarrow.string() for name in cells if name.lower() in (*ID_NAMES, *KIND_NAMES)}
    table = pyarrow.csv.read_csv(
        path,
        read_options=pyarrow.csv.ReadOptions(
            column_names=None if numbers else cells,
            skip_rows=0 if numbers else 1,
            autogenerate_column_names=numbers,
            block_size=1 << 26,
        ),
        parse_options=pyarrow.csv.ParseOptions(delimiter=separator, newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(column_types=words),
    )
    found = of_table(table)
    mark = _NAMES.get(separator, "space")
    if not numbers:
        return replace(found, reading=f"separator {mark}, {found.reading}")
    if table.num_columns == 1:
        raise GeomkitError(f"no header, and one column: {line[:40]!r}; name the columns")
    (matrix,) = found.arrays.values()
    _refuse_row_numbers(matrix.read(0, len(table))[:, 0])
    return Contents({"embedding": matrix}, f"separator {mark}, numbers without a header")


def _refuse_row_numbers(column: np.ndarray) -> None:
    if len(column) > 2 and np.isin(column[0], (0, 1)) and (np.diff(column) == 1).all():
        raise GeomkitError(
            "no header, and the first column counts the rows; write the file without it (index="
            "False in pandas)"
        )


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


FORMAT = Format(
    ".csv", matches=lambda path, head: path.suffix.lower() in (".csv", ".tsv"), read=_read
)
