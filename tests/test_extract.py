"""Extraction: the rows a model gives, in shards that a kill does not change by a byte."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import random
import signal
import socket
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from geomkit import shard_files
from geomkit._parallel import Team
from geomkit.checkpoints import LoadedModel, save_checkpoint
from geomkit.data import PairData, load_data
from geomkit.embeddings import read_embeddings
from geomkit.errors import GeomkitError
from geomkit.extract import encode, extract
from geomkit.models import build, model_config, preprocess_config, tokenize, tokenizer_config
from geomkit.plans import differences
from geomkit.shards import Progress, extract_to

DIM = 6
CONFIG = model_config("nano", dim=DIM)
WORDS = ["ball", "red", "round", "old", "wall", "of", "our", "small", "house", "in", "the", "north"]
BAD = (0, 7, 12, 13, 14, 15, 25)
"""First and last of the data, first of a shard of four, last of one, and all of one."""
ROUNDING = 1e-5
"""Of float32 between batches of other sizes."""
unix = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
CALM = {"rows_per_shard": 4, "batch_size": 3, "workers": 0, "device": "cpu", "precision": "fp32"}


def write_table(folder: Path, count: int, bad: tuple[int, ...] = ()) -> Path:
    """Pictures of noise, one to four captions of 1 to 16 words each; bad ones cut short."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    rows = []
    for k in range(count):
        name = f"{k:02}.png"
        pixels = rng.integers(0, 256, (rng.integers(20, 60), 40, 3), np.uint8)
        Image.fromarray(pixels).save(folder / name)
        if k in bad:
            (folder / name).write_bytes((folder / name).read_bytes()[:99])
        for _ in range(rng.integers(1, 5)):
            rows.append((name, " ".join(rng.choice(WORDS, rng.integers(1, 17)))))
    with (folder / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("filepath", "title"), *rows])
    return folder / "table.csv"


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Models as small as these only wait for each other's threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pictures")
    return {"good": write_table(folder / "good", 22), "bad": write_table(folder / "bad", 26, BAD)}


def table(path: Path, **options: Any) -> PairData:
    spec = ",".join([f"csv:{path}", *(f"{k}={v}" for k, v in options.items())])
    return load_data(spec, split="all", preprocess=preprocess_config(CONFIG))


@pytest.fixture
def good(tables: dict[str, Path]) -> PairData:
    return table(tables["good"])


@pytest.fixture
def bad(tables: dict[str, Path]) -> PairData:
    return table(tables["bad"], max_bad=1)


def fresh(seed: int = 0) -> LoadedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build(CONFIG).eval()
    parts = (CONFIG, preprocess_config(CONFIG), tokenizer_config(CONFIG))
    return LoadedModel(model, "geomkit", "fresh", *parts)


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return fresh()


