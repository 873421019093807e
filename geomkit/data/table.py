"""A table of image files and captions: .csv, .tsv or .parquet, as open_clip trains on."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from geomkit.data.declarations import Dataset, Request
from geomkit.data.files import Place
from geomkit.data.pairs import PairData
from geomkit.errors import GeomkitError

__all__ = ["DATASET", "SEPARATORS", "load_table"]

SEPARATORS = {"comma": ",", "tab": "\t", "semicolon": ";", "pipe": "|"}
"""Names for the option ``separator``; any other single character stands for itself."""

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
    for number, (image, caption, *rest) in _rows(file, columns, separator):
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


def _rows(
    file: Path, columns: Sequence[str], separator: str | None
) -> Iterator[tuple[int, list[str]]]:
    """The cells of some columns with the number of the row, counted from 1 without the header."""
    rows = _parquet(file, columns) if file.suffix == ".parquet" else _text(file, columns, separator)
    for number, cells in rows:
        for column, cell in zip(columns, cells, strict=True):
            if cell is None:
                raise GeomkitError(f"csv: {file}: row {number}: no {column}")
        yield number, [str(cell) for cell in cells]


def _text(
    file: Path, columns: Sequence[str], separator: str | None
) -> Iterator[tuple[int, list[str | None]]]:
    mark = SEPARATORS.get(separator or "", separator) or _BY_SUFFIX.get(file.suffix)
    if mark is None or len(mark) != 1:
        raise GeomkitError(
            f"csv: {file}: no separator for this; give separator= a character or one of "
            f"{', '.join(SEPARATORS)}"
        )
    try:
        with file.open(encoding="utf-8-sig", newline="") as text:
            table = csv.reader(text, delimiter=mark, strict=True)
            head = next(table, [])
            _check(file, columns, head)
            places = [head.index(column) for column in columns]
            for number, row in enumerate(table, 1):
                if row:
                    yield number, [row[p] if p < len(row) else None for p in places]
    except UnicodeDecodeError as error:
        raise GeomkitError(f"csv: {file}: not UTF-8 (byte {error.start}); convert it") from None
    except (csv.Error, OSError) as error:
        raise GeomkitError(f"csv: {file}: cannot be read ({error})") from None


def _parquet(file: Path, columns: Sequence[str]) -> Iterator[tuple[int, Sequence[object]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as table:
            _check(file, columns, table.schema_arrow.names)
            number = 0
            for batch in table.iter_batches(columns=list(dict.fromkeys(columns))):
                for cells in zip(*(batch.column(c).to_pylist() for c in columns), strict=True):
                    number += 1
                    yield number, cells
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise GeomkitError(f"csv: {file}: no parquet file, or damaged ({reason})") from None


def _check(file: Path, columns: Sequence[str], head: Sequence[str]) -> None:
    for column in columns:
        if column not in head:
            raise GeomkitError(
                f"csv: {file}: no column '{column}'; there are: {', '.join(head)} "
                "(choose with image_column=, caption_column=)"
            )


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
