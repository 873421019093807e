"""A new metric, of moments or pairwise, is one list in one module: its reducer comes along."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import clouds

from geomkit.metrics import METRICS, gap, select
from geomkit.metrics import definitions as definitions_package
from geomkit.metrics import statistics as statistics_module
from geomkit.metrics.registry import _found

MODULE = '''
"""Toy metrics: one of moments, one pairwise with reducers of its own, one without an estimate."""

import numpy as np

from geomkit.engine.pairwise import Reducer
from geomkit.metrics.metric import Metric, of_moments
from geomkit.metrics.number import Number
from geomkit.metrics.statistics import Reduction


class Largest(Reducer):
    kinds = frozenset({"xx"})

    def start(self, pairs):
        self.value = -np.inf

    def tile(self, tile):
        if not tile.diagonal:
            return float(tile.gram.max())
        off = ~np.eye(len(tile.rows), dtype=bool)
        return float(tile.gram[off].max()) if off.any() else -np.inf

    def add(self, tile, part):
        self.value = max(self.value, part)

    def finish(self, team):
        self.value = max(team.gather(self.value))


class SampledLargest(Largest):
    def start(self, pairs):
        super().start(pairs)
        self.rows = pairs.rows

    def tile(self, tile):
        return float(tile.gram[self.rows[:, None] != tile.cols].max())


LARGEST = Reduction(Largest, SampledLargest)
EXACT_ONLY = Reduction(Largest)


def mean_norm(m) -> Number:
    """Norm of the mean of all rows. 0 to 1."""
    return Number(float(np.linalg.norm(m.mean_x + m.mean_y)) / 2)


def largest(s) -> Number:
    """Largest cosine of two different images. −1 to 1."""
    return Number(s.reduced(LARGEST).value)


METRICS = [
    Metric("mean_norm", "gap", of_moments(mean_norm), "0 … 1", low=0, high=1),
    Metric("largest_cosine", "spread", largest, "1 = two images coincide", reduction=LARGEST),
    Metric(
        "largest_cosine_exact", "toys", lambda s: Number(s.reduced(EXACT_ONLY).value),
        "1 = two images coincide", reduction=EXACT_ONLY,
    ),
]
'''


@pytest.fixture
def toys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The names of METRICS with the toy module among the definitions."""
    (tmp_path / "a_toy.py").write_text(MODULE)
    monkeypatch.setattr(
        definitions_package, "__path__", [*definitions_package.__path__, str(tmp_path)]
    )
    before = dict(METRICS)
    METRICS.clear()
    METRICS.update(_found())
    yield list(METRICS)
    METRICS.clear()
    METRICS.update(before)


def test_new_metrics_come_last_in_their_groups(toys: list[str]) -> None:
    old = [name for name in toys if "largest" not in name and name != "mean_norm"]
    assert toys[toys.index("mean_norm") - 1] == "gap_alignment_text"
    assert toys[toys.index("largest_cosine") - 1] == "intra_cosine_text"
    assert toys[-1] == "largest_cosine_exact" and select(["toys"]) == ["largest_cosine_exact"]
    assert len(old) == len(toys) - 3 and METRICS["largest_cosine"].estimated


def test_a_new_reducer_joins_the_walk(toys: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = clouds(300, 6)
    expected = float((x @ x.T - 2 * np.eye(300)).max())
    names = ["gap", "uniformity_image", "largest_cosine", "largest_cosine_exact"]
    whole = gap(x, y, metrics=names)
    assert whole.metrics["largest_cosine"] == pytest.approx(expected, rel=1e-12)
    assert whole.metrics["largest_cosine_exact"] == whole.metrics["largest_cosine"]
    mean = np.linalg.norm((x.mean(0) + y.mean(0)) / 2)
    assert whole.metrics["mean_norm"] == pytest.approx(mean, rel=1e-12)
    assert "1 = two images coincide" in str(whole)
    # past the row budget: estimated by its own sampled reducer, or left out with a reason
    monkeypatch.setattr(statistics_module, "QUERIES", 300)
    estimate = gap(x, y, metrics=names, exact_limit=10)
    assert estimate.metrics["largest_cosine"] == pytest.approx(expected, rel=1e-12)
    assert "largest_cosine" in estimate.estimated
    assert math.isnan(estimate.metrics["largest_cosine_exact"])
    assert "left out past the row budget" in estimate.meta["reasons"]["largest_cosine_exact"]
