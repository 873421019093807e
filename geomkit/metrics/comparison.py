"""compare(): the differences of two results on the same pairs, with paired errors."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from geomkit._core.table import Table
from geomkit.embeddings.embeddings import Clouds, Embeddings
from geomkit.errors import GeomkitError
from geomkit.metrics.number import NAN
from geomkit.metrics.registry import METRICS
from geomkit.metrics.result import GapResult

__all__ = [
    "Difference", "alike", "compare", "difference", "differences_json", "differences_table",
]  # fmt: skip


class Difference(NamedTuple):
    """Difference of a metric between two results.

    Attributes:
        value: After − before.
        stderr: Its standard error over the draw of the pairs; NaN where it is not known.
        p_value: Two-sided p-value of no difference, from the normal distribution; NaN without an
            error.
    """

    value: float
    stderr: float = NAN
    p_value: float = NAN


def compare(before: GapResult, after: GapResult) -> dict[str, Difference]:
    r"""Return the difference of each metric between two results on the same pairs.

    The error is paired: with :math:`φ_i` what pair i adds to the metric after less what it adds
    before, it is :math:`\operatorname{sd}(φ)/\sqrt n`. What both results have in common cancels, so
    it is far below the errors of the two numbers where they agree on most pairs. The gallery of a
    retrieval is taken as given, as are the neighbours of other rows. Of shares of queries the
    variance is that of two more draws, of which half a draw each gains and loses, as Agresti and
    Min take it (Statistics in Medicine, 2005): it is not 0 where no query changes.

    Simulated with 250 pairs (reports/simulations/differences.md), errors are 0.9 to 1.6 times the
    spread of the differences, and up to 3 times where hardly a query changes. Where a few rows are
    near most queries, as with a gap far wider than the clouds, those of retrieval are too small:
    down to 0.4 of the spread.

    Args:
        before: Result of :func:`geomkit.gap` with ``parts=True``.
        after: Another one of the same pairs in the same order.

    Raises:
        GeomkitError: If the results differ in their number of pairs.

    Example:
        >>> from geomkit import gap
        >>> rng = np.random.default_rng(0)
        >>> x, y = rng.standard_normal((2, 50, 4))
        >>> before, after = (gap(x, rows, metrics="alignment", parts=True) for rows in (y, x + y))
        >>> found = compare(before, after)["alignment"]
        >>> found.value < 0 < found.stderr, found.p_value < 0.001
        (True, True)
    """
    for result in (before, after):
        if not isinstance(result, GapResult):
            raise GeomkitError(f"compare: expected a GapResult, got {type(result).__name__}")
    if before.n != after.n:
        raise GeomkitError(
            f"compare: expected results on the same pairs, got n = {before.n:,} and {after.n:,}"
        )
    return {
        name: difference([name], before, after) for name in before.metrics if name in after.metrics
    }


def difference(names: list[str], before: GapResult, after: GapResult) -> Difference:
    """Return the difference of the mean of some metrics, as :func:`compare` that of one.

    Args:
        names: Metrics with one scale.
        before: Result on some pairs.
        after: Result on the same pairs.
    """
    value = float(np.mean([after.metrics[name] - before.metrics[name] for name in names]))
    both = [(before.parts.get(name), after.parts.get(name)) for name in names]
    own = [b - a for a, b in both if a is not None and b is not None and len(a) == len(b)]
    if math.isnan(value) or len(own) < len(names) or len(own[0]) < 2:
        return Difference(value)
    changes, count = np.mean(own, axis=0), len(own[0])
    squares = float(np.square(changes - changes.mean()).sum())
    if all(_is_share(name) for name in names):
        squares, count = squares + 1.0, count + 2
    error = math.sqrt(squares / (count - 1) / count)
    p = math.erfc(abs(value) / error / math.sqrt(2)) if error > 0 else 1.0 * (value == 0)
    return Difference(value, error, p)


Loaded = TypeVar("Loaded", bound=tuple[str, Embeddings | Clouds, Any])


def alike(loaded: Iterable[Loaded], check: bool = True) -> Iterator[Loaded]:
    """Yield named embeddings, refusing those that are not of the pairs of the first.

    Args:
        loaded: A name, embeddings, and whatever follows, of each source.
        check: Whether to look; otherwise all are yielded as they come.

    Raises:
        GeomkitError: If numbers of pairs or ids differ, or there are no pairs.
    """
    first: tuple[str, Embeddings] | None = None
    for entry in loaded:
        name, part = entry[:2]
        if check and isinstance(part, Clouds):
            raise GeomkitError(f"{name}: {part.reason}; only results on the same pairs compare")
        if check and isinstance(part, Embeddings):
            first = first or (name, part)
            _check_alike(name, part, *first)
        yield entry


def _check_alike(name: str, part: Embeddings, other: str, reference: Embeddings) -> None:
    if part.modalities != reference.modalities:
        pair, theirs = ("–".join(e.modalities) for e in (part, reference))
        raise GeomkitError(
            f"{name}: its {pair} does not compare with {theirs} of {other}; give sources with one "
            "pair of modalities, the same in all"
        )
    if (part.n, part.m) != (reference.n, reference.m):
        raise GeomkitError(
            f"{name}: has {part.n:,} images and {part.m:,} texts, {other} has {reference.n:,} and "
            f"{reference.m:,}; only results on the same pairs compare"
        )
    if part.ids and reference.ids:
        for row, (a, b) in enumerate(zip(part.ids, reference.ids, strict=True)):
            if a != b:
                raise GeomkitError(
                    f"{name}: row {row} has the id {a}, but {b} in {other}; sort both alike"
                )


def differences_table(results: Sequence[GapResult]) -> Table:
    """Return the differences of results from the first one as a table, with error and p-value.

    >>> from dataclasses import replace
    >>> one = GapResult({"alignment": 1.0}, n=2, dim=3, source="a.npz")
    >>> print(differences_table([one, replace(one, source="b.npz")]).plain().splitlines()[-1])
    alignment    +0.0000
    """
    first, *others = results
    found = [compare(first, other) for other in others]
    names = dict.fromkeys(name for one in found for name in one)
    rows = [[name, *(_cell(one.get(name)) for one in found)] for name in names]
    titles = [Path(r.source).name for r in others]
    return Table([f"less {Path(first.source).name}", *titles], [rows], exchanged=True)


def differences_json(results: Sequence[GapResult]) -> list[dict[str, Any]]:
    """Return the differences of results from the first one as plain JSON types."""
    first, *others = results
    return [
        {
            "source": other.source,
            "less": first.source,
            "metrics": {
                name: {k: v if math.isfinite(v) else None for k, v in one._asdict().items()}
                for name, one in compare(first, other).items()
            },
        }
        for other in others
    ]


def _cell(found: Difference | None) -> str:
    if found is None or math.isnan(found.value):
        return "–"
    if math.isnan(found.stderr):
        return f"{found.value:+.4f}"
    p = f"{found.p_value:.3f}" if found.p_value >= 0.001 else "<0.001"
    return f"{found.value:+.4f} ± {found.stderr:.4f}  p {p}"


def _is_share(name: str) -> bool:
    """Whether a metric is a mean over queries, or over rows to classify, of numbers from 0 to 1."""
    metric = METRICS.get(name)
    if metric is None:  # a score of a model
        return True
    return bool(metric.reduction or metric.rows) and (metric.low, metric.high) == (0, 1)
