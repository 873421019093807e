"""Reported standard errors, nulls and p-values beside the truth, over simulated data sets.

    python tests/simulations/errors.py                                  # all keys, to the terminal
    python tests/simulations/errors.py --keys mutual_knn mmd --clouds gap sphere --datasets 100
    python tests/simulations/errors.py --datasets 300 --out reports/simulations

Each data set is a fresh draw of pairs from a fixed population (``CLOUDS``), measured by
:func:`geomkit.gap`. The first table has, for every key that reports an error,

- *ratio*: root mean square of the reported errors over the standard deviation of the values;
- *covered*: share of intervals value ± 1.96 errors that hold the expected value at this n, which
  is the mean of the values over the data sets;
- *bias*: expected value less the population's, in standard deviations of the values, and
  *covers population*: share of the intervals that hold the population's value. They are left out
  for keys that depend on n by definition, such as recall. The population's value is the mean over
  large draws, known to about a tenth of a standard deviation.
- *covers exact*: for estimates past the exact limit, share of the intervals that hold the exact
  value of the same rows. The error is that of the draw of the pairs, so this is above 0.95.

The second table has the values and nulls on clouds on which the null holds, and the share of
p-values below 0.05. Last come the numbers outside the aim (``RATIO``, ``COVERED``), each with its
explanation from ``EXPLAINED``. The run is seeded: the same numbers on any number of processes.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

import geomkit
from geomkit._core.parallel import cores
from geomkit.metrics import METRICS, GapResult, select, statistics

RATIO = (0.9, 1.1)
COVERED = (0.93, 0.97)
SMALL = 0.05
"""Level at which p-values are counted: at most this share of them lies below it."""

_NEAR_ITS_END = "near 0 or 1 the error is that of four draws more, two of each kind, and too large"
_CURVED = (
    "the linear term of the statistic is 0 or nearly; the error is kept from falling below that of "
    "the quadratic term"
)
EXPLAINED: list[tuple[str, str, str]] = [
    ("linear_separability*", "wide", "hardly a row is on the wrong side: " + _NEAR_ITS_END),
    ("*_retrieval_recall@*", "*unpaired*", _NEAR_ITS_END),
    ("*_retrieval_recall@*", "disjoint", _NEAR_ITS_END),
    ("*_retrieval_mrr", "*unpaired*", _NEAR_ITS_END),
    ("*_retrieval_mrr", "disjoint", _NEAR_ITS_END),
    ("mixed_*_recall@*", "*", _NEAR_ITS_END),
    ("modality_bias_*", "wide", _NEAR_ITS_END),
    ("modality_bias_*", "*", "the allowance for the neighbours that rows share is too large here"),
    ("*_median_rank", "*", "ranks are whole numbers, and the interval is widened to whole ranks"),
    ("*_mean_rank", "disjoint", "a few rare queries make up the mean, and most samples lack them"),
    ("*_retrieval_*", "wide", "a few rows are near most queries, and which ones varies by draw"),
    ("centroid_*", "disjoint", _CURVED),
    ("centroid_*", "sphere", _CURVED),
    ("relative_modality_gap", "disjoint", _CURVED),
    ("*uniformity*", "disjoint", _CURVED),
    ("*uniformity*", "sphere", _CURVED),
    ("intra_cosine_*", "disjoint", _CURVED),
    ("intra_cosine_*", "sphere", _CURVED),
    ("conformity_*", "disjoint", _CURVED),
    ("conformity_*", "sphere", _CURVED),
    ("mmd", "disjoint", _CURVED),
    ("mmd", "sphere", _CURVED),
    ("mmd", "gapless", _CURVED),
]
"""Patterns of key and cloud, and why such a number is outside the aim; the first match counts."""

Draw = tuple[np.ndarray, np.ndarray, np.ndarray | None]
"""Images, texts, and for each text the index of its image if there are several."""


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def gaussian(rng: np.random.Generator, n: int, d: int, *, gap: float, noise: float = 1.2) -> Draw:
    """Uneven Gaussian clouds in a cone, their means moved apart by ``gap``."""
    shared = rng.standard_normal((n, d)) * np.linspace(1.5, 0.5, d)
    shared[:, 0] += 1
    x, y = (shared + noise * rng.standard_normal((n, d)) for _ in range(2))
    x[:, 1] += gap
    y[:, 2] -= gap
    return unit(x), unit(y), None


def heavy(rng: np.random.Generator, n: int, d: int) -> Draw:
    """Student's t with 3 degrees of freedom; how far the two rows of a pair are apart varies."""
    shared = rng.standard_t(3, (n, d))
    shared[:, 0] += 1
    noise = np.exp(rng.standard_normal((n, 1)) - 0.5)
    x, y = (shared + noise * rng.standard_t(3, (n, d)) for _ in range(2))
    x[:, 1] += 1
    y *= np.linspace(1.5, 0.5, d)
    return unit(x), unit(y), None


