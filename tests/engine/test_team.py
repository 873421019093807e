"""Two ranks under torchrun find what one process finds, exact and estimated."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import clouds
from processes import run_ranks

from geomkit._core.parallel import Team
from geomkit.embeddings.embeddings import Embeddings
from geomkit.engine import pairwise
from geomkit.metrics import gap
from geomkit.metrics import statistics as statistics_module


def program(team: Team) -> None:
    """Measure everything, exact and estimated, with small tiles and few queries."""
    pairwise._TILE["cpu"] = 64
    statistics_module._WIDE_MOMENTS = 0
    statistics_module.QUERIES = 40
    held = np.load("pairs.npz")
    for limit in (None, 100):
        r = gap(held["image"], held["text"], held["image_index"], exact_limit=limit, team=team)
        if team.rank == 0:
            Path(f"{limit}.json").write_text(json.dumps(r.to_json()))
    few = ("linear_separability", "uniformity_image")
    for metrics in (few[:1], few[1:], few):
        r = gap(held["image"], held["text"], held["image_index"], metrics=metrics, team=team)
        assert team.rank > 0 or set(r.metrics) == set(metrics)
    pair = [torch.from_numpy(held[key][:300]) for key in ("image", "text")]
    r = gap(*pair, metrics=["alignment", "effective_rank_image", "mutual_knn"], team=team)
    if team.rank == 0:
        Path("torch.json").write_text(json.dumps(r.to_json()))


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_find_what_one_process_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ranks: int
) -> None:
    rng = np.random.default_rng(0)
    index = np.concatenate([np.arange(300), rng.integers(0, 300, 150)])
    x, y = clouds(300, 5, shift=0.3)
    y = np.concatenate([y, y[index[300:]] + 0.1 * rng.standard_normal((150, 5))])
    np.savez(tmp_path / "pairs.npz", image=x, text=y, image_index=index)
    run_ranks(program, ranks, tmp_path)
    monkeypatch.setattr(statistics_module, "QUERIES", 40)
    found = json.loads((tmp_path / "torch.json").read_text())["metrics"]
    for name, value in gap(x, y[:300], metrics=list(found)).metrics.items():
        assert found[name] == pytest.approx(value, rel=1e-9), name
    e = Embeddings.of(x, y, index)
    for limit in (None, 100):
        found = json.loads((tmp_path / f"{limit}.json").read_text())
        alone = gap(e, exact_limit=limit).to_json()
        assert found["exact"] is (limit is None)
        for part in ("metrics", "stderr", "null", "p_value"):
            assert found[part].keys() == alone[part].keys()
            for name, value in alone[part].items():
                expected = value if value is None else pytest.approx(value, rel=1e-9, abs=1e-12)
                assert found[part][name] == expected, (part, name)


def test_torchrun_prints_once_what_one_process_prints(tmp_path: Path) -> None:
    x, y = clouds(60, 5)
    np.savez(tmp_path / "pairs.npz", image=x, text=y)
    words = ["-m", "geomkit_cli", "gap", "pairs.npz", "--metrics", "gap,retrieval", "--json"]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    found = []
    for launcher in ([], torchrun):
        command = [sys.executable, *launcher, *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        found.append(json.loads(done.stdout)["results"][0]["metrics"])
    assert found[1] == pytest.approx(found[0], rel=1e-9)
