"""``.parquet`` with a pair per row (vectors ``image`` and ``text``), or a vector per row."""

from __future__ import annotations

from pathlib import Path

from geomkit._core.memory import check_parquet
from geomkit.embeddings.reading import Contents, Format
from geomkit.embeddings.tables import of_table

__all__ = ["FORMAT"]


def _read(path: Path) -> Contents:
    import pyarrow.parquet

    check_parquet(path)
    return of_table(pyarrow.parquet.read_table(path))


FORMAT = Format(".parquet", matches=lambda path, head: head.startswith(b"PAR1"), read=_read)
