"""The analysis engine beside a peer and the floor, with peak memory: one table.

    python tests/benchmarks/analysis.py --out reports/benchmarks/analysis.md

The peer is what a researcher writes today: sklearn's LogisticRegression over five folds, sklearn's
PCA, ``torch.pdist`` for the uniformities, top-k of the full similarity matrix for recall. The floor
of the pairwise part is its 4·n²·d flops, and of the moments their 6·n·d², at the rate of a large
float32 matrix product measured in the same process. Every measurement is a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

import numpy as np

D = 512
PEER_METRICS = [
    "linear_separability",
    "linear_separability_auc",
    *(f"explained_variance_auc_{m}" for m in ("image", "text")),
    *(f"components_to_{s}_{m}" for s in (80, 90) for m in ("image", "text")),
    "uniformity_image",
    "uniformity_text",
    "uniformity",
    *(f"{way}_retrieval_recall@{k}" for way in ("text", "image") for k in (1, 3, 5, 10)),
]


def make(path: Path, n: int) -> None:
    """Two clouds of one make, apart and paired; float16 beyond 100,000 rows."""
    rng = np.random.default_rng(0)
    centre = (0.25 * rng.standard_normal(D)).astype(np.float32)
    basis = rng.standard_normal((64, D)).astype(np.float32) / 8
    dtype = np.float16 if n > 100_000 else np.float32
    out = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=(2, n, D))
    for start in range(0, n, 50_000):
        k = min(50_000, n - start)
        shared = rng.standard_normal((k, 64)).astype(np.float32) @ basis
        for side, sign in ((0, 1), (1, -1)):
            noise = 0.7 * rng.standard_normal((k, D)).astype(np.float32)
            out[side, start : start + k] = shared + noise + sign * centre
    out.flush()


def rate() -> float:
    """Flops a second of a float32 matrix product, the best of five."""
    rows = np.random.default_rng(0).standard_normal((4096, D)).astype(np.float32)
    other = rows[::-1].copy()
    best = np.inf
    for _ in range(5):
        start = time.perf_counter()
        rows @ other.T
        best = min(best, time.perf_counter() - start)
    return 2 * 4096**2 * D / best


def timed(work, rounds: int = 3) -> float:
    """Median seconds."""
    found = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return sorted(found)[len(found) // 2]


def ours(path: Path) -> dict[str, float]:
    from geomkit.embeddings.embeddings import read_embeddings
    from geomkit.engine.moments import Moments
    from geomkit.engine.neighbours import Neighbours
    from geomkit.engine.pairwise import Pairs, walk
    from geomkit.engine.reducers import OwnKindCounts, PotentialSums, RankCounts
    from geomkit.metrics import gap

    e = read_embeddings(path)
    large = e.n > 100_000
    rounds = 1 if large else 3
    flops = rate()
    out = {
        "rate": flops,
        "moments": timed(lambda: Moments.of(*e.pairs()), rounds),
        "moments_floor": 6 * e.n * D**2 / flops,
        "all": timed(lambda: gap(e), rounds),
    }
    if not large:
        first = e.first_texts()

        # As where texts are names of 1,000 classes: every text is one of a large tie.
        names = e.text[:1000][np.arange(e.n) % 1000]

        def pairwise(*more, text=e.text) -> None:
            chosen = [PotentialSums(), RankCounts(), *more]
            walk(Pairs(e.image, text, e.image_index, first), chosen)

        def neighbours(**of) -> None:
            found = Neighbours()
            pairwise(found, **of)
            found.near.overlap()
            for modality in ("image", "text"):
                found.near.counts(modality)
                found.near.mixed(modality)

        out |= {
            "peer_metrics": timed(lambda: gap(e, metrics=PEER_METRICS)),
            "pairwise": timed(pairwise),
            "own_kind": timed(lambda: pairwise(OwnKindCounts())),
            "neighbours": timed(neighbours),
            "ties": timed(lambda: neighbours(text=names)) - timed(lambda: pairwise(text=names)),
            "floor": 4 * e.n**2 * D / flops,
        }
        for more in ("own_kind", "neighbours"):
            out[more] -= out["pairwise"]
    return out


def peer(path: Path) -> dict[str, float]:
    import torch
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold, cross_val_score

    both = np.load(path).astype(np.float32)
    both /= np.linalg.norm(both, axis=2, keepdims=True)
    x, y = both
    n = len(x)

    def work() -> None:
        rows, labels = np.concatenate([x, y]), np.repeat([0, 1], n)
        groups = np.tile(np.arange(n), 2)
        classifier = LogisticRegression(max_iter=1000)
        cross_val_score(classifier, rows, labels, cv=GroupKFold(5), groups=groups)
        for side in (x, y):
            np.cumsum(PCA().fit(side).explained_variance_ratio_)
        for side in (x, y):
            torch.pdist(torch.from_numpy(side)).pow(2).mul(-2).exp().mean().log()
        scores = torch.from_numpy(x) @ torch.from_numpy(y).T
        own = torch.arange(n)[:, None]
        for table in (scores, scores.T):
            found = table.topk(10, dim=1).indices == own
            [found[:, :k].any(1).float().mean() for k in (1, 3, 5, 10)]

    return {"all": timed(work, 1)}


def rank(path: Path) -> dict[str, float]:
    """The pairwise part on one thread, shared with whatever ranks there are."""
    from threadpoolctl import threadpool_limits

    from geomkit._core.parallel import Team
    from geomkit.embeddings.embeddings import read_embeddings
    from geomkit.engine.pairwise import Pairs, walk
    from geomkit.engine.reducers import PotentialSums, RankCounts

    team = Team.from_environment()
    e = read_embeddings(path)
    pairs = Pairs(e.image, e.text, e.image_index, e.first_texts())
    with threadpool_limits(1):
        out = timed(lambda: walk(pairs, [PotentialSums(), RankCounts()], threads=1, team=team))
    team.close()
    if team.rank:
        sys.exit(0)
    return {"pairwise": out}


def child(*words: str) -> tuple[float, float, str]:
    """Wall seconds, peak GiB and output of a command."""
    before = time.perf_counter()
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    out = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"failed: {' '.join(words)}")
    return time.perf_counter() - before, usage.ru_maxrss / 2**20, out


def measured(what: str, path: Path) -> tuple[float, float, dict[str, float]]:
    wall, peak, out = child(sys.executable, __file__, "--child", what, str(path))
    return wall, peak, json.loads(out)


def report(sizes: list[int]) -> str:
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for n in sizes:
            path = Path(folder) / f"{n}.npy"
            make(path, n)
            wall, peak, _ = child(sys.executable, "-m", "geomkit_cli", "gap", str(path), "-q")
            _, _, mine = measured("ours", path)
            lines += [
                "",
                f"## n = {n:,}, d = {D}",
                "",
                "| what | measured | beside |",
                "|---|---|---|",
            ]

            def row(what: str, seconds: str, beside: str, lines: list[str] = lines) -> None:
                lines.append(f"| {what} | {seconds} | {beside} |")

            row("`geomkit gap`, whole process, all keys, errors and nulls",
                f"{wall:.1f} s, {peak:.2f} GiB peak", "")  # fmt: skip
            row("all of it, computing alone", f"{mine['all']:.2f} s", "")
            row("moments, one pass", f"{mine['moments']:.2f} s",
                f"floor {mine['moments_floor']:.2f} s: "
                f"{mine['moments'] / mine['moments_floor']:.2f} times")  # fmt: skip
            if "pairwise" in mine:
                row("pairwise part (uniformities, ranks)", f"{mine['pairwise']:.2f} s",
                    f"floor {mine['floor']:.2f} s: "
                    f"{mine['pairwise'] / mine['floor']:.2f} times")  # fmt: skip
                row("neighbours on top (mutual_knn, hubness, modality bias)",
                    f"{mine['neighbours']:.2f} s",
                    f"with 1,000 distinct texts {mine['ties']:.2f} s")  # fmt: skip
                row("ranks in one index of both on top (mixed recall)",
                    f"{mine['own_kind']:.2f} s", "")  # fmt: skip
                peer_wall, peer_peak, theirs = measured("peer", path)
                share = mine["peer_metrics"] / theirs["all"]
                row("the peer's metrics", f"{mine['peer_metrics']:.2f} s",
                    f"peer {theirs['all']:.2f} s: {share:.3f} of it")  # fmt: skip
                row("the peer's process", f"{peer_wall:.1f} s, {peer_peak:.2f} GiB peak", "")
            row("matrix product measured", f"{mine['rate'] / 1e9:.0f} GFLOP/s", "")
            if n == 20_000:
                _, _, alone = measured("rank", path)
                launch = ("-m", "torch.distributed.run", "--nproc-per-node", "2")
                _, _, out = child(sys.executable, *launch, __file__, "--child", "rank", str(path))
                shared = json.loads(out)["pairwise"]
                row("pairwise part, one thread a rank",
                    f"1 rank {alone['pairwise']:.2f} s, 2 ranks {shared:.2f} s",
                    f"{alone['pairwise'] / shared:.2f} times as fast")  # fmt: skip
            path.unlink()
            print("\n".join(lines[-10:]), file=sys.stderr, flush=True)
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="5000,20000,1000000")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child", nargs=2)
    options = parser.parse_args()
    if options.child:
        what, path = options.child
        print(json.dumps({"ours": ours, "peer": peer, "rank": rank}[what](Path(path))))
        return
    versions = ", ".join(f"{p} {metadata.version(p)}" for p in ("numpy", "torch", "scikit-learn"))
    cores = len(os.sched_getaffinity(0))
    head = [
        "# The analysis engine, measured",
        "",
        "Made by `python tests/benchmarks/analysis.py --out reports/benchmarks/analysis.md`, which",
        "says what the peer and the floor are. Medians of three, of one at n = 1,000,000 (float16",
        "on disk, and the pairwise keys estimated from 1,024 rows against all).",
        "",
        f"{platform.machine()}, {cores} cores, Python {platform.python_version()}, {versions}.",
    ]
    text = "\n".join(head) + "\n" + report([int(s) for s in options.sizes.split(",")]) + "\n"
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text)
    else:
        print(text)


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()
