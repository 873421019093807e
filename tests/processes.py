"""Processes that share one import of torch and open_clip: ranks, commands, torchrun."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["open_clip", "geomkit.training.loop"])


def run_ranks(function: Callable[..., None], ranks: int, folder: Path, *args: Any) -> None:
    """Call ``function(team, *args)`` in ``folder`` on every rank, as torchrun would start it.

    Args:
        function: Function at the top of a test module.
        ranks: Number of processes.
        folder: Working directory of each.
        args: Further arguments, pickled.
    """
    port, errors = free_port(), _SERVER.SimpleQueue()
    started = [
        _SERVER.Process(target=_rank, args=(rank, ranks, port, folder, errors, function, args))
        for rank in range(ranks)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join()
    failed = [] if errors.empty() else [errors.get()]
    assert [process.exitcode for process in started] == [0] * ranks, failed


def _rank(
    rank: int,
    ranks: int,
    port: int,
    folder: Path,
    errors: Any,
    function: Callable[..., None],
    args: tuple,
) -> None:
    from geomkit._core.parallel import Team

    os.environ |= of_rank(rank, ranks, port)
    os.chdir(folder)
    try:
        team = Team.from_environment()
        function(team, *args)
        team.close()
    except BaseException:
        errors.put(traceback.format_exc())
        raise


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def of_rank(rank: int, ranks: int, port: int) -> dict[str, str]:
    """What torchrun puts into the environment of a rank."""
    return {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1",
        "WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip


def start_ranks(words: list[str], folders: list[Path], **environment: str) -> list[Any]:
    """Start ``geomkit WORDS`` on a rank in each folder, with nothing that ends one for another.

    Output and process groups are as in :func:`start_command`.
    """
    port = free_port()
    started = [
        _SERVER.Process(
            target=_ranked_command, args=(rank, len(folders), port, words, folder, environment)
        )
        for rank, folder in enumerate(folders)
    ]
    for process in started:
        process.start()
    return started


def _ranked_command(
    rank: int, ranks: int, port: int, words: list[str], folder: Path, environment: dict[str, str]
) -> None:
    os.environ |= of_rank(rank, ranks, port) | environment
    _command(words, folder)


def start_command(words: list[str], folder: Path) -> Any:
    """Start ``geomkit WORDS`` in ``folder``, output to its files ``stdout`` and ``stderr``.

    The process leads a process group of its own.
    """
    process = _SERVER.Process(target=_command, args=(words, folder))
    process.start()
    return process


def _command(words: list[str], folder: Path) -> None:
    from geomkit_cli.app import run

    with _apart(folder):
        raise SystemExit(run(words))


def start_torchrun(ranks: int, words: list[str], folder: Path, *, restarts: int = 0) -> Any:
    """Start ``torchrun --standalone --nproc-per-node RANKS -m geomkit_cli WORDS``.

    Output and process group are as in :func:`start_command`.
    """
    process = _SERVER.Process(target=_torchrun, args=(ranks, words, folder, restarts))
    process.start()
    return process


def _torchrun(ranks: int, words: list[str], folder: Path, restarts: int) -> None:
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        1, 1, ranks, rdzv_backend="c10d", rdzv_endpoint="localhost:0", start_method="fork",
        max_restarts=restarts, monitor_interval=0.1,
    )  # fmt: skip
    with _apart(folder):
        elastic_launch(config, _torchrun_rank)(words)


def _torchrun_rank(words: list[str]) -> None:
    from geomkit_cli.app import run

    if status := run(words):  # a function that returns has succeeded for torchrun
        raise SystemExit(status)


@contextlib.contextmanager
def _apart(folder: Path) -> Iterator[None]:
    os.setsid()
    os.chdir(folder)
    os.environ["OMP_NUM_THREADS"] = "1"
    for stream, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    yield
