"""Work on many blocks at once: threads in one process, ranks over several processes."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cache
from multiprocessing import parent_process
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from geomkit.errors import GeomkitError

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

__all__ = ["SOLO", "Team", "cores", "end_with_parent", "in_order"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def cores() -> int:
    """Return the number of CPU cores for this process; the ranks on one machine divide them."""
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    return max(1, count // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def end_with_parent() -> None:
    """End this process when the one that started it is gone, even if that was killed.

    Otherwise it may wait for ever to hand over what nobody takes.
    """
    if (parent := parent_process()) is not None:
        Thread(target=_end_after, args=(parent,), daemon=True).start()


def _end_after(parent: Any) -> None:
    parent.join()
    os._exit(1)


def in_order(
    work: Callable[[Item], Result], items: Iterable[Item], *, threads: int
) -> Iterator[Result]:
    """Yield results in the order of the items, computed in threads, with few waiting at a time.

    The matrix products of each thread run on one core: the element-wise work between them, which
    numpy does on one core, is then spread over all cores.

    Args:
        work: Function of one item.
        items: Items to work on.
        threads: Number of threads; 1 works in this one.
    """
    if threads <= 1:
        yield from map(work, items)
        return
    pool = _pool(threads, os.getpid())
    waiting: deque[Future[Result]] = deque()
    with _one_blas_thread():
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
            wait(waiting)


_LOCK = Lock()
_LIMITS: list[Any] = []
"""The limit in force, once for each user of it: it is the process's, and the last one lifts it."""


@contextmanager
def _one_blas_thread() -> Iterator[None]:
    with _LOCK:
        _LIMITS.append(_LIMITS[0] if _LIMITS else _blas().limit(limits=1, user_api="blas"))
    try:
        yield
    finally:
        with _LOCK:
            limit = _LIMITS.pop()
            if not _LIMITS:
                limit.restore_original_limits()


@cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Threads that are kept: a fit makes dozens of passes. A forked process gets its own pool."""
    return ThreadPoolExecutor(threads)


@cache
def _blas() -> ThreadpoolController:
    """The loaded BLAS libraries; searching for them each time would cost milliseconds."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


class Team:
    """The ranks that share the work, over torch.distributed; a single process is a team of one.

    Args:
        rank: Rank of this process.
        size: Number of ranks.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        """Name the rank; nothing is connected."""
        self.rank, self.size = rank, size

    @classmethod
    def from_environment(cls) -> Team:
        """Return the team that torchrun started, or a team of one; CUDA tensors go through NCCL.

        Raises:
            GeomkitError: If the environment names several ranks, but not all that torchrun sets.
        """
        size = os.environ.get("WORLD_SIZE", "1")
        if size == "1":
            return SOLO
        numbers = [size, *map(os.environ.get, ("RANK", "MASTER_PORT"))]
        if not all((n or "").isdecimal() for n in numbers) or "MASTER_ADDR" not in os.environ:
            raise GeomkitError(
                f"environment: WORLD_SIZE is '{size}', without all of RANK, MASTER_ADDR and "
                "MASTER_PORT; start it with torchrun, or unset WORLD_SIZE"
            )
        import torch
        import torch.distributed as dist

        if not dist.is_initialized():
            both = torch.cuda.is_available() and dist.is_nccl_available()
            dist.init_process_group("cpu:gloo,cuda:nccl" if both else "gloo")
        return cls(dist.get_rank(), int(size))

    def share(self, items: list[Item]) -> list[Item]:
        """Return this rank's share of a list that is the same on all ranks."""
        return items[self.rank :: self.size]

    def sum(self, array: np.ndarray) -> np.ndarray:
        """Return the sum of an array over all ranks, on each of them."""
        if self.size == 1:
            return array
        import torch
        import torch.distributed as dist

        tensor = torch.from_numpy(np.array(array))  # a copy, writable and contiguous
        dist.all_reduce(tensor)
        return tensor.numpy()

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all ranks, on each of them."""
        if self.size == 1:
            return [value]
        import torch.distributed as dist

        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def close(self) -> None:
        """End the connection to the other ranks."""
        if self.size > 1:
            import torch.distributed as dist

            dist.destroy_process_group()


SOLO = Team()
"""A single process."""
