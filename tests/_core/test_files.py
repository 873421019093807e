"""Files that are complete or absent: full disks, links, devices, long names, two writers."""

from __future__ import annotations

import gc
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
import torch

from geomkit._core.files import atomic_write, cache_dir, check_target, sole_writer
from geomkit.embeddings import Embeddings, write_embeddings
from geomkit.errors import GeomkitError


@pytest.fixture
def small_files() -> Iterator[None]:
    """A limit on file size: a write fails half way through, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def picture(file: BinaryIO) -> None:
    from PIL import Image

    rows = np.random.default_rng(0).integers(0, 255, (300, 300, 3), dtype=np.uint8)
    Image.fromarray(rows).save(file, format="PNG")


@pytest.mark.parametrize(
    "write",
    [
        lambda file: torch.save({"a": torch.zeros(100_000)}, file),
        lambda file: np.save(file, np.zeros(100_000)),
        picture,
    ],
    ids=["torch", "npy", "png"],
)
def test_a_full_disk_is_said_in_the_words_of_the_system(
    write: Callable[[BinaryIO], None], tmp_path: Path, small_files: None
) -> None:
    path = tmp_path / "a"
    with (
        pytest.raises(GeomkitError, match=r"a: cannot be written \(File too large\); the target"),
        atomic_write(path) as file,
    ):
        write(file)
    assert not list(tmp_path.iterdir())


def test_embeddings_on_a_full_disk(tmp_path: Path, small_files: None) -> None:
    with pytest.raises(GeomkitError, match=r"e.npz: cannot be written \(File too large\)"):
        write_embeddings(tmp_path / "e.npz", Embeddings.of(np.eye(200), np.eye(200)))
    gc.collect()  # nothing is left open: a warning would be an error here
    assert not list(tmp_path.iterdir())


def test_a_link_is_followed_and_keeps_leading_there(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link, real = tmp_path / "link", tmp_path / "real" / "file"
    link.symlink_to(real)
    for content in (b"1", b"2"):
        with atomic_write(link, overwrite=True) as file:
            file.write(content)
        assert link.is_symlink() and real.read_bytes() == content
    with pytest.raises(GeomkitError, match="link: exists already"):
        check_target(link)
    real.chmod(0o600)
    with atomic_write(link, overwrite=True) as file:
        file.write(b"3")
    assert real.stat().st_mode & 0o777 == 0o600
    (tmp_path / "lost").symlink_to(tmp_path / "none" / "file")
    with pytest.raises(GeomkitError, match="none: no such folder"):
        check_target(tmp_path / "lost")


def test_a_device_a_pipe_and_a_link_to_itself_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path in (Path("/dev/null"), tmp_path / "pipe", tmp_path / "loop"):
        with pytest.raises(GeomkitError, match="is a device, a pipe or a link without end"):
            check_target(path, overwrite=True)


@pytest.mark.parametrize("length", [200, 243, 255])
def test_every_name_that_the_system_takes_is_written(length: int, tmp_path: Path) -> None:
    path = tmp_path / ("a" * length)
    with sole_writer(path), atomic_write(path) as file:
        file.write(b"1")
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("name", ["a" * 256, "a\0b"], ids=["long", "nul"])
def test_other_names_are_refused_before_the_work(name: str, tmp_path: Path) -> None:
    with pytest.raises(GeomkitError, match="cannot be written"):
        check_target(tmp_path / name)


def test_what_was_written_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with pytest.raises(GeomkitError, match="exists already"), atomic_write(path) as file:
        path.write_bytes(b"of another process")
        file.write(b"mine")
    assert path.read_bytes() == b"of another process" and len(list(tmp_path.iterdir())) == 1


def test_an_output_has_one_writer_and_its_leftovers_go(tmp_path: Path) -> None:
    out = tmp_path / "a.pt"
    left, foreign = tmp_path / ".a.pt.abcd_123.tmp", tmp_path / ".b.pt.abcd_123.tmp"
    left.touch()
    foreign.touch()
    (tmp_path / "link").symlink_to(out)
    with sole_writer(out):
        assert not left.exists() and foreign.exists()
        for path in (out, tmp_path / "link"):
            with (
                pytest.raises(GeomkitError, match=f"written by process {os.getpid()} on ."),
                sole_writer(path),
            ):
                pass
    with sole_writer(out):  # free again
        pass
    assert sorted(p.name for p in tmp_path.iterdir()) == [foreign.name, "link"]


def test_the_cache_needs_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    for name in ("GEOMKIT_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(GeomkitError, match="set GEOMKIT_CACHE to a folder"):
        cache_dir()
