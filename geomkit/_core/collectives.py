"""Collectives of torch.distributed that gradients pass through.

Each rank's loss counts once: a rank receives the gradient of the **sum** of all ranks' losses.
DistributedDataParallel then averages, so a loss whose mean over ranks is the loss of the global
batch trains as one process on that batch would.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["gather_rows", "sum_over_ranks"]


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
