"""Files of embeddings that hold more than is read, or less than they claim."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import clouds

from geomkit.embeddings.formats import read
from geomkit.errors import GeomkitError

X, Y = clouds(n=6, d=3)


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def _twice_in_npz(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("text.npy", _npy(Y))
        archive.writestr("image.npy", _npy(X))
        archive.writestr("image.npy", _npy(Y))


def _lists_that_repeat(path: Path) -> None:
    rows: list = [1.0, 2.0]
    for _ in range(40):
        rows = [rows, rows]
    torch.save({"image": rows, "text": torch.tensor(Y)}, path)


def _places_no_whole_numbers(path: Path) -> None:
    entry = {"dtype": "F64", "shape": [6, 3], "data_offsets": [0.0, 144.0]}
    header = json.dumps({"image": entry}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + X.tobytes())


@pytest.mark.parametrize(
    ("name", "write", "says"),
    [
        ("two.npy", lambda p: p.write_bytes(_npy(np.stack([X, Y])) + _npy(X)), "a second array"),
        ("twice.npz", _twice_in_npz, "holds image.npy twice"),
        ("repeat.pt", _lists_that_repeat, "few lists that repeat"),
        ("places.safetensors", _places_no_whole_numbers, "no whole numbers"),
        ("far.csv", lambda p: p.write_text("a_0,a_9999999999999\n1,2\n3,4\n"), "column 1 of its"),
        ("cut.csv", lambda p: p.write_text('image,text\n"[1 2]","[1 2"\n'), "no vector in row 0"),
    ],
)
def test_odd_files_are_refused_at_once(tmp_path: Path, name: str, write, says: str) -> None:
    write(tmp_path / name)
    with pytest.raises(GeomkitError, match=says) as caught:
        read(tmp_path / name)
    assert str(caught.value).startswith(str(tmp_path / name))
