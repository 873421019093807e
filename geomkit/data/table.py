"""A table of picture files and captions: .csv, .tsv or .parquet, as open_clip trains on."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from geomkit.data.files import FileImages, Place, hold_out, missing_path
from geomkit.data.pairs import PairData
from geomkit.errors import GeomkitError, unknown_name
from geomkit.models.preprocess import Preprocess

__all__ = ["SEPARATORS", "load_table"]

SEPARATORS = {"comma": ",", "tab": "\t", "semicolon": ";", "pipe": "|"}
"""What the option ``separator`` may say; any other single character stands for itself."""

_BY_SUFFIX = {".csv": ",", ".tsv": "\t", ".txt": "\t"}
_SPLITS = {"validation": "val", "valid": "val", "dev": "val", "restval": "train"}


def load_table(
    path: str,
    *,
    split: str,
    preprocess: Preprocess,
    image_column: str = "filepath",
    caption_column: str = "title",
    id_column: str | None = None,
    split_column: str | None = None,
    separator: str | None = None,
    seed: int = 0,
    draft: bool = True,
    spec: str,
    **_: Any,
) -> PairData:
    """The pictures a table names, with its captions.

    Several rows that name one picture are one picture with several captions, in their order. An
    empty caption is a caption; a cell that is missing is an error.

    Args:
        path: a ``.csv``, ``.tsv`` or ``.parquet``.
        split: ``train``, ``val``, ``all``, or ``test`` of a split column. Without a split column a
            fifth is held out by a seeded hash of the ids.
        preprocess: what to make of the pictures.
        image_column: paths, relative to the table's folder, or else to the working directory.
        caption_column: captions.
        id_column: names of the pictures; their paths as written if not given.
        split_column: the split of each row.
        separator: a character, or a name of :data:`SEPARATORS`; by the file's suffix if not given.
        seed: of the fifth held out.
        draft: see :func:`geomkit.data.decode.decode`.
        spec: recorded.

    Raises:
        GeomkitError: if the table or a column is missing, a cell is, or it can't be read.
    """
    file = Path(path)
    if not file.is_file():
        options = ["image_column", "caption_column", "id_column", "split_column", "separator"]
        raise missing_path("csv", path, "file", options)
    if split == "test" and split_column is None:
        raise GeomkitError(f"csv: {path}: has a split test only through split_column=NAME")
    columns = [image_column, caption_column, *filter(None, [id_column, split_column])]
    captions: dict[str, list[str]] = {}
    more: dict[str, tuple[str, ...]] = {}
    for number, (image, caption, *rest) in _rows(file, columns, separator):
        if not image:
            raise GeomkitError(f"csv: {path}: row {number}: empty {image_column}")
        captions.setdefault(image, []).append(caption)
        more.setdefault(image, tuple(rest))
    if not captions:
        raise GeomkitError(f"csv: {path}: holds no rows")
    names = list(captions)
    ids = [more[name][0] for name in names] if id_column else names
    if len(set(ids)) < len(ids):
        seen: set[str] = set()
        twice = next(i for i in ids if i in seen or seen.add(i))  # type: ignore[func-returns-value]
        raise GeomkitError(f"csv: {path}: {id_column} '{twice}' names two pictures")
    places = [Place(str(file.parent), instead=str(Path.cwd()))]
    data = PairData(
        spec=spec,
        split="all",
        images=FileImages(places, np.zeros(len(names)), names, preprocess, draft=draft),
        index=np.arange(len(names)),
        captions=tuple(tuple(captions[name]) for name in names),
        ids=tuple(ids),
        source=f"table {file.name}",
    )
    if split == "all":
        return data
    if split_column is None:
        return hold_out(data, split, seed=seed)
    said = [more[name][-1] for name in names]
    rows = [i for i, word in enumerate(said) if _SPLITS.get(word.lower(), word.lower()) == split]
    if not rows:
        raise unknown_name(f"split in {split_column} of {path}", split, sorted(set(said)))
    return data.take(np.array(rows), split=split)


def _rows(
    file: Path, columns: Sequence[str], separator: str | None
) -> Iterator[tuple[int, list[str]]]:
    """The cells of some columns, with the number of the row, the first after the names being 1."""
    if file.suffix == ".parquet":
        yield from _parquet(file, columns)
        return
    mark = SEPARATORS.get(separator or "", separator) or _BY_SUFFIX.get(file.suffix)
    if mark is None or len(mark) != 1:
        known = ", ".join(SEPARATORS)
        raise GeomkitError(
            f"csv: {file}: no separator for this; give separator= a character or one of {known}"
        )
    try:
        with file.open(encoding="utf-8-sig", newline="") as text:
            table = csv.reader(text, delimiter=mark, strict=True)
            head = next(table, [])
            places = [_column(file, column, head) for column in columns]
            for number, row in enumerate(table, 1):
                if not row:
                    continue
                for column, place in zip(columns, places, strict=True):
                    if place >= len(row):
                        raise GeomkitError(f"csv: {file}: row {number}: no {column}")
                yield number, [row[place] for place in places]
    except UnicodeDecodeError as error:
        raise GeomkitError(f"csv: {file}: not UTF-8 (byte {error.start}); convert it") from None
    except (csv.Error, OSError) as error:
        raise GeomkitError(f"csv: {file}: cannot be read ({error})") from None


def _column(file: Path, column: str, head: Sequence[str]) -> int:
    if column not in head:
        raise GeomkitError(
            f"csv: {file}: no column '{column}'; there are: {', '.join(head)} "
            "(choose with image_column=, caption_column=)"
        )
    return list(head).index(column)


def _parquet(file: Path, columns: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as table:
            for column in columns:
                _column(file, column, table.schema_arrow.names)
            number = 0
            for batch in table.iter_batches(columns=list(dict.fromkeys(columns))):
                for cells in zip(*(batch.column(c).to_pylist() for c in columns), strict=True):
                    number += 1
                    for column, cell in zip(columns, cells, strict=True):
                        if cell is None:
                            raise GeomkitError(f"csv: {file}: row {number}: no {column}")
                    yield number, [str(cell) for cell in cells]
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise GeomkitError(f"csv: {file}: no parquet file, or damaged ({reason})") from None
