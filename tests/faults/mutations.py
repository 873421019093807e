"""Seeded damage to files: to their bytes, and to single values with every checksum right again."""

from __future__ import annotations

import copy
import io
import json
import random
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

ODD: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 3, 2**31, 2**63, 2**70, -(2**63), 10**9, 50_000, 0.5, -1e308,
    1e308, float("nan"), float("inf"), "", "x", "../../x", "\x1b[31m", "a" * 3000, "\ud800", [],
    [1], {}, ["x"], {"a": 1}, [[1, 2], [3]], "7", "hf-hub:a/b",
)  # fmt: skip


def flipped(content: bytes, rng: random.Random) -> bytes:
    """Bits turned over, a piece cut off, doubled, zeroed or replaced."""
    data, n = bytearray(content), len(content)
    if not n:
        return b"\0"
    start = rng.randrange(n)
    stop = min(n, start + rng.choice((1, 8, 64, 4096)))
    what = rng.randrange(6)
    if what == 0:
        for _ in range(rng.choice((1, 4, 200))):
            data[rng.randrange(n)] ^= 1 << rng.randrange(8)
    elif what == 1:
        del data[start:]
    elif what == 2:
        data[start:start] = data[start:stop]
    elif what == 3:
        data[start:stop] = bytes(stop - start)
    elif what == 4:
        data[start:stop] = b"\xff" * (stop - start)
    else:
        del data[start:stop]
    return bytes(data)


def places(value: Any, found: tuple = ()) -> Iterator[tuple]:
    """The path of every value inside a nest of dictionaries and lists."""
    yield found
    inner = value.items() if isinstance(value, dict) else ()
    inner = enumerate(value[:50]) if isinstance(value, list) else inner
    for key, held in inner:
        yield from places(held, (*found, key))


def changed(value: Any, rng: random.Random) -> Any:
    """A nest with one value replaced by an odd one, removed, doubled or wrapped."""
    value = copy.deepcopy(value)
    # Deep values are many and shallow ones few: every depth has the same chance.
    found = list(places(value))
    depth = rng.choice(sorted({len(place) for place in found}))
    place = rng.choice([p for p in found if len(p) == depth])
    if not place:
        return rng.choice(ODD)
    holder = value
    for key in place[:-1]:
        holder = holder[key]
    what, key = rng.randrange(8), place[-1]
    if what == 0:
        del holder[key]
    elif what == 1 and isinstance(holder, dict):
        holder[rng.choice(("x", "checkpoint_path", "auto_map", ""))] = holder.pop(key)
    elif what == 2:
        holder[key] = [holder[key]]
    elif what == 3:
        holder[key] = {"a": holder[key]}
    else:
        holder[key] = rng.choice(ODD)
    return value


def json_file(path: Path, rng: random.Random) -> None:
    """One value of a JSON file."""
    if rng.random() < 0.03:
        path.write_text(rng.choice(('{"a":' * 100_000, "[" * 100_000, "[" * 2000 + "]" * 2000)))
        return
    path.write_text(json.dumps(changed(json.loads(path.read_text("utf-8")), rng)), "utf-8")


def json_lines(path: Path, rng: random.Random) -> None:
    """One value of a file of JSON Lines."""
    lines = path.read_text("utf-8").splitlines()
    row = rng.randrange(len(lines))
    lines[row] = json.dumps(changed(json.loads(lines[row]), rng))
    path.write_text("\n".join(lines), "utf-8")


def torch_file(path: Path, rng: random.Random) -> None:
    """One value of a torch file, a tensor for one of another shape or type among them."""
    import torch

    content = changed(torch.load(path, weights_only=False), rng)
    tensors = [p for p in places(content) if isinstance(_at(content, p), torch.Tensor) and p]
    if tensors and rng.random() < 0.5:
        place = rng.choice(tensors)
        tensor = _at(content, place)
        _at(content, place[:-1])[place[-1]] = rng.choice(
            (
                tensor.flatten(), tensor[None], tensor.double(), tensor.to(torch.int8),
                tensor.to(torch.complex64), tensor.bool(), torch.zeros(1).expand(2**20, 2**20),
                torch.zeros(0), torch.tensor(1.0), tensor * float("nan"), tensor.to("meta"),
                tensor.to_sparse(), torch.zeros(1).expand(tensor.shape), tensor.half(),
            )
        )  # fmt: skip
    torch.save(content, path, _use_new_zipfile_serialization=rng.random() < 0.9)


def _at(value: Any, place: tuple) -> Any:
    for key in place:
        value = value[key]
    return value


