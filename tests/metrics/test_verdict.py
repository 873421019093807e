"""The sentence about a result: its words follow the numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from conftest import clouds

from geomkit.metrics import METRICS, GapResult, gap, select, verdict
from geomkit.metrics.registry import SUMMARY


def result(
    accuracy: float = math.nan,
    error: float = 0.01,
    distance: float = math.nan,
    p: float | None = None,
    recall: float = math.nan,
    null: float = 0.05,
) -> GapResult:
    metrics = {
        "linear_separability": accuracy, "centroid_distance": distance,
        "text_retrieval_recall@1": recall,
    }  # fmt: skip
    return GapResult(
        metrics,
        n=100,
        dim=8,
        stderr={"linear_separability": error},
        null={"centroid_distance": null},
        p_value={} if p is None else {"centroid_distance": p},
    )


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (result(1.0, distance=0.8, p=0.001, recall=0.5486),
         "Disjoint clouds: centroid distance 0.8, 16 times what no gap would give; a linear "
         "classifier never errs; 55% of image rows find their text first."),
        (result(0.992, distance=0.8, p=0.001),
         "Disjoint clouds: centroid distance 0.8, 16 times what no gap would give; a linear "
         "classifier errs on 0.8% of the rows."),
        (result(0.9, distance=0.1, p=0.001),
         "Clouds that overlap: centroid distance 0.1, 2 times what no gap would give; a linear "
         "classifier errs on 10% of the rows."),
        (result(0.6, distance=0.1, p=0.001),
         "Mixed clouds: centroid distance 0.1, 2 times what no gap would give; a linear "
         "classifier errs on 40% of the rows."),
        (result(0.51, distance=0.06, p=0.3),
         "No gap to be seen: centroid distance 0.06, where no gap would give 0.05; a linear "
         "classifier does no better than chance."),
        # centroids apart that no plane tells apart, and the other way round
        (result(0.51, distance=0.06, p=0.001),
         "Mixed clouds: centroid distance 0.06, 1.2 times what no gap would give; a linear "
         "classifier does no better than chance."),
        (result(0.6, distance=0.05, p=0.5),
         "Mixed clouds: centroid distance 0.05, where no gap would give 0.05; a linear "
         "classifier errs on 40% of the rows."),
        (result(distance=0.5), "Clouds apart: centroid distance 0.5, 10 times what no gap would "
         "give."),
        (result(distance=0.06), "No gap to be seen: centroid distance 0.06, where no gap would "
         "give 0.05."),
        (result(distance=2.0, null=0.0), "Clouds apart: centroid distance 2."),
        (result(distance=0.9, null=0.001), "Clouds apart: centroid distance 0.9, over 100 times "
         "what no gap would give."),
        (result(recall=0.0), "0% of image rows find their text first."),
        (result(recall=0.9996), "Over 99.9% of image rows find their text first."),
        (result(), ""),
    ],
)  # fmt: skip
def test_words_follow_the_numbers(given: GapResult, says: str) -> None:
    assert verdict(given) == says


def test_verdicts_of_real_clouds() -> None:
    x, y = np.random.default_rng(0).standard_normal((2, 200, 8))
    assert verdict(gap(x, y)).startswith("No gap to be seen: ")
    assert verdict(gap(x + 9, y - 9)).startswith("Disjoint clouds: ")
    assert verdict(gap(x, x)).endswith("100% of image rows find their text first.")
    assert verdict(gap(x)) == "Mean cosine of two image rows 0.00."
    assert "mean cosine of two text rows" in verdict(gap(x, y[:, :3]))
    assert "find" not in verdict(gap(x, y[:50]))  # no pairs, no retrieval
    named = gap({"audio": x, "text": y})
    assert "audio rows find their text" in verdict(named)


def test_a_terminal_shows_a_dozen_metrics_and_the_verdict(cli) -> None:
    x, y = clouds(30, 5)
    np.savez("e.npz", image=x, text=y)
    done = cli("gap", "e.npz")
    lines = done.out.splitlines()
    assert done.status == 0 and len(lines) <= 24 and lines[0].endswith(".") and not lines[1]
    shown = [line.split()[0] for line in lines[2:] if line.split() and line.split()[0] in METRICS]
    assert shown == list(SUMMARY) and len(SUMMARY) == 12
    assert f"12 of {len(METRICS)} metrics; --metrics all for the rest" in done.err
    whole = cli("gap", "e.npz", "--metrics", "all")
    assert all(f"\n{name} " in whole.out for name in METRICS) and "--metrics all" not in whole.err
    assert select(["summary"]) == list(SUMMARY) and select(["all"]) == list(METRICS)
    two = cli("gap", "e.npz", "e.npz")
    assert two.out.startswith("e.npz: ") and two.out.count("classifier") == 2
    assert "classifier" not in cli("gap", *["e.npz"] * 4).out
