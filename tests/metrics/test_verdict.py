"""The sentence about a result: its words follow the numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import clouds

from geomkit.embeddings.embeddings import Clouds, Embeddings
from geomkit.metrics import METRICS, GapResult, gap, select, verdict
from geomkit.metrics.registry import SUMMARY


@pytest.mark.parametrize(
    ("value", "null", "p", "separability", "recall", "says"),
    [
        (
            0.85,
            0.053,
            0.001,
            1.0,
            0.55,
            ("Disjoint clouds: ", "0.85, 16 times", "tells all", "55%"),
        ),
        (0.2, 0.1, 0.001, 0.9996, 0.55, ("Disjoint", "0.20, 2.0 times", "more than 99.9%")),
        (0.2, 0.1, 0.001, 0.8, 0.55, ("Overlapping clouds with a gap", "80% of held-out rows")),
        (0.1, 0.1, 0.5, 0.5, 0.55, ("No gap found", "no more than the 0.10", "not clearly better")),
        (0.12, 0.1, 0.5, 0.5, 0.55, ("No gap found", "not clearly above the 0.10 expected")),
        (0.0, 0.0, 1.0, 0.5, 1.0, ("No gap found", "100% of images find their caption")),
        (0.3, 0.0, 0.001, 0.5, 1.0, ("Small gap", "0.30, and no gap would give 0;")),
        (0.1, 0.1, 0.5, 0.9, 0.5, ("No gap between the centres, but the clouds differ",)),
        (0.2, 0.1, 0.001, 0.8, 0.004, ("0.4% of images", "first, not clearly more than by chance")),
        (0.85, 0.05, 0.001, None, None, ("Gap: ", "17 times what no gap would give.")),
    ],
)
def test_verdict(
    value: float, null: float, p: float, separability: float | None, recall: float | None,
    says: tuple[str, ...],
) -> None:  # fmt: skip
    metrics = {"centroid_distance": value}
    if separability is not None:
        metrics["linear_separability"] = separability
    chances = {"centroid_distance": p}
    if recall is not None:
        metrics |= {f"{side}_retrieval_recall@1": recall for side in ("text", "image")}
        chances |= dict.fromkeys(
            [name for name in metrics if "recall" in name], 1e-9 if recall > 0.01 else 0.3
        )
    result = GapResult(
        metrics, n=250, dim=8, p_value=chances,
        stderr={"linear_separability": 0.01},
        null={"centroid_distance": null, "text_retrieval_recall@1": 0.004},
    )  # fmt: skip
    found = verdict(result)
    for words in says:
        assert words in found, found
    assert found.endswith(".") and "nan" not in found


def test_verdicts_of_what_has_no_pairs_and_of_what_collapsed() -> None:
    x, y = clouds(40, 4)

    def said(what: Any) -> str:
        return verdict(gap(what))

    one = said(Clouds.of({"image": x}))
    assert one.startswith("One modality: there is only image") and "mean cosine" in one
    unpaired = said(Clouds.of({"image": x + 3, "text": y[:30] - 3}))
    assert unpaired.startswith("Disjoint clouds") and "rows are not paired" in unpaired
    apart = said(Embeddings.of(x, y[:, :3]))
    assert apart == "Not measured: the two modalities have different dimensions."
    same = said(Embeddings.of(np.ones((40, 4)), np.ones((40, 4))))
    assert same.startswith("Collapsed: all images and all captions") and "by chance" in same
    several = said(Embeddings.of(x, np.concatenate([y, y]), np.tile(np.arange(40), 2)))
    assert "find one of their captions and" in several


def test_a_terminal_shows_a_dozen_metrics_and_the_verdict(cli) -> None:
    x, y = clouds(30, 5)
    np.savez("e.npz", image=x, text=y)
    done = cli("gap", "e.npz")
    lines = done.out.splitlines()
    assert done.status == 0 and len(lines) <= 17 and lines[0].endswith(".") and not lines[1]
    shown = [line.split()[0] for line in lines[2:] if line.split() and line.split()[0] in METRICS]
    assert shown == list(SUMMARY) and len(SUMMARY) == 12
    assert f"12 of {len(METRICS)} metrics; --metrics all for the rest" in done.err
    whole = cli("gap", "e.npz", "--metrics", "all")
    assert all(f"\n{name} " in whole.out for name in METRICS) and "--metrics all" not in whole.err
    assert select(["summary"]) == list(SUMMARY) and select(["all"]) == list(METRICS)
    two = cli("gap", "e.npz", "e.npz")
    assert two.out.startswith("e.npz: ") and two.out.count("classifier") == 2
    assert "classifier" not in cli("gap", *["e.npz"] * 4).out


def test_nothing_is_said_that_was_not_measured() -> None:
    x, y = clouds(40, 4)
    said = verdict(gap(x + 2, y - 2, metrics=["mmd"]))
    assert said.startswith("The clouds differ: MMD² ") and "centre" not in said
