"""Random files of embeddings in every form: what is read is what was written, or one line says why.

``GEOMKIT_EXAMPLES`` sets the number of examples.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geomkit.embeddings.embeddings import Embeddings
from geomkit.errors import GeomkitError
from geomkit.extraction.load import load_pairs

EXAMPLES = int(os.environ.get("GEOMKIT_EXAMPLES", "60"))
NAMED = ("npz", "safetensors", "pt", "json")
TABLES = ("parquet", "csv", "tsv", "jsonl")
OWNERS = ("none", "image_index", "ids", "cube")
LISTS = ("list", "tuple", "tensor")
NAMES = (("image", "text"), ("image_features", "text_features"), ("img_emb", "txt_emb"),
         ("imageEmbeds", "captions"))  # fmt: skip
DEFECTS = (
    "", "", "", "nan", "zeros", "short", "owner out of range", "owner missing", "id unknown",
    "id repeated", "int64", "width", "renamed",
)  # fmt: skip


SPELLINGS = {
    "image_index": ("image_index", "image_indices", "img_idx"),
    "image_id": ("image_id", "image_ids", "img_ids"),
    "text_image_id": ("text_image_id", "text_image_ids", "caption_image_id"),
}


@dataclass
class Case:
    """What was written, and how."""

    form: str
    owners: str
    defect: str
    names: tuple[str, str]
    keep: str
    long: bool
    kind: str
    n: int
    d: int
    per: int
    seed: int

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        self.rng = rng
        several = self.owners != "none"
        self.m = self.n * self.per if several else self.n
        self.image = rng.standard_normal((self.n, self.d)).astype(self.kind)
        self.text = rng.standard_normal((self.m, self.d)).astype(self.kind)
        self.owner = np.repeat(np.arange(self.n), self.per) if several else np.arange(self.n)
        if self.owners in ("image_index", "ids"):
            self.owner = rng.permutation(self.owner)
        self.ids = [f"{i:03d}.jpg" for i in rng.permutation(1000)[: self.n]]
        self.text_ids = [self.ids[i] for i in self.owner]

    @property
    def is_long(self) -> bool:
        """Whether a table has a row per vector: ids say there whose each text is."""
        return self.long or self.owners in ("image_index", "ids")

    def key(self, name: str) -> str:
        """One of the spellings of a key."""
        return SPELLINGS[name][self.seed % 3]


cases = st.builds(
    Case,
    form=st.sampled_from([*NAMED, *TABLES, "npy", "folder"]),
    owners=st.sampled_from(OWNERS),
    defect=st.sampled_from(DEFECTS),
    names=st.sampled_from(NAMES),
    keep=st.sampled_from(LISTS),
    long=st.booleans(),
    kind=st.sampled_from(["float16", "float32", "float64"]),
    n=st.integers(2, 6),
    d=st.integers(2, 5),
    per=st.integers(1, 3),
    seed=st.integers(0, 2**20),
)


def spoil(c: Case) -> bool:
    """Put the defect in; whether what is read must be refused."""
    row = int(c.rng.integers(c.n))
    if c.defect == "nan":
        c.image[row, 0] = np.nan
    elif c.defect == "zeros":
        c.text[row] = 0
    elif c.defect == "int64" and c.form in ("npz", "safetensors", "pt"):
        c.image = (10 * c.image).astype(np.int64)
    elif c.defect == "width" and c.form in (*TABLES, "json"):
        c.image = [list(r) for r in c.image.tolist()]  # type: ignore[assignment]
        c.image[row] = c.image[row][1:]  # type: ignore[index]
    elif c.defect == "owner out of range" and c.owners == "image_index" and c.form in NAMED:
        c.owner[row] = c.n
    elif c.defect == "owner missing" and c.owners == "image_index" and c.form in NAMED:
        c.owner[c.owner == row] = (row + 1) % c.n
    elif c.defect == "short" and c.owners == "image_index" and c.form in NAMED:
        c.owner = c.owner[:-1]
    elif c.defect == "id unknown" and c.owners == "ids" and c.form in (*NAMED, *TABLES):
        c.text_ids[row] = "other"
    elif c.defect == "id repeated" and c.owners == "ids" and c.form in (*NAMED, *TABLES):
        c.ids[row] = c.ids[row - 1]
    elif c.defect == "renamed" and (c.form in NAMED or (c.form in TABLES and not c.is_long)):
        c.names = ("left", "right")
    else:
        return False
    return True


def kept(values: np.ndarray | list, keep: str) -> Any:
    if isinstance(values, list):
        return tuple(values) if keep == "tuple" else values
    return {"list": list, "tuple": tuple, "tensor": torch.from_numpy}[keep](
        values.tolist() if keep != "tensor" else values
    )


def write(c: Case, folder: Path) -> Path:
    path = folder / f"e.{c.form}"
    image, text = c.names
    cube = c.owners == "cube"
    texts = np.asarray(c.text).reshape(c.n, c.per, c.d) if cube else c.text
    if c.form == "npy":
        np.save(path, np.stack([c.image, c.text[: c.n]]))
    elif c.form == "folder":
        path.mkdir()
        cut = max(1, c.n // 2)
        for k, (a, b) in enumerate(((0, cut), (cut, c.n))):
            for kind, rows in (("img_emb", c.image), ("text_emb", c.text)):
                (path / kind).mkdir(exist_ok=True)
                np.save(path / kind / f"{kind}_{3 * k}.npy", rows[a:b])
    elif c.form in NAMED:
        arrays: dict[str, Any] = {image: c.image, text: texts}
        if c.owners == "image_index":
            arrays[c.key("image_index")] = c.owner
        elif c.owners == "ids":
            arrays |= {c.key("image_id"): c.ids, c.key("text_image_id"): c.text_ids}
        if c.form == "npz":
            np.savez(path, **{name: np.asarray(value) for name, value in arrays.items()})
        elif c.form == "safetensors":
            from safetensors.numpy import save_file

            if c.owners == "ids":  # it holds numbers only
                number = {name: k for k, name in enumerate(dict.fromkeys([*c.ids, *c.text_ids]))}
                for key in (c.key("image_id"), c.key("text_image_id")):
                    arrays[key] = np.array([number[name] for name in arrays[key]])
            save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, path)
        elif c.form == "pt":
            torch.save({name: kept(value, c.keep) for name, value in arrays.items()}, path)
        else:
            plain = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in arrays.items()}
            path.write_text(json.dumps(plain))
    else:
        write_table(c, path, texts)
    return path


def write_table(c: Case, path: Path, texts: np.ndarray) -> None:
    rows = [list(map(float, r)) for r in c.image]
    if c.is_long:
        columns: dict[str, list] = {
            "modality": ["image"] * c.n + ["text"] * len(c.text),
            "id": [*c.ids, *c.text_ids],
            "embedding": [*rows, *c.text.tolist()],
        }
        order = c.rng.permutation(len(columns["id"]))
        columns = {name: [values[i] for i in order] for name, values in columns.items()}
    else:
        columns = dict(zip(c.names, (rows, texts.tolist()), strict=True))
    table = list(zip(*columns.values(), strict=True))
    if path.suffix == ".parquet":
        pq.write_table(pa.table(columns), path)
    elif path.suffix == ".jsonl":
        lines = [json.dumps(dict(zip(columns, row, strict=True))) for row in table]
        path.write_text("\n".join(lines))
    else:
        with path.open("w", newline="") as file:
            writer = csv.writer(file, delimiter="," if path.suffix == ".csv" else "\t")
            writer.writerows([list(columns), *table])


def pairs(image: Any, text: Any, owner: Any) -> np.ndarray:
    return np.concatenate([np.asarray(image)[np.asarray(owner)], np.asarray(text)], axis=1)


def unit(rows: Any) -> np.ndarray:
    wide = np.asarray(rows, np.float64)
    return wide / np.linalg.norm(wide, axis=-1, keepdims=True)


def allowed(c: Case) -> bool:
    """Several vectors in a cell of a text table are not read: it is refused."""
    return c.form in ("csv", "tsv") and c.owners == "cube" and not c.is_long


def compare(c: Case, found: Any) -> None:
    assert isinstance(found, Embeddings)
    in_order = c.form in ("npy", "folder")
    text = c.text[: c.n] if in_order else c.text
    owner = np.arange(c.n) if in_order else c.owner
    expected = pairs(unit(c.image), unit(text), owner)
    read = pairs(found.image, found.text, found.image_index)
    if c.form in TABLES and c.is_long:  # the order of the rows is random there
        assert sorted(found.ids) == sorted(c.ids)
        expected, read = (rows[np.lexsort(rows.round(4).T)] for rows in (expected, read))
    np.testing.assert_allclose(read, expected, atol=1e-5)


@settings(max_examples=EXAMPLES, deadline=None)
@given(c=cases)
def test_what_is_read_is_what_was_written(c: Case) -> None:
    must_fail = spoil(c)
    folder = Path(tempfile.mkdtemp())
    try:
        path = write(c, folder)
        try:
            (found,), _ = load_pairs(path)
        except GeomkitError as error:
            assert str(error).startswith(str(path)) and "\n" not in str(error), error
            reason = str(error).removeprefix(str(path))
            assert "unexpected" not in reason
            assert must_fail or allowed(c), f"refused without a defect: {reason}"
            return
        assert not must_fail, f"read in spite of '{c.defect}'"
        compare(c, found)
    finally:
        shutil.rmtree(folder)