def sphere(rng: np.random.Generator, n: int, d: int, *, noise: float = 0.4) -> Draw:
    """Both clouds even on the sphere, pairs near each other."""
    x = rng.standard_normal((n, d))
    return unit(x), unit(unit(x) + noise * rng.standard_normal((n, d))), None


def disjoint(rng: np.random.Generator, n: int, d: int) -> Draw:
    """Two parallel small circles, far apart, pairs near each other: every score is at its end."""
    x, y, _ = sphere(rng, n, d - 1, noise=0.15)
    side = np.ones((n, 1))
    return unit(np.hstack([x, side])), unit(np.hstack([y, -side])), None


def unpaired(rng: np.random.Generator, n: int, d: int) -> Draw:
    """Two clouds with a gap whose rows have nothing to do with each other."""
    (x, _, _), (_, y, _) = (gaussian(rng, n, d, gap=1.0) for _ in range(2))
    return x, y, None


def captions(rng: np.random.Generator, n: int, d: int, *, paired: bool = True) -> Draw:
    """One to five captions per image, alike among themselves."""
    index = np.repeat(np.arange(n), rng.integers(1, 6, n))
    x, y, _ = gaussian(rng, n, d, gap=1.0) if paired else unpaired(rng, n, d)
    return x, unit(y[index] + 0.1 * rng.standard_normal((len(index), d))), index


@dataclass(frozen=True)
class Cloud:
    """A population, how to measure its data sets, and which nulls hold on it."""

    draw: Callable[[np.random.Generator, int, int], Draw]
    about: str
    n: int = 250
    d: int = 24
    keys: Sequence[str] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    queries: int | None = None
    nulls: Sequence[str] = ()


# Keys whose null is an exchange of image and text within pairs, no cone, or re-pairing.
EXCHANGE = (
    "centroid_*", "linear_separability*", "mmd", "*uniformity*", "intra_cosine_*",
    "modality_bias_*",
)  # fmt: skip
CONE = ("conformity_*",)
REPAIRING = ("paired_cosine", "alignment", "cka", "mutual_knn", "*_retrieval_recall@*")
# Keys that depend on n by definition, so that a population has no value.
OF_SIZE = ("linear_separability*", "mutual_knn", "*retrieval*", "mixed_*", "modality_bias_*")

SEPARABILITY = ("linear_separability", "linear_separability_auc")
ESTIMATED = {"exact_limit": 0}

CLOUDS = {
    "gap": Cloud(partial(gaussian, gap=1.0), "Gaussian, with a gap"),
    "heavy": Cloud(heavy, "heavy-tailed, with a gap"),
    "gapless": Cloud(partial(gaussian, gap=0.0), "Gaussian cone, without a gap", nulls=EXCHANGE),
    "sphere": Cloud(sphere, "even on the sphere", n=300, d=16, nulls=(*EXCHANGE, *CONE)),
    "captions": Cloud(captions, "1 to 5 captions per image, with a gap"),
    "wide": Cloud(
        partial(gaussian, gap=8.0, noise=0.2), "a gap wider than the clouds: some rows are hubs"
    ),
    "disjoint": Cloud(disjoint, "even on two small circles, partners found", d=16),
    "unpaired": Cloud(unpaired, "with a gap, pairs independent", n=200, nulls=REPAIRING),
    "unpaired captions": Cloud(
        partial(captions, paired=False), "likewise, 1 to 5 captions per image", n=200,
        nulls=REPAIRING,
    ),
    "paper split": Cloud(
        partial(gaussian, gap=0.3), "with a gap, one 80/20 split", keys=SEPARABILITY,
        options={"folds": "paper"},
    ),
    "estimates": Cloud(
        partial(gaussian, gap=1.0), "with a gap, 128 of 600 pairs sampled", n=600,
        options=ESTIMATED, queries=128,
    ),
    "estimates captions": Cloud(
        captions, "likewise, 1 to 5 captions per image", n=600, options=ESTIMATED, queries=128
    ),
}  # fmt: skip

LARGE = {"n·d²": 20_000, "n²·d": 5_000, "rows": 2_000}
"""Pairs of a large draw, by what a key's cost grows with."""
LARGE_DRAWS = 4


def matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def measured(cloud: str, keys: Sequence[str], seed: int) -> tuple[GapResult, GapResult | None]:
    """Measure one data set; for estimates exactly too."""
    of = CLOUDS[cloud]
    rng = np.random.default_rng([list(CLOUDS).index(cloud), seed])
    x, y, index = of.draw(rng, of.n, of.d)
    kept = statistics.QUERIES
    try:
        statistics.QUERIES = of.queries or kept
        found = geomkit.gap(x, y, index, metrics=keys, seed=seed, **of.options)
    finally:
        statistics.QUERIES = kept
    exact = (
        geomkit.gap(x, y, index, metrics=found.estimated, seed=seed) if found.estimated else None
    )
    return found, exact


def population(cloud: str, keys: Sequence[str], seed: int) -> dict[str, float]:
    """Values of one large draw, for keys that have a value of the population."""
    of = CLOUDS[cloud]
    values: dict[str, float] = {}
    for cost, n in LARGE.items():
        rng = np.random.default_rng([list(CLOUDS).index(cloud), 1, seed])
        wanted = [k for k in keys if METRICS[k].cost == cost and not matches(k, OF_SIZE)]
        if wanted:
            values |= geomkit.gap(*of.draw(rng, n, of.d), metrics=wanted).metrics
    return values


@dataclass(frozen=True)
class Noise:
    """Standard errors of the simulation itself: of a ratio, and of a share of 0.05 or 0.95."""

    ratio: float = 0.0
    share: float = 0.0

    @classmethod
    def of(cls, datasets: int, times: float = 1.0) -> Noise:
        return cls(times / np.sqrt(2 * datasets), times * np.sqrt(0.05 * 0.95 / datasets))


def within(value: float, aim: tuple[float, float], slack: float) -> bool:
    """Whether a number is in its aim or missing."""
    return bool(np.isnan(value)) or aim[0] - slack <= value <= aim[1] + slack


@dataclass(frozen=True)
class Line:
    """What one key showed on one cloud; NaN where it says nothing."""

    cloud: str
    key: str
    expected: float
    spread: float
    ratio: float = np.nan
    covered: float = np.nan
    bias: float = np.nan
    covers_population: float = np.nan
    covers_exact: float = np.nan
    null: float = np.nan
    small_p: float = np.nan

    def outside(self, slack: Noise) -> list[str]:
        """Return which of its numbers are outside the aim by more than a slack."""
        out = []
        if self.spread > 0 and not within(self.ratio, RATIO, slack.ratio):
            out.append(f"ratio {self.ratio:.2f}")
        if self.spread > 0 and not within(self.covered, COVERED, slack.share):
            out.append(f"covered {self.covered:.3f}")
        if not within(self.small_p, (0, SMALL), slack.share):
            out.append(f"p ≤ {SMALL} in {self.small_p:.3f}")
        return out


def summary(
    cloud: str,
    key: str,
    results: Sequence[tuple[GapResult, GapResult | None]],
    large: Sequence[Mapping[str, float]],
) -> Line | None:
    """Compare what was reported with what happened; ``None`` if the key reported nothing."""

    def column(field: str) -> np.ndarray:
        return np.array([getattr(r, field).get(key, np.nan) for r, _ in results])

    values, errors, nulls, p = map(column, ("metrics", "stderr", "null", "p_value"))
    null_holds = matches(key, CLOUDS[cloud].nulls)
    has_error = np.isfinite(errors).any()
    if not np.isfinite(values).any() or not (
        has_error or (null_holds and np.isfinite(nulls).any())
    ):
        return None
    expected, spread = float(np.nanmean(values)), float(np.nanstd(values, ddof=1))
    spread = spread if spread > 1e-12 else 0.0
    found: dict[str, float] = {}

    def share(truth: np.ndarray | float) -> float:
        # the slack is for values without any spread
        return float((np.abs(values - truth) <= 1.96 * errors + 1e-12).mean())

    if has_error:
        if spread:
            found["ratio"] = float(np.sqrt(np.nanmean(errors**2))) / spread
        found["covered"] = share(expected)
        truth = [of[key] for of in large if key in of]
        if truth and spread:
            found["bias"] = (expected - float(np.mean(truth))) / spread
            found["covers_population"] = share(float(np.mean(truth)))
        if key in results[0][0].estimated:
            found["covers_exact"] = share(
                np.array([exact.metrics[key] for _, exact in results if exact])
            )
    if null_holds and np.isfinite(nulls).any():
        found["null"] = float(np.nanmean(nulls))
        if np.isfinite(p).any():
            found["small_p"] = float((p <= SMALL).mean())
    return Line(cloud, key, expected, spread, **found)