def tree(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def embed(loaded: LoadedModel, data: PairData, **options: Any) -> Any:
    return extract(loaded.model, data, loaded.preprocess, loaded.tokenizer, **options)


# Rows


def test_captions_by_length_come_back_in_order(good: PairData) -> None:
    loaded = fresh()
    captions = [caption for group in good.captions for caption in group]
    tokens = tokenize(captions, loaded.tokenizer)
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
    loaded: LoadedModel, bad: PairData, workers: int
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


# Shards


@pytest.mark.parametrize("which", ["good", "bad"])
def test_a_folder_holds_what_extract_gives(
    tmp_path: Path, loaded: LoadedModel, tables: dict[str, Path], which: str
) -> None:
    data = table(tables[which], max_bad=1)
    manifest = extract_to(loaded, data, tmp_path / "e", **CALM)
    found, expected = read_embeddings(tmp_path / "e"), embed(loaded, data, workers=0)
    assert found.ids == expected.ids
    np.testing.assert_array_equal(found.image_index, expected.image_index)
    np.testing.assert_allclose(found.image, expected.image, atol=ROUNDING)
    np.testing.assert_allclose(found.text, expected.text, atol=ROUNDING)
    assert json.loads((tmp_path / "e/manifest.json").read_text()) == manifest
    assert (manifest["images"], manifest["texts"]) == (found.n, found.m)
    assert [b["row"] for b in manifest["bad"]] == (list(BAD) if which == "bad" else [])
    assert all("does not decode" in b["reason"] for b in manifest["bad"])
    count = -(-len(data) // 4)
    assert len(manifest["shards"]) == count and len(tree(tmp_path / "e")) == 3 * count + 1
    for name, digest in tree(tmp_path / "e").items():
        if name != "manifest.json":
            (entry,) = [s["files"][name] for s in manifest["shards"] if name in s["files"]]
            assert entry == {"bytes": (tmp_path / "e" / name).stat().st_size, "sha256": digest}


def test_metadata_names_picture_and_caption(
    tmp_path: Path, loaded: LoadedModel, good: PairData
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    extract_to(loaded, good, tmp_path / "e", **CALM)
    held = parquet.read_table(tmp_path / "e/metadata/metadata_0001.parquet").to_pylist()
    expected = [
        {"id": good.ids[k], "image_path": good.ids[k], "caption": caption, "image_index": k - 4}
        for k in range(4, 8)
        for caption in good.captions[k]
    ]
    assert held == expected


def test_half_precision_rounds_and_no_more(
    tmp_path: Path, loaded: LoadedModel, good: PairData
) -> None:
    for dtype in ("float16", "float32"):
        extract_to(loaded, good, tmp_path / dtype, dtype=dtype, **CALM)
    half, full = (
        np.load(tmp_path / dtype / "text_emb/text_emb_0002.npy") for dtype in ("float16", "float32")
    )
    assert half.dtype == np.float16 and full.dtype == np.float32
    np.testing.assert_array_equal(half, full.astype(np.float16))
    manifest = json.loads((tmp_path / "float16/manifest.json").read_text())
    low, high = manifest["norms"]["text"]
    assert 1 - 2**-11 < low < 1 < high < 1 + 2**-11 and high - low > 1e-5


def test_workers_and_who_asks_do_not_matter(
    tmp_path: Path, loaded: LoadedModel, bad: PairData
) -> None:
    extract_to(loaded, bad, tmp_path / "a", **CALM)
    extract_to(loaded, bad, tmp_path / "b", **{**CALM, "workers": 2})
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    extract_to(loaded, bad, tmp_path / "c", **{**CALM, "rows_per_shard": 5})
    c, a = read_embeddings(tmp_path / "c"), read_embeddings(tmp_path / "a")
    np.testing.assert_allclose(c.image, a.image, atol=ROUNDING)
    np.testing.assert_array_equal(c.image_index, a.image_index)


# Killed and resumed


class Cut(Exception):
    """Stands for a kill that leaves no time to clean up."""


def cut_at(moment: int, patch: pytest.MonkeyPatch) -> None:
    """Stop in the middle of the n-th write, leaving what a kill leaves."""
    real, calls = shard_files.atomic_write, iter(range(1000))

    def write(path: Path, **options: Any) -> Any:
        if next(calls) == moment:
            path.with_name(f".{path.name}.abc123.tmp").write_bytes(b"half")
            raise Cut
        return real(path, **options)

    patch.setattr(shard_files, "atomic_write", write)


@pytest.mark.parametrize("moment", range(11))
def test_cut_in_any_write_and_resumed_equals_uncut(
    tmp_path: Path, loaded: LoadedModel, bad: PairData, moment: int, whole: dict[str, str]
) -> None:
    data = bad.take(np.arange(9))
    with pytest.MonkeyPatch.context() as patch:
        cut_at(moment, patch)
        with pytest.raises(Cut):
            extract_to(loaded, data, tmp_path / "e", **CALM, resume=True)
    if moment:
        with pytest.raises(GeomkitError, match="not finished; geomkit extract --resume"):
            read_embeddings(tmp_path / "e")
    seen: list[Progress] = []
    extract_to(loaded, data, tmp_path / "e", **CALM, resume=True, watch=seen.append)
    assert tree(tmp_path / "e") == whole
    # The plan comes first, then three files for each of three shards, then the manifest.
    assert seen[0].found == max(0, moment - 1) // 3


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory, loaded: LoadedModel, tables: dict[str, Path]
) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("whole") / "e"
    data = table(tables["bad"], max_bad=1).take(np.arange(9))
    extract_to(loaded, data, folder, **CALM)
    return tree(folder)


def forked(work: Callable[[], None]) -> int:
    """A copy of this process, with all it has imported, that does some work and ends."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # one thread is all that is needed
        pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return pid


def killed(pid: int) -> bool:
    status = os.waitpid(pid, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, status
    return os.WIFSIGNALED(status)


@pytest.fixture
def some(bad: PairData) -> PairData:
    return bad.take(np.arange(16))


@unix
def test_killed_in_the_middle_of_writes_and_resumed_equals_unkilled(
    tmp_path: Path, loaded: LoadedModel, some: PairData
) -> None:
    seeded, deaths, halves = random.Random(0), 0, 0

    def run() -> None:
        real, calls = os.fsync, iter(range(1000))

        def fsync(file: int) -> None:
            if next(calls) == moment:
                os.kill(os.getpid(), signal.SIGKILL)
            real(file)

        os.fsync = fsync
        extract_to(loaded, some, tmp_path / "e", **CALM, resume=True)

    moment = 0
    while killed(forked(run)):
        deaths, moment = deaths + 1, seeded.randint(2, 12)
        halves += any(path.suffix == ".tmp" for path in (tmp_path / "e").rglob("*"))
    assert deaths >= 3 and halves >= 2
    extract_to(loaded, some, tmp_path / "whole", **CALM)
    assert tree(tmp_path / "e") == tree(tmp_path / "whole")


@unix
def test_killed_at_any_moment_while_workers_decode(
    tmp_path: Path, loaded: LoadedModel, some: PairData
) -> None:
    options = {**CALM, "workers": 2, "resume": True}
    for moment in np.random.default_rng(0).uniform(0.02, 0.5, 5):
        pid = forked(lambda: (extract_to(loaded, some, tmp_path / "e", **options), None)[1])
        time.sleep(moment)
        os.kill(pid, signal.SIGKILL)
        killed(pid)
    extract_to(loaded, some, tmp_path / "e", **options)
    extract_to(loaded, some, tmp_path / "whole", **CALM)
    assert tree(tmp_path / "e") == tree(tmp_path / "whole")


@unix
def test_two_ranks_write_what_one_process_writes(
    tmp_path: Path, loaded: LoadedModel, some: PairData
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])

    def rank(number: int) -> None:
        os.environ |= {"RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": "2"}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        team, seen = Team.from_environment(), []
        options: dict[str, Any] = {**CALM, "team": team, "watch": seen.append}
        manifest = extract_to(loaded, some, tmp_path / "e", **options)
        assert (manifest["images"], len(manifest["bad"])) == (10, 6)
        assert [p.shard for p in seen if p.kind == "shard"] == [number, number + 2]
        with pytest.raises(GeomkitError, match="exists already"):  # on both, and neither waits
            extract_to(loaded, some, tmp_path / "e", **options)
        team.close()

    ranks = [forked(partial(rank, number)) for number in range(2)]
    assert [killed(pid) for pid in ranks] == [False, False]
    extract_to(loaded, some, tmp_path / "whole", **CALM)
    assert tree(tmp_path / "e") == tree(tmp_path / "whole")


# What is there already


def test_a_finished_folder_is_left_alone_or_mended_or_made_anew(
    tmp_path: Path, loaded: LoadedModel, some: PairData
) -> None:
    out = tmp_path / "e"
    extract_to(loaded, some, out, **CALM)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    contents = tree(out)
    seen: list[Progress] = []
    extract_to(loaded, some, out, **CALM, resume=True, watch=seen.append)
    assert [p.kind for p in seen] == ["end"] and seen[0].plan is None
    assert {path: path.stat().st_mtime_ns for path in before} == before

    (out / "img_emb/img_emb_0002.npy").unlink()
    (out / "text_emb/text_emb_0000.npy").write_bytes(b"short")
    with pytest.raises(GeomkitError, match=r"text_emb_0000.npy: 5 bytes, but manifest.json says"):
        read_embeddings(out)
    extract_to(loaded, some, out, **CALM, resume=True, watch=seen.append)
    assert [p.shard for p in seen if p.kind == "shard"] == [0, 2]
    assert tree(out) == contents

    (out / "notes.txt").write_text("mine")
    extract_to(loaded, some, out, **{**CALM, "rows_per_shard": 9}, overwrite=True)
    assert (out / "notes.txt").read_text() == "mine" and len(tree(out)) == 3 * 2 + 2
    assert read_embeddings(out).n == 10


def test_another_name_for_the_same_data_is_no_other_configuration(
    tmp_path: Path, loaded: LoadedModel, some: PairData
) -> None:
    strict = replace(some, max_bad=0.2, spec="csv:strict")
    with pytest.raises(GeomkitError, match=r"6 of 16 pictures, more than the share of 0.2"):
        extract_to(loaded, strict, tmp_path / "e", **CALM)
    seen: list[Progress] = []
    extract_to(loaded, some, tmp_path / "e", **CALM, resume=True, watch=seen.append)
    assert seen[0].found == 4  # what was encoded before the refusal is not lost
    extract_to(loaded, some, tmp_path / "whole", **CALM)
    assert tree(tmp_path / "e") == tree(tmp_path / "whole")


def test_another_configuration_is_refused_with_the_difference(
    tmp_path: Path, loaded: LoadedModel, some: PairData
) -> None:
    out = tmp_path / "e"
    extract_to(loaded, some, out, **CALM)
    contents = tree(out)
    for changes, says in (
        ({"dtype": "float16"}, "dtype: float32 → float16"),
        ({"batch_size": 5}, "batch_size: 3 → 5"),
        ({"rows_per_shard": 8}, "rows_per_shard: 4 → 8"),
        ({"precision": "bf16"}, "precision: fp32 → bf16"),
    ):
        with pytest.raises(GeomkitError, match=says) as refusal:
            extract_to(loaded, some, out, **{**CALM, **changes}, resume=True)
        assert "\n" not in str(refusal.value)
    with pytest.raises(GeomkitError, match="weights_sha256: "):
        extract_to(fresh(seed=1), some, out, **CALM, resume=True)
    with pytest.raises(GeomkitError, match=r"data.count: 16 → 15; data.sha256: "):
        extract_to(loaded, some.take(np.arange(15)), out, **CALM, resume=True)
    with pytest.raises(GeomkitError, match="exists already; give --resume to go on"):
        extract_to(loaded, some, out, **CALM)
    assert tree(out) == contents
    assert len(differences({}, {str(k): k for k in range(9)})) == 4
    # The precision of the first run is kept, as long as no other is asked for.
    extract_to(loaded, some, tmp_path / "f", **{**CALM, "precision": "bf16"})
    extract_to(loaded, some, tmp_path / "f", **{**CALM, "precision": "auto"}, resume=True)


def test_what_is_not_ours_is_neither_written_over_nor_removed(
    tmp_path: Path, loaded: LoadedModel, some: PairData
) -> None:
    theirs = tmp_path / "theirs"
    (theirs / "img_emb").mkdir(parents=True)
    np.save(theirs / "img_emb/img_emb_0.npy", np.eye(3))
    (tmp_path / "file").write_text("")
    for out, says in (
        (theirs, r"holds files that are no extraction of geomkit's \(img_emb/img_emb_0.npy\)"),
        (tmp_path / "file", "is a file; name a folder"),
        (tmp_path / "none" / "e", "none: no such folder; make it first"),
    ):
        for options in ({}, {"resume": True}, {"overwrite": True}):
            with pytest.raises(GeomkitError, match=says):
                extract_to(loaded, some, out, **CALM, **options)
    assert list(tree(theirs)) == ["img_emb/img_emb_0.npy"]
    out = tmp_path / "e"
    extract_to(loaded, some, out, **CALM)
    np.save(out / "img_emb/more.npy", np.eye(3))
    with pytest.raises(GeomkitError, match=r"more.npy: none of an extraction's files"):
        extract_to(loaded, some, out, **CALM, overwrite=True)
    assert (out / "manifest.json").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"rows_per_shard": 0}, "shard rows: expected 1 or more, got 0"),
        ({"batch_size": 0}, "batch size: expected 1 or more, got 0"),
        ({"workers": -1}, "workers: expected 0 or more, got -1"),
        ({"dtype": "float61"}, "unknown dtype 'float61'; did you mean 'float16'"),
        ({"precision": "bf61"}, "unknown precision 'bf61'; did you mean 'bf16'"),
        ({"device": "cdu"}, "unknown device 'cdu'"),
        ({"resume": True, "overwrite": True}, "exclude each other"),
    ],
)
def test_options_out_of_range_are_refused(
    tmp_path: Path, loaded: LoadedModel, some: PairData, options: dict, says: str
) -> None:
    with pytest.raises(GeomkitError, match=says):
        extract_to(loaded, some, tmp_path / "e", **{**CALM, **options})
    assert not (tmp_path / "e").exists()


def test_a_model_that_gives_nan_is_refused(tmp_path: Path, some: PairData) -> None:
    loaded = fresh()
    with torch.no_grad():
        loaded.model.clip.token_embedding.weight[tokenize(["ball"], loaded.tokenizer)[0, 1]] *= 1e38
        loaded.model.clip.token_embedding.weight[tokenize(["ball"], loaded.tokenizer)[0, 1]] *= 1e38
    with pytest.raises(GeomkitError, match=r"no finite row .* for the text of \d\d.png \("):
        extract_to(loaded, some, tmp_path / "e", **CALM)
    with torch.no_grad():
        loaded.model.clip.visual.proj.zero_()
    with pytest.raises(GeomkitError, match=r"no finite row .* for the image of 01.png \(3 such"):
        extract_to(loaded, some, tmp_path / "f", **CALM)


# The reader


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("missing", r"metadata_0001.parquet: missing, though manifest.json lists it"),
        ("counts", r"img_emb_0000.npy: 3 images and .* but manifest.json says 4 and"),
        ("extra", r"img_emb_0009.npy: not in manifest.json; move it elsewhere"),
        ("newer", r"schema version 9, this geomkit reads up to 1; upgrade"),
        ("damaged", r"manifest.json: damaged; extract again"),
        ("plan", r"an extraction that is not finished; geomkit extract --resume"),
    ],
)
def test_folders_that_are_not_what_they_say(
    tmp_path: Path, loaded: LoadedModel, some: PairData, what: str, says: str
) -> None:
    out = tmp_path / "e"
    manifest = extract_to(loaded, some, out, **CALM)
    if what == "missing":
        (out / "metadata/metadata_0001.parquet").unlink()
    elif what == "counts":
        manifest["shards"][0]["images"] = 4
    elif what == "extra":
        np.save(out / "img_emb/img_emb_0009.npy", np.eye(DIM))
    elif what == "newer":
        manifest["schema_version"] = 9
    elif what == "damaged":
        del manifest["shards"][0]["files"]
    (out / "manifest.json").write_text(json.dumps(manifest))
    if what == "plan":
        (out / "manifest.json").rename(out / "plan.json")
    with pytest.raises(GeomkitError, match=says) as refusal:
        read_embeddings(out)
    assert "\n" not in str(refusal.value)


# The command


@pytest.fixture(scope="module")
def checkpoint(
    tmp_path_factory: pytest.TempPathFactory, loaded: LoadedModel, tables: dict[str, Path]
) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "c.pt"
    empty = ("optimizer", "epoch", "rng", "history", "snapshots", "versions")
    save_checkpoint(
        path,
        {
            **dict.fromkeys(empty),
            "state_dict": loaded.model.clip.state_dict(),
            "model_config": loaded.model_config,
            "preprocess": loaded.preprocess,
            "tokenizer": loaded.tokenizer,
            "step": 0,
            "loss": "clip",
            "config": {"precision": "fp32"},
            "data": {"spec": f"csv:{tables['good']}", "n": None, "split": "val"},
        },
    )
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
    assert "26 pictures of 'csv:" in lines[0] and "in 2 shards; float32, computed in" in lines[0]
    assert lines[1].startswith("shard 0 of 0–1: 14 images, ") and ", 6 bad  " in lines[1]
    assert "left out, with their captions: 00.png, which does not decode" in first.err
    assert "and 6 more; manifest.json lists them" in first.err
    again = cli(*words, "--max-bad", 0.5, "--resume")
    assert again.status == 0 and "already finished; nothing to do" in again.err
    assert cli("--quiet", *words, "--max-bad", 0.6, "--overwrite").err == ""


def test_the_command_takes_the_data_of_the_checkpoint(cli, checkpoint: Path) -> None:
    made = cli("extract", checkpoint, "--out", "e", "--workers", 0)
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
