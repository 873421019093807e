"""A table of image files and captions: .csv, .tsv or .parquet, as open_clip trains on."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path

from geomkit._core.files import refusing
from geomkit.data.declarations import Dataset, Request
from geomkit.data.files import Place
from geomkit.data.pairs import PairData
from geomkit.errors import GeomkitError

__all__ = ["DATASET", "SEPARATORS", "load_table", "read_rows"]

SEPARATORS = {"comma": ",", "tab": "\t", "semicolon": ";", "pipe": "|"}
"""Names for the option ``separator``; any other single character stands for itself."""

Check = Callable[[Sequence[str]], None]
"""Function that refuses names of columns that lack one."""

_BY_SUFFIX = {".csv": ",", ".tsv": "\t", ".txt": "\t"}
_SPLITS = {"validation": "val", "valid": "val", "dev": "val", "restval": "train"}


def load_table(
    request: Request,
    *,
    image_column: str = "filepath",
    caption_column: str = "title",
    id_column: str | None = None,
    split_column: str | None = None,
    separator: str | None = None,
) -> PairData:
    """The images that a table names, with its captions.

    Several rows that name one image are one image with several captions, in their order. An empty
    caption is a caption; a missing cell is an error.

    Args:
        request: Request with the path of a ``.csv``, ``.tsv`` or ``.parquet``.
        image_column: Column of paths, relative to the table's folder, or else to the working
            directory.
        caption_column: Column of captions.
        id_column: Column of the images' names; default: their paths as written.
        split_column: Column with the split of each row; default: a fifth is held out for ``val``.
        separator: Character, or a name of :data:`SEPARATORS`; default: by the file's suffix.

    Raises:
        GeomkitError: If the table, a column or a cell is missing, or the table cannot be read.
    """
    path, file = request.path, Path(request.path)
    if not file.is_file():
        raise request.missing("file")
    if request.split == "test" and split_column is None:
        raise GeomkitError(f"csv: {path}: a table has a split test only with split_column=NAME")
    columns = [image_column, caption_column, *filter(None, [id_column, split_column])]
    captions: dict[str, list[str]] = {}
    more: dict[str, list[str]] = {}
    advice = " (choose with image_column=, caption_column=)"
    for number, (image, caption, *rest) in read_rows(file, columns, separator, advice=advice):
        if not image:
            raise GeomkitError(f"csv: {path}: row {number}: empty {image_column}")
        captions.setdefault(image, []).append(caption)
        more.setdefault(image, rest)
    if not captions:
        raise GeomkitError(f"csv: {path}: holds no rows")
    names = list(captions)
    ids = [more[name][0] for name in names] if id_column else names
    if len(set(ids)) < len(ids):
        twice = next(id_ for id_, count in Counter(ids).items() if count > 1)
        raise GeomkitError(f"csv: {path}: {id_column} '{twice}' names two images")
    splits = [more[name][-1].lower() for name in names] if split_column else None
    return request.pairs(
        names,
        list(captions.values()),
        places=[Place(str(file.parent), instead=str(Path.cwd()))],
        ids=ids,
        splits=splits and [_SPLITS.get(split, split) for split in splits],
        source=f"table {file.name}",
    )


def read_rows(
    file: Path, columns: Sequence[str], separator: str | None = None, *, advice: str = ""
) -> Iterator[tuple[int, list[str]]]:
    """The cells of some columns of a table, with the number of the row.

    Args:
        file: A ``.csv``, ``.tsv`` or ``.parquet``.
        columns: Columns, in the order of the cells.
        separator: Character, or a name of :data:`SEPARATORS`; default: by the file's suffix.
        advice: What to do about a missing column.

    Yields:
        Number of the row, counted from 1 without the header, and its cells.

    Raises:
        GeomkitError: If a column or a cell is missing, or the table cannot be read.
    """

    def check(head: Sequence[str]) -> None:
        for column in columns:
            if column not in head:
                there = ", ".join(head)
                raise GeomkitError(f"{file}: no column '{column}'; there are: {there}{advice}")

    if file.suffix == ".parquet":
        rows = _parquet(file, columns, check)
    else:
        rows = _text(file, columns, separator, check)
    for number, cells in rows:
        for column, cell in zip(columns, cells, strict=True):
            if cell is None:
                raise GeomkitError(f"{file}: row {number}: no {column}")
        yield number, [str(cell) for cell in cells]


def _text(
    file: Path, columns: Sequence[str], separator: str | None, check: Check
) -> Iterator[tuple[int, Sequence[object]]]:
    mark = SEPARATORS.get(separator or "", separator) or _BY_SUFFIX.get(file.suffix)
    if mark is None or len(mark) != 1:
        raise GeomkitError(
            f"{file}: no separator for this; give separator= a character or one of "
            f"{', '.join(SEPARATORS)}"
        )
    with (
        refusing(csv.Error, OSError, says=f"{file}: cannot be read"),
        refusing(UnicodeDecodeError, says=f"{file}: not UTF-8", advice="; convert it"),
        file.open(encoding="utf-8-sig", newline="") as text,
    ):
        table = csv.reader(text, delimiter=mark, strict=True)
        head = next(table, [])
        check(head)
        places = [head.index(column) for column in columns]
        for number, row in enumerate(table, 1):
            if row:
                yield number, [row[p] if p < len(row) else None for p in places]


def _parquet(
    file: Path, columns: Sequence[str], check: Check
) -> Iterator[tuple[int, Sequence[object]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    damage = (pa.ArrowException, OSError)
    says = f"{file}: no parquet file, or damaged"
    with refusing(*damage, says=says), pq.ParquetFile(file) as table:
        check(table.schema_arrow.names)
        batches = table.iter_batches(columns=list(dict.fromkeys(columns)))
        rows = (zip(*(b.column(c).to_pylist() for c in columns), strict=True) for b in batches)
        yield from enumerate(chain.from_iterable(rows), 1)


DATASET = Dataset(
    name="csv",
    load=load_table,
    help="a .csv, .tsv or .parquet of image files and captions",
    options={
        "image_column": str,
        "caption_column": str,
        "id_column": str,
        "split_column": str,
        "separator": str,
    },
    path="FILE",
    splits=("train", "val", "test", "all"),
)
