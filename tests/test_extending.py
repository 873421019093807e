"""Each block of CONTRIBUTING.md is one new file, and that one file is enough.

A copy of the package gets all of them; one process then finds every new thing on the command line,
in JSON, in help and in a report.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(
    r"```python\n# (\S+)\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text("utf-8"), re.DOTALL
)

PROGRAM = """
import io, json, sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import geomkit
assert Path(geomkit.__file__).is_relative_to(Path.cwd().parent / "code"), geomkit.__file__
from geomkit_cli.app import run


def call(*words):
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = run(list(words))
    assert status == 0, (words, err.getvalue())
    return out.getvalue()


# a format, and two metrics on what it reads
found = json.loads(call("gap", "rows.tab", "--json"))["results"][0]
assert found["n"] == 40 and 0 < found["metrics"]["mean_norm"] < 1
x, y = np.split(np.loadtxt("rows.tab"), 2, axis=1)
x, y = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (x, y))
assert abs(found["metrics"]["closest"] - (x @ y.T).max()) < 1e-6
assert "torch" not in sys.modules
names = call("metrics")
assert "mean_norm" in names and "closest" in names
assert "closest" in call("gap", "rows.tab", "--metrics", "all")

# an intervention
from geomkit.interventions import INTERVENTIONS, load
flip = INTERVENTIONS["flip"].fit(x, -x)
flip.save("flip.safetensors")
assert np.array_equal(load("flip.safetensors").apply(-x, "text"), x)

# a loss, trained on a data set of pairs
help_text = " ".join(call("train", "--help").split())
assert "hinge" in help_text or "ch," in help_text, help_text
call("train", "--loss", "ch", "--dim", "4", "--recipe", "standard", "--model", "nano", "--data",
     "dots", "--steps", "2", "--batch-size", "8", "--eval-every", "2", "--quiet")
from geomkit.models.checkpoints import load_run
terms = load_run("ckpt.pt").history[-1].train_terms
assert any("hinge" in name for name in terms), terms
assert "dots" in call("data")

# a kind of checkpoint, and labelled images
assert "fresh" in call("inspect", "fresh:nano")
scores = json.loads(call("zeroshot", "fresh:nano", "--data", "shades", "--json"))
assert scores["n"] == 20 and scores["classes"] == 2

# an experiment, its claim and its report
assert "chance" in call("reproduce")
call("reproduce", "chance", "--out", "report", "--quick")
text = Path("report/chance/report.md").read_text("utf-8")
assert "They do not." in text and "Recall of random rows" in Path("report/report.md").read_text()
"""


def test_every_extension_point_has_a_block_of_its_own() -> None:
    places = {str(Path(path).parent) for path, _ in BLOCKS}
    assert places == {
        "geomkit/data",
        "geomkit/data/labelled",
        "geomkit/embeddings/formats",
        "geomkit/interventions",
        "geomkit/losses",
        "geomkit/metrics/definitions",
        "geomkit/models/checkpoints",
        "geomkit/reproduce/experiments",
    }
    assert not any((ROOT / path).exists() for path, _ in BLOCKS)


def test_one_file_each_is_enough(tmp_path: Path, cache: Path) -> None:
    code, work = tmp_path / "code", tmp_path / "work"
    shutil.copytree(ROOT / "geomkit", code / "geomkit")
    shutil.copytree(ROOT / "cli", code / "geomkit_cli")
    for path, text in BLOCKS:
        (code / path).write_text(text, "utf-8")
    work.mkdir()
    rng = np.random.default_rng(0)
    np.savetxt(work / "rows.tab", rng.standard_normal((40, 16)), delimiter="\t")
    (work / "program.py").write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, "program.py"],
        cwd=work,
        env={**os.environ, "PYTHONPATH": str(code), "GEOMKIT_CACHE": str(cache)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize(("path", "text"), BLOCKS, ids=[path for path, _ in BLOCKS])
def test_a_block_fits_on_a_screen(path: str, text: str) -> None:
    assert len(text.splitlines()) <= 40, path
