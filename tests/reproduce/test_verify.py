"""Reports that prove themselves: forged ones are found, honest ones are measured again."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_reproduce import cell

from geomkit.errors import GeomkitError
from geomkit.reproduce.framework import catalogue, planning, rerun, runner, seal, verify
from geomkit.reproduce.framework.claims import Claim, average, below
from geomkit.reproduce.framework.experiment import Cell, Context, Experiment, Options
from geomkit.reproduce.framework.measuring import each_cell, measured
from geomkit.reproduce.framework.record import Record, read_record
from geomkit.reproduce.framework.results import Row, Rows, read_rows, write_rows
from geomkit.training.config import configure
from geomkit.training.loop import Interrupted

OPTIONS = Options(data="openmoji,n=12", seeds=(1, 2), threads=1)
METRICS = ("centroid_distance", "alignment")


def plain(seed: int) -> Cell:
    return cell("clip", seed)


def tuned(seed: int) -> Cell:
    """A model that is fine-tuned from another."""
    start = cell("cua")
    fields = {"pretrained": f"{start.key}.pt", "recipe": "standard", "data": OPTIONS.data}
    lengths = {"batch_size": 6, "steps": 2, "eval_every": 2, "warmup": 1}
    return Cell(configure(loss="clip", dim=4, seed=seed, **fields, **lengths), start)


def experiment(
    name: str, of_seed: Callable[[int], Cell], *, controls: bool = False, drawn: bool = False
) -> Experiment:
    def cells(options: Options) -> list[Cell]:
        return [of_seed(seed) for seed in options.used_seeds]

    def of_cell(one: Cell, context: Context) -> Rows:
        return measured(name, one, context, metrics=METRICS)

    def draw(rows: Rows, context: Context) -> dict:
        from geomkit.plots.style import axes_grid

        if not drawn:
            return {}
        figure, (axes,) = axes_grid(1, 1, columns=1)
        axes.plot([row.value for row in rows])
        return {name: figure}

    test = below(average(loss="clip", metric="centroid_distance"), 0, "distance")
    return Experiment(
        name, f"Title of {name}", f"What is {name}?", cells, each_cell(cells, of_cell), draw,
        claims=(Claim("It is below nothing", "−1", test),),
        of_cell=None if controls else of_cell,
    )  # fmt: skip


_made: list[Path] = []


@pytest.fixture
def report(
    trained_once: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:  # fmt: skip
    """A copy of a report of three experiments, one of which has no numbers of single models."""
    found = {
        "one": experiment("one", plain, drawn=True),
        "two": experiment("two", tuned),
        "three": experiment("three", plain, controls=True),
    }
    monkeypatch.setattr(catalogue, "all_experiments", lambda: found)
    if not _made:
        out = tmp_path_factory.mktemp("made") / "r"
        command = "geomkit reproduce all"
        runner.run(planning.plan(["all"], OPTIONS, out), OPTIONS, out, command=command)
        _made.append(out)
    return Path(shutil.copytree(_made[0], tmp_path / "r"))


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text("utf-8")
    assert old in text, (path, old)
    path.write_text(text.replace(old, new, 1), "utf-8")


def a_number(out: Path) -> None:
    path = out / "one/results.csv"
    first, *others = read_rows(path)
    write_rows(path, [replace(first, value=first.value - 9), *others], overwrite=True)


def resealed(out: Path, change: Callable[[Record], Record]) -> None:
    """Write a changed ``run.json`` with a seal that fits, and the index over it."""
    from geomkit.reproduce.framework.report import write_index

    record = read_record(out / "one")
    assert record is not None
    record = replace(change(record), files={})
    names = [path.name for path in (out / "one").iterdir() if path.is_file()]
    drawn = [name for name in names if not name.endswith((".json", ".csv"))]
    record.sealed(out / "one", sorted(drawn), record.written_by).write(out / "one")
    write_index(out)


FORGED: dict[str, tuple[Callable[[Path], Any], tuple[str, ...]]] = {
    "a number": (
        a_number,
        ("r/one/results.csv: was changed", "run.json: says 'not reproduced'", "one/report.md: is"),
    ),
    "a verdict": (
        lambda out: edit(out / "one/run.json", '"not reproduced"', '"reproduced"'),
        ("r/one/run.json: was changed", "says 'reproduced'", "r/report.md: is not what"),
    ),
    "a number of the run": (
        lambda out: edit(out / "two/run.json", '"training": ', '"training": 1'),
        ("r/two/run.json: was changed after the run",),
    ),
    "a page": (
        lambda out: edit(out / "one/report.md", "not reproduced", "reproduced"),
        ("r/one/report.md: was changed after the run",),
    ),
    "the index": (
        lambda out: edit(out / "report.md", "not reproduced", "reproduced"),
        ("r/report.md: is not what the run.json files give",),
    ),
    "a figure": (
        lambda out: shutil.copy(out / "one/one-dark.png", out / "one/one.png"),
        ("r/one/one.png: was changed after the run",),
    ),
    "a dark figure": (
        lambda out: shutil.copy(out / "one/one.png", out / "one/one-dark.png"),
        ("r/one/one-dark.png: was changed after the run",),
    ),
    "no figure": (
        lambda out: (out / "one/one.pdf").unlink(),
        ("r/one/one.pdf: is missing",),
    ),
    "a further file": (
        lambda out: (out / "one/more.png").touch(),
        ("r/one/more.png: belongs to no run",),
    ),
    "no seal": (
        lambda out: (
            resealed(out, lambda r: r)
            or edit(out / "one/run.json", read_record(out / "one").seal, "")
        ),
        ("r/one/run.json: made before seals existed",),
    ),
    "an experiment less": (
        lambda out: (out / "two/run.json").unlink(),
        ("r/two/results.csv: has no run.json", "r/report.md: is not what"),
    ),
    "other options": (
        lambda out: resealed(out, lambda r: replace(r, options=replace(r.options, simat="x"))),
        ("has another options than one",),
    ),
    "other packages": (
        lambda out: resealed(out, lambda r: replace(r, versions={"torch": "1"})),
        ("has another versions of packages than one",),
    ),
    "other code of the models": (
        lambda out: resealed(
            out, lambda r: replace(r, cells=tuple({**c, "code": "0" * 64} for c in r.cells))
        ),
        ("2 of 2 models were trained by other code",),
    ),
    "other models": (
        lambda out: resealed(out, lambda r: replace(r, cells=r.cells[1:])),
        ("lists other models than the experiment trains",),
    ),
    "a record": (
        lambda out: (out / "one/run.json").write_text("[]"),
        ("r/one/run.json: is damaged",),
    ),
}


def test_an_honest_report_belongs_together_and_a_forged_one_does_not(
    report: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(report.parent)
    found = verify.check_report(Path("r"))
    assert (found.failures, found.notes) == ([], [])
    assert list(found.records) == ["one", "three", "two"]
    shutil.copytree("r", "kept", ignore=shutil.ignore_patterns("cells"))
    for what, (forge, says) in FORGED.items():
        shutil.rmtree("r")
        shutil.copytree("kept", "r")
        forge(Path("r"))
        failures = verify.check_report(Path("r")).failures
        for words in says:
            assert any(words in line for line in failures), (what, words, failures)


def test_every_source_of_the_package_is_hashed() -> None:
    root = Path(seal.geomkit.__file__).parent
    suffixes = {p.suffix for p in root.rglob("*") if p.is_file()}
    assert suffixes - {".pyc", ".typed"} == set(seal._SOURCES)


def test_other_code_is_said_and_nothing_is_called_forged(
    report: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "code_sha256", lambda: "f" * 64)
    found = verify.check_report(report)
    assert (found.failures, found.notes) == ([], [])  # it judges and writes as the other did
    edit(report / "one/report.md", "What is one?", "What is two?")
    found = verify.check_report(report)
    assert [line.partition("report.md: ")[2] for line in found.failures + found.notes] == [
        "was changed after the run: run.json holds another hash of it",
        "not comparable: is not what results.csv and run.json give, by the installed code, which "
        "is not the one that made it",
    ]


def test_redrawing_vouches_for_no_changed_number(report: Path) -> None:
    said: list[Any] = []

    def redraw() -> None:
        planned = planning.plan(["one"], OPTIONS, report)
        runner.run(planned, OPTIONS, report, command="", redraw=True, watch=said.append)

    redraw()
    assert not verify.check_report(report).failures and len(said) == 1
    a_number(report)
    redraw()
    assert "results.csv: was changed after it was measured" in said[1].text
    (failure,) = verify.check_report(report).failures
    assert "one/results.csv: was changed" in failure
    edit(report / "one/run.json", '"title": "', '"title": "The ')
    with pytest.raises(GeomkitError, match=r"run\.json: was changed after the run"):
        redraw()


def test_models_are_measured_again(report: Path, cli: Callable) -> None:
    before = {path: path.stat().st_mtime_ns for path in report.rglob("*")}
    done = cli("reproduce", "verify", "r", "--cells", "1", "--format", "csv")
    assert done.status == 0, done
    head, *lines = done.out.splitlines()
    assert head == "model,metric,stored,rerun,difference,verdict" and len(lines) == 8
    assert all(line.endswith(",0,same") for line in lines)
    assert (
        "3 experiments: all belongs together; 4 models trained again: of 8 numbers none differs "
        "and 8 are the same" in done.err.splitlines()[-1]
    )
    assert "three: trains models beside its cells" in done.err
    assert "one: numbers are compared one by one, to 1e-05" in done.err
    # First what others are fine-tuned from; then each group, which is told when it is measured.
    told = re.findall(r"training \d models? again|^\w+: of 4 numbers none differs", done.err, re.M)
    assert told == [
        "training 1 model again", "training 2 models again", "one: of 4 numbers none differs",
        "training 2 models again", "two: of 4 numbers none differs",
    ]  # fmt: skip
    assert "trained clip d=4" in done.err
    assert before == {path: path.stat().st_mtime_ns for path in report.rglob("*")}
    # A forger who seals his numbers again is caught by the models.
    a_number(report)
    resealed(report, lambda record: record)
    done = cli("reproduce", "verify", "r", "--cells", "1")
    assert done.status == 1 and "differs by more than" in done.out
    assert "of 8 numbers 1 differs" in done.out.splitlines()[-1]


def test_a_stopped_run_shows_what_it_has_measured(
    report: Path, cli: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*args: Any, **named: Any) -> Iterator[list[rerun.Compared]]:
        yield next(real(*args, **named))
        raise Interrupted("stopped")

    real = rerun.rerun
    monkeypatch.setattr(rerun, "rerun", stopped)
    done = cli("reproduce", "verify", "r", "--cells", "1", "--format", "csv")
    assert done.status == 130 and done.err.endswith("nothing was written to r\n"), done
    assert [line[:5] for line in done.out.splitlines()] == ["model"] + ['"one:'] * 4


def row(loss: str, seed: int, value: float, metric: str = "m", condition: str = "") -> Row:
    return Row("e", "d", 4, loss, seed, metric, value, condition=condition)


def share(stored: rerun._Stored, new: Row) -> float:
    return stored.compared(new, cell(), tight=False).share


def test_elsewhere_numbers_are_compared_with_their_spread(report: Path) -> None:
    values = {"clip": (0.5, 0.7, 0.6), "cua": (0.1, 0.2, 0.0)}
    rows = Rows(row(loss, k, v) for loss, found in values.items() for k, v in enumerate(found))
    stored = rerun._Stored(Rows([*rows, row("ca", 0, 0.4)]))
    # Without the stored 0.5, clip's variance is 0.005 of one degree; with cua's 0.025 / 3 of three.
    assert share(stored, row("clip", 0, 0.9)) == pytest.approx(
        0.4 / (6 * (0.025 / 3) ** 0.5 * 2**0.5)
    )
    assert share(stored, row("clip", 0, 0.5)) == 0.0
    assert share(stored, row("ca", 0, 0.5)) == pytest.approx(0.1 / (0.25 * 0.4))
    error = replace(row("ca", 0, 0.5), stderr=0.1)
    assert share(stored, error) == pytest.approx(0.1 / 0.4)
    assert share(stored, row("cuaxu", 0, 0.5)) == float("inf")
    # A seed without a number, of this setting or another, takes nothing from the others.
    more = rerun._Stored(Rows([*rows, row("clip", 9, float("nan")), row("cu", 0, float("nan"))]))
    assert share(more, row("clip", 0, 0.9)) == share(stored, row("clip", 0, 0.9))
    assert share(more, row("clip", 9, float("nan"))) == 0.0
    assert (
        share(more, row("clip", 9, 0.5))
        == share(more, row("clip", 0, float("nan")))
        == float("inf")
    )
    # One confusion among many that never are varies as its kind does.
    rare = [row("clip", k, v, "taken_for@left") for k, v in enumerate((0.1, 0.0, 0.0))]
    kind = [row("clip", k, v, "taken_for@up") for k, v in enumerate((0.1, 0.2, 0.1))]
    assert share(rerun._Stored(Rows(rare)), rare[1]) == 0.0
    assert share(rerun._Stored(Rows(rare)), row("clip", 0, 0.0, "taken_for@left")) > 1
    assert share(rerun._Stored(Rows(rare + kind)), row("clip", 0, 0.0, "taken_for@left")) < 1
    work, _ = rerun.choose({"one": read_record(report / "one")}, 0.1, machine=Options(threads=2))
    assert len(work) == 1 and "1 threads, here 2" in work[0].others
    record = read_record(report / "two")
    threads = [{**c, "threads": 2} if c["loss"] == "cua" else c for c in record.cells]
    record = replace(record, cells=tuple(threads))
    (again,), _ = rerun.choose({"two": record}, 1, machine=Options())
    assert (again.starting.threads, again.options.threads, again.others) == (2, 1, ())


def test_elsewhere_few_honest_numbers_differ_and_forged_ones_do() -> None:
    random = np.random.default_rng(0)
    deviations = {"clip": 1.0, "cua": 0.1, "cuaxu": 0.1}  # losses differ in their spread
    for seeds, most in ((3, 0.05), (12, 0.005)):  # of three, few tell the spread
        honest, forged = [], []
        for _ in range(60):
            rows = Rows(
                row(loss, k, 5 + deviation * random.normal())
                for loss, deviation in deviations.items() for k in range(seeds)
            )  # fmt: skip
            stored = rerun._Stored(rows)
            for one in rows.where(seed=(0, 1)):
                new = row(one.loss, one.seed, 5 + deviations[one.loss] * random.normal())
                honest.append(share(stored, new) > 1)
            first, *others = rows
            lie = rerun._Stored(Rows([replace(first, value=25.0), *others]))
            forged.append(share(lie, replace(first, value=5 + random.normal())) > 1)
        assert np.mean(honest) < most and np.mean(forged) > 0.95


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["verify"], "expected one folder"),
        (["verify", "nowhere"], "nowhere: no report there"),
        (["verify", "r", "--cells", "2"], "expected 0 to 1"),
        (["verify", "r", "--quick"], "--quick: not with verify"),
        (["verify", "r", "--plan"], "--plan: not with verify"),
        (["figure2", "--cells", "0.1"], "--cells: only with verify"),
    ],
)
def test_bad_input_is_a_line(words: list, says: str, refused: Callable) -> None:
    refused("reproduce", *words, says=(says,))


def test_a_report_from_before_seals_is_said_to_be(cli: Callable) -> None:
    record = {
        "format": "geomkit-experiment", "schema_version": 1, "experiment": "old", "title": "t",
        "options": Options().to_json(), "command": "c", "cells": [], "verdicts": [],
        "seconds": {"training": 1.0, "measuring": 1.0}, "versions": {},
    }  # fmt: skip
    Path("r/old").mkdir(parents=True)
    Path("r/old/run.json").write_text(json.dumps(record))
    done = cli("reproduce", "verify", "r", "--cells", "0")
    assert done.status == 1
    assert done.out.startswith("r/old/run.json: made before seals existed:"), done
