"""Run a function on several ranks: processes that share one import of torch and open_clip."""

from __future__ import annotations

import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["torch", "open_clip", "geomkit.training.loop", "geomkit.metrics"])


def run_ranks(function: Callable[..., None], ranks: int, folder: Path, *args: Any) -> None:
    """Call ``function(team, *args)`` in ``folder`` on every rank, as torchrun would start it.

    Args:
        function: Function at the top of a test module.
        ranks: Number of processes.
        folder: Working directory of each.
        args: Further arguments, pickled.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    errors = _SERVER.SimpleQueue()
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

    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(ranks),
        LOCAL_WORLD_SIZE=str(ranks),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        OMP_NUM_THREADS="1",
    )
    os.chdir(folder)
    try:
        team = Team.from_environment()
        function(team, *args)
        team.close()
    except BaseException:
        errors.put(traceback.format_exc())
        raise
