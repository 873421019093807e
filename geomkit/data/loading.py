"""Batches of decoded images, prepared by worker processes ahead of the device that uses them.

A job is the rows of one batch; jobs are done by torch's DataLoader, in order, whatever the number
of workers. Images that are pixels already need no worker.
"""

from __future__ import annotations

import gc
import signal
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from geomkit._core.parallel import cores, end_with_parent
from geomkit.data.pairs import Bad, PairData

__all__ = ["Batch", "batches", "loader"]

_MOST_WORKERS = 8
"""Default of the worker processes of one rank: more rarely help, and each takes memory."""


@dataclass(frozen=True)
class Batch:
    """Images and their rows.

    Attributes:
        images: Pixels, uint8, shape ``(k, size, size, 3)``, in page-locked memory if asked for.
        rows: Rows of the data set, shape ``(k,)``.
        bad: Images of the job that did not decode.
        tokens: Token ids, shape ``(k, context)``, if they were asked for.
    """

    images: torch.Tensor
    rows: np.ndarray
    bad: list[Bad]
    tokens: torch.Tensor | None = None

    def pin_memory(self) -> Batch:
        """The same in page-locked memory; torch's loader calls it, beside the training thread."""
        return replace(self, images=self.images.pin_memory())


def batches(
    data: PairData,
    jobs: Iterable[Any],
    *,
    rows_of: Callable[[Any], np.ndarray] | None = None,
    instead: Callable[[Any, int, int], int | None] | None = None,
    tokens_of: Callable[[Any, np.ndarray], torch.Tensor] | None = None,
    workers: int | None = 0,
    pin: bool = False,
) -> Iterator[Batch]:
    """Decode the images of each job, in order.

    Args:
        data: Pairs whose images are decoded.
        jobs: For each batch its rows, or the argument of ``rows_of``; picklable. They are made in
            this process, a few batches ahead.
        rows_of: Function from a job to its rows, called in the worker; picklable.
        instead: Function that keeps the size of a batch: from a job, a place in the batch and the
            attempt counted from 1 to the row that replaces a bad image, or to ``None`` if there
            is none left.
        tokens_of: Function from a job and the rows its batch has in the end to their token ids,
            called in the worker; picklable.
        workers: Worker processes; 0 decodes in this process. ``None`` is one per core, at most 8,
            or 0 for images in memory.
        pin: Whether to put images into page-locked memory, for asynchronous copies to CUDA.

    Returns:
        The batch of each job.
    """
    return iter(loader(data, jobs, rows_of, instead, tokens_of, workers=workers, pin=pin))


def loader(
    data: PairData,
    jobs: Iterable[Any],
    rows_of: Callable[[Any], np.ndarray] | None = None,
    instead: Callable[[Any, int, int], int | None] | None = None,
    tokens_of: Callable[[Any, np.ndarray], torch.Tensor] | None = None,
    *,
    workers: int | None = 0,
    pin: bool = False,
    keep: bool = False,
) -> Iterable[Batch]:
    """Return what gives the batches of :func:`batches`, each time that it is iterated over.

    Args:
        data: As for :func:`batches`, as are all but ``keep``.
        jobs: See there.
        rows_of: See there.
        instead: See there.
        tokens_of: See there.
        workers: See there.
        pin: See there.
        keep: Whether the worker processes stay for the next time.
    """
    if workers is None:
        workers = 0 if data.in_memory else min(cores(), _MOST_WORKERS)
    with _many_workers():
        made: DataLoader = DataLoader(
            _Decoded(data, rows_of, instead, tokens_of),
            batch_size=None,
            sampler=jobs,
            num_workers=workers,
            pin_memory=pin,
            prefetch_factor=2 if workers else None,
            persistent_workers=keep and workers > 0,
            worker_init_fn=_start_worker,
            # A generator of its own: otherwise the loader draws its seed from the global state.
            generator=torch.Generator().manual_seed(0),
        )
    return _Stream(made, ahead=pin and not workers)


@contextmanager
def _many_workers() -> Iterator[None]:
    """More workers than cores may be asked for."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*worker processes in total")
        yield


@dataclass
class _Stream:
    made: Iterable[Batch]
    ahead: bool

    def __iter__(self) -> Iterator[Batch]:
        with _many_workers():
            stream = iter(self.made)
        return _ahead(stream) if self.ahead else stream


def _ahead(stream: Iterator[Batch]) -> Iterator[Batch]:
    """The same batches, each made in a thread while the one before it is trained on."""
    device = torch.cuda.current_device() if torch.cuda.is_available() else None

    def start() -> None:  # page-locked memory belongs to a device, and a thread starts on the first
        if device is not None:
            torch.cuda.set_device(device)

    with ThreadPoolExecutor(1, initializer=start) as pool:
        coming = pool.submit(next, stream, None)
        while (batch := coming.result()) is not None:
            coming = pool.submit(next, stream, None)
            yield batch


def _start_worker(worker: int) -> None:
    """Leave signals to the main process, and end with it."""
    end_with_parent()
    gc.freeze()  # a collection would write to whatever is shared with the main process
    # Ctrl-C and the end of a terminal reach a whole process group.
    for name in ("SIGINT", "SIGHUP"):
        if number := getattr(signal, name, None):  # not every system has both
            signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@dataclass
class _Decoded(Dataset):
    """From a job to its batch."""

    data: PairData
    rows_of: Callable[[Any], np.ndarray] | None
    instead: Callable[[Any, int, int], int | None] | None
    tokens_of: Callable[[Any, np.ndarray], torch.Tensor] | None

    def __getitem__(self, job: Any) -> Batch:
        wanted = np.asarray(self.rows_of(job) if self.rows_of else job, int)
        images, rows, bad = self.data.read(wanted)
        if bad and self.instead is not None:
            images, rows, bad = self._refilled(job, wanted, images, bad)
        tokens = self.tokens_of(job, rows) if self.tokens_of else None
        return Batch(torch.from_numpy(np.ascontiguousarray(images)), rows, bad, tokens)

    def _refilled(
        self, job: Any, wanted: np.ndarray, images: np.ndarray, bad: list[Bad]
    ) -> tuple[np.ndarray, np.ndarray, list[Bad]]:
        """The same batch with other images in the places of the bad ones."""
        assert self.instead is not None
        failed = {b.row for b in bad}
        good = np.array([row not in failed for row in wanted])
        whole = np.empty((len(wanted), *images.shape[1:]), np.uint8)
        whole[good] = images
        rows, kept = wanted.copy(), good.copy()
        for place in np.flatnonzero(~good):
            attempt = 1
            while (row := self.instead(job, int(place), attempt)) is not None:
                found, _, more = self.data.read([row])
                bad += more
                if not more:
                    whole[place], rows[place], kept[place] = found[0], row, True
                    break
                attempt += 1
        return whole[kept], rows[kept], bad
