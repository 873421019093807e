"""Every format in: the same rows whatever holds them, read a block at a time, refused in a line."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import clouds

from geomkit.embeddings import formats
from geomkit.embeddings import rows as rows_module
from geomkit.embeddings.embeddings import Embeddings, read_embeddings, write_embeddings
from geomkit.embeddings.reading import natural_order
from geomkit.embeddings.rows import ArrayShard, FileShard, Rows
from geomkit.errors import GeomkitError
from geomkit.extraction.load import load_modalities, load_source
from geomkit.metrics import METRICS, gap

x, y = clouds(50, 6)
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def npz(path: Path) -> Path:
    np.savez(path / "e.npz", image=x, text=y)
    return path / "e.npz"


def npz_compressed(path: Path) -> Path:
    np.savez_compressed(path / "e.npz", image=x, text=y)
    return path / "e.npz"


def npy(path: Path) -> Path:
    np.save(path / "e.npy", np.stack([x, y]))
    return path / "e.npy"


def npy_fortran(path: Path) -> Path:
    np.save(path / "e.npy", np.asfortranarray(np.stack([x, y])))
    return path / "e.npy"


def npy_swapped(path: Path) -> Path:
    np.save(path / "e.npy", np.stack([x, y]).astype(">f8"))
    return path / "e.npy"


def safetensors(path: Path) -> Path:
    from safetensors.numpy import save_file

    save_file({"image": x, "text": y}, path / "e.safetensors")
    return path / "e.safetensors"


def pt(path: Path) -> Path:
    torch.save({"image": torch.from_numpy(x), "text": torch.from_numpy(y)}, path / "e.pt")
    return path / "e.pt"


def parquet(path: Path) -> Path:
    pq.write_table(pa.table({"image": list(x), "text": list(y)}), path / "e.parquet")
    return path / "e.parquet"


def folder(path: Path, *, edges: tuple[int, ...] = (0, 20, 30, 50), dtype=np.float64) -> Path:
    for kind, rows in (("img_emb", x), ("text_emb", y)):
        (path / kind).mkdir()
        for k, (a, b) in enumerate(pairwise(edges)):
            np.save(path / kind / f"{kind}_{k}.npy", rows[a:b].astype(dtype))
    (path / "metadata").mkdir()
    for k, (a, b) in enumerate(pairwise(edges)):
        table = pa.table({"image_path": [f"{i}.jpg" for i in range(a, b)]})
        pq.write_table(table, path / "metadata" / f"metadata_{k}.parquet")
    return path


WRITERS = [
    npz, npz_compressed, npy, npy_fortran, npy_swapped, safetensors, pt, parquet, folder,
]  # fmt: skip


@pytest.mark.parametrize("write", WRITERS)
def test_the_same_rows_from_every_format(tmp_path: Path, write) -> None:
    e, split = load_source(write(tmp_path))
    assert split is None
    np.testing.assert_allclose(e.image, x, rtol=1e-14)
    np.testing.assert_allclose(e.text, y, rtol=1e-14)


@pytest.mark.parametrize("write", [npz, npy, npy_swapped, safetensors, folder])
def test_large_files_are_read_as_needed_with_the_same_result(
    tmp_path: Path, write, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = gap(load_source(write(tmp_path))[0])
    monkeypatch.setattr(rows_module, "_IN_MEMORY", 0)
    e, _ = load_source(tmp_path if write is folder else next(tmp_path.glob("e.*")))
    assert isinstance(e.image, Rows)
    large = gap(e)
    for name in METRICS:
        assert large.metrics[name] == pytest.approx(small.metrics[name], rel=1e-12, abs=1e-12), name
    assert large.meta["norms"]["image"] == pytest.approx([1, 1])


def test_bfloat16_and_float16(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    for dtype in (torch.bfloat16, torch.float16):
        tensors = {"image": torch.from_numpy(x).to(dtype), "text": torch.from_numpy(y).to(dtype)}
        save_file(tensors, tmp_path / "e.safetensors")
        torch.save(tensors, tmp_path / "e.pt")
        for name in ("e.safetensors", "e.pt"):
            e, _ = load_source(tmp_path / name)
            assert e.image.dtype == np.float32
            expected = Embeddings.of(
                tensors["image"].float().numpy(), tensors["text"].float().numpy()
            )
            np.testing.assert_array_equal(e.image, expected.image)


def test_float16_shards_agree_with_float64_truth(tmp_path: Path) -> None:
    e, _ = load_source(folder(tmp_path, dtype=np.float16))
    found, truth = gap(e).metrics, gap(x, y).metrics
    for name in ("centroid_distance", "uniformity", "mmd", "effective_rank_image", "cka"):
        assert found[name] == pytest.approx(truth[name], abs=5e-3), name


def test_shards_go_by_number_and_not_by_letter(tmp_path: Path) -> None:
    edges = tuple(range(0, 52, 4))
    e, _ = load_source(folder(tmp_path, edges=(*edges[:12], 50)))
    np.testing.assert_allclose(e.image, x, rtol=1e-14)
    assert len(list((tmp_path / "img_emb").iterdir())) == 12
    assert [p.name for p in natural_order([Path("s_10"), Path("s_2")])] == ["s_2", "s_10"]


def test_which_image_each_text_belongs_to(tmp_path: Path) -> None:
    order = np.random.default_rng(0).permutation(np.repeat(np.arange(50), 2))
    np.savez(tmp_path / "a.npz", image=x, text=y[order], image_index=order)
    ids = 1000 + 7 * np.random.default_rng(1).permutation(50)
    np.savez(tmp_path / "b.npz", image=x, text=y[order], image_id=ids, text_image_id=ids[order])
    for name in ("a.npz", "b.npz"):
        np.testing.assert_array_equal(read_embeddings(tmp_path / name).image_index, order)
    torch.save(
        {"image": torch.from_numpy(x), "text": torch.from_numpy(y[order]),
         "image_index": torch.from_numpy(order)},
        tmp_path / "c.pt",
    )  # fmt: skip
    np.testing.assert_array_equal(load_source(tmp_path / "c.pt")[0].image_index, order)


def test_every_pair_of_several_modalities(tmp_path: Path) -> None:
    z = clouds(50, 4, seed=3)[0]
    for name, rows in (("a", x), ("b", y), ("c", z)):
        np.save(tmp_path / f"{name}.npy", rows)
    paths = {"image": tmp_path / "a.npy", "text": tmp_path / "b.npy", "audio": tmp_path / "c.npy"}
    pairs = load_modalities(paths)
    assert [e.modalities for e in pairs] == [
        ("image", "text"),
        ("image", "audio"),
        ("text", "audio"),
    ]
    r = gap(pairs[1])
    # of another dimension: what compares across is left out, and why is said
    for name, metric in METRICS.items():
        assert math.isnan(r.metrics[name]) == (metric.across), name
        if metric.across:
            assert "different dimensions" in r.meta["reasons"][name]
    assert r.metrics["uniformity_image"] == pytest.approx(gap(x, y).metrics["uniformity_image"])
    assert r.metrics["cka"] == pytest.approx(gap(x, z).metrics["cka"])


def test_two_files_and_a_modality_on_the_command_line(cli, tmp_path: Path) -> None:
    for name, rows in (("a", x), ("b", y), ("c", x[:, ::-1])):
        np.save(tmp_path / f"{name}.npy", rows)
    outcome = cli(
        "gap", "--image", "a.npy", "--text", "b.npy", "--modality", "audio=c.npy", "--json"
    )
    results = json.loads(outcome.out)["results"]
    assert [r["modalities"] for r in results] == [
        ["image", "text"],
        ["image", "audio"],
        ["text", "audio"],
    ]
    assert results[0]["metrics"] == gap(x, y).to_json()["metrics"]


# --- refusals --------------------------------------------------------------------------------


def test_a_nan_row_far_inside_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.ones((30_000, 3), np.float16)
    rows[23_456, 1] = np.nan
    np.save(tmp_path / "e.npy", np.stack([rows, np.ones_like(rows)]))
    for limit in (rows_module._IN_MEMORY, 0):
        monkeypatch.setattr(rows_module, "_IN_MEMORY", limit)
        with pytest.raises(GeomkitError, match="image: NaN or infinity in row 23456"):
            gap(load_source(tmp_path / "e.npy")[0], metrics=["uniformity"], exact_limit=100)


def test_a_file_that_shrinks_while_it_is_read(tmp_path: Path) -> None:
    np.save(tmp_path / "e.npy", np.ones((1000, 8)))
    shard = FileShard(tmp_path / "e.npy", 128, "float64", (1000, 8))
    assert shard.read(0, 1000).shape == (1000, 8)
    with (tmp_path / "e.npy").open("r+b") as file:
        file.truncate(20_000)
    with pytest.raises(GeomkitError, match=r"ends before row 999; was it changed"):
        shard.read(500, 1000)


def broken_folder(path: Path, what: str) -> None:
    folder(path)
    if what == "missing":
        (path / "img_emb" / "img_emb_1.npy").unlink()
    elif what == "no text":
        (path / "text_emb" / "text_emb_2.npy").unlink()
    elif what == "extra":
        np.save(path / "text_emb" / "text_emb_3.npy", y[:3])
    elif what == "twice":
        np.save(path / "img_emb" / "other_1.npy", x[:3])
    elif what == "lengths":
        np.save(path / "text_emb" / "text_emb_1.npy", y[:7])
        (path / "metadata").rename(path / "gone")
    elif what == "metadata":
        pq.write_table(pa.table({"image_path": ["a"]}), path / "metadata" / "metadata_1.parquet")
    elif what == "width":
        np.save(path / "img_emb" / "img_emb_1.npy", x[20:30, :4])
    elif what == "number":
        np.save(path / "img_emb" / "rows.npy", x)


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("missing", "img_emb: shard 1 is missing"),
        ("no text", "text_emb: shard 2 is missing"),
        ("extra", "img_emb: shard 3 is missing"),
        ("twice", "shard 1 appears twice"),
        ("lengths", "text_emb_1.npy: .*equal numbers of rows, got 10 and 7"),
        ("metadata", "1 rows for 10 images"),
        ("width", "shards of unequal dimension, 4, 6"),
        ("number", "expected a shard number"),
    ],
)
def test_folders_that_do_not_add_up(tmp_path: Path, what: str, says: str) -> None:
    broken_folder(tmp_path, what)
    with pytest.raises(GeomkitError, match=says):
        load_source(tmp_path)


@pytest.mark.parametrize(
    ("names", "ids", "note"),
    [
        ("unique", ("0.jpg", "20.jpg"), ""),
        ("by shard", ("0/0", "5/0"), "20 ids repeat, such as '0': they are read as SHARD/ID"),
        ("all", (), "1 ids repeat, such as 'a', also within a shard: ids are left out"),
    ],
)
def test_shards_with_gaps_and_ids_that_repeat_are_measured(
    cli, tmp_path: Path, names: str, ids: tuple[str, ...], note: str
) -> None:
    folder(tmp_path)
    for kind in ("img_emb", "text_emb", "metadata"):
        for old, new in ((2, 9), (1, 5)):
            file = next((tmp_path / kind).glob(f"*_{old}.*"))
            file.rename(file.with_stem(f"{kind}_{new}"))
    for number, count in ((0, 20), (5, 10), (9, 20)) if names != "unique" else ():
        column = ["a"] * count if names == "all" else list(map(str, range(count)))
        path = tmp_path / "metadata" / f"metadata_{number}.parquet"
        pq.write_table(pa.table({"image_path": column}), path)
    e, _ = load_source(tmp_path)
    np.testing.assert_allclose(e.image, x, rtol=1e-14)
    assert (e.ids[::20][:2] if e.ids else ()) == ids
    outcome = cli("gap", tmp_path, "--metrics", "alignment")
    gaps = "shards 0, 5, 9; without 1, 2, 3, 4, 6, 7, 8"
    assert outcome.status == 0 and gaps in outcome.err and note in outcome.err
    (tmp_path / "text_emb" / "text_emb_5.npy").unlink()
    with pytest.raises(GeomkitError, match="text_emb: shard 5 is missing, which others have"):
        load_source(tmp_path)


def test_a_matrix_in_place_of_metadata(tmp_path: Path) -> None:
    folder(tmp_path)
    with (tmp_path / "metadata" / "metadata_1.parquet").open("wb") as file:
        np.save(file, x)
    with pytest.raises(GeomkitError, match=r"metadata_1.parquet: no Parquet file by its content"):
        load_source(tmp_path)


def test_a_folder_of_a_third_modality_is_named(tmp_path: Path) -> None:
    folder(tmp_path)
    (tmp_path / "audio_emb").mkdir()
    np.save(tmp_path / "audio_emb" / "audio_emb_0.npy", x)
    assert "not used: audio_emb" in load_source(tmp_path)[0].meta["notes"][0]


@pytest.mark.parametrize("kind", ["uint64", "bytes"])
def test_ids_of_any_bits_stay_apart(tmp_path: Path, kind: str) -> None:
    ids = np.arange(50, dtype=np.uint64) + np.uint64(2**63)
    ids = ids if kind == "uint64" else np.array([bytes([255 - i]) for i in range(50)])
    others = np.roll(ids, 1)
    np.savez(tmp_path / "a.npz", image=x, text=y, image_id=ids, text_image_id=others)
    np.testing.assert_array_equal(
        load_source(tmp_path / "a.npz")[0].image_index, np.roll(np.arange(50), 1)
    )
    others[7] = 9 if kind == "uint64" else b"\x01"
    np.savez(tmp_path / "b.npz", image=x, text=y, image_id=ids, text_image_id=others)
    with pytest.raises(GeomkitError, match=r"row 7 names image .*which image_id does not have"):
        load_source(tmp_path / "b.npz")


def test_ids_that_do_not_match(tmp_path: Path) -> None:
    ids = np.arange(50)
    np.savez(tmp_path / "a.npz", image=x, text=y, image_id=ids, text_image_id=ids + 1)
    with pytest.raises(GeomkitError, match="row 49 names image 50, which image_id does not have"):
        load_source(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", image=x, text=y, image_id=ids // 2)
    with pytest.raises(GeomkitError, match="'0' appears twice, at rows 0 and 1"):
        load_source(tmp_path / "b.npz")


def test_vectors_that_are_no_matrix(tmp_path: Path) -> None:
    ragged = pa.table({"image": [[1.0, 2.0], [1.0]], "text": [[1.0, 2.0], [1.0, 3.0]]})
    pq.write_table(ragged, tmp_path / "ragged.parquet")
    with pytest.raises(GeomkitError, match="image: expected vectors of one length"):
        load_source(tmp_path / "ragged.parquet")
    pq.write_table(pa.table({"image": [1.0], "text": [2.0]}), tmp_path / "flat.parquet")
    with pytest.raises(GeomkitError, match="image: expected an array, got a column of double"):
        load_source(tmp_path / "flat.parquet")
    pq.write_table(
        pa.table({"image": [None, [1.0]], "text": [[1.0], [2.0]]}), tmp_path / "n.parquet"
    )
    with pytest.raises(GeomkitError, match="image: 1 empty cells"):
        load_source(tmp_path / "n.parquet")


def test_memory_that_would_not_suffice_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from geomkit.metrics import budget

    monkeypatch.setattr(budget, "available_memory", lambda: 1000)
    with pytest.raises(GeomkitError, match=r"memory: about .* GiB are needed"):
        gap(x, y)


def test_rows_by_index_and_block() -> None:
    rows = Rows([ArrayShard(x[:20]), ArrayShard(x[20:])], name="image")
    np.testing.assert_allclose(rows[15:25], x[15:25], rtol=1e-14)
    for index in ([3, 40, 21], [5, 4, 5], [49, 0], []):
        np.testing.assert_allclose(rows[np.array(index, int)], x[index], rtol=1e-14)
    taken = rows.take(np.arange(50)[::-1])
    np.testing.assert_allclose(taken[0:3], x[[49, 48, 47]], rtol=1e-14)
    with pytest.raises(GeomkitError, match="expected floating-point rows, got int64"):
        Rows([ArrayShard(np.ones((3, 3), np.int64))], name="image")


def test_ids_in_every_format_or_a_refusal(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    order = np.random.default_rng(0).permutation(50)
    ids = 1000 + np.arange(50)
    arrays = {"image": x, "text": x[order], "image_id": ids, "text_image_id": ids[order]}
    np.savez(tmp_path / "a.npz", **arrays)
    save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, tmp_path / "a.safetensors")
    torch.save({k: torch.from_numpy(v) for k, v in arrays.items()}, tmp_path / "a.pt")
    for name in ("a.npz", "a.safetensors", "a.pt"):
        e, _ = load_source(tmp_path / name)
        assert gap(e, metrics=["paired_cosine"]).metrics["paired_cosine"] == pytest.approx(1), name
    np.savez(tmp_path / "b.npz", image=x, text=y, text_image_id=ids)
    with pytest.raises(GeomkitError, match="text_image_id: needs image_id"):
        load_source(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", **arrays, image_index=np.arange(50))
    with pytest.raises(GeomkitError, match="give one of them"):
        load_source(tmp_path / "c.npz")
    table = pa.table({"image": list(x), "text": list(y), "image_index": order})
    pq.write_table(table, tmp_path / "d.parquet")
    with pytest.raises(GeomkitError, match="image_index: a row holds an image and its text"):
        load_source(tmp_path / "d.parquet")
    folder(tmp_path)
    for k, count in enumerate((20, 10, 20)):
        table = pa.table({"image_index": np.arange(count) + 0.7})
        pq.write_table(table, tmp_path / "metadata" / f"metadata_{k}.parquet")
    with pytest.raises(GeomkitError, match=r"metadata_0.*expected integers.*got float64"):
        load_source(tmp_path)


def test_places_in_a_safetensors_file_are_checked(tmp_path: Path) -> None:
    path = safetensors(tmp_path)
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    for change in ((-8, -8), (0, -16), (None, None)):
        header = json.loads(data[8 : 8 + length])
        start, stop = header["image"]["data_offsets"]
        if change[0] is None:
            header["text"]["data_offsets"] = [start, stop]
        else:
            header["image"]["data_offsets"] = [start + change[0], stop + change[1]]
        text = json.dumps(header).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
        with pytest.raises(GeomkitError, match=r"damaged: .*(fill|overlap)"):
            load_source(path)


def test_a_flipped_bit_in_an_npz_is_seen_and_other_members_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "e.npz"
    np.savez(path, image=x, text=y, captions=np.array(["a", None], dtype=object))
    assert load_source(path)[0].n == 50
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)
    for limit in (rows_module._IN_MEMORY, 0):
        monkeypatch.setattr(rows_module, "_IN_MEMORY", limit)
        with pytest.raises(GeomkitError, match=r"damaged.*CRC-32 for file 'image\.npy'"):
            load_source(path)


def test_bad_rows_of_large_files_are_named_with_their_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Callable
) -> None:
    monkeypatch.setattr(rows_module, "_IN_MEMORY", 0)
    bad = x.copy()
    bad[7] = 0
    np.savez(tmp_path / "e.npz", image=bad, text=y)
    np.save(tmp_path / "a.npy", bad)
    np.save(tmp_path / "b.npy", y)
    says = "image: nothing but zeros in row 7"
    assert f"{tmp_path}/e.npz: {says}" in cli("gap", tmp_path / "e.npz").err
    two = cli("gap", "--image", tmp_path / "a.npy", "--text", tmp_path / "b.npy")
    assert f"{tmp_path}/a.npy: {says}" in two.err


def test_lazily_read_rows_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module, "_IN_MEMORY", 0)
    e, _ = load_source(npz(tmp_path))
    write_embeddings(tmp_path / "again.npz", e)
    held = np.load(tmp_path / "again.npz")
    assert str(held["format"]) == "geomkit-embeddings" and int(held["schema_version"]) == 1
    np.testing.assert_allclose(held["image"], x, rtol=1e-14)


TOY = """
import numpy as np
from geomkit.embeddings.reading import Format, Loaded
from geomkit.embeddings.rows import ArrayShard

def read(path):
    rows = np.loadtxt(path)
    return Loaded([ArrayShard(rows)], [ArrayShard(-rows)], split="toy")

FORMAT = Format(".toy", matches=lambda path, head: path.suffix == ".toy", read=read)
"""


def test_a_format_is_one_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "toy.py").write_text(TOY)
    np.savetxt(tmp_path / "e.toy", x)
    with pytest.raises(GeomkitError, match=r"e.toy: not embeddings in a known format.*\.npz"):
        load_source(tmp_path / "e.toy")
    monkeypatch.setattr(formats, "__path__", [*formats.__path__, str(tmp_path)])
    formats.formats.cache_clear()
    try:
        e, split = load_source(tmp_path / "e.toy")
        assert split == "toy" and e.n == 50
        (tmp_path / "e.other").write_bytes(b"other")
        with pytest.raises(GeomkitError, match=r"not embeddings in a known format.*\.toy"):
            load_source(tmp_path / "e.other")
    finally:
        formats.formats.cache_clear()
        sys.modules.pop("geomkit.embeddings.formats.toy", None)
