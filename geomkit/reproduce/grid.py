"""Training the cells of a grid: each once, whoever asks, going on where it was killed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from geomkit._parallel import cores
from geomkit.reproduce.experiment import Cell, Options

__all__ = ["cell_path", "finished", "train_cells"]

Progress = Callable[[Cell, int], None]
"""Told which cell has done how many steps."""


def cell_path(folder: Path, cell: Cell) -> Path:
    """Where the checkpoint of a cell lies."""
    return folder / f"{cell.key}.pt"


def finished(folder: Path, cell: Cell) -> bool:
    """Whether a cell is trained; its checkpoint's last step says so, not its presence."""
    path = cell_path(folder, cell)
    if not path.exists():
        return False
    from geomkit.checkpoints import load_checkpoint

    content = load_checkpoint(path)
    return bool(content["step"] >= content["config"]["steps"])


def train_cells(
    cells: Iterable[Cell],
    folder: Path,
    options: Options,
    *,
    jobs: int = 1,
    progress: Progress = lambda cell, step: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> None:
    """Train those cells that are not trained yet.

    Args:
        cells: no two alike need be trained twice.
        folder: of the checkpoints.
        options: device, workers and threads.
        jobs: trainings at a time, each in a process of its own with its share of the cores.
        progress: called after steps, in this process.
        should_stop: asked after each step; the cells at work are saved.

    Raises:
        GeomkitError: as :func:`geomkit.train.train`.
        Interrupted: if ``should_stop`` said so.
    """
    folder.mkdir(parents=True, exist_ok=True)
    left = [cell for cell in dict.fromkeys(cells) if not finished(folder, cell)]
    if jobs == 1 or len(left) < 2:
        for cell in left:
            _train(cell, folder, options, progress, should_stop)
        return
    jobs = min(jobs, len(left))
    context = get_context("spawn")
    manager = context.Manager()
    stop, told = manager.Event(), manager.Queue()
    threads = options.threads or max(1, cores() // jobs)
    by_key = {cell.key: cell for cell in left}

    def listen() -> None:
        while not told.empty():
            key, step = told.get()
            progress(by_key[key], step)
        if should_stop():
            stop.set()

    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        waiting = {
            pool.submit(_train_apart, cell, folder, options, threads, told, stop) for cell in left
        }
        try:
            while waiting:
                done, waiting = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
                listen()
                for future in done:
                    future.result()
        except BaseException:
            stop.set()
            for future in waiting:
                future.cancel()
            raise
    listen()


def _train(
    cell: Cell,
    folder: Path,
    options: Options,
    progress: Progress,
    should_stop: Callable[[], bool],
    threads: int = 0,
) -> None:
    from dataclasses import replace

    from geomkit.train import Event, train

    def watch(event: Event) -> None:
        if event.kind in ("step", "start", "end"):
            progress(cell, event.step)

    train(
        replace(cell.config, threads=threads or options.threads),
        cell_path(folder, cell),
        device=options.device,
        workers=options.workers,
        resume=True,
        watch=watch,
        should_stop=should_stop,
    )


def _train_apart(
    cell: Cell, folder: Path, options: Options, threads: int, told: Any, stop: Any
) -> None:
    """In a process of its own: the parent is told every few steps, and says when to stop."""
    os.environ["OMP_NUM_THREADS"] = str(threads)

    def progress(cell: Cell, step: int) -> None:
        if step % 5 == 0 or step == cell.config.steps:
            told.put((cell.key, step))

    _train(cell, folder, options, progress, stop.is_set, threads)
