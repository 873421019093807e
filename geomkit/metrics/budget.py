"""Whether all pairs of rows can be compared in time, and whether memory suffices."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from geomkit._core.array import Array, is_torch, like
from geomkit._core.memory import available_memory, device_memory
from geomkit._core.parallel import cores
from geomkit.embeddings.embeddings import Embeddings
from geomkit.errors import GeomkitError

__all__ = ["check_memory", "pairwise_seconds", "within_budget"]

SECONDS = 120.0
"""Estimated seconds that comparing all pairs may take without an exact limit."""
_SURE = 25_000
"""Number of rows up to which time is not estimated but all pairs are compared."""
_OVERHEAD = 1.6
"""Time of the walk over that of its matrix products alone, neighbours included."""


def pairwise_seconds(n: int, m: int, d: int, *, beside: Array | None = None) -> float:
    """Return the estimated seconds of comparing all pairs, from a product timed now.

    Args:
        n: Number of images.
        m: Number of texts.
        d: Number of dimensions.
        beside: Rows on the device that is to compare them; default: here.
    """
    count = 1024 if beside is None else 8192
    rows: Any = np.random.default_rng(0).standard_normal((count, d)).astype(np.float32)
    if beside is not None:
        rows = like(rows, beside)
    best = np.inf
    for _ in range(3):
        start = time.perf_counter()
        float((rows @ rows.T)[0, 0])  # a device has finished when a number of it is read
        best = min(best, time.perf_counter() - start)
    rate = 2 * count**2 * d / best
    return _OVERHEAD * (n * n + m * m + 2.0 * n * m) * d / rate


def within_budget(
    embeddings: Embeddings, exact_limit: int | None, *, ranks: int = 1
) -> tuple[bool, float | None]:
    """Return whether to compare all pairs, and the estimated seconds if they decided it.

    Args:
        embeddings: Rows to compare.
        exact_limit: Number of rows up to which to compare all pairs; ``None``: the estimated time
            decides.
        ranks: Number of ranks that share the work.

    Raises:
        GeomkitError: If the limit is negative.
    """
    n = max(embeddings.n, embeddings.m)
    if exact_limit is not None:
        if exact_limit < 0:
            raise GeomkitError(f"exact limit: expected 0 or more rows, got {exact_limit}")
        return n <= exact_limit, None
    if n <= _SURE:
        return True, None
    image = embeddings.image
    beside = image[:1] if is_torch(image) and image.device.type != "cpu" else None
    seconds = pairwise_seconds(embeddings.n, embeddings.m, embeddings.dim, beside=beside) / ranks
    return seconds <= SECONDS, seconds


def check_memory(embeddings: Embeddings, *, moments: bool, pairwise: bool) -> None:
    """Refuse before the start what would not fit into memory.

    Args:
        embeddings: Rows to measure.
        moments: Whether second moments are computed.
        pairwise: Whether all pairs are compared.

    Raises:
        GeomkitError: If the estimate exceeds the free memory.
    """
    image: Any = embeddings.image
    there = is_torch(image)
    available = device_memory(embeddings.image) if there else available_memory()
    if available is None:
        return
    d, e = embeddings.image.shape[1], embeddings.text.shape[1]
    threads = 1 if there else cores()
    needed = 0
    if moments:  # the sums, those of each block in work, and the memory of eigenvalues
        needed += 8 * (d * d + e * e + d * e) * (3 + 2 * threads)
    if pairwise:  # tiles and their potentials; ranks, neighbours and row sums
        side = min(8192, embeddings.m)
        tiles = 8 * 4 * side**2 if there else threads * 6 * 4 * 1024 * 1024
        needed += tiles + embeddings.n * 16 * 100
    if needed > available:
        where = f"memory of {image.device}" if there else "memory"
        raise GeomkitError(
            f"{where}: about {needed / 2**30:.1f} GiB are needed for n={embeddings.n}, d={d} and "
            f"{available / 2**30:.1f} GiB are free; choose fewer --metrics or fewer dimensions"
        )
