"""Work on many blocks at once: threads in one process, ranks over several processes."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from multiprocessing import parent_process
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from geomkit._core.container import core_limit
from geomkit.errors import GeomkitError, reason

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController
    from torch import Tensor

    from geomkit._core.pulse import Pulse

__all__ = ["SOLO", "Team", "cores", "end_with_parent", "in_order", "one_blas_thread"]

Item = TypeVar("Item")
Result = TypeVar("Result")

MINUTES = 10.0
"""Default of GEOMKIT_TIMEOUT, in minutes."""


def cores() -> int:
    """Return the number of CPU cores for this process; the ranks on one machine divide them.

    A container may have fewer than the machine: the limit of its control group counts.
    """
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    if (limit := core_limit()) is not None:
        count = min(count, math.ceil(limit))
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
    with one_blas_thread():
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
def one_blas_thread() -> Iterator[None]:
    """Keep numpy's products and decompositions on the thread that asks for them."""
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

    What its methods exchange waits as long as every rank lives, see
    :class:`geomkit._core.pulse.Pulse`; what is exchanged within a step, 2 GEOMKIT_TIMEOUT.

    Args:
        rank: Rank of this process.
        size: Number of ranks.
        pulse: Signs of life of the ranks.
    """

    def __init__(self, rank: int = 0, size: int = 1, pulse: Pulse | None = None) -> None:
        """Name the rank; nothing is connected."""
        self.rank, self.size, self._pulse = rank, size, pulse

    @classmethod
    def from_environment(
        cls, device: str = "auto", *, say: Callable[[str], None] = lambda text: None
    ) -> Team:
        """Return the team that torchrun started, or a team of one; CUDA tensors go through NCCL.

        If one of the ranks gives no sign of life for GEOMKIT_TIMEOUT minutes, calls :meth:`fail`
        or ends without :meth:`close`, the processes of the others end with status 2.

        Args:
            device: Device of the work, as for :func:`geomkit._core.runtime.resolve_device`; it
                becomes the current one.
            say: Function that prints a line.

        Raises:
            GeomkitError: If the environment names several ranks, but not all that torchrun sets, or
                not all of them come.
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
        limit = _limit()
        import torch
        import torch.distributed as dist

        from geomkit._core.pulse import Pulse, name_of_start
        from geomkit._core.runtime import resolve_device, use_device

        place = torch.device(resolve_device(device))
        use_device(str(place))
        nccl = place.type == "cuda" and dist.is_nccl_available()
        # A device that this rank shares with no other, as NCCL asks for.
        alone = device in ("auto", "cuda") and place.index is not None
        alone = alone and int(os.environ.get("LOCAL_WORLD_SIZE", "1")) <= torch.cuda.device_count()
        rank, count = int(os.environ["RANK"]), int(size)
        try:
            stores = [next(dist.rendezvous("env://", timeout=limit))[0] for _ in range(2)]
            name = name_of_start(stores[0], rank, count, limit.total_seconds())
            own, shared = (dist.PrefixStore(name, store) for store in stores)
            if not dist.is_initialized():
                dist.init_process_group(
                    "cpu:gloo,cuda:nccl" if nccl else "gloo",
                    store=own,
                    rank=rank,
                    world_size=count,
                    timeout=2 * limit,
                    device_id=place if nccl and alone else None,
                )
        except RuntimeError as error:
            where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
            raise GeomkitError(
                f"rank {rank}: the {size} ranks do not come together at {where} ({reason(error)}); "
                "start all of them"
            ) from None
        return cls(rank, count, Pulse(rank, count, shared, own, limit.total_seconds(), say))

    def share(self, items: list[Item]) -> list[Item]:
        """Return this rank's share of a list that is the same on all ranks."""
        return items[self.rank :: self.size]

    def block(self, count: int) -> slice:
        """Return the block of ``count`` rows that is this rank's."""
        return slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def meet(self) -> None:
        """Wait for all ranks, as long as each of them lives."""
        if self._pulse is not None:
            self._pulse.meet()

    def sum(self, array: np.ndarray) -> np.ndarray:
        """Return the sum of an array over all ranks, on each of them."""
        if self.size == 1:
            return array
        import torch
        import torch.distributed as dist

        self.meet()
        tensor = torch.from_numpy(np.array(array))  # a copy, writable and contiguous
        dist.all_reduce(tensor)
        return tensor.numpy()

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all ranks, on each of them."""
        if self.size == 1:
            return [value]
        import torch.distributed as dist

        self.meet()
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def first(self, decide: Callable[[], Result]) -> Result:
        """Return on every rank what the first one finds; what it refuses is refused on each."""
        if self.size == 1:
            return decide()
        from geomkit._core.collectives import broadcast

        answer: Any = None
        if self.rank == 0:
            try:
                answer = decide()
            except GeomkitError as error:
                answer = error
        self.meet()
        answer = broadcast(answer)
        if isinstance(answer, GeomkitError):
            raise answer
        return answer

    def join(self, rows: Tensor, *, everywhere: bool = True) -> Tensor:
        """Return the rows of all ranks, in their order, on the CPU.

        Args:
            rows: Rows of this rank, on the CPU; each may have another number of them.
            everywhere: Whether each rank gets all rows, or only the first one; the others get none.
        """
        if self.size == 1:
            return rows
        from geomkit._core.collectives import join_rows

        shapes = self.gather((len(rows), rows.shape[1:], rows.dtype))
        return join_rows(rows, shapes, everywhere=everywhere)

    def check_same(self, what: dict[str, Any]) -> None:
        """Refuse ranks that differ in what must be the same on all.

        Args:
            what: Small values, by what they are in words.

        Raises:
            GeomkitError: On every rank, naming the first one that differs from rank 0.
        """
        first, *others = self.gather(what)
        for rank, other in enumerate(others, 1):
            for name, value in first.items():
                if other[name] != value:
                    raise GeomkitError(
                        f"rank {rank}: has another {name} than rank 0 ({other[name]!s:.20}, not "
                        f"{value!s:.20}); give all ranks the same"
                    )

    def fail(self, text: str) -> None:
        """Make all ranks end, because this one does; the first one to do so prints why.

        Args:
            text: Why.
        """
        if self._pulse is not None:
            self._pulse.fail(text)

    def close(self) -> None:
        """End the connection to the other ranks."""
        if self._pulse is not None:
            self._pulse.close()
        if self.size > 1:
            import torch.distributed as dist

            dist.destroy_process_group()


def _limit() -> timedelta:
    """How long a rank may give no sign of life."""
    word = os.environ.get("GEOMKIT_TIMEOUT", str(MINUTES))
    try:
        minutes = float(word)
    except ValueError:
        minutes = 0.0
    if not 0.01 <= minutes <= 1e6:
        raise GeomkitError(f"GEOMKIT_TIMEOUT: expected minutes, 0.01 or more, got '{word}'")
    return timedelta(minutes=minutes)


SOLO = Team()
"""A single process."""
