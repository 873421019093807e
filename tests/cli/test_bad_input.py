"""Malformed inputs, generated and seeded: one-line errors, exit status 2, no traceback."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import clouds

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

COUNT = int(os.environ.get("GEOMKIT_EXAMPLES", "150"))


def write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """A well-formed file of some arrays, in the format of its suffix."""
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    elif path.suffix == ".npy":
        np.save(path, np.stack([arrays["image"], arrays["text"]]))
    elif path.suffix == ".safetensors":
        from safetensors.numpy import save_file

        save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, path)
    elif path.suffix == ".pt":
        torch.save({k: torch.from_numpy(np.array(v)) for k, v in arrays.items()}, path)
    else:
        pq.write_table(pa.table({k: list(v) for k, v in arrays.items()}), path)


def good(rng: np.random.Generator) -> dict[str, np.ndarray]:
    x, y = clouds(int(rng.integers(3, 40)), int(rng.integers(2, 20)), seed=int(rng.integers(1e6)))
    dtype = rng.choice([np.float32, np.float64])
    return {"image": x.astype(dtype), "text": y.astype(dtype)}


def side(rng: np.random.Generator) -> str:
    return str(rng.choice(["image", "text"]))


# Each takes the arrays of a good file and spoils them.


def nan(a: dict, rng: np.random.Generator) -> None:
    rows = a[side(rng)]
    rows[rng.integers(len(rows)), rng.integers(rows.shape[1])] = rng.choice(
        [np.nan, np.inf, -np.inf]
    )


def zero_row(a: dict, rng: np.random.Generator) -> None:
    rows = a[side(rng)]
    rows[rng.integers(len(rows))] = 0


def integers(a: dict, rng: np.random.Generator) -> None:
    kind = rng.choice([np.int32, np.int64, np.uint16])
    for key in a:
        a[key] = (100 * np.abs(a[key])).astype(kind)


def fewer(a: dict, rng: np.random.Generator) -> None:
    a["image_index"] = np.arange(len(a["image"]))
    key = side(rng)
    a[key] = a[key][: rng.integers(1, len(a[key]))]


def one_row(a: dict, rng: np.random.Generator) -> None:
    count = rng.integers(0, 2)
    for key in a:
        a[key] = a[key][:count]


def vector(a: dict, rng: np.random.Generator) -> None:
    key = side(rng)
    a[key] = a[key].ravel()


def cube(a: dict, rng: np.random.Generator) -> None:
    key = side(rng)
    a[key] = a[key][:, :, None]


def renamed(a: dict, rng: np.random.Generator) -> None:
    a[str(rng.choice(["left", "emb", "x", "labels"]))] = a.pop(side(rng))


def bad_index(a: dict, rng: np.random.Generator) -> None:
    n = len(a["image"])
    index = np.arange(n)
    kind = rng.integers(4)
    if kind == 0:
        index[rng.integers(n)] = n + rng.integers(5)
    elif kind == 1:
        index[rng.integers(n)] = -1 - rng.integers(5)
    elif kind == 2:
        index[rng.integers(1, n)] = 0  # somebody is left without a text
    else:
        index = index[:-1]
    a["image_index"] = index


def real_index(a: dict, rng: np.random.Generator) -> None:
    a["image_index"] = np.arange(len(a["image"])) + 0.5


# Each takes a good file's bytes and breaks them.


def cut(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: int(rng.integers(0, int(0.95 * len(data))))]


def noise(data: bytes, rng: np.random.Generator) -> bytes:
    return rng.bytes(len(data))


def blank(data: bytes, rng: np.random.Generator) -> bytes:
    return bytes(len(data))


def scrambled_head(data: bytes, rng: np.random.Generator) -> bytes:
    return rng.bytes(24) + data[24:]


EVERYWHERE = [".npz", ".npy", ".safetensors", ".pt", ".parquet"]
NAMED = [".npz", ".safetensors", ".pt"]
SPOILS: list[tuple[Callable, list[str]]] = [
    (nan, EVERYWHERE),
    (zero_row, EVERYWHERE),
    (integers, [".npz", ".npy", ".pt"]),
    (one_row, EVERYWHERE),
    (fewer, NAMED),
    (vector, NAMED),
    (cube, NAMED),
    (renamed, NAMED),
    (bad_index, NAMED),
    (real_index, NAMED),
]
BREAKS: list[Callable] = [cut, noise, blank, scrambled_head]


def malformed(seed: int, folder: Path) -> Path:
    rng = np.random.default_rng(seed)
    arrays = good(rng)
    if rng.random() < 0.6:
        spoil, suffixes = SPOILS[rng.integers(len(SPOILS))]
        path = folder / f"{seed}{rng.choice(suffixes)}"
        spoil(arrays, rng)
        write(path, arrays)
    else:
        path = folder / f"{seed}{rng.choice(EVERYWHERE)}"
        write(path, arrays)
        broken = BREAKS[rng.integers(len(BREAKS))](path.read_bytes(), rng)
        path.write_bytes(broken)
    return path


def test_malformed_files(cli, tmp_path: Path) -> None:
    for seed in range(COUNT):
        path = malformed(seed, tmp_path)
        outcome = cli("gap", path.name)
        lines = outcome.err.splitlines()
        assert outcome.status == 2, (path.name, outcome)
        assert len(lines) == 1 and lines[0].startswith("geomkit: "), (path.name, outcome.err)
        assert path.name in lines[0], (path.name, lines[0])
        assert "unexpected" not in lines[0] and "Traceback" not in lines[0], lines[0]
        assert outcome.out == ""
        path.unlink()


@pytest.mark.parametrize("ranks", [{"WORLD_SIZE": "y"}, {"WORLD_SIZE": "2", "RANK": "0"}])
def test_half_of_an_environment_of_ranks_is_refused(
    refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ranks: dict[str, str]
) -> None:
    np.savez(tmp_path / "e.npz", image=np.eye(4), text=np.eye(4))
    for name in ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ranks.items():
        monkeypatch.setenv(name, value)
    refused("gap", "e.npz", says=("WORLD_SIZE", "torchrun"))


def test_words_that_are_wrong_on_all_ranks_are_refused_by_one(
    cli, refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "0")
    refused("train", "--los", "cua", says=("No such option: --los",))
    monkeypatch.setenv("LOCAL_RANK", "1")
    outcome = cli("train", "--los", "cua")
    assert (outcome.status, outcome.out, outcome.err) == (2, "", "")


@pytest.mark.parametrize("command", ["zeroshot", "probe", "arithmetic", "plot-gap", "plot-pca"])
def test_commands_that_share_no_work_are_refused_on_several_ranks(
    cli, refused, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    words = [command, "c.pt", *(("--data", "openmoji") if command in ("zeroshot", "probe") else ())]
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    refused(*words, says=(f"{command}: runs in one process", "torchrun"))
    monkeypatch.setenv("RANK", "1")  # the first one has said it
    outcome = cli(*words)
    assert (outcome.status, outcome.out, outcome.err) == (0, "", "")
