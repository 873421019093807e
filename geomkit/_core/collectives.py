"""Collectives of torch.distributed that gradients pass through.

Each rank's loss counts once: a rank receives the gradient of the **sum** of all ranks' losses.
DistributedDataParallel then averages, so a loss whose mean over ranks is the loss of the global
batch trains as one process on that batch would.
"""

from __future__ import annotations

import io
import pickle
from functools import cache
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from geomkit.errors import GeomkitError

__all__ = ["broadcast", "check_equal_counts", "gather_rows", "join_rows", "sum_over_ranks"]


def broadcast(value: Any) -> Any:
    """Return the first rank's value on every rank; tensors in it, on the CPU, are not pickled."""
    tensors: list[Tensor] = []
    packed = io.BytesIO()
    if dist.get_rank() == 0:
        _Packer(packed, tensors).dump(value)
    (content,) = held = [packed.getvalue()]
    dist.broadcast_object_list(held)
    (content,) = held
    if dist.get_rank():
        value = _Unpacker(io.BytesIO(content), tensors).load()
    for tensor in tensors:
        if tensor.numel():  # as bytes: gloo does not know every type
            dist.broadcast(tensor.view(-1).view(torch.uint8), src=0)
    return value


class _Packer(pickle.Pickler):
    """Puts shape and type in the place of each tensor, and collects the tensors."""

    def __init__(self, file: io.BytesIO, tensors: list[Tensor]) -> None:
        super().__init__(file)
        self.tensors = tensors

    def persistent_id(self, thing: Any) -> Any:
        if not isinstance(thing, Tensor):
            return None
        self.tensors.append(thing.detach().contiguous())
        return thing.shape, thing.dtype


class _Unpacker(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, tensors: list[Tensor]) -> None:
        super().__init__(file)
        self.tensors = tensors

    def persistent_load(self, saved: Any) -> Tensor:
        self.tensors.append(torch.empty(saved[0], dtype=saved[1]))
        return self.tensors[-1]


def join_rows(rows: Tensor, shapes: list[Any], *, everywhere: bool) -> Tensor:
    """Return the rows of all ranks, in their order; each rank may have another number of them.

    Args:
        rows: Rows of this rank ``(k, …)``, on the CPU.
        shapes: Number, shape and type of the rows of each rank; of one without rows, any.
        everywhere: Whether each rank gets all rows, or only the first one; the others get none.
    """
    longest, width, dtype = max(shapes, key=lambda shape: shape[0])
    block = torch.zeros((longest, *width), dtype=dtype)
    block[: len(rows)] = rows if len(rows) else block[:0]
    whole = [torch.empty_like(block) for _ in shapes] if everywhere or dist.get_rank() == 0 else []
    if everywhere:
        dist.all_gather(whole, block)
    else:
        dist.gather(block, whole or None)
    return torch.cat([block[:0], *(b[:k] for b, (k, *_) in zip(whole, shapes, strict=False))])


def check_equal_counts(count: int, what: str) -> None:
    """Refuse ranks with unequal numbers of rows, on each of them; the others would wait for ever.

    The numbers go through the host: no rank waits for its device.

    Raises:
        GeomkitError: Naming them.
    """
    counts = torch.empty(dist.get_world_size(), dtype=torch.int64)
    group = _host_group(dist.group.WORLD)
    dist.all_gather_into_tensor(counts, torch.tensor([count]), group=group)
    if bool((counts != count).any()):
        found = ", ".join(map(str, counts.tolist()))
        raise GeomkitError(
            f"{what}: expected as many rows on each rank, got {found}; leave out an incomplete "
            "batch (drop_last=True)"
        )


@cache
def _host_group(world: Any) -> Any:
    """A group for tensors on the CPU: all ranks, through gloo if theirs is for devices only."""
    if "cpu:" in dist.get_backend_config(world):
        return world
    return dist.new_group(backend="gloo")


def gather_rows(rows: Tensor) -> Tensor:
    """Return the rows of all ranks, ``(ranks * b, d)``, in their order; b is equal on each."""
    return _Gather.apply(rows)


def sum_over_ranks(values: Tensor) -> Tensor:
    """Return the sum of a tensor over all ranks, on each of them."""
    return _Sum.apply(values)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        rows = rows.contiguous()
        whole = rows.new_empty((dist.get_world_size() * rows.shape[0], *rows.shape[1:]))
        dist.all_gather_into_tensor(whole, rows)
        return whole

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous()
        share = gradient.shape[0] // dist.get_world_size()
        if not gradient.is_cuda:
            # Not every version of gloo has reduce-scatter: sum everything and keep a part.
            dist.all_reduce(gradient := gradient.clone())
            return gradient[dist.get_rank() * share : (dist.get_rank() + 1) * share]
        own = gradient.new_empty((share, *gradient.shape[1:]))
        dist.reduce_scatter_tensor(own, gradient)
        return own


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _Sum.apply(gradient)
