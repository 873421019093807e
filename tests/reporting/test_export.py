"""The table of ``geomkit export``, read back."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pandas
import pyarrow.parquet as parquet
import pytest
from conftest import clouds, unit
from PIL import Image
from samples import picture, write

from geomkit.data import load_data
from geomkit.embeddings import Embeddings, read_embeddings
from geomkit.engine import across
from geomkit.engine.across import nearest_across
from geomkit.errors import GeomkitError
from geomkit.extraction.originals import Originals, captions_of
from geomkit.reporting import export_parquet
from geomkit.reporting.export import FORMAT, SCHEMA_VERSION

OWNER = [2, 0, 1, 0, 3, 4, 2, 5]


def several() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return unit(rng.standard_normal((6, 5))), unit(rng.standard_normal((8, 5)))


def folder_of_pairs(folder: Path) -> str:
    """Six images in files; those with the numbers 0 and 2 have two captions."""
    for k in range(6):
        write(folder / f"{k}.png", picture(k))
        more = f"\nsecond of {k}" if k in (0, 2) else ""
        write(folder / f"{k}.txt", f"<script>caption {k}</script> \u200f$x$ 猫{more}")
    return f"imagefolder:{folder}"


def made(tmp_path: Path, **options: object) -> pandas.DataFrame:
    x, y = several()
    data = load_data(folder_of_pairs(tmp_path / "images"), split="all")
    e = Embeddings.of(x, y, OWNER, ids=data.ids)
    with (tmp_path / "e.parquet").open("wb") as file:
        found = Originals(tuple(captions_of(e, data)), data)
        export_parquet(e, file, originals=found, projection="pca", **options)
    return pandas.read_parquet(tmp_path / "e.parquet")


def test_every_caption_is_a_row_with_its_image(tmp_path: Path) -> None:
    table = made(tmp_path)
    assert table["row"].tolist() == list(range(14))
    assert table["modality"].tolist() == ["image"] * 6 + ["text"] * 8
    assert table["pair"].tolist() == [7, 8, 6, 10, 11, 13, *OWNER]
    assert table["id"].tolist() == [table["id"][k] for k in [*range(6), *OWNER]]
    start = "<script>caption {}</script> \u200f$x$ 猫"
    texts = [start.format(k) for k in OWNER]
    texts[3], texts[6] = "second of 0", "second of 2"
    assert table["caption"].tolist() == [*(start.format(k) for k in range(6)), *texts]
    assert table["image"][6:].isna().all()
    files = [Image.open(io.BytesIO(one["bytes"])) for one in table["image"][:6]]
    assert {file.format for file in files} == {"JPEG"} and table["image"][0]["path"] is None


def test_neighbours_are_those_of_brute_force(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(across, "BLOCK", 16)
    monkeypatch.setattr(across, "_GALLERY", 7)
    rng = np.random.default_rng(1)
    x, y = unit(rng.standard_normal((50, 6))), unit(rng.standard_normal((80, 6)))
    for queries, gallery in ((x, y), (y, x)):
        cosines = queries @ gallery.T
        best = np.argsort(-cosines, axis=1)[:, :4]
        for kind in (np.float32, np.float64):
            found = across.nearest_across(queries.astype(kind), gallery.astype(kind), 4)
            number, cosine = map(np.concatenate, zip(*found, strict=True))
            np.testing.assert_array_equal(number, best)
            expected = np.take_along_axis(cosines, best, 1)
            np.testing.assert_allclose(cosine, expected, atol=1e-7)


def test_neighbours_are_rows_of_the_other_modality(tmp_path: Path) -> None:
    table, (x, y) = made(tmp_path, neighbours=3), several()
    for row, near in enumerate(table["neighbors"]):
        distances = 1 - (y @ x[row] if row < 6 else x @ y[row - 6])
        assert near["ids"].tolist() == (np.argsort(distances)[:3] + 6 * (row < 6)).tolist()
        np.testing.assert_allclose(near["distances"], np.sort(distances)[:3], atol=1e-12)


def test_projection_is_that_of_both_modalities_together(tmp_path: Path) -> None:
    table = made(tmp_path, vectors=True)
    rows = np.concatenate(several())
    np.testing.assert_allclose(np.stack(table["vector"]), rows, atol=1e-7)
    centred = rows - rows.mean(axis=0)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    for k, axis in enumerate("xy"):
        np.testing.assert_allclose(abs(table[axis]), abs(left[:, k] * values[k]), atol=1e-6)


def test_metadata_say_what_the_table_is(tmp_path: Path) -> None:
    made(tmp_path)
    about = json.loads(parquet.read_schema(tmp_path / "e.parquet").metadata[b"geomkit"])
    assert (about["format"], about["schema_version"]) == (FORMAT, SCHEMA_VERSION)
    assert about["projection"] == "pca" and about["versions"]["geomkit"]


def test_what_is_not_asked_for_has_no_column() -> None:
    x, _ = clouds(9, 4)
    _, y = clouds(9, 5)
    with pytest.raises(GeomkitError, match="--projection none --neighbours 0"):
        export_parquet(Embeddings.of(x, y), io.BytesIO(), projection="pca")
    file = io.BytesIO()
    export_parquet(Embeddings.of(x, y), file, projection="none", neighbours=0)
    assert parquet.read_table(file).column_names == ["row", "modality", "pair", "id"]


def test_a_table_with_vectors_can_be_measured(tmp_path: Path) -> None:
    x, y = several()
    with (tmp_path / "e.parquet").open("wb") as file:
        export_parquet(Embeddings.of(x, y, OWNER), file, projection="none", vectors=True)
    again = read_embeddings(tmp_path / "e.parquet")
    np.testing.assert_allclose(again.image, x, atol=1e-6)
    np.testing.assert_allclose(again.text, y, atol=1e-6)
    assert again.image_index.tolist() == OWNER


def test_command_writes_captions_of_rows_from_a_file_by_their_ids(cli, refused) -> None:
    spec = folder_of_pairs(Path("images"))
    ids = load_data(spec, split="all").ids
    x, y = several()
    np.savez("e.npz", image=x, text=y, image_id=ids, text_image_id=[ids[k] for k in OWNER])
    done = cli("export", "e.npz", "--projection", "pca", "--neighbours", 2)
    assert done.status == 0 and done.out == "embeddings.parquet\n", done.err
    assert "no captions and images: these embeddings do not name their data" in done.err
    assert "--data names the data" in done.err
    assert "caption" not in parquet.read_schema("embeddings.parquet").names
    refused("export", "e.npz", says=("exists already",))
    refused("export", "e.npz", "--out", "x", "--to", "csv", says=("parquet",))
    refused("export", "e.npz", "--out", "x", "--neighbours", "-1", says=("neighbours",))
    refused("export", "none.npz", "--out", "x", "--projection", "pac", says=("'pca'",))
    refused("export", "e.npz", "--out", "x", "--data", "imagefolder:none", says=("none",))
    done = cli("export", "e.npz", "--out", "y", "--data", spec, "--projection", "pca")
    assert done.status == 0 and pandas.read_parquet("y")["caption"][9] == "second of 0", done.err
    write(Path("images/0.txt"), "one caption")
    refused("export", "e.npz", "--out", "x", "--data", spec, says=("1 captions", "2 rows"))
    assert not Path("x").exists()


def test_captions_of_a_folder_are_read_where_its_data_are_gone(cli) -> None:
    import pyarrow

    x, y = several()
    texts = [f"{k} <b>" for k in range(8)]
    for kind, rows in (("img_emb", x), ("text_emb", y)):
        write(Path(f"e/{kind}/{kind}_0.npy"), b"")
        np.save(f"e/{kind}/{kind}_0.npy", rows)
    write(Path("e/metadata/metadata_0.parquet"), b"")
    table = pyarrow.table({"caption": texts, "image_index": OWNER})
    parquet.write_table(table, "e/metadata/metadata_0.parquet")
    done = cli("export", "e", "--projection", "none")
    assert done.status == 0 and "e: no images: " in done.err
    found = pandas.read_parquet("embeddings.parquet")
    assert found["caption"][6:].tolist() == texts and found["caption"][2] == texts[0]
    assert "image" not in found


@pytest.mark.parametrize("spread", [1e-1, 1e-3, 1e-4])
def test_neighbours_in_a_narrow_cloud_are_those_of_float64(spread: float) -> None:
    rng = np.random.default_rng(1)
    base, shared, own = rng.standard_normal(64), *rng.standard_normal((2, 300, 64))
    x = unit(base + spread * shared).astype(np.float32)
    y = unit(base + spread * (shared + own)).astype(np.float32)
    wide, other = (unit(rows.astype(np.float64)) for rows in (x, y))
    wanted = np.argsort(-(wide @ other.T), axis=1, kind="stable")[:, :5]
    (found,) = (number for number, _ in nearest_across(x, y, 5))
    assert (found == wanted).mean() > 0.999  # an order that float64 decides by its last digit
    import torch

    (same,) = (number for number, _ in nearest_across(torch.from_numpy(x), torch.from_numpy(y), 5))
    assert (same == wanted).mean() > 0.999
