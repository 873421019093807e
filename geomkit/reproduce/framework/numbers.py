"""How numbers are written in reports: one format, one minus sign."""

from __future__ import annotations

import math

from geomkit._core.shown import one_minus

__all__ = ["number", "one_minus"]


def number(value: float, *beside: float) -> str:
    """Return a number to three decimals, a large one to one, whole ones without.

    NaN is ``undefined``.

    Args:
        value: The number.
        beside: Numbers written beside it, in one format with it.

    >>> number(0.12345), number(-0.0001), number(70.0, 0.0), number(-123.456), number(2.0, 0.5)
    ('0.123', '0.000', '70', '−123.5', '2.000')
    >>> number(float("nan")), number(-float("inf")), number(3.0, float("nan"))
    ('undefined', '−∞', '3')
    """
    if not math.isfinite(value):
        return "undefined" if math.isnan(value) else "∞" if value > 0 else "−∞"
    every = [one for one in (value, *beside) if math.isfinite(one)]
    if max(map(abs, every)) >= 2 and all(one == int(one) for one in every):
        text = f"{value:.0f}"
    else:
        text = f"{value:.3f}" if abs(value) < 100 else f"{value:.1f}"
    return one_minus("0.000" if text == "-0.000" else text)
