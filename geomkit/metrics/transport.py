"""Sliced Wasserstein distance of two clouds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from geomkit._core.array import Array, is_torch, to_numpy
from geomkit._core.parallel import cores, in_order
from geomkit.metrics.number import Number

__all__ = ["sliced_wasserstein"]

PROJECTIONS = 256
_BLOCK = 4096
_MEMORY = 1 << 30


def sliced_wasserstein(x: Array, y: Array, *, seed: int, projections: int = PROJECTIONS) -> Number:
    r"""Sliced Wasserstein-2 distance, over seeded directions.

    .. math:: \left(\frac1P \sum_\theta W_2^2(\{x_i·\theta\}, \{y_i·\theta\})\right)^{1/2}

    Bonneel et al. (2015). In one dimension optimal transport pairs the sorted values. 0 to 2. It
    falls as the dimension grows: a shift by s gives s/√d.

    Args:
        x: Images, unit rows ``(n, d)``.
        y: Texts, unit rows ``(n, d)``.
        seed: Random seed of the directions.
        projections: Number P of directions.

    Returns:
        Distance without a standard error: that of the directions alone would mislead.
    """
    directions = np.random.default_rng(seed).standard_normal((int(x.shape[1]), projections))
    directions /= np.linalg.norm(directions, axis=0)

    n = int(x.shape[0])
    # The distance does not move under a common translation; narrow clouds keep their digits.
    centre = to_numpy(x[:_BLOCK]).mean(axis=0, dtype=np.float64)
    dtype = np.float32 if n > 4096 else np.float64
    # As many directions at a time as fit the memory budget; each lot is one pass over the rows.
    lot = max(1, min(projections, _MEMORY // (2 * n * np.dtype(dtype).itemsize)))
    total: Any = 0.0
    for first in range(0, projections, lot):
        chosen = directions[:, first : first + lot]
        if is_torch(x) and x.device.type not in ("cpu", "mps"):
            total = total + _squared_there(x, y, centre, chosen, dtype)
            continue
        one, two = (_project(rows, centre, chosen, dtype) for rows in (x, y))

        def squared(k: int, one: np.ndarray = one, two: np.ndarray = two) -> float:
            one[k].sort()
            two[k].sort()
            return float(np.square(one[k] - two[k], dtype=np.float64).mean())

        total += math.fsum(in_order(squared, range(len(one)), threads=cores()))
    return Number(math.sqrt(float(total) / projections))


def _squared_there(x: Any, y: Any, centre: np.ndarray, directions: np.ndarray, dtype: type) -> Any:
    """Sum over directions of the mean squares, on the device of the rows."""
    import torch

    kind = torch.float32 if dtype is np.float32 else torch.float64
    middle, turn = (torch.as_tensor(a).to(x.device, kind) for a in (centre, directions))
    sides = []
    for rows in (x, y):
        parts = [(part.to(kind) - middle) @ turn for part in rows.split(_BLOCK * 16)]
        sides.append(torch.cat(parts).sort(dim=0).values)
    return (sides[0] - sides[1]).double().square().mean(dim=0).sum()


def _project(rows: Array, centre: np.ndarray, directions: np.ndarray, dtype: type) -> np.ndarray:
    """Projections of the rows less a centre on the directions, ``(p, n)``."""
    out: np.ndarray = np.empty((directions.shape[1], int(rows.shape[0])), dtype)

    def work(start: int) -> None:
        block = to_numpy(rows[start : start + _BLOCK])
        block = block - centre.astype(block.dtype)
        out[:, start : start + len(block)] = (block @ directions.astype(block.dtype)).T

    for _ in in_order(work, range(0, out.shape[1], _BLOCK), threads=cores()):
        pass
    return out