def simulate(keys: Sequence[str], clouds: Sequence[str], datasets: int) -> list[Line]:
    """Draw and measure the data sets of all clouds on all cores."""
    lines = []
    count = cores()
    # One thread per process: what is spawned from here reads these before its BLAS starts.
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    os.environ["LOCAL_WORLD_SIZE"] = str(count)
    with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
        for cloud in clouds:
            own = [k for k in keys if matches(k, CLOUDS[cloud].keys or ("*",))]
            if not own:
                continue
            print(f"{cloud}: {CLOUDS[cloud].about}", file=sys.stderr)
            first, _ = measured(cloud, own, 0)
            own = [k for k in own if k in first.stderr or k in first.null]
            large = pool.map(partial(population, cloud, own), range(LARGE_DRAWS))
            results = list(pool.map(partial(measured, cloud, own), range(datasets), chunksize=4))
            found = [*large]
            lines += [line for key in own if (line := summary(cloud, key, results, found))]
    return lines


def explanation(line: Line, datasets: int) -> str:
    """Return why a number is outside the aim."""
    if not line.outside(Noise.of(datasets, 2)):
        return "within two standard errors of the simulation"
    for key, cloud, why in EXPLAINED:
        if fnmatch(line.key, key) and fnmatch(line.cloud, cloud):
            return why
    return "not explained"


def number(value: float, digits: int) -> str:
    return "" if np.isnan(value) else f"{value:.{digits}f}"


def markdown(lines: Sequence[Line], datasets: int, command: str) -> str:
    """Return the report: errors, nulls, and what is outside the aim."""
    noise = Noise.of(datasets)
    out = [
        "# Errors, nulls and p-values over simulated data sets",
        "",
        f"Made by `{command}`; what the columns mean is in the head of that script.",
        f"{datasets} data sets per cloud: a ratio is known to about {noise.ratio:.3f}, "
        f"a coverage to {noise.share:.3f} (one standard error).",
        "",
        "| cloud | pairs | dimension | |",
        "|---|---|---|---|",
    ]
    for cloud in dict.fromkeys(line.cloud for line in lines):
        of = CLOUDS[cloud]
        out.append(f"| {cloud} | {of.n} | {of.d} | {of.about} |")
    out += [
        "",
        "## Errors",
        "",
        "| key | cloud | expected | spread | ratio | covered | bias | covers population "
        "| covers exact |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    order = list(METRICS)
    by_key = sorted(lines, key=lambda line: order.index(line.key))
    for line in by_key:
        if not np.isnan(line.covered):
            cells = [
                number(line.expected, 4), number(line.spread, 4), number(line.ratio, 2),
                number(line.covered, 3), number(line.bias, 2), number(line.covers_population, 3),
                number(line.covers_exact, 3),
            ]  # fmt: skip
            out.append(f"| {line.key} | {line.cloud} | {' | '.join(cells)} |")
    out += [
        "",
        "## Nulls, where they hold",
        "",
        f"| key | cloud | expected | spread | mean null | p ≤ {SMALL} |",
        "|---|---|---|---|---|---|",
    ]
    for line in by_key:
        if not np.isnan(line.null) or not np.isnan(line.small_p):
            cells = [number(v, 4) for v in (line.expected, line.spread, line.null)]
            out.append(
                f"| {line.key} | {line.cloud} | {' | '.join(cells)} | {number(line.small_p, 3)} |"
            )
    out += [
        "",
        "## Outside the aim",
        "",
        f"Aim: a ratio of {RATIO[0]} to {RATIO[1]}, a coverage of {COVERED[0]} to {COVERED[1]}, "
        f"and at most {SMALL} of the p-values at or below {SMALL}.",
        "",
        "| key | cloud | | why |",
        "|---|---|---|---|",
    ]
    for line in by_key:
        if found := line.outside(Noise()):
            why = explanation(line, datasets)
            out.append(f"| {line.key} | {line.cloud} | {', '.join(found)} | {why} |")
    return "\n".join(out) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--keys", nargs="+", metavar="KEY", help="keys or groups; default: all")
    parser.add_argument("--clouds", nargs="+", choices=CLOUDS, default=list(CLOUDS))
    parser.add_argument("--datasets", type=int, default=300, help="data sets per cloud")
    parser.add_argument("--out", type=Path, help="folder for errors.md and errors.csv")
    args = parser.parse_args()
    lines = simulate(select(args.keys), args.clouds, args.datasets)
    text = markdown(lines, args.datasets, " ".join(["python", *sys.argv]))
    if args.out is None:
        print(text, end="")
        return
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "errors.md").write_text(text)
    with (args.out / "errors.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(Line.__dataclass_fields__))
        writer.writeheader()
        for line in lines:
            writer.writerow({k: "" if v != v else v for k, v in vars(line).items()})


if __name__ == "__main__":
    main()
