"""A table of image files and captions: .csv, .tsv or .parquet, as open_clip trains on."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from geomkit._core.files import refusing
from geomkit._core.memory import check_parquet
from geomkit.data.declarations import Dataset, Request
from geomkit.data.files import SUFFIXES, Place
from geomkit.data.pairs import LeftOut, PairData
from geomkit.data.splits import mixed, split_called
from geomkit.errors import GeomkitError

__all__ = ["DATASET", "SEPARATORS", "Table", "load_table"]

SEPARATORS = {"comma": ",", "tab": "\t", "semicolon": ";", "pipe": "|"}
"""Names for the option ``separator``; any other single character stands for itself."""

_BY_SUFFIX = {".csv": "comma", ".tsv": "tab", ".txt": "tab"}
_ROWS_PER_BYTE = 64
_DOUBLED = re.compile(r'"(?:[^"]|"")*""(?:[^"]|"")*"')
"""A whole cell in quotes, with a quote in it that is written twice."""
_OTHER = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", b"PK\x03\x04": "a zip file or .xlsx"}
"""First bytes of files that are no text in UTF-8."""

Cells = Sequence[Any]


def load_table(
    request: Request,
    *,
    image_column: str = "filepath",
    caption_column: str = "title",
    id_column: str | None = None,
    split_column: str | None = None,
    separator: str | None = None,
    quotes: bool | None = None,
) -> PairData:
    """The images that a table names or holds, with its captions.

    Several rows that name one image are one image with several captions, in their order; so is a
    row of a ``.parquet`` with a list of captions. An empty caption is a caption. A row that cannot
    be read is left out, up to the share of ``max_bad``.

    Args:
        request: Request with the path of a ``.csv``, ``.tsv`` or ``.parquet``.
        image_column: Column of paths, relative to the table's folder, or else to the working
            directory; or of the bytes of images in a ``.parquet``.
        caption_column: Column of captions.
        id_column: Column of the images' names; default: their paths as written, or the number of
            the row.
        split_column: Column with the split of each row; default: a fifth is held out for ``val``.
        separator: Character, or a name of :data:`SEPARATORS`; default: the one with which the
            header has the columns.
        quotes: Whether cells may stand in quotes; default: not between tabs, unless the file is
            consistent only so.

    Raises:
        GeomkitError: If the table or a column is missing, it cannot be read, or too many rows
            cannot.
    """
    path, file = request.path, _file(request)
    if request.split == "test" and split_column is None:
        raise GeomkitError(f"csv: {path}: a table has a split test only with split_column=NAME")
    columns = [image_column, caption_column, *filter(None, [id_column, split_column])]
    table = Table(file, columns, separator, quotes, " (choose with image_column=, caption_column=)")
    captions: dict[str, list[str]] = {}
    more: dict[str, list[str]] = {}
    spelled: dict[PurePosixPath, str] = {}
    for number, cells in table.rows():
        image, caption, *rest = cells
        name = str(number) if table.pictures else str(image)
        # ./a.png is a.png, and has the name that came first; x/../a.png need not be, with links.
        name = name and spelled.setdefault(PurePosixPath(name), name)
        if not name:
            table.bad.append((number, f"empty {image_column}"))
        elif more.setdefault(name, list(map(str, rest))) != list(map(str, rest)):
            raise GeomkitError(
                f"csv: {path}: row {number}: another {' or '.join(columns[2:])} for the image "
                f"'{name}' than in a row before"
            )
        else:
            texts = caption if isinstance(caption, list) else [caption]
            captions.setdefault(name, []).extend(map(str, texts))
    request.check_share(f"csv: {path}", table.reasons, table.total)
    if not captions:
        raise GeomkitError(f"csv: {path}: holds no rows")
    names = list(captions)
    ids = [more[name][0] for name in names] if id_column else names
    if len(set(ids)) < len(ids):
        twice = next(id_ for id_, count in Counter(ids).items() if count > 1)
        raise GeomkitError(f"csv: {path}: {id_column} '{twice}' names two images")
    splits, unknown = None, Counter[str]()
    if split_column:
        written = [more[name][-1].strip() for name in names]
        splits = [split_called(word) or word.lower() for word in written]
        unknown = Counter(s for s in splits if s not in request.dataset.splits)
    places = [Place(str(file.parent), instead=str(Path.cwd()))]
    if table.pictures:
        places = [Place(str(file.absolute()), "parquet")]
    else:
        _check_urls(request, names)
    return request.pairs(
        [image_column] * len(names) if table.pictures else names,
        list(captions.values()),
        places=places,
        spans=table.spans([int(name) - 1 for name in names]) if table.pictures else None,
        ids=ids,
        splits=splits,
        source=f"table {file.name}",
        notes=[
            table.remark,
            *table.notes,
            *(
                f"column '{c}' is not used; give split_column={c}"
                for c in table.head
                if split_column is None and c.strip().lower() == "split"
            ),
            *(f"{n:,} images of a split '{s}', which only all has" for s, n in unknown.items()),
            "" if splits else mixed({name.rpartition("/")[0] for name in names}, "images"),
        ],
        left_out=LeftOut.of(
            "rows that cannot be read", [f"{row}: {why}" for row, why in table.reasons.items()]
        ),
        reading=table.reading,
    )


def _file(request: Request) -> Path:
    """The table."""
    file = Path(request.path)
    if file.is_dir():
        raise GeomkitError(f"csv: {request.path}: is a folder; name one of its files")
    if not file.is_file():
        raise request.missing("file")
    return file


def _check_urls(request: Request, names: Sequence[str]) -> None:
    """Refuse a table of URLs now rather than at the first image."""
    urls = [name for name in names if re.match("[a-z0-9]{2,}://", name)]
    if len(urls) > request.max_bad * len(names):
        advice = "geomkit downloads no images; fetch them (img2dataset does) and give the result"
        if urls[0].startswith("file:"):
            advice = "write the paths without file://"
        raise GeomkitError(f"csv: {request.path}: '{urls[0]}' is a URL: {advice}")


@dataclass
class Table:
    """A text file or ``.parquet`` with a header.

    Attributes:
        file: The file.
        columns: Columns to read.
        separator: Character, or a name of :data:`SEPARATORS`; default: found by the header.
        quotes: Whether cells may stand in quotes; default: found.
        advice: What to do about a missing column.
        bad: Rows that cannot be read, by number, with the reason; filled by :meth:`rows`.
        total: Number of rows; counted by :meth:`rows`.
        reading: How the file was understood.
        remark: What of that differs from what the file's suffix says.
        pictures: Whether the first column holds the bytes of images.
        spaced: Whether spaces around cells are removed.
        head: Names of all columns; filled by :meth:`rows`.
        notes: What else to say of the rows; filled by :meth:`rows`.
    """

    file: Path
    columns: Sequence[str]
    separator: str | None = None
    quotes: bool | None = None
    advice: str = ""
    bad: list[tuple[int, str]] = field(default_factory=list)
    total: int = 0
    reading: str = ""
    remark: str = ""
    pictures: bool = False
    spaced: bool = False
    head: Sequence[str] = ()
    notes: list[str] = field(default_factory=list)

    def rows(self) -> Iterator[tuple[int, Cells]]:
        """The cells of the columns, with the number of the row, from 1 without the header.

        Raises:
            GeomkitError: If a column is missing, or the file cannot be read.
        """
        broken = []
        for number, cells in self._parquet() if self._is_parquet() else self._text():
            self.total = number
            if isinstance(cells, str):
                self.bad.append((number, cells))
                continue
            if any("\n" in str(cell).strip() for cell in cells):
                broken.append(number)
            yield number, cells
        if broken:
            count, first = len(broken), broken[0]
            self.notes.append(f"{count:,} rows have a cell of several lines, such as row {first}")

    def _is_parquet(self) -> bool:
        with refusing(OSError, says=f"{self.file}: cannot be read"), self.file.open("rb") as file:
            return file.read(4) == b"PAR1" or self.file.suffix == ".parquet"

    @property
    def reasons(self) -> dict[str, str]:
        """Why rows cannot be read, by the name of the row."""
        return {f"row {number}": why for number, why in self.bad}

    def spans(self, rows: Sequence[int]) -> np.ndarray:
        """Row group, and row in it, of some rows of a ``.parquet``, counted from 0."""
        import pyarrow.parquet as pq

        held = pq.read_metadata(self.file)
        ends = np.cumsum([held.row_group(i).num_rows for i in range(held.num_row_groups)])
        group = np.searchsorted(ends, rows, side="right")
        return np.column_stack([group, np.asarray(rows) - np.concatenate([[0], ends])[group]])

    def _places(self, head: Sequence[str]) -> list[int]:
        """Where the columns are in a header.

        Raises:
            GeomkitError: If one is missing, or there twice.
        """
        self.head = head
        for column in self.columns:
            if head.count(column) != 1:
                there = ", ".join(map(repr, head))
                wrong = "twice a" if column in head else "no"
                hint = (
                    "; its first line must name the columns" if any(map(_is_picture, head)) else ""
                )
                raise GeomkitError(
                    f"{self.file}: {wrong} column '{column}'; there are: {there}{hint}{self.advice}"
                )
        return [head.index(column) for column in self.columns]

    def _text(self) -> Iterator[tuple[int, Cells | str]]:
        """Numbers of rows with their cells, or with what is wrong with them."""
        with refusing(OSError, says=f"{self.file}: cannot be read"), self.file.open("rb") as file:
            start = file.read(4)
        for first, kind in _OTHER.items():
            if start.startswith(first):
                raise GeomkitError(f"{self.file}: not UTF-8 but {kind}; convert it")
        head = next((line for line in self._lines() if line.strip()), "").rstrip("\r\n")
        name = self.separator or self._separator(head)
        mark = SEPARATORS.get(name, name)
        if len(mark) != 1:
            raise GeomkitError(
                f"{self.file}: separator '{name}': expected one character or one of "
                f"{', '.join(SEPARATORS)}"
            )
        # In "image| comment" the space belongs to the separator, in every row.
        self.spaced = any(cell != cell.strip() for cell in head.split(mark))
        if self.spaced:
            self.columns = [column.strip() for column in self.columns]
        quoted = self._is_quoted(mark) if self.quotes is None else self.quotes
        places: list[int] = []
        width = 0
        for number, line, cells in self._parsed(mark, quoted):
            if not places:
                if isinstance(cells, str):
                    raise GeomkitError(
                        f"{self.file}: line {line}, which names the columns: {cells}"
                    )
                width, places = len(cells), self._places(cells)
            elif isinstance(cells, str):
                yield number, f"(line {line}) {cells}"
            elif any(map(_UNDECODED.search, cells)):
                yield number, f"(line {line}) not UTF-8; convert the file"
            elif len(cells) != width:
                lacking = [c for c, p in zip(self.columns, places, strict=True) if p >= len(cells)]
                why = f"no {lacking[0]}: " if lacking else ""
                if len(cells) > width:
                    why = "a separator in a text without quotes? "
                yield number, f"(line {line}) {why}{len(cells)} cells, the header has {width}"
            else:
                yield number, [cells[place] for place in places]
        if not places:
            self._places([])
        self._describe(name, quoted)

    def _describe(self, name: str, quoted: bool) -> None:
        expected = _BY_SUFFIX.get(self.file.suffix.lower())
        found = [
            (f"separator {name}", self.separator is None and name != expected),
            ("cells in quotes" if quoted else "quotes are part of the text",
             self.quotes is None and quoted == (name == "tab")),
            *([("spaces around cells removed", True)] if self.spaced else []),
        ]  # fmt: skip
        self.reading = ", ".join([*(what for what, _ in found), *self._columns])
        self.remark = ", ".join(what for what, unlike in found if unlike)

    @property
    def _columns(self) -> list[str]:
        return ["columns " + " and ".join(map(repr, self.columns))]

    def _lines(self) -> Iterator[str]:
        with (
            refusing(OSError, says=f"{self.file}: cannot be read"),
            self.file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as text,
        ):
            yield from text

    def _separator(self, head: str) -> str:
        """The separator that divides the header into the columns wanted, or into most parts."""
        parts = {name: _divided(head, mark) for name, mark in SEPARATORS.items()}
        wanted = {column.strip() for column in self.columns}
        fits = [name for name, cells in parts.items() if wanted <= set(cells)]
        default = _BY_SUFFIX.get(self.file.suffix.lower(), "comma")
        if fits:
            return default if default in fits else fits[0]
        return max([default, *parts], key=lambda name: len(parts[name]))

    def _is_quoted(self, mark: str) -> bool:
        """Whether cells stand in quotes.

        Between tabs they do not, unless the header does or the rows have equal numbers of cells
        only so: there a quote at the start of a caption is common, and would swallow what follows.
        """
        if mark != "\t":
            return True
        width, even, doubled = 0, True, False
        whole: set[int] = set()
        for number, _, cells in self._parsed(mark, False):
            within = {i for i, c in enumerate(cells) if len(c) > 1 and c[0] == c[-1] == '"'}
            if not number:
                width, whole = len(cells), set(range(len(cells)))
                if within:
                    return True
            else:
                whole &= within  # columns all of whose cells are in quotes
            even &= len(cells) == width
            doubled |= any(map(_DOUBLED.fullmatch, cells))
        if even and not doubled and not (number and whole):
            return False
        try:
            parsed = self._parsed(mark, True)
            return all(not isinstance(c, str) and len(c) == width for _, _, c in parsed)
        except GeomkitError:
            return False

    def _parsed(self, mark: str, quoted: bool) -> Iterator[tuple[int, int, list[str] | str]]:
        """Number of a row, its first line, and its cells or why there are none; 0 is the header."""
        reader = csv.reader(
            self._lines(),
            delimiter=mark,
            quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
            strict=True,
            skipinitialspace=self.spaced,
        )
        number = 0
        while True:
            line = reader.line_num + 1
            says = f"{self.file}: row {number} (line {line}): cannot be read: "
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                if "field limit" in str(error):
                    raise GeomkitError(
                        f"{says}a cell of more than {csv.field_size_limit():,} characters; or is a "
                        "quote opened and not closed?"
                    ) from None
                if reader.line_num > line or "expected after" not in str(error):
                    raise GeomkitError(
                        f"{says}a quote is opened and not closed; close it, or give quotes=false"
                    ) from None
                yield number, line, "text after a closing quote"
                number += 1
                continue
            if at := _swallowed(row, mark):
                raise GeomkitError(
                    f"{says}a quote is opened and closed in another row ('{at}'); close it, or "
                    "give quotes=false"
                )
            if row:  # an empty line is no row
                yield number, line, [cell.strip() for cell in row] if self.spaced else row
                number += 1

    def _parquet(self) -> Iterator[tuple[int, Cells | str]]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        damage = (pa.ArrowException, OSError, UnicodeDecodeError)
        says = f"{self.file}: no parquet file, or damaged"
        with refusing(*damage, says=says), pq.ParquetFile(self.file) as table:
            length, held = self.file.stat().st_size, table.metadata.num_rows
            if held > 1000 + _ROWS_PER_BYTE * length:  # rows that name images differ
                raise GeomkitError(f"{self.file}: declares {held:,} rows in {length:,} bytes")
            self._places(table.schema_arrow.names)
            kinds = [table.schema_arrow.field(column).type for column in self.columns]
            self.pictures = _holds_bytes(kinds[0])
            for column, kind in list(zip(self.columns, kinds, strict=True))[self.pictures :]:
                if pa.types.is_nested(kind) and (
                    column != self.columns[1]
                    or pa.types.is_nested(getattr(kind, "value_type", kind))
                ):
                    raise GeomkitError(
                        f"{self.file}: column '{column}' is of type {kind}; expected text"
                    )
            self.reading = ", ".join(
                [*(["bytes of images"] if self.pictures else []), *self._columns]
            )
            columns = self.columns[self.pictures :]
            check_parquet(self.file, columns)
            number = 0
            for batch in table.iter_batches(columns=list(dict.fromkeys(columns))):
                for cells in zip(*(_cells(batch.column(c)) for c in columns), strict=True):
                    number += 1
                    yield number, self._checked([number, *cells] if self.pictures else [*cells])

    def _checked(self, cells: list[Any]) -> Cells | str:
        """The cells of a row of a parquet file as text, or what is wrong with them."""
        for place, (column, cell) in enumerate(zip(self.columns, cells, strict=True)):
            texts = cell if isinstance(cell, list) else [cell]
            if not texts or None in texts:
                return f"no {column}"
            try:
                found = [t.decode() if isinstance(t, bytes) else str(t) for t in texts]
            except UnicodeDecodeError:
                return f"{column} is not UTF-8"
            cells[place] = found if isinstance(cell, list) else found[0]
        return cells


def _cells(column: Any) -> list[Any]:
    """Values of a column of a parquet file; if one is not UTF-8, all of them as bytes."""
    import pyarrow as pa

    try:
        return column.to_pylist()
    except UnicodeDecodeError:
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        plain = pa.large_binary()
        nested = pa.types.is_nested(column.type)
        return column.cast(pa.large_list(plain) if nested else plain).to_pylist()


def _holds_bytes(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


_UNDECODED = re.compile("[\udc80-\udcff]")


def _divided(line: str, mark: str) -> list[str]:
    return [cell.strip() for cell in next(csv.reader([line], delimiter=mark), [])]


def _is_picture(text: str) -> bool:
    return Path(re.sub(r"#\d+$", "", text.strip())).suffix.lower() in SUFFIXES


def _swallowed(row: Sequence[str], mark: str) -> str | None:
    """The line of a cell of several lines that looks like a row of its own."""
    for cell in row:
        if "\n" in cell:
            for line in cell.splitlines():
                if mark in line and any(map(_is_picture, line.split(mark))):
                    return line
    return None


DATASET = Dataset(
    name="csv",
    load=load_table,
    find=_file,
    help="a .csv, .tsv or .parquet of captions and image files, or of images in a .parquet",
    options={
        "image_column": str,
        "caption_column": str,
        "id_column": str,
        "split_column": str,
        "separator": str,
        "quotes": bool,
    },
    path="FILE",
    splits=("train", "val", "test", "all"),
)
