"""Metric: one number that geomkit reports, how to compute it and how to interpret it."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import wraps
from typing import Any, Literal

import numpy as np

from geomkit.functional import uniform_sphere_limit
from geomkit.metrics.number import Number
from geomkit.metrics.statistics import Reduction, Statistics

__all__ = ["Metric", "of_moments", "of_statistics"]


@dataclass(frozen=True)
class Metric:
    """One number: how to compute it, and how to interpret it.

    A metric is declared in a module of :mod:`geomkit.metrics.definitions`, beside its formula.

    Attributes:
        name: Key in tables, JSON and CSV.
        group: Heading of its section in tables.
        number: Function from :class:`Statistics` to the number with its error and null; the first
            line of its docstring is the metric's summary.
        ends: Meaning of its extremes; ``{limit}`` stands for the uniformity of the uniform sphere.
        low: Smallest possible value.
        high: Largest possible value.
        hint: Short reading of its axis in figures; default: the range, if it is finite.
        ideal: Value for coinciding pairs spread over the whole sphere as n → ∞: a number, or a
            function of the dimension; ``None`` where there is none.
        across: Whether it compares images with texts, and so needs them in one space.
        reduction: What it takes from the walk over all pairs of rows, if anything.
        rows: Rows that it reads itself past the row budget: ``all`` or ``sampled``; ``None`` if it
            is a function of the moments or of the reduction.
        undefined: Reason why it can be NaN.
        parts: Function from :class:`Statistics` to what each pair adds to the number: an array
            whose mean is the number up to a constant, to first order. The spread of differences
            of parts is the error of a difference, see :func:`geomkit.metrics.compare`.
        pitfalls: What misleads its reader, in one to three sentences.
    """

    name: str
    group: str
    number: Callable[[Statistics], Number]
    ends: str
    low: float = -math.inf
    high: float = math.inf
    hint: str = ""
    ideal: float | Callable[[int], float] | None = None
    across: bool = True
    reduction: Reduction[Any] | None = None
    rows: Literal["all", "sampled"] | None = None
    undefined: str = ""
    parts: Callable[[Statistics], np.ndarray] | None = None
    pitfalls: str = ""

    @property
    def cost(self) -> Literal["n·d²", "n²·d", "rows"]:
        """Quantity that its cost grows with, of moments, pairs of rows or passes over the rows."""
        return "n²·d" if self.reduction else "rows" if self.rows else "n·d²"

    @property
    def estimated(self) -> bool:
        """Whether it is an estimate past the row budget."""
        return self.reduction.sampled is not None if self.reduction else self.rows == "sampled"

    @property
    def summary(self) -> str:
        """First line of the docstring of its function."""
        lines = (self.number.__doc__ or "").strip().splitlines()
        return lines[0] if lines else ""

    def interpretation(self, dims: Collection[int] = ()) -> str:
        """Return the meaning of its extremes in words.

        Args:
            dims: Dimensions of the embeddings that it was measured on; if they have one limit of
                the uniformity, it is given as a number.
        """
        limits = {f"{uniform_sphere_limit(dim):.2f}" for dim in dims}
        limit = limits.pop() if len(limits) == 1 else "the sphere's limit"
        return self.ends.replace("{limit}", limit)

    def ideal_at(self, dim: int) -> float:
        """Return the ideal value in a dimension; NaN if there is none."""
        if self.ideal is None:
            return math.nan
        return float(self.ideal(dim) if callable(self.ideal) else self.ideal)


def of_moments(
    formula: Callable[..., Number], *args: Any, p_value: Callable[..., float] | None = None
) -> Callable[[Statistics], Number]:
    """Return a metric's function from a formula of the moments.

    Args:
        formula: Function of :class:`~geomkit.engine.moments.Moments` and ``args``.
        args: Further arguments of the formula.
        p_value: Function of the paired rows x, y and a keyword ``seed``.
    """

    @wraps(formula)
    def number(s: Statistics) -> Number:
        found = formula(s.moments, *args)
        if p_value is None or not s.errors:
            return found
        return found._replace(p_value=p_value(*s.pairs, seed=s.seed))

    return number


def of_statistics(formula: Callable[..., Number], *args: Any) -> Callable[[Statistics], Number]:
    """Return a metric's function from a formula of the statistics and further arguments."""

    @wraps(formula)
    def number(s: Statistics) -> Number:
        return formula(s, *args)

    return number
