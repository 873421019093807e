"""Shards whose bytes changed after they were written."""

from __future__ import annotations

from pathlib import Path

import pytest
from extraction_samples import CALM, fresh, single_thread, table, tree, write_table

from geomkit.embeddings.embeddings import read_embeddings
from geomkit.errors import GeomkitError
from geomkit.extraction import extract


@pytest.mark.parametrize("name", ["img_emb/img_emb_0001.npy", "metadata/metadata_0000.parquet"])
def test_flipped_bits_are_found_and_restored(tmp_path: Path, name: str) -> None:
    data, out = table(write_table(tmp_path / "data", 8)), tmp_path / "e"
    with single_thread():
        extract(fresh(), data, out, **CALM)
        whole, content = tree(out), bytearray((out / name).read_bytes())
        content[len(content) // 2] ^= 1
        (out / name).write_bytes(content)
        with pytest.raises(GeomkitError, match=f"{name}: changed since it was written; .*--resume"):
            read_embeddings(out)
        extract(fresh(), data, out, **CALM, resume=True)
    assert tree(out) == whole
    assert read_embeddings(out).n == 8
