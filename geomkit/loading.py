"""Batches of decoded pictures, prepared by worker processes ahead of the device that wants them.

A job is the rows of one batch; jobs are done by torch's DataLoader, in order, whatever the number
of workers. Pictures that are pixels already need no worker.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from geomkit._parallel import cores
from geomkit.data.pairs import Bad, PairData

__all__ = ["Batch", "batches", "resolve_workers"]


@dataclass(frozen=True)
class Batch:
    """Pictures and the rows they have.

    Attributes:
        pictures: ``(k, size, size, 3)`` uint8, pinned if asked.
        rows: the ``k`` rows of the data set.
        bad: pictures that were wanted and did not decode.
    """

    pictures: torch.Tensor
    rows: np.ndarray
    bad: list[Bad]


def resolve_workers(workers: int | None, data: PairData) -> int:
    """Worker processes: none for pictures in memory, else as many as asked, or a core each.

    >>> from geomkit.data import load_data
    >>> resolve_workers(None, load_data(n=2))
    0
    """
    if data.in_memory:
        return 0
    return cores() if workers is None else workers


def batches(
    data: PairData,
    jobs: Sequence[Any],
    *,
    rows_of: Callable[[Any], np.ndarray] | None = None,
    instead: Callable[[Any, int, int], int | None] | None = None,
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
        workers: processes; 0 decodes here.
        pin: put the pictures into page-locked memory, for copies to CUDA that do not wait.
    """
    dataset = _Jobs(data, jobs, rows_of, instead)
    loader: DataLoader = DataLoader(
        dataset,
        batch_size=None,
        shuffle=False,
        num_workers=workers,
        prefetch_factor=2 if workers else None,
        # A generator of its own: the loader would else draw its seed from the global state.
        generator=torch.Generator().manual_seed(0),
    )
    for pictures, rows, bad in loader:
        yield Batch(pictures.pin_memory() if pin else pictures, rows, bad)


class _Jobs(Dataset):
    def __init__(
        self,
        data: PairData,
        jobs: Sequence[Any],
        rows_of: Callable[[Any], np.ndarray] | None,
        instead: Callable[[Any, int, int], int | None] | None,
    ) -> None:
        self.data, self.jobs, self.rows_of, self.instead = data, jobs, rows_of, instead

    def __len__(self) -> int:
        return len(self.jobs)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, np.ndarray, list[Bad]]:
        job = self.jobs[number]
        rows = np.asarray(self.rows_of(job) if self.rows_of else job, int)
        pictures, kept, bad = self.data.read(rows)
        if bad and self.instead is not None:
            return self._mended(job, rows, pictures, kept, bad)
        return torch.from_numpy(np.ascontiguousarray(pictures)), kept, bad

    def _mended(
        self, job: Any, rows: np.ndarray, pictures: np.ndarray, kept: np.ndarray, bad: list[Bad]
    ) -> tuple[torch.Tensor, np.ndarray, list[Bad]]:
        assert self.instead is not None
        shape = (len(rows), *pictures.shape[1:])
        whole, final = np.empty(shape, np.uint8), rows.copy()
        failed = {b.row for b in bad}
        good = np.array([row not in failed for row in rows])
        whole[good] = pictures
        lost = []
        for place in np.flatnonzero(~good):
            attempt = 0
            while True:
                attempt += 1
                row = self.instead(job, int(place), attempt)
                if row is None:
                    lost.append(place)
                    break
                found, _, more = self.data.read([row])
                bad += more
                if not more:
                    whole[place], final[place] = found[0], row
                    break
        keep = np.setdiff1d(np.arange(len(rows)), lost)
        return torch.from_numpy(whole[keep]), final[keep], bad
