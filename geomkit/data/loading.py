"""Batches of decoded pictures, prepared by worker processes ahead of the device that wants them.

A job is the rows of one batch; jobs are done by torch's DataLoader, in order, whatever the number
of workers. Pictures that are pixels already need no worker.
"""

from __future__ import annotations

import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from geomkit._core.parallel import cores
from geomkit.data.pairs import Bad, PairData

__all__ = ["Batch", "batches", "resolve_workers"]


@dataclass(frozen=True)
class Batch:
    """Pictures and the rows they have.

    Attributes:
        images: ``(k, size, size, 3)`` uint8, pinned if asked.
        rows: the ``k`` rows of the data set.
        bad: pictures that were wanted and did not decode.
        tokens: ``(k, context)`` token ids, if they were asked for.
    """

    images: torch.Tensor
    rows: np.ndarray
    bad: list[Bad]
    tokens: torch.Tensor | None = None

    def pin_memory(self) -> Batch:
        """The same in page-locked memory; torch's loader calls it, beside the training thread."""
        return replace(self, images=self.images.pin_memory())


def resolve_workers(workers: int | None, data: PairData) -> int:
    """Worker processes: as many as asked, else a core each, or none for pictures in memory.

    >>> from geomkit.data import load_data
    >>> resolve_workers(None, load_data(n=2))
    0
    """
    if workers is not None:
        return workers
    return 0 if data.in_memory else cores()


def batches(
    data: PairData,
    jobs: Sequence[Any],
    *,
    rows_of: Callable[[Any], np.ndarray] | None = None,
    instead: Callable[[Any, int, int], int | None] | None = None,
    tokens_of: Callable[[Any, np.ndarray], torch.Tensor] | None = None,
    workers: int = 0,
    pin: bool = False,
) -> Iterator[Batch]:
    """Decode the pictures of each job, in order.

    Args:
        data: the pictures.
        jobs: one a batch: its rows, or whatever ``rows_of`` makes rows of. Picklable.
        rows_of: from a job to its rows, called in the worker; picklable.
        instead: if given, a batch keeps its size: from (job, place in the batch, attempt counted
            from 1) to the row that takes a bad picture's place, or ``None`` if there is no more.
        tokens_of: from a job and the rows its batch has in the end to their token ids, called in
            the worker; picklable.
        workers: processes; 0 decodes here.
        pin: put the pictures into page-locked memory, for copies to CUDA that do not wait.
    """
    dataset = _Jobs(data, jobs, rows_of, instead, tokens_of)
    with warnings.catch_warnings():  # whoever asks for more workers than cores means it
        warnings.filterwarnings("ignore", message=".*worker processes in total")
        loader: DataLoader = DataLoader(
            dataset,
            batch_size=None,
            shuffle=False,
            num_workers=workers,
            pin_memory=pin,
            prefetch_factor=2 if workers else None,
            worker_init_fn=_deaf_to_signals,
            # A generator of its own: the loader would else draw its seed from the global state.
            generator=torch.Generator().manual_seed(0),
        )
        stream = iter(loader)
    yield from _ahead(stream) if pin and not workers else stream


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


def _deaf_to_signals(worker: int) -> None:
    """Ctrl-C reaches a whole process group; what to do then is the main process's business."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


class _Jobs(Dataset):
    def __init__(
        self,
        data: PairData,
        jobs: Sequence[Any],
        rows_of: Callable[[Any], np.ndarray] | None,
        instead: Callable[[Any, int, int], int | None] | None,
        tokens_of: Callable[[Any, np.ndarray], torch.Tensor] | None,
    ) -> None:
        self.data, self.jobs, self.rows_of = data, jobs, rows_of
        self.instead, self.tokens_of = instead, tokens_of

    def __len__(self) -> int:
        return len(self.jobs)

    def __getitem__(self, number: int) -> Batch:
        job = self.jobs[number]
        wanted = np.asarray(self.rows_of(job) if self.rows_of else job, int)
        pictures, rows, bad = self.data.read(wanted)
        if bad and self.instead is not None:
            pictures, rows, bad = self._mended(job, wanted, pictures, bad)
        tokens = self.tokens_of(job, rows) if self.tokens_of else None
        return Batch(torch.from_numpy(np.ascontiguousarray(pictures)), rows, bad, tokens)

    def _mended(
        self, job: Any, wanted: np.ndarray, pictures: np.ndarray, bad: list[Bad]
    ) -> tuple[np.ndarray, np.ndarray, list[Bad]]:
        """The same batch with other pictures in the places of the bad ones."""
        assert self.instead is not None
        failed = {b.row for b in bad}
        good = np.array([row not in failed for row in wanted])
        whole = np.empty((len(wanted), *pictures.shape[1:]), np.uint8)
        whole[good] = pictures
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
