"""Reported errors of differences beside the truth, over simulated data sets.

    python tests/simulations/differences.py                                   # to the terminal
    python tests/simulations/differences.py --datasets 300 --out reports/simulations

Interventions are fitted once on a large draw of a population. Each data set is a fresh draw, which
:func:`geomkit.gap` measures before and after each of them; :func:`geomkit.metrics.compare` gives
the difference with its paired error. ``none`` compares two models of one quality: the same pairs
with independent noise of the same size. Columns are those of ``errors.py``: *ratio*, the root mean
square of the reported errors over the standard deviation of the differences, and *covered*; for
``none`` also the share of p-values at or below 0.05.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from errors import CLOUDS, SMALL, Noise, number, unit

import geomkit
from geomkit._core.parallel import cores
from geomkit.embeddings.embeddings import Embeddings
from geomkit.engine.moments import Moments
from geomkit.interventions.applying import closed, fit
from geomkit.metrics import Difference, compare

METHODS = ("none", "centre", "standardise", "translate:strength=0.5", "ridge")
KEYS = (
    "centroid_distance", "linear_separability", "linear_separability_auc", "relative_modality_gap",
    "paired_cosine", "text_retrieval_recall@1", "image_retrieval_recall@1", "text_retrieval_mrr",
    "image_retrieval_mean_rank", "mixed_text_retrieval_recall@10",
    "mixed_image_retrieval_recall@10", "modality_bias_image", "modality_bias_text",
)  # fmt: skip
WHERE = ("gap", "heavy", "gapless", "captions", "wide")
NOISE = 0.3


@cache
def _fitted(cloud: str, method: str) -> object:
    of = CLOUDS[cloud]
    x, y, index = of.draw(np.random.default_rng([7, *cloud.encode()]), 5_000, of.d)
    return fit(method, Moments.of(*Embeddings.of(x, y, index).pairs()).numpy())


def measured(cloud: str, seed: int) -> dict[str, dict[str, Difference]]:
    """Return the differences of one data set, by method and key."""
    of = CLOUDS[cloud]
    rng = np.random.default_rng([seed, *cloud.encode()])
    pairs = Embeddings.of(*of.draw(rng, of.n, of.d))

    def result(part: Embeddings) -> geomkit.GapResult:
        return geomkit.gap(part, metrics=KEYS, errors=False, parts=True)

    def noisy() -> Embeddings:
        sides = (pairs.image, pairs.text)
        x, y = (unit(s + NOISE * unit(rng.standard_normal(s.shape))) for s in sides)
        return Embeddings.of(x, y, pairs.image_index)

    before = result(pairs)
    found = {
        method: compare(before, result(closed(pairs, _fitted(cloud, method))))
        for method in METHODS[1:]
    }
    return {"none": compare(result(noisy()), result(noisy())), **found}


def simulate(clouds: Sequence[str], datasets: int) -> list[list[str]]:
    """Return a row of cells for each cloud, method and key."""
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    os.environ["LOCAL_WORLD_SIZE"] = str(count := cores())
    lines = []
    with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
        for cloud in clouds:
            print(f"{cloud}: {CLOUDS[cloud].about}", file=sys.stderr)
            results = list(pool.map(partial(measured, cloud), range(datasets), chunksize=4))
            for method in METHODS:
                for key in KEYS:
                    values, errors, p = np.array([r[method][key] for r in results]).T
                    spread, expected = values.std(ddof=1), values.mean()
                    ratio = np.sqrt((errors**2).mean()) / spread if spread > 1e-12 else np.nan
                    covered = (np.abs(values - expected) <= 1.96 * errors + 1e-12).mean()
                    small = (p <= SMALL).mean() if method == "none" else np.nan
                    lines.append(
                        [cloud, method, key, number(expected, 4), number(spread, 4),
                         number(ratio, 2), number(covered, 3), number(small, 3)]
                    )  # fmt: skip
    return lines


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--datasets", type=int, default=100)
    parser.add_argument("--clouds", nargs="+", default=WHERE)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    noise = Noise.of(given.datasets)
    rows = simulate(given.clouds, given.datasets)
    head = ["cloud", "method", "key", "expected", "spread", "ratio", "covered", f"p ≤ {SMALL}"]
    text = "\n".join(
        [
            "# Errors of differences over simulated data sets", "",
            f"Made by `python tests/simulations/differences.py --datasets {given.datasets}`; what "
            "the columns mean is in the head of that script.",
            f"A ratio is known to about {noise.ratio:.3f}, a coverage to {noise.share:.3f}.", "",
            *("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows]),
        ]
    )  # fmt: skip
    if given.out:
        given.out.mkdir(parents=True, exist_ok=True)
        (given.out / "differences.md").write_text(text + "\n", encoding="utf-8")
    else:
        print(text)


if __name__ == "__main__":
    main()
