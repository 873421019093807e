"""Training of the cells of a grid: each once, continued where it was interrupted.

A small file beside a trained checkpoint says that it is finished and how long it took, so that a
large checkpoint need not be read to learn that nothing is left to do.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, replace
from multiprocessing import get_all_start_methods, get_context
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

from geomkit._core.files import atomic_write
from geomkit._core.parallel import cores, end_with_parent
from geomkit.errors import GeomkitError
from geomkit.reproduce.framework.experiment import Cell, Options
from geomkit.reproduce.framework.seal import code_sha256

__all__ = [
    "Progress",
    "cell_path",
    "conditions_of",
    "finished",
    "fresh_processes",
    "seconds_of",
    "threads_of",
    "train_cells",
]

Progress = Callable[[Cell, int, int], None]
"""Receives a cell, its steps done, and its steps in all."""


def cell_path(folder: Path, cell: Cell) -> Path:
    """Path of a cell's checkpoint."""
    return folder / f"{cell.key}.pt"


def finished(folder: Path, cell: Cell) -> bool:
    """Whether a cell is trained to its last step."""
    path = cell_path(folder, cell)
    if not path.exists():
        return False
    if _done_path(folder, cell).exists():
        return True
    from geomkit.models.checkpoints import load_run

    try:
        run = load_run(path)
    except GeomkitError:
        return False  # training reports the error
    return bool(run.step >= run.config["steps"])


