"""Shards: killed, resumed or shared by ranks they come out the same; nothing else is touched."""

from __future__ import annotations

import errno
import json
import os
import random
import re
import signal
import sys
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
from extraction_samples import CALM, DIM, fresh, single_thread, table, tree, write_tables
from processes import free_port, of_rank

from geomkit._core.parallel import Team
from geomkit.data import PairData
from geomkit.embeddings.embeddings import read_embeddings
from geomkit.errors import GeomkitError
from geomkit.extraction import Progress, extract
from geomkit.extraction import store as shard_files
from geomkit.extraction.store import differences
from geomkit.models.checkpoints import Checkpoint

unix = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")


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
def some(tables: dict[str, Path]) -> PairData:
    return table(tables["bad"], max_bad=1).take(np.arange(16))


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


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory, loaded: Checkpoint, tables: dict[str, Path]
) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("whole") / "e"
    data = table(tables["bad"], max_bad=1).take(np.arange(9))
    extract(loaded, data, folder, **CALM)
    return tree(folder)


@pytest.mark.parametrize("moment", range(11))
def test_cut_in_any_write_and_resumed_equals_uncut(
    tmp_path: Path, loaded: Checkpoint, some: PairData, moment: int, whole: dict[str, str]
) -> None:
    data = some.take(np.arange(9))
    with pytest.MonkeyPatch.context() as patch:
        cut_at(moment, patch)
        with pytest.raises(Cut):
            extract(loaded, data, tmp_path / "e", **CALM, resume=True)
    if moment:
        with pytest.raises(GeomkitError, match="not finished; geomkit extract --resume"):
            read_embeddings(tmp_path / "e")
    seen: list[Progress] = []
    extract(loaded, data, tmp_path / "e", **CALM, resume=True, watch=seen.append)
    assert tree(tmp_path / "e") == whole
    # The plan comes first, then three files for each of three shards, then the manifest.
    assert seen[0].found == max(0, moment - 1) // 3


