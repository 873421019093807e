"""Training the cells of a grid: each once, whoever asks, going on where it was killed.

Beside a trained checkpoint stands a small file that says so, and how long it took: a grid of large
models need not be read to learn that nothing is left to do.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import asdict, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from geomkit._core.files import atomic_write
from geomkit._core.parallel import cores
from geomkit.errors import GeomkitError
from geomkit.reproduce.framework.experiment import Cell, Options

__all__ = ["Progress", "cell_path", "finished", "seconds_of", "train_cells"]

Progress = Callable[[Cell, int, int], None]
"""Told which cell has done how many steps, of how many."""


def cell_path(folder: Path, cell: Cell) -> Path:
    """Where the checkpoint of a cell lies."""
    return folder / f"{cell.key}.pt"


def finished(folder: Path, cell: Cell) -> bool:
    """Whether a cell is trained; its last step says so, not the presence of its checkpoint."""
    path = cell_path(folder, cell)
    if not path.exists():
        return False
    if _done_path(folder, cell).exists():
        return True
    from geomkit.models.checkpoints import load_run

    try:
        run = load_run(path)
    except GeomkitError:
        return False  # training says what is wrong with it
    return bool(run.step >= run.config["steps"])


def seconds_of(folder: Path, cell: Cell) -> float | None:
    """What training a cell took from its first step to its last, or ``None`` if unknown.

    Unknown if it was killed on the way: nobody had the clock all the time.
    """
    try:
        stored = json.loads(_done_path(folder, cell).read_text("utf-8"))
        return float(stored["seconds"]) if stored["seconds"] is not None else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _done_path(folder: Path, cell: Cell) -> Path:
    return folder / f"{cell.key}.json"


def train_cells(
    cells: Iterable[Cell],
    folder: Path,
    options: Options,
    *,
    jobs: int = 1,
    progress: Progress = lambda cell, step, steps: None,
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
        GeomkitError: as :func:`geomkit.training.loop.train`, the cell being named.
        Interrupted: if ``should_stop`` said so.
    """
    folder.mkdir(parents=True, exist_ok=True)
    left = [cell for cell in dict.fromkeys(cells) if not finished(folder, cell)]
    if jobs == 1 or len(left) < 2:
        for cell in left:
            _train(cell, folder, options, progress, should_stop)
        return
    jobs = min(jobs, len(left))
    threads = options.threads or max(1, cores() // jobs)
    by_key = {cell.key: cell for cell in left}
    context = get_context("spawn")
    with (
        context.Manager() as manager,
        ProcessPoolExecutor(
            jobs, mp_context=context, initializer=_start_job, initargs=(context.Value("i", 0),)
        ) as pool,
    ):
        stop, told = manager.Event(), manager.Queue()

        def listen() -> None:
            while not told.empty():
                key, step, steps = told.get()
                progress(by_key[key], step, steps)
            if should_stop():
                stop.set()

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
            stop.set()  # those at work save and end
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
    from geomkit.models.checkpoints import save_run
    from geomkit.training.loop import Event, train

    def watch(event: Event) -> None:
        if event.kind in ("step", "start", "end"):
            progress(cell, event.step, event.config.steps)

    path = cell_path(folder, cell)
    whole, started = not path.exists(), time.perf_counter()
    try:
        run = train(
            replace(cell.config, threads=threads or options.threads),
            path,
            device=options.device,
            workers=options.workers,
            download=options.download,
            resume=True,
            watch=watch,
            should_stop=should_stop,
        )
    except GeomkitError as error:
        raise GeomkitError(f"training {cell.label}: {error}") from error
    seconds = round(time.perf_counter() - started, 2) if whole else None
    if not _done_path(folder, cell).exists():
        # Two thirds of a checkpoint are the optimizer's, and a finished cell never goes on.
        save_run(path, replace(run, optimizer={"state": {}, "param_groups": []}))
    note = {
        "format": "geomkit-cell",
        "schema_version": 1,
        "steps": run.step,
        "seconds": seconds,
        "config": asdict(cell.config),
    }
    with atomic_write(_done_path(folder, cell), overwrite=True) as file:
        file.write(json.dumps(note, indent=1, sort_keys=True).encode())


_job = 0
"""Which of the jobs this process is."""


def _start_job(count: Any) -> None:
    global _job
    with count.get_lock():
        _job, count.value = count.value, count.value + 1
    # Ctrl-C reaches every process of a terminal; the parent tells this one when to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _own_device(options: Options, job: int) -> Options:
    """The options of one of the jobs: of several CUDA devices each takes the next."""
    import torch

    if options.device not in ("auto", "cuda") or not torch.cuda.is_available():
        return options
    return replace(options, device=f"cuda:{job % torch.cuda.device_count()}")


def _train_apart(
    cell: Cell, folder: Path, options: Options, threads: int, told: Any, stop: Any
) -> None:
    """In a process of its own: the parent is told every few steps, and says when to stop."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    asked = [0.0, False]  # when, and the answer: each question is a message to another process

    def progress(cell: Cell, step: int, steps: int) -> None:
        if step % 5 == 0 or step == steps:
            told.put((cell.key, step, steps))

    def should_stop() -> bool:
        now = time.monotonic()
        if now - asked[0] > 0.2:
            asked[:] = [now, stop.is_set()]
        return bool(asked[1])

    _train(cell, folder, _own_device(options, _job), progress, should_stop, threads)
