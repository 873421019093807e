"""``.jsonl`` with a pair or a vector per line; ``.json`` with a list of such, or arrays by name."""

from __future__ import annotations

import json
from pathlib import Path

from geomkit._core.schema import once
from geomkit.embeddings.contents import Arrays, held
from geomkit.embeddings.reading import Contents, Format
from geomkit.embeddings.tables import of_table
from geomkit.errors import GeomkitError

__all__ = ["FORMAT"]

_SUFFIXES = (".json", ".jsonl", ".ndjson")


def _read(path: Path) -> Contents | Arrays:
    import pyarrow

    text = path.read_text(encoding="utf-8-sig")
    if path.suffix.lower() == ".json":
        found = json.loads(text, object_pairs_hook=once)
        if isinstance(found, dict):
            return {name: held(value) for name, value in found.items() if value is not None}
        if not isinstance(found, list):
            raise GeomkitError(f"expected an object or a list, got {type(found).__name__}")
        rows = dict(enumerate(found, 1))
    else:
        rows = {}
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                try:
                    rows[number] = json.loads(line, object_pairs_hook=once)
                except ValueError as error:
                    raise GeomkitError(f"line {number}: no JSON ({error})") from None
    names: dict[str, None] = {}
    for number, row in rows.items():
        if not isinstance(row, dict):
            raise GeomkitError(f"row {number}: expected an object, got {type(row).__name__}")
        names.update(dict.fromkeys(row))
    columns = {}
    for name in names:
        values = [row.get(name) for row in rows.values()]
        if {str, int} <= {type(value) for value in values}:  # ids
            values = [None if value is None else str(value) for value in values]
        try:
            columns[name] = pyarrow.array(values)
        except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError) as error:
            raise GeomkitError(f"{name}: values of several kinds ({error})") from None
    return of_table(pyarrow.table(columns))


FORMAT = Format(".jsonl", matches=lambda path, head: path.suffix.lower() in _SUFFIXES, read=_read)
