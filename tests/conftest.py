"""Shared fixtures: a cache of its own, clouds of unit rows, the command line in process."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

# The tests are the same on every machine; tests/test_on_cuda.py is for those with a GPU.
if os.environ.get("GEOMKIT_CUDA") != "1":
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
# UMAP compiles for twenty seconds what then runs for one; without, the same code runs for three.
os.environ["NUMBA_DISABLE_JIT"] = "1"


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Images are drawn once per test run, away from the user's cache."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cache"
    before = os.environ.get("GEOMKIT_CACHE")
    os.environ["GEOMKIT_CACHE"] = str(folder)
    yield folder
    if before is None:
        del os.environ["GEOMKIT_CACHE"]
    else:
        os.environ["GEOMKIT_CACHE"] = before


@pytest.fixture
def trained_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A training that starts anew ends with the checkpoint of its first time in this test run."""
    import geomkit.training.loop as loop
    from geomkit.models.checkpoints import load_run

    train = loop.train

    def once(config: Any, out: Path, **how: Any) -> Any:
        kept = cache / "trained" / hashlib.sha256(repr(config).encode()).hexdigest()
        if out.exists():
            return train(config, out, **how)
        if not kept.exists():
            run = train(config, out, **how)
            kept.parent.mkdir(exist_ok=True)
            shutil.copy(out, own := kept.with_suffix(f".{os.getpid()}"))
            own.rename(kept)  # another worker may be doing the same
            return run
        shutil.copy(kept, out)
        run = load_run(out)
        how["watch"](loop.Event("end", run.step, config, "cpu", {}))
        return run

    monkeypatch.setattr(loop, "train", once)


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def clouds(n: int = 40, d: int = 8, *, shift: float = 0.5, seed: int = 0) -> tuple:
    """Paired unit rows of two clouds, ``shift`` apart before normalisation."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d))
    y = 0.7 * x + 0.5 * rng.standard_normal((n, d))
    x[:, 0] += shift
    y[:, 0] -= shift
    return unit(x), unit(y)


@dataclass(frozen=True)
class Outcome:
    status: int
    out: str
    err: str


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Run the command line in this process, in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def call(*words: object) -> Outcome:
        from geomkit_cli.app import run

        capsys.readouterr()
        status = run([str(word) for word in words])
        captured = capsys.readouterr()
        return Outcome(status, captured.out, captured.err)

    return call


@pytest.fixture
def refused(cli: Callable[..., Outcome]):
    """Run a command that has to be refused: status 2, one line, no traceback."""

    def call(*words: object, says: tuple[str, ...]) -> str:
        outcome = cli(*words)
        assert outcome.status == 2, outcome
        lines = [line for line in outcome.err.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("geomkit: ")]
        assert len(errors) == 1 and lines[-1] == errors[0], outcome.err
        assert "Traceback" not in outcome.err and "unexpected" not in outcome.err
        for word in says:
            assert word in errors[0], (word, errors[0])
        return errors[0]

    return call


@pytest.fixture(autouse=True)
def small_figures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures of reports are drawn small: what they show is tested, not how finely."""
    if request.path.parent.name == "reproduce":
        monkeypatch.setattr("geomkit.reproduce.framework.report.DPI", 30)