def seconds_of(folder: Path, cell: Cell) -> float | None:
    """Seconds that training a cell took; ``None`` if unknown, as after an interruption."""
    try:
        stored = json.loads(_done_path(folder, cell).read_text("utf-8"))
        return float(stored["seconds"]) if stored["seconds"] is not None else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def conditions_of(folder: Path, cell: Cell) -> dict[str, Any]:
    """Threads, precision and code that a cell was trained with; empty if unknown."""
    try:
        return dict(json.loads(_done_path(folder, cell).read_text("utf-8"))["conditions"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _done_path(folder: Path, cell: Cell) -> Path:
    return folder / f"{cell.key}.json"


def threads_of(options: Options, jobs: int) -> int:
    """CPU threads of each of several trainings at a time; 0 for torch's default."""
    return options.threads or (max(1, cores() // jobs) if jobs > 1 else 0)


def train_cells(
    cells: Iterable[Cell],
    folder: Path,
    options: Options,
    *,
    jobs: int = 1,
    progress: Progress = lambda cell, step, steps: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> None:
    """Train the cells that are not trained yet, each after the one that it is fine-tuned from.

    Args:
        cells: Cells in order; equal ones are trained once.
        folder: Folder of the checkpoints.
        options: Options of the run; device, workers and threads are used.
        jobs: Number of trainings at a time, each in its own process with its share of the cores.
        progress: Called after steps, in this process.
        should_stop: Called after each step; if it returns true, running trainings save and stop.

    Raises:
        GeomkitError: As :func:`geomkit.training.loop.train`, with the cell named.
        Interrupted: If ``should_stop`` returned true.
    """
    cells = list(cells)
    starts = [cell.start for cell in cells if cell.start]
    folder.mkdir(parents=True, exist_ok=True)
    # A cell killed after its last step still has its optimizer and lacks its note.
    left = [
        cell for cell in dict.fromkeys((*starts, *cells))
        if not (cell_path(folder, cell).exists() and _done_path(folder, cell).exists())
    ]  # fmt: skip
    threads = threads_of(options, jobs)
    if jobs == 1 or len(left) < 2:
        for cell in left:
            _train(cell, folder, options, progress, should_stop, threads)
        return
    jobs = min(jobs, len(left))
    context = fresh_processes()
    # Memory without locks or a process of its own: a job that is killed leaves neither behind.
    shared = context.RawValue("b", 0), context.RawArray("q", 2 * len(left))
    stop, reports = shared
    seen = [(0, 0)] * len(left)
    with ProcessPoolExecutor(
        jobs, mp_context=context, initializer=_start_job,
        initargs=(context.Value("i", 0), *shared),
    ) as pool:  # fmt: skip

        def listen() -> None:
            for k, cell in enumerate(left):
                step, steps = now = reports[2 * k], reports[2 * k + 1]
                if steps and now != seen[k]:
                    seen[k] = now
                    progress(cell, step, steps)
            stop.value |= should_stop()

        after: dict[Cell | None, list[int]] = {}
        untrained = set(left)
        for k, cell in enumerate(left):
            after.setdefault(cell.start if cell.start in untrained else None, []).append(k)

        def submit(start: Cell | None) -> dict[Future[None], Cell]:
            """Submit what waited for this cell, or for none."""
            return {
                pool.submit(_train_apart, k, left[k], folder, options, threads): left[k]
                for k in after.get(start, ())
            }

        waiting = submit(None)
        try:
            while waiting:
                done, _ = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
                listen()
                for future in done:
                    future.result()
                    waiting |= submit(waiting.pop(future))
        except BrokenProcessPool:
            raise GeomkitError(
                "a training process was killed, by the system if memory ran out; give fewer "
                "--jobs, and --resume to continue"
            ) from None
        except BaseException:
            stop.value = 1  # running trainings save and end
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

    path, config = cell_path(folder, cell), cell.config
    if cell.start is not None:
        config = replace(config, pretrained=_start_path(path, cell_path(folder, cell.start)))
    whole, started = not path.exists(), time.perf_counter()
    code = code_sha256() if whole else ""
    try:
        run = train(
            replace(config, threads=threads or options.threads),
            path,
            device=options.device,
            workers=options.workers,
            download=options.download,
            cache_images=True,  # every cell reads the same ones
            resume=True,
            watch=watch,
            should_stop=should_stop,
        )
    except GeomkitError as error:
        raise GeomkitError(f"training {cell.label}: {error}") from error
    seconds = round(time.perf_counter() - started, 2) if whole else None
    if not _done_path(folder, cell).exists():
        # The optimizer is two thirds of a checkpoint, and a finished cell is never continued.
        save_run(path, replace(run, optimizer={"state": {}, "param_groups": []}))
    note = {
        "format": "geomkit-cell",
        "schema_version": 1,
        "steps": run.step,
        "seconds": seconds,
        "config": asdict(cell.config),
        "conditions": {
            "threads": run.config["threads"], "precision": run.config["precision"], "code": code,
        },
    }  # fmt: skip
    with atomic_write(_done_path(folder, cell), overwrite=True) as file:
        file.write(json.dumps(note, indent=1, sort_keys=True).encode())


def _start_path(path: Path, start: Path) -> str:
    """Path of the model that a cell starts from, as its own checkpoint spells it if there is one.

    The folder may have another name when a run goes on.
    """
    from geomkit.models.checkpoints import load_run

    try:
        stored = load_run(path).config.get("pretrained") if path.exists() else None
    except GeomkitError:
        return str(start)  # training reports the error
    return stored if stored and Path(stored).name == start.name else str(start)


def fresh_processes() -> BaseContext:
    """How jobs start: without this process's threads and CUDA context, with imports shared.

    Importing torch and open_clip takes seconds; a fork server does it once for all jobs. Neither
    import touches CUDA, so each job may still initialise it.
    """
    if "forkserver" not in get_all_start_methods():
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload(["open_clip", "geomkit.training.loop"])
    return context


_job: tuple[int, Any, Any]
"""Number of this process among the jobs; whether to stop; step and steps of each cell."""


def _start_job(count: Any, stop: Any, reports: Any) -> None:
    global _job
    with count.get_lock():
        _job = count.value, stop, reports
        count.value += 1
    # Ctrl-C reaches every process of a terminal; only the parent decides when to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()


def _own_device(options: Options, job: int) -> Options:
    """Options of one job: with several CUDA devices, jobs take them in turn."""
    import torch

    if options.device not in ("auto", "cuda") or not torch.cuda.is_available():
        return options
    return replace(options, device=f"cuda:{job % torch.cuda.device_count()}")


def _train_apart(k: int, cell: Cell, folder: Path, options: Options, threads: int) -> None:
    """Train a cell in a process of its own, in contact with the parent."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    job, stop, reports = _job

    def progress(cell: Cell, step: int, steps: int) -> None:
        reports[2 * k : 2 * k + 2] = step, steps

    _train(cell, folder, _own_device(options, job), progress, lambda: bool(stop.value), threads)
