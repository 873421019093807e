"""``.parquet`` with a pair per row (vectors ``image`` and ``text``), or a vector per row."""

from __future__ import annotations

from pathlib import Path

from geomkit._core.memory import check_memory
from geomkit.embeddings.reading import Contents, Format
from geomkit.embeddings.tables import of_table

__all__ = ["FORMAT"]


def _read(path: Path) -> Contents:
    import pyarrow.parquet

    about = pyarrow.parquet.read_metadata(path)
    groups = [about.row_group(k) for k in range(about.num_row_groups)]
    # Equal numbers are stored once, and take their place when they are read.
    values = sum(g.column(c).num_values for g in groups for c in range(g.num_columns))
    needed = max(4 * values, sum(group.total_byte_size for group in groups))
    check_memory(needed, str(path), packed=path.stat().st_size)
    return of_table(pyarrow.parquet.read_table(path))


FORMAT = Format(".parquet", matches=lambda path, head: head.startswith(b"PAR1"), read=_read)
