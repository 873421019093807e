"""Extraction: the rows a model gives, the folders they are written to, the command that does it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from extraction_samples import BAD, CALM, fresh, single_thread, table, tree, write_tables

from geomkit.data import PairData
from geomkit.embeddings.embeddings import read_embeddings
from geomkit.embeddings.manifest import StoredFile
from geomkit.errors import GeomkitError
from geomkit.extraction import embed, extract
from geomkit.extraction.encode import encode
from geomkit.extraction.store import ShardFolder
from geomkit.models.checkpoints import Checkpoint, TrainedRun, save_run

ROUNDING = 1e-5
"""Of float32 between batches of other sizes."""


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    with single_thread():
        yield


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_tables(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def loaded() -> Checkpoint:
    return fresh()


@pytest.fixture
def good(tables: dict[str, Path]) -> PairData:
    return table(tables["good"])


@pytest.fixture
def bad(tables: dict[str, Path]) -> PairData:
    return table(tables["bad"], max_bad=1)


# Rows


def test_captions_by_length_come_back_in_order(good: PairData) -> None:
    loaded = fresh()
    captions = [caption for group in good.captions for caption in group]
    tokens = loaded.tokenizer.encode(captions)
    assert len(set(tokens.argmax(dim=-1).tolist())) > 8  # lengths enough to be put out of order
    options: dict[str, Any] = {"batch_size": 5, "workers": 0}
    single = encode(loaded.model, good, tokens, loaded.preprocess, **options)
    loaded.model.double()
    with torch.no_grad():
        one_by_one = torch.cat([loaded.model.encode_text(row[None]) for row in tokens])
    loaded.model.train()
    encoded = encode(loaded.model, good, tokens, loaded.preprocess, precision="fp64", **options)
    assert loaded.model.training
    assert encoded.image.dtype == encoded.text.dtype == torch.float64
    torch.testing.assert_close(encoded.text, one_by_one, atol=1e-12, rtol=0)
    assert encoded.rows.tolist() == list(range(len(good))) and encoded.bad == ()
    ones = torch.ones(len(good), dtype=torch.float64)
    torch.testing.assert_close(encoded.image.norm(dim=-1), ones, atol=1e-14, rtol=0)
    assert single.image.dtype == single.text.dtype == torch.float32
    torch.testing.assert_close(single.image.double(), encoded.image, atol=1e-5, rtol=0)


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_pictures_are_left_out_with_their_captions(
    loaded: Checkpoint, bad: PairData, workers: int
) -> None:
    kept = np.setdiff1d(np.arange(len(bad)), BAD)
    found = embed(loaded, bad, batch_size=4, workers=workers)
    alone = embed(loaded, bad.take(kept), workers=0)
    assert found.ids == alone.ids == tuple(bad.ids[k] for k in kept)
    np.testing.assert_array_equal(found.image_index, alone.image_index)
    np.testing.assert_allclose(found.image, alone.image, atol=ROUNDING)
    np.testing.assert_allclose(found.text, alone.text, atol=ROUNDING)
    assert [b["id"] for b in found.meta["bad"]] == [bad.ids[k] for k in BAD]
    with pytest.raises(GeomkitError, match=r"00.png does not decode .* and 6 more: 7 of 26"):
        embed(loaded, replace(bad, max_bad=0.25), workers=0)


def test_captions_that_are_cut_are_counted(
    tmp_path: Path, loaded: Checkpoint, tables: dict[str, Path]
) -> None:
    data = table(tables["good"])
    few = replace(data.take(np.arange(4)), captions=(("a",), ("red " * 99, "b"), ("c",), ("d",)))
    said = "captions cut at the end of the model's context: 1"
    assert embed(loaded, few, workers=0).meta["notes"] == [said]
    manifest = extract(loaded, few, tmp_path / "e", **CALM | {"rows_per_shard": 1})
    assert manifest.cut == 1 and said in read_embeddings(tmp_path / "e").meta["notes"]
    whole = extract(loaded, data, tmp_path / "whole", **CALM)
    assert whole.cut == 0


# Shards


@pytest.mark.parametrize("which", ["good", "bad"])
def test_a_folder_holds_what_extract_gives(
    tmp_path: Path, loaded: Checkpoint, tables: dict[str, Path], which: str
) -> None:
    data = table(tables[which], max_bad=1)
    manifest = extract(loaded, data, tmp_path / "e", **CALM)
    found, expected = read_embeddings(tmp_path / "e"), embed(loaded, data, workers=0)
    assert found.ids == expected.ids
    if which == "bad":
        (note,) = found.meta["notes"]
        assert f"{len(data) - len(BAD)} of {len(data)} images; {len(BAD)} do not decode" in note
    np.testing.assert_array_equal(found.image_index, expected.image_index)
    np.testing.assert_allclose(found.image, expected.image, atol=ROUNDING)
    np.testing.assert_allclose(found.text, expected.text, atol=ROUNDING)
    assert json.loads((tmp_path / "e/manifest.json").read_text()) == manifest.to_json()
    assert (manifest.images, manifest.texts) == (found.n, found.m)
    assert [b.row for b in manifest.bad] == (list(BAD) if which == "bad" else [])
    assert all("does not decode" in b.reason for b in manifest.bad)
    count = -(-len(data) // 4)
    assert len(manifest.shards) == count and len(tree(tmp_path / "e")) == 3 * count + 1
    for name, digest in tree(tmp_path / "e").items():
        if name != "manifest.json":
            (entry,) = [s.files[name] for s in manifest.shards if name in s.files]
            assert entry == StoredFile((tmp_path / "e" / name).stat().st_size, digest)


def test_metadata_names_picture_and_caption(
    tmp_path: Path, loaded: Checkpoint, good: PairData
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    extract(loaded, good, tmp_path / "e", **CALM)
    held = parquet.read_table(tmp_path / "e/metadata/metadata_0001.parquet").to_pylist()
    expected = [
        {"id": good.ids[k], "image_path": good.ids[k], "caption": caption, "image_index": k - 4}
        for k in range(4, 8)
        for caption in good.captions[k]
    ]
    assert held == expected


def test_half_precision_rounds_and_no_more(
    tmp_path: Path, loaded: Checkpoint, good: PairData
) -> None:
    for dtype in ("float16", "float32"):
        extract(loaded, good, tmp_path / dtype, dtype=dtype, **CALM)
    half, full = (
        np.load(tmp_path / dtype / "text_emb/text_emb_0002.npy") for dtype in ("float16", "float32")
    )
    assert half.dtype == np.float16 and full.dtype == np.float32
    np.testing.assert_array_equal(half, full.astype(np.float16))
    manifest = json.loads((tmp_path / "float16/manifest.json").read_text())
    low, high = manifest["norms"]["text"]
    assert 1 - 2**-11 < low < 1 < high < 1 + 2**-11 and high - low > 1e-5


def test_workers_and_who_asks_do_not_matter(
    tmp_path: Path, loaded: Checkpoint, bad: PairData
) -> None:
    extract(loaded, bad, tmp_path / "a", **CALM)
    extract(loaded, bad, tmp_path / "b", **{**CALM, "workers": 2})
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    extract(loaded, bad, tmp_path / "c", **{**CALM, "rows_per_shard": 5})
    c, a = read_embeddings(tmp_path / "c"), read_embeddings(tmp_path / "a")
    np.testing.assert_allclose(c.image, a.image, atol=ROUNDING)
    np.testing.assert_array_equal(c.image_index, a.image_index)


# The command


@pytest.fixture(scope="module")
def checkpoint(
    tmp_path_factory: pytest.TempPathFactory, loaded: Checkpoint, tables: dict[str, Path]
) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "c.pt"
    run = TrainedRun(
        state_dict=loaded.model.clip.state_dict(),
        optimizer={},
        epoch=0,
        step=0,
        rng={},
        model_config=loaded.model_config,
        preprocess=loaded.preprocess,
        tokenizer=loaded.tokenizer,
        loss="clip",
        config={"precision": "fp32"},
        data={"spec": f"csv:{tables['good']}", "n": None, "split": "val"},
        ranks=1,
        history=[],
        snapshots=[],
        versions={},
    )
    save_run(path, run)
    return path


def measured(outcome: Any) -> dict[str, float]:
    assert outcome.status == 0, outcome.err
    return json.loads(outcome.out)["results"][0]["metrics"]


def test_gap_of_a_folder_is_that_of_its_checkpoint(cli, tables, checkpoint: Path) -> None:
    spec = f"csv:{tables['good']}"
    keys = "alignment,uniformity,centroid_distance,paired_cosine,cka,image_retrieval_mrr"
    direct = measured(
        cli("gap", checkpoint, "--data", spec, "--split", "all", "--json", "--metrics", keys)
    )
    for dtype, tolerance in (("float32", 1e-5), ("float16", 2e-3)):
        made = cli("extract", checkpoint, "--data", spec, "--split", "all", "--out", dtype,
                   "--dtype", dtype, "--shard-rows", 5, "--workers", 0)  # fmt: skip
        assert (made.status, made.out) == (0, f"{dtype}\n"), made
        found = measured(cli("gap", dtype, "--json", "--metrics", keys))
        assert found.keys() == direct.keys()
        for name, value in direct.items():
            assert found[name] == pytest.approx(value, abs=tolerance), name


def test_the_command_says_what_it_does(cli, tables, checkpoint: Path) -> None:
    options = ("--out", "e", "--split", "all", "--shard-rows", 20, "--workers", 0)
    words = ("extract", checkpoint, "--data", f"csv:{tables['bad']}", *options)
    first = cli(*words, "--max-bad", 0.5)
    assert first.status == 0 and first.out == "e\n"
    lines = first.err.splitlines()
    assert "26 images of 'csv:" in lines[0] and "in 2 shards; float32, computed in" in lines[0]
    assert lines[1].startswith("shard 1 of 2: 14 images, ") and ", 6 bad  " in lines[1]
    assert "left out, with their captions: 00.png, which does not decode" in first.err
    assert "and 6 more; manifest.json lists them" in first.err
    again = cli(*words, "--max-bad", 0.5, "--resume")
    assert again.status == 0 and "already finished; nothing to do" in again.err
    assert cli("--quiet", *words, "--max-bad", 0.6, "--overwrite").err == ""


def test_the_command_takes_the_data_of_the_checkpoint(cli, checkpoint: Path) -> None:
    made = cli("extract", checkpoint, "--out", "e", "--workers", 0, "--trust-data")
    assert made.status == 0, made.err
    manifest = json.loads(Path("e/manifest.json").read_text())
    assert manifest["data"]["split"] == "val" and 2 <= manifest["images"] < 10
    assert manifest["model"]["loss"] == "clip" and manifest["model"]["step"] == 0


def test_the_command_refuses_in_a_line(refused, tables, checkpoint: Path) -> None:
    spec = f"csv:{tables['good']}"
    base = ("extract", checkpoint, "--out", "e", "--workers", 0)
    refused("extract", "none.pt", "--out", "e", says=("none.pt: no such file",))
    refused(*base, "--data", "coca", says=("unknown data set 'coca'",))
    refused(*base, "--data", spec, "--split", "vla", says=("unknown split 'vla'",))
    refused("extract", "none.pt", "--out", "e", "--dtype", "half", says=("unknown dtype 'half'",))
    refused("extract", "none.pt", "--out", "no/e", says=("no: no such folder",))
    refused(*base, "--data", "openmoji", "--max-bad", 0.1, says=("max_bad",))
    refused(*base, "--data", spec, "--image-column", "url", says=("url",))
    refused(*base, "--data", f"csv:{tables['bad']}", "--split", "all", says=("7 of 26", "0.01"))
    refused("extract", checkpoint, says=("--out",))
    refused("gap", "e", says=("e: an extraction that is not finished",))


def test_interrupted_the_command_says_how_to_go_on(
    cli, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("extract", checkpoint, "--out", "e", "--split", "all", "--workers", 0, "--trust-data")
    real, calls = ShardFolder.write, iter(range(9))

    def interrupted(*arguments: Any, **options: Any) -> Any:
        if next(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(ShardFolder, "write", interrupted)
        stopped = cli(*words, "--shard-rows", 5)
    assert stopped.status == 130 and stopped.out == ""
    assert "e keeps its finished shards, --resume continues" in stopped.err
    again = cli(*words, "--shard-rows", 5, "--resume")
    assert again.status == 0 and "in 5 shards, 2 of them there already" in again.err


def test_what_was_left_out_is_said_and_recorded(cli, tmp_path: Path, checkpoint: Path) -> None:
    from samples import picture, write

    for i in range(12):
        write(tmp_path / "f" / f"{i}.png", picture(i))
        if i > 2:
            write(tmp_path / "f" / f"{i}.txt", f"text {i}")
    words = ("--data", f"imagefolder:{tmp_path / 'f'}", "--split", "all")
    says = "9 images used of 12 given; not used: 3 images without a .txt beside them (0.png, 1.png"
    found = cli("gap", checkpoint, *words, "--metrics", "alignment", "--json", "--workers", 0)
    meta = json.loads(found.out)["results"][0]["meta"]
    assert says in found.err and meta["given"] == 12 and meta["left_out"][0]["count"] == 3
    assert meta["fast_decode"] is False
    done = cli("extract", checkpoint, *words, "--out", "e", "--fast-decode", "--workers", 0)
    data = json.loads(Path("e/manifest.json").read_text())["data"]
    assert done.status == 0 and data["fast_decode"] is True and data["given"] == 12
    read = cli("gap", "e", "--metrics", "alignment")
    assert "not extracted: 3 images without a .txt" in read.err