def forked(work: Callable[[], None]) -> int:
    """A copy of this process, with all it has imported, that does some work and ends."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # one thread is all that is needed
        pid = os.fork()
    if pid == 0:
        signal.alarm(120)
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return pid


def killed(pid: int) -> bool:
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, -signal.SIGKILL), code
    return code != 0


@unix
def test_killed_in_the_middle_of_writes_and_resumed_equals_unkilled(
    tmp_path: Path, loaded: Checkpoint, some: PairData
) -> None:
    seeded, deaths, halves = random.Random(0), 0, 0

    def run() -> None:
        real, calls = os.fsync, iter(range(1000))

        def fsync(file: int) -> None:
            if next(calls) == moment:
                os.kill(os.getpid(), signal.SIGKILL)
            real(file)

        os.fsync = fsync
        extract(loaded, some, tmp_path / "e", **CALM, resume=True)

    moment = 0
    while killed(forked(run)):
        deaths, moment = deaths + 1, seeded.randint(2, 12)
        halves += any(path.suffix == ".tmp" for path in (tmp_path / "e").rglob("*"))
    assert deaths >= 3 and halves >= 2
    extract(loaded, some, tmp_path / "whole", **CALM)
    assert tree(tmp_path / "e") == tree(tmp_path / "whole")


@unix
def test_killed_at_any_moment_while_workers_decode(
    tmp_path: Path, loaded: Checkpoint, some: PairData
) -> None:
    options = {**CALM, "workers": 2, "resume": True}
    for moment in np.random.default_rng(0).uniform(0.02, 0.5, 5):
        pid = forked(lambda: (extract(loaded, some, tmp_path / "e", **options), None)[1])
        time.sleep(moment)
        os.kill(pid, signal.SIGKILL)
        killed(pid)
    extract(loaded, some, tmp_path / "e", **options)
    extract(loaded, some, tmp_path / "whole", **CALM)
    assert tree(tmp_path / "e") == tree(tmp_path / "whole")


@unix
def test_two_ranks_write_what_one_process_writes(
    tmp_path: Path, loaded: Checkpoint, some: PairData
) -> None:
    port = free_port()

    def rank(number: int) -> None:
        os.environ |= of_rank(number, 2, port)
        team, seen = Team.from_environment(), []
        options: dict[str, Any] = {**CALM, "team": team, "watch": seen.append}
        manifest = extract(loaded, some, tmp_path / "e", **options)
        assert (manifest.images, len(manifest.bad)) == (10, 6)
        assert [p.shard for p in seen if p.kind == "shard"] == [number, number + 2]
        with pytest.raises(GeomkitError, match="exists already"):  # on both, and neither waits
            extract(loaded, some, tmp_path / "e", **options)
        with pytest.raises(GeomkitError, match="rank 1: has another number of images than rank 0"):
            extract(loaded, some.take(np.arange(16 - number)), tmp_path / "other", **options)
        (tmp_path / f"disk{number}").mkdir()
        os.chdir(tmp_path / f"disk{number}")
        with pytest.raises(GeomkitError, match=r"rank 1: has another folder 'e' .*\(none, not"):
            extract(loaded, some, "e", **options)
        team.close()

    ranks = [forked(partial(rank, number)) for number in range(2)]
    assert [killed(pid) for pid in ranks] == [False, False]
    extract(loaded, some, tmp_path / "whole", **CALM)
    assert tree(tmp_path / "e") == tree(tmp_path / "whole")


@unix
def test_a_full_disk_of_one_rank_ends_all_with_one_line(
    tmp_path: Path, loaded: Checkpoint, some: PairData
) -> None:
    port = free_port()

    def rank(number: int) -> None:
        from geomkit_cli.ranks import joined

        def fsync(file: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        os.environ |= of_rank(number, 2, port)
        sys.stderr = (tmp_path / f"said{number}").open("w")
        os.fsync = fsync if number else os.fsync
        with joined("cpu") as team:
            extract(loaded, some, tmp_path / "e", **CALM, team=team)

    ranks = [forked(partial(rank, number)) for number in range(2)]
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in ranks] == [2, 2]
    (line,) = "".join((tmp_path / f"said{k}").read_text() for k in range(2)).splitlines()
    assert re.search(r"geomkit: rank 1: .*e/img_emb/\S+: cannot be written \(No space left", line)
    extract(loaded, some, tmp_path / "e", **CALM, resume=True)
    extract(loaded, some, tmp_path / "whole", **CALM)
    assert tree(tmp_path / "e") == tree(tmp_path / "whole")


# What is there already


def test_a_finished_folder_is_left_alone_or_mended_or_made_anew(
    tmp_path: Path, loaded: Checkpoint, some: PairData
) -> None:
    out = tmp_path / "e"
    extract(loaded, some, out, **CALM)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    contents = tree(out)
    seen: list[Progress] = []
    extract(loaded, some, out, **CALM, resume=True, watch=seen.append)
    assert [p.kind for p in seen] == ["end"] and seen[0].plan is None
    assert {path: path.stat().st_mtime_ns for path in before} == before

    (out / "img_emb/img_emb_0002.npy").unlink()
    (out / "text_emb/text_emb_0000.npy").write_bytes(b"short")
    with pytest.raises(GeomkitError, match=r"text_emb_0000.npy: 5 bytes, but manifest.json says"):
        read_embeddings(out)
    extract(loaded, some, out, **CALM, resume=True, watch=seen.append)
    assert [p.shard for p in seen if p.kind == "shard"] == [0, 2]
    assert tree(out) == contents

    (out / "notes.txt").write_text("mine")
    extract(loaded, some, out, **{**CALM, "rows_per_shard": 9}, overwrite=True)
    assert (out / "notes.txt").read_text() == "mine" and len(tree(out)) == 3 * 2 + 2
    assert read_embeddings(out).n == 10


def test_another_name_for_the_same_data_is_no_other_configuration(
    tmp_path: Path, loaded: Checkpoint, some: PairData
) -> None:
    strict = replace(some, max_bad=0.2, spec="csv:strict")
    with pytest.raises(GeomkitError, match=r"6 of 16 images, more than the share of 0.2"):
        extract(loaded, strict, tmp_path / "e", **CALM)
    seen: list[Progress] = []
    extract(loaded, some, tmp_path / "e", **CALM, resume=True, watch=seen.append)
    assert seen[0].found == 4  # what was encoded before the refusal is not lost
    extract(loaded, some, tmp_path / "whole", **CALM)
    assert tree(tmp_path / "e") == tree(tmp_path / "whole")


def test_another_configuration_is_refused_with_the_difference(
    tmp_path: Path, loaded: Checkpoint, some: PairData
) -> None:
    out = tmp_path / "e"
    extract(loaded, some, out, **CALM)
    contents = tree(out)
    for changes, says in (
        ({"dtype": "float16"}, "dtype: float32 → float16"),
        ({"batch_size": 5}, "batch_size: 3 → 5"),
        ({"rows_per_shard": 8}, "rows_per_shard: 4 → 8"),
        ({"precision": "bf16"}, "precision: fp32 → bf16"),
    ):
        with pytest.raises(GeomkitError, match=says) as refusal:
            extract(loaded, some, out, **{**CALM, **changes}, resume=True)
        assert "\n" not in str(refusal.value)
    with pytest.raises(GeomkitError, match="weights_sha256: "):
        extract(fresh(seed=1), some, out, **CALM, resume=True)
    with pytest.raises(GeomkitError, match=r"data.count: 16 → 15; data.sha256: "):
        extract(loaded, some.take(np.arange(15)), out, **CALM, resume=True)
    with pytest.raises(GeomkitError, match="exists already; give --resume to continue"):
        extract(loaded, some, out, **CALM)
    assert tree(out) == contents
    assert len(differences({}, {str(k): k for k in range(9)})) == 4
    # The precision of the first run is kept, as long as no other is asked for.
    extract(loaded, some, tmp_path / "f", **{**CALM, "precision": "bf16"})
    extract(loaded, some, tmp_path / "f", **{**CALM, "precision": "auto"}, resume=True)


def test_what_is_not_ours_is_neither_written_over_nor_removed(
    tmp_path: Path, loaded: Checkpoint, some: PairData
) -> None:
    theirs = tmp_path / "theirs"
    (theirs / "img_emb").mkdir(parents=True)
    np.save(theirs / "img_emb/img_emb_0.npy", np.eye(3))
    (tmp_path / "file").write_text("")
    for out, says in (
        (theirs, r"holds files that are no extraction of geomkit \(img_emb/img_emb_0.npy\)"),
        (tmp_path / "file", "is a file; name a folder"),
        (tmp_path / "none" / "e", "none: no such folder; make it first"),
    ):
        for options in ({}, {"resume": True}, {"overwrite": True}):
            with pytest.raises(GeomkitError, match=says):
                extract(loaded, some, out, **CALM, **options)
    assert list(tree(theirs)) == ["img_emb/img_emb_0.npy"]
    out = tmp_path / "e"
    extract(loaded, some, out, **CALM)
    np.save(out / "img_emb/more.npy", np.eye(3))
    with pytest.raises(GeomkitError, match=r"more.npy: not a file of this extraction"):
        extract(loaded, some, out, **CALM, overwrite=True)
    assert (out / "manifest.json").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"rows_per_shard": 0}, "shard rows: expected 1 to 2,147,483,647, got 0"),
        ({"batch_size": 2**63}, "batch size: expected 1 to 2,147"),
        ({"batch_size": 0}, "batch size: expected 1 to 2,147,483,647, got 0"),
        ({"workers": -1}, "workers: expected 0 to 2,147,483,647, got -1"),
        ({"dtype": "float61"}, "unknown dtype 'float61'; did you mean 'float16'"),
        ({"precision": "bf61"}, "unknown precision 'bf61'; did you mean 'bf16'"),
        ({"device": "cdu"}, "unknown device 'cdu'"),
        ({"resume": True, "overwrite": True}, "exclude each other"),
    ],
)
def test_options_out_of_range_are_refused(
    tmp_path: Path, loaded: Checkpoint, some: PairData, options: dict, says: str
) -> None:
    with pytest.raises(GeomkitError, match=says):
        extract(loaded, some, tmp_path / "e", **{**CALM, **options})
    assert not (tmp_path / "e").exists()


def test_a_model_that_gives_nan_is_refused(tmp_path: Path, some: PairData) -> None:
    loaded = fresh()
    with torch.no_grad():
        loaded.model.clip.token_embedding.weight[loaded.tokenizer.encode(["ball"])[0, 1]] *= 1e38
        loaded.model.clip.token_embedding.weight[loaded.tokenizer.encode(["ball"])[0, 1]] *= 1e38
    with pytest.raises(GeomkitError, match=r"no finite row .* for the text of \d\d.png \("):
        extract(loaded, some, tmp_path / "e", **CALM)
    with torch.no_grad():
        loaded.model.clip.visual.proj.zero_()
    with pytest.raises(GeomkitError, match=r"no finite row .* for the image of 01.png \(3 such"):
        extract(loaded, some, tmp_path / "f", **CALM)


# The reader


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("missing", r"metadata_0001.parquet: missing, though manifest.json lists it"),
        ("counts", r"shard 0: 3 images and .* but manifest.json says 4 and"),
        ("extra", r"img_emb_0009.npy: not in manifest.json; move it elsewhere"),
        ("newer", r"schema version 9, this geomkit reads up to 1; upgrade"),
        ("damaged", r"manifest.json: damaged; extract again"),
        ("plan", r"an extraction that is not finished; geomkit extract --resume"),
    ],
)
def test_folders_that_are_not_what_they_say(
    tmp_path: Path, loaded: Checkpoint, some: PairData, what: str, says: str
) -> None:
    out = tmp_path / "e"
    manifest = extract(loaded, some, out, **CALM).to_json()
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
