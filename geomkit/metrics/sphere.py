"""What a uniform cloud on the sphere would score."""

from __future__ import annotations

import math

__all__ = ["uniform_sphere_limit"]


def uniform_sphere_limit(dim: int, t: float = 2.0) -> float:
    r"""Uniformity of the uniform distribution on the sphere, −2t + log ₀F₁(; d/2; t²).

    Summed as its power series, whose terms fall off fast; the equivalent Bessel form underflows
    for large d.

    >>> round(uniform_sphere_limit(3), 4), round(uniform_sphere_limit(512), 4)
    (-2.0798, -3.9844)
    """
    term = total = 1.0
    k = 0
    while term > 1e-17 * total:
        term *= t * t / ((dim / 2 + k) * (k + 1))
        total += term
        k += 1
    return -2.0 * t + math.log(total)
