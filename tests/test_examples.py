"""The files of ``examples/`` run, and close the gap that they print."""

from __future__ import annotations

import csv
import re
import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
IN_PROCESS = ("plain_pytorch", "open_clip_loop", "lightning_module", "transformers_trainer")


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_every_example_is_tested() -> None:
    # tests/training/test_ranks.py runs ddp.py
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {*IN_PROCESS, "ddp"}


# What Lightning, accelerate and Weights & Biases say of themselves.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", IN_PROCESS)
def test_examples(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names = runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    said = re.search(r"distance: (\S+) before, (\S+) after (\d+) steps", capsys.readouterr().out)
    assert said is not None and float(said[1]) > 2 * float(said[2])
    steps = [step for step, _ in names["monitor"].history]
    assert len(steps) == 1 + int(said[3]) // names["monitor"].every and steps[-1] == int(said[3])
    if name == "open_clip_loop":
        assert [int(row["step"]) for row in table(Path("gap.csv"))] == steps
    if name == "lightning_module":
        (path,) = tmp_path.rglob("metrics.csv")
        rows = table(path)
        assert sum(bool(row["gap/alignment"]) for row in rows) == len(steps) - 1
        assert any(row["clip_loss"] for row in rows)
    if name == "transformers_trainer":
        logged = names["trainer"].state.log_history
        assert [entry["step"] for entry in logged if "gap/mmd_stderr" in entry] == steps[1:]
        assert [entry["step"] for entry in logged if "loss" in entry] == [20, 40]  # not replaced
