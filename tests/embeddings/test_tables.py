"""Tables of vectors in Parquet, CSV, JSON Lines and JSON: pairs per row, or a vector per row."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import clouds

from geomkit.embeddings.embeddings import read_embeddings
from geomkit.errors import GeomkitError
from geomkit.extraction.load import load_modalities

x, y = clouds(9, 4)
order = np.random.default_rng(0).permutation(np.repeat(np.arange(9), 2))
NAMES = [f"{i:02d}" for i in range(9)]
Columns = dict[str, list[Any]]


def parquet(path: Path, columns: Columns) -> Path:
    pq.write_table(pa.table(columns), path / "e.parquet")
    return path / "e.parquet"


def csv(path: Path, columns: Columns, sep: str = ",", suffix: str = ".csv") -> Path:
    pd.DataFrame(columns).to_csv(path / f"e{suffix}", sep=sep, index=False)
    return path / f"e{suffix}"


def semicolons(path: Path, columns: Columns) -> Path:
    return csv(path, columns, ";")


def tsv(path: Path, columns: Columns) -> Path:
    return csv(path, columns, "\t", ".tsv")


def rows_of(columns: Columns) -> list[dict[str, Any]]:
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def json_lines(path: Path, columns: Columns) -> Path:
    text = "\n".join(json.dumps(row) for row in rows_of(columns))
    (path / "e.jsonl").write_text("\ufeff" + text + "\n\n")
    return path / "e.jsonl"


def json_list(path: Path, columns: Columns) -> Path:
    (path / "e.json").write_text(json.dumps(rows_of(columns)))
    return path / "e.json"


WRITERS = [parquet, csv, semicolons, tsv, json_lines, json_list]
LONG = {
    "modality": ["text"] * 18 + ["image"] * 9,
    "id": [NAMES[i] for i in order] + NAMES,
    "embedding": [*y[order].tolist(), *x.tolist()],
}
Write = Callable[[Path, Columns], Path]


@pytest.mark.parametrize("write", WRITERS)
def test_a_pair_per_row(tmp_path: Path, write: Write) -> None:
    columns = {"image_features": x.tolist(), "id": NAMES, "text": NAMES, "text_emb": y.tolist()}
    found = read_embeddings(write(tmp_path, columns))
    np.testing.assert_allclose(found.image, x, rtol=1e-14)
    np.testing.assert_allclose(found.text, y, rtol=1e-14)
    assert found.ids == tuple(NAMES)
    assert "not used: 'text'" in found.meta["notes"]


@pytest.mark.parametrize("write", WRITERS)
def test_a_vector_per_row_belongs_to_its_id(tmp_path: Path, write: Write) -> None:
    found = read_embeddings(write(tmp_path, LONG))
    np.testing.assert_allclose(found.image, x, rtol=1e-14)
    np.testing.assert_allclose(found.text, y[order], rtol=1e-14)
    np.testing.assert_array_equal(found.image_index, order)
    assert found.ids == tuple(NAMES)


def test_a_row_may_have_an_id_of_its_own_beside_that_of_its_image(tmp_path: Path) -> None:
    columns = {**LONG, "image_id": LONG["id"], "id": list(range(27))}
    found = read_embeddings(parquet(tmp_path, columns))
    np.testing.assert_array_equal(found.image_index, order)
    assert found.ids == tuple(NAMES)


@pytest.mark.parametrize("write", [parquet, csv, json_lines])
def test_numbers_in_columns_of_their_own(tmp_path: Path, write: Write) -> None:
    wide = {f"image_{j}": x[:, j].tolist() for j in range(4)}
    wide |= {f"text_{j}": y[:, j].tolist() for j in reversed(range(4))}
    np.testing.assert_allclose(read_embeddings(write(tmp_path, wide)).text, y, rtol=1e-14)
    long = {"kind": ["img"] * 9 + ["txt"] * 9, "id": NAMES * 2}
    long |= {str(j): np.concatenate([x, y])[:, j].tolist() for j in range(4)}
    np.testing.assert_allclose(read_embeddings(write(tmp_path, long)).text, y, rtol=1e-14)
    del wide["image_2"]
    with pytest.raises(GeomkitError, match="image: column 2 of its vectors is missing"):
        read_embeddings(write(tmp_path, wide))


def test_several_texts_in_a_cell_and_vectors_as_numpy_prints_them(tmp_path: Path) -> None:
    texts = np.stack([y, y[::-1]], axis=1)
    found = read_embeddings(parquet(tmp_path, {"image": x.tolist(), "text": texts.tolist()}))
    np.testing.assert_array_equal(found.image_index, np.repeat(np.arange(9), 2))
    np.testing.assert_allclose(found.text, texts.reshape(18, 4), rtol=1e-14)
    cells = {"image": [str(row) for row in x.tolist()], "text": list(map(str, texts.tolist()))}
    found = read_embeddings(csv(tmp_path, cells))
    np.testing.assert_array_equal(found.image_index, np.repeat(np.arange(9), 2))
    cells["text"][4] = cells["image"][4]
    with pytest.raises(GeomkitError, match=r"text: .* got 4 numbers in row 4, 2 x 4 in row 0"):
        read_embeddings(csv(tmp_path, cells))
    printed = {"image": list(map(str, x)), "text": list(map(str, y))}
    np.testing.assert_allclose(read_embeddings(csv(tmp_path, printed)).image, x, atol=1e-7)
    printed["image"][3] = "[0.1 0.2 ... 0.4]"
    with pytest.raises(GeomkitError, match=r"image: no vector in row 3: '\[0.1 0.2 \.\.\. 0.4\]'"):
        read_embeddings(csv(tmp_path, printed))


def test_further_modalities_follow_the_ids(tmp_path: Path) -> None:
    long = {key: [*LONG[key]] for key in LONG}
    long["modality"] += ["audio"] * 9
    long["id"] += NAMES[::-1]
    long["embedding"] += y[::-1].tolist()
    path = parquet(tmp_path, long)
    from geomkit.extraction.load import load_pairs

    pairs = {e.modalities: e for e in load_pairs(path)[0]}
    np.testing.assert_allclose(pairs["image", "audio"].text, y, rtol=1e-14)
    np.testing.assert_array_equal(pairs["audio", "text"].image_index, order)
    long["id"][-1] = "other"
    with pytest.raises(GeomkitError, match="id: audio and image do not have the same ids"):
        read_embeddings(parquet(tmp_path, long))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"id": None}, "modality: rows of image and text, but no column id"),
        ({"id": ["x", *LONG["id"][1:]]}, "row 0 names image x, which image_id does not have"),
        ({"id": [*LONG["id"][:-1], NAMES[0]]}, "names image 08, which image_id does not have"),
        ({"id": [None, *LONG["id"][1:]]}, "id: 1 empty cells"),
        ({"modality": ["txt", *LONG["modality"][1:]]}, "'text' is one of two words for text"),
        ({"embedding": [[1.0], *LONG["embedding"][1:]]}, "embedding: expected vectors of one leng"),
        ({"embedding": [None, *LONG["embedding"][1:]]}, "embedding: 1 empty cells"),
    ],
)
@pytest.mark.parametrize("write", [parquet, json_lines])
def test_long_tables_that_do_not_add_up(
    tmp_path: Path, write: Write, change: dict[str, Any], says: str
) -> None:
    columns = {key: value for key, value in (LONG | change).items() if value is not None}
    with pytest.raises(GeomkitError, match=says):
        read_embeddings(write(tmp_path, columns))


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("e.csv", "image,text\n[1],[1]\n[1],[1],[2]\n", "Expected 2 columns, got 3"),
        ("e.csv", "image,text\n[1],[1]\n[1]\n", "Expected 2 columns, got 1"),
        ("e.csv", "image,image\n[1],[1]\n", "columns named twice: image"),
        ("e.csv", "1\n2\n", "no header, and one column"),
        ("e.csv", "", "mpty"),
        ("e.jsonl", '{"image": [1.0]}\nhello\n', "line 2: no JSON"),
        ("e.jsonl", '{"image": [1.0], "image": [2.0]}\n', "'image' appears twice"),
        ("e.jsonl", "[1, 2]\n", "row 1: expected an object, got list"),
        ("e.jsonl", '{"image": [1.0], "text": [1.0]}\n{"text": [2.0]}\n', "image: 1 empty cells"),
        ("e.jsonl", '{"image": [1.0]}\n{"image": "a"}\n', "image: "),
        ("e.json", "3", "expected an object or a list, got int"),
    ],
)
def test_text_files_that_are_no_tables(tmp_path: Path, name: str, text: str, says: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(GeomkitError, match=says):
        read_embeddings(tmp_path / name)


def test_arrays_by_name_in_a_json_file(tmp_path: Path) -> None:
    content = {"image": x.tolist(), "text": y[order].tolist(), "image_index": order.tolist()}
    (tmp_path / "e.json").write_text(json.dumps(content))
    found = read_embeddings(tmp_path / "e.json")
    np.testing.assert_array_equal(found.image_index, order)
    np.testing.assert_allclose(found.image, x, rtol=1e-14)


def test_one_matrix_of_any_format_is_a_modality(tmp_path: Path) -> None:
    import torch

    np.savetxt(tmp_path / "spaces.csv", x)
    np.savetxt(tmp_path / "commas.csv", x, delimiter=",")
    pd.DataFrame(x).to_csv(tmp_path / "frame.csv")
    pd.DataFrame({"embedding": x.tolist(), "id": NAMES}).to_json(
        tmp_path / "lines.jsonl", orient="records", lines=True, double_precision=15
    )
    np.savez(tmp_path / "e.npz", x)
    np.savez(tmp_path / "two.npz", image=x, other=y)
    torch.save(torch.from_numpy(x), tmp_path / "e.pt")
    np.save(tmp_path / "t.npy", y)
    for name in ("spaces.csv", "commas.csv", "frame.csv", "lines.jsonl", "e.npz", "two.npz",
                 "e.pt"):  # fmt: skip
        (found,) = load_modalities({"image": tmp_path / name, "text": tmp_path / "t.npy"})
        np.testing.assert_allclose(found.image, x, rtol=1e-12, err_msg=name)
    with pytest.raises(GeomkitError, match=r"expected one \(n, d\) matrix of floats, found image"):
        load_modalities({"audio": tmp_path / "two.npz", "text": tmp_path / "t.npy"})


def test_rows_of_two_files_with_ids_are_those_of_one_image(tmp_path: Path) -> None:
    one, other = tmp_path / "a.csv", tmp_path / "b.csv"
    pd.DataFrame({"id": NAMES, "embedding": x.tolist()}).to_csv(one, index=False)
    for ids, rows in ((NAMES, y), (NAMES[::-1], y[::-1])):
        pd.DataFrame({"id": ids, "embedding": rows.tolist()}).to_csv(other, index=False)
        paths = {"image": one, "text": other}
        if ids is NAMES:
            np.testing.assert_allclose(load_modalities(paths)[0].text, y)  # type: ignore[union-attr]
            continue
        with pytest.raises(GeomkitError, match=r"row 0 has the id 08, but 00 in .*a.csv"):
            load_modalities(paths)
    np.savez(tmp_path / "c.npz", text=y[order], image_index=order)
    with pytest.raises(GeomkitError, match="holds image_index too; give it as SOURCE"):
        load_modalities({"image": one, "text": tmp_path / "c.npz"})


def test_a_column_of_types_that_are_no_modalities(tmp_path: Path) -> None:
    columns = {"image": x.tolist(), "text": y.tolist(), "type": ["a", "b", "c"] * 3}
    found = read_embeddings(parquet(tmp_path, columns))
    np.testing.assert_allclose(found.text, y)
    assert found.meta["notes"] == ["not used: 'type'"]


def test_inspect_says_how_a_table_is_read(tmp_path: Path, cli) -> None:
    path = semicolons(tmp_path, LONG)
    says = "separator semicolon, a row per vector, its modality in 'modality', ids in 'id'"
    assert says in cli("inspect", path).out
    assert json.loads(cli("inspect", path, "--json").out)["reading"] == says
    assert "a row per pair" in cli("inspect", parquet(tmp_path, {"image": x.tolist()})).out
    np.savetxt(path, x)
    assert "separator space, numbers without a header" in cli("inspect", path).out


@pytest.mark.parametrize("first", [0, 1])
def test_row_numbers_are_no_part_of_vectors(tmp_path: Path, first: int) -> None:
    frame = pd.DataFrame(x, index=range(first, first + len(x)))
    frame.to_csv(path := tmp_path / "e.csv", header=False)
    with pytest.raises(GeomkitError, match="first column counts the rows"):
        load_modalities({"image": path})
    frame.to_csv(path, header=False, index=False)
    assert load_modalities({"image": path})[0].rows["image"].shape == x.shape


def test_an_image_that_is_there_twice_is_named(tmp_path: Path) -> None:
    columns = {"modality": ["image"] * 10 + ["text"] * 9, "id": [*NAMES, NAMES[0], *NAMES],
               "embedding": [*x.tolist(), x[0].tolist(), *y.tolist()]}  # fmt: skip
    with pytest.raises(GeomkitError, match="ids: '00' appears twice, at rows 0 and 9"):
        read_embeddings(parquet(tmp_path, columns))