def zip_file(path: Path, rng: random.Random) -> None:
    """The bytes of one member of a zip, its checksum right again."""
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    heads = [n for n in members if n.endswith((".pkl", "version", "byteorder", ".py"))]
    name = rng.choice(heads if heads and rng.random() < 0.7 else list(members))
    members[name] = flipped(members[name], rng)
    packed = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(path, "w", packed) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def npy_bytes(content: bytes, rng: random.Random) -> bytes:
    """The header of a .npy, its shape and type as no library writes them."""
    array = np.load(io.BytesIO(content))
    shape = list(array.shape)
    odd = rng.choice((-1, 0, True, 2**31, 2**40, 2**63, 2**70, 1, 7))
    if shape and rng.random() < 0.8:
        shape[rng.randrange(len(shape))] = odd
    elif rng.random() < 0.5:
        shape.append(odd)
    descr = rng.choice(
        (array.dtype.str, "<f2", ">f4", "<f8", "|O", "<U0", "|V0", "<c16", "<i8", "|S5", "|b1",
         "<m8[s]", "f4, f8", [("a", "<f4")], "x", "<f16", "|u1")
    )  # fmt: skip
    header = repr({"descr": descr, "fortran_order": rng.random() < 0.3, "shape": tuple(shape)})
    header = header.encode("latin-1") + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + array.tobytes()


def npy_file(path: Path, rng: random.Random) -> None:
    """The header of a .npy file."""
    path.write_bytes(npy_bytes(path.read_bytes(), rng))


def npz_file(path: Path, rng: random.Random) -> None:
    """The header of one array of a .npz file."""
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    name = rng.choice(list(members))
    members[name] = npy_bytes(members[name], rng)
    with zipfile.ZipFile(path, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as z:
        for name, content in members.items():
            z.writestr(name, content)


def safetensors_file(path: Path, rng: random.Random) -> None:
    """One value of the header of a safetensors file."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = changed(json.loads(content[8 : 8 + length]), rng)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])


def parquet_file(path: Path, rng: random.Random) -> None:
    """One value of a table, in another type if it has to be."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    columns = table.to_pydict()
    name = rng.choice(table.column_names)
    what = rng.randrange(4)
    if what == 0:
        del columns[name]
    elif what == 1:
        columns[rng.choice(("id", "x", "image", ""))] = columns.pop(name)
    else:
        odd = rng.choice((None, -1, 2**62, 0.5, "", "x", [], [1.0], [None], b"\xff", {"a": 1}))
        values = columns[name]
        columns[name] = [odd] * len(values)
        if what == 2:
            try:
                row = rng.randrange(len(values))
                columns[name] = pa.array([*values[:row], odd, *values[row + 1 :]])
            except (pa.ArrowInvalid, pa.ArrowTypeError, TypeError):
                pass
    pq.write_table(pa.table(columns, metadata=table.schema.metadata), path)


def text_file(path: Path, rng: random.Random) -> None:
    """One cell or word of a text file."""
    text = path.read_text("utf-8", errors="replace")
    lines = text.splitlines() or [""]
    row = rng.randrange(len(lines))
    mark = rng.choice(",\t ")
    cells = lines[row].split(mark)
    odd = rng.choice((*(str(v) for v in ODD), '"', "\0", ",,,,", "\n\n", "\r", "1e999"))
    cells[rng.randrange(len(cells))] = odd
    lines[row] = mark.join(cells)
    path.write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))


BY_SUFFIX: dict[str, tuple[Callable[[Path, random.Random], None], ...]] = {
    ".json": (json_file,),
    ".jsonl": (json_lines, text_file),
    ".pt": (torch_file, torch_file, zip_file),
    ".bin": (torch_file, zip_file),
    ".npy": (npy_file,),
    ".npz": (npz_file, zip_file),
    ".safetensors": (safetensors_file,),
    ".parquet": (parquet_file,),
    ".csv": (text_file,),
    ".tsv": (text_file,),
    ".txt": (text_file,),
}
"""What is done to the values of a file, by its suffix; the bytes of any file are damaged too."""


def damage(path: Path, rng: random.Random) -> None:
    """Damage a file: in two of three cases one of its values, else its bytes."""
    known = BY_SUFFIX.get(path.suffix, ())
    if known and rng.random() < 0.67:
        content = path.read_bytes()
        try:
            rng.choice(known)(path, rng)
        except Exception:  # what no library can write
            path.write_bytes(content)
        else:
            return
    path.write_bytes(flipped(path.read_bytes(), rng))
