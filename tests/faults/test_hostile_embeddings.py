"""Files of embeddings that would take memory or time without end, and their relatives."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import whole_files
from limits import at_most

SIZE = 80 << 20


def bomb_torch() -> str:
    with zipfile.ZipFile("e.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("e/data.pkl", b"")
        archive.writestr("e/data/0", bytes(SIZE))
    return "e.pt"


def bomb_npz() -> str:
    np.savez_compressed("e.npz", image=np.zeros((SIZE // 8, 1)), text=np.ones((2, 1)))
    return "e.npz"


def bomb_parquet() -> str:
    numbers = pa.array(np.ones(SIZE // 4, np.float32))
    rows = pa.FixedSizeListArray.from_arrays(numbers, 1 << 16)
    pq.write_table(pa.table({"image": rows}), "e.parquet", compression="zstd")
    return "e.parquet"


@pytest.mark.parametrize("write", [bomb_torch, bomb_npz, bomb_parquet])
def test_what_unpacks_to_much_more_is_refused(write: Callable, refused: Callable) -> None:
    source = write()
    with at_most(60):
        refused("gap", source, says=(source, "unpacks to 0.", "times its size"))


def test_arrays_past_memory_are_named(refused: Callable) -> None:
    large = torch.zeros(1).expand(2**40, 2**14)
    torch.save({"image": large, "text": torch.ones(3, 4)}, "e.pt")
    refused("gap", "e.pt", says=("e.pt: an array of shape", "by its own account"))


@pytest.mark.parametrize(
    "name",
    ["e.npz", "e.pt", "e/manifest.json", "e/img_emb/img_emb_0.npy", "hf/config.json"],
)
def test_pipes_are_not_waited_for(name: str, refused: Callable) -> None:
    place = Path(name)
    if name.startswith("e/"):
        Path("e").mkdir()
        whole_files.clip_retrieval(Path("e"))
        place.unlink(missing_ok=True)
    place.parent.mkdir(exist_ok=True)
    os.mkfifo(place)
    source = {"e": "e", "hf": "hf:hf"}.get(place.parts[0], name)
    refused("inspect", source, says=(name, "a pipe or a device"))


def test_odd_headers(refused: Callable) -> None:
    for shape in ((2**62, 4), (True, 4), (-1, 4)):
        header = repr({"descr": "<f4", "fortran_order": False, "shape": (2, *shape)}).encode()
        head = b"\x93NUMPY\x01\x00" + (len(header) + 1).to_bytes(2, "little") + header + b"\n"
        Path("e.npy").write_bytes(head + bytes(64))
        refused("gap", "e.npy", says=("e.npy: damaged: its header says shape",))


def test_nesting_without_end(refused: Callable) -> None:
    Path("e.json").write_text('{"image":' + "[" * 100_000)
    refused("gap", "e.json", says=("e.json", "recursion"))
    for place in ("hf/config.json", "oc/open_clip_config.json", "e/manifest.json"):
        Path(place).parent.mkdir()
        Path(place).write_text('{"a":' * 100_000)
    refused("inspect", "hf:hf", says=("hf/config.json", "recursion"))
    refused("inspect", "open_clip:oc", says=("oc/open_clip_config.json", "recursion"))
    refused("inspect", "e", says=("e",))


def test_a_kind_of_model_that_is_no_word(refused: Callable) -> None:
    Path("hf").mkdir()
    Path("hf/config.json").write_text('{"model_type": ["clip"]}')
    refused("inspect", "hf:hf", says=("hf:hf: a model of type",))
