"""The runner, its report and the command: toy experiments, killed, resumed, shared, refused."""

from __future__ import annotations

import base64
import html.parser
import json
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from geomkit.errors import GeomkitError
from geomkit.reproduce.framework import catalogue, commands, planning, progress, report, runner
from geomkit.reproduce.framework.claims import Claim, average, below
from geomkit.reproduce.framework.document import to_html
from geomkit.reproduce.framework.experiment import Cell, Context, Experiment, Options
from geomkit.reproduce.framework.record import Outcome
from geomkit.reproduce.framework.results import Row, Rows, read_rows
from geomkit.reproduce.framework.tables import Table, comparison
from geomkit.training.config import configure

OPTIONS = Options(data="openmoji,n=12", seeds=(1,), threads=1)


def cell(loss: str = "clip", seed: int = 1) -> Cell:
    return Cell(
        configure(
            loss=loss, dim=4, seed=seed, model="nano", data="openmoji,n=12", batch_size=6,
            steps=3, eval_every=3, warmup=1,
        )
    )  # fmt: skip


@dataclass
class Toy:
    """Two experiments, ``one`` and ``two``, that share the cell of clip; and what they did."""

    trained: list[str] = field(default_factory=list)
    measured: list[str] = field(default_factory=list)
    fail: dict[str, Exception] = field(default_factory=dict)

    def experiment(self, name: str, losses: tuple[str, ...]) -> Experiment:
        def measure(context: Context) -> Rows:
            self.measured.append(name)
            (context.folder / "work" / "part").touch()
            if name in self.fail:
                raise self.fail[name]
            rows = Rows()
            for seed in context.options.used_seeds:
                for loss in losses:
                    n = context.embeddings(cell(loss, seed), "val").n
                    rows.append(
                        Row(name, "openmoji val", 4, loss, seed, "centroid_distance", n, 0.1)
                    )
            return rows

        def draw(rows: Rows, context: Context) -> dict:
            from matplotlib.figure import Figure

            figure = Figure(figsize=(1, 1))  # drawn in no time
            axes = figure.add_axes((0, 0, 1, 1))
            axes.set_axis_off()
            axes.plot([row.value for row in rows])
            return {name: figure, "values": figure}

        test = below(average(loss="clip"), 0, "pairs")
        return Experiment(
            name, f"Title of {name}", f"What is {name}?",
            cells=lambda options: [cell(x, s) for s in options.used_seeds for x in losses],
            measure=measure, draw=draw, seconds=lambda options: 5.0,
            claims=(Claim("It is below nothing", "−1", test, otherwise="Counts are positive."),),
            published="coco-finetune", notes="Read it `so`.", captions={name: "Counts of `pairs`"},
        )  # fmt: skip


@pytest.fixture
def toy(trained_once: None, monkeypatch: pytest.MonkeyPatch) -> Toy:
    import geomkit.training.loop

    made = Toy()
    found = {"one": ("clip", "cua"), "two": ("clip", "ca")}
    experiments = {name: made.experiment(name, losses) for name, losses in found.items()}
    monkeypatch.setattr(catalogue, "all_experiments", lambda: experiments)
    train = geomkit.training.loop.train

    def spy(config: Any, out: Any, **more: Any) -> Any:
        if (error := made.fail.get(config.loss)) is not None:
            raise error
        made.trained.append(f"{config.loss} {config.seed}")
        return train(config, out, **more)

    monkeypatch.setattr(geomkit.training.loop, "train", spy)
    return made


def run(out: Path, *names: str, options: Options = OPTIONS, **how: Any) -> list[Outcome]:
    planned = planning.plan(names or ["all"], options, out, overwrite=how.get("overwrite", False))
    return runner.run(planned, options, out, command="geomkit reproduce", **how)


def test_a_shared_cell_is_trained_once(toy: Toy, tmp_path: Path) -> None:
    events: list[Any] = []
    outcomes = run(tmp_path, watch=events.append)
    assert toy.trained == ["clip 1", "cua 1", "ca 1"] and toy.measured == ["one", "two"]
    assert [len(o.rows) for o in outcomes] == [2, 2]
    assert read_rows(tmp_path / "one" / "results.csv") == outcomes[0].rows
    from geomkit.models.checkpoints import load_run

    stored = load_run(tmp_path / "cells" / f"{cell().key}.pt")
    assert stored.step == 3 and not stored.optimizer["state"]
    assert (tmp_path / "cells" / ".gitignore").read_text() == "*\n"
    kinds = [event.kind for event in events if event.kind != "training"]
    # The models of all first looks together, then each experiment.
    assert kinds == ["trained"] * 3 + ["measuring", "done"] * 2
    assert (events[-1].done, events[-1].total) == (9, 9)
    assert events[-1].left == pytest.approx(0.0, abs=1e-9)


def test_killed_between_cells_it_goes_on(toy: Toy, tmp_path: Path) -> None:
    toy.fail["cua"] = RuntimeError("killed")
    with pytest.raises(RuntimeError, match="killed"):
        run(tmp_path, "one")
    assert toy.trained == ["clip 1"] and not (tmp_path / "one").exists()
    toy.fail.clear()
    run(tmp_path, "one")  # nothing is finished, so there is nothing to resume or overwrite
    assert toy.trained == ["clip 1", "cua 1"] and toy.measured == ["one"]


def test_killed_between_the_last_step_and_the_note_it_ends_the_same(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from geomkit.models import checkpoints
    from geomkit.reproduce.framework.grid import cell_path, finished, train_cells

    train_cells([cell()], tmp_path / "whole", OPTIONS)

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as during, pytest.raises(KeyboardInterrupt):
        during.setattr(checkpoints, "save_run", killed)
        train_cells([cell()], tmp_path / "killed", OPTIONS)
    assert finished(tmp_path / "killed", cell())
    train_cells([cell()], tmp_path / "killed", OPTIONS)
    whole, again = (cell_path(tmp_path / name, cell()) for name in ("whole", "killed"))
    assert again.read_bytes() == whole.read_bytes() and again.with_suffix(".json").exists()


def test_killed_between_experiments_it_goes_on(toy: Toy, tmp_path: Path) -> None:
    toy.fail["two"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    assert not (tmp_path / "two" / "run.json").exists()
    toy.fail.clear()
    outcomes = run(tmp_path, resume=True)
    assert toy.trained == ["clip 1", "cua 1", "ca 1"]
    assert toy.measured == ["one", "two", "two"]
    assert [o.experiment.name for o in outcomes] == ["one", "two"]
    assert (tmp_path / "two" / "work" / "part").exists()


def test_finished_is_kept_refused_or_measured_anew(toy: Toy, tmp_path: Path) -> None:
    run(tmp_path, "one")
    before = (tmp_path / "one" / "run.json").read_bytes()
    with pytest.raises(GeomkitError, match=r"exists already; give --resume"):
        run(tmp_path, "one")
    events: list[Any] = []
    run(tmp_path, "one", resume=True, watch=events.append)
    assert [event.kind for event in events] == ["skipped"]
    assert toy.measured == ["one"] and (tmp_path / "one" / "run.json").read_bytes() == before
    run(tmp_path, "one", overwrite=True)
    assert toy.measured == ["one", "one"] and toy.trained == ["clip 1", "cua 1"]
    with pytest.raises(GeomkitError, match="exclude one another"):
        run(tmp_path, "one", overwrite=True, resume=True)


def test_redrawn_from_the_results_and_nothing_else(toy: Toy, tmp_path: Path) -> None:
    with pytest.raises(GeomkitError, match="no finished run to draw again"):
        run(tmp_path, "one", redraw=True)
    run(tmp_path, "one")
    folder = tmp_path / "one"
    seconds = json.loads((folder / "run.json").read_text())["seconds"]
    changed = (
        (folder / "results.csv")
        .read_text()
        .replace(",clip,1,centroid_distance,", ",clip,1,centroid_distance,-")
    )
    (folder / "results.csv").write_text(changed)
    for name in ("report.md", "values.png"):
        (folder / name).unlink()
    (outcome,) = run(tmp_path, "one", redraw=True)
    assert outcome.verdicts[0].status == "reproduced"
    details = json.loads((folder / "run.json").read_text())
    assert details["verdicts"][0]["status"] == "reproduced" and details["seconds"] == seconds
    assert (folder / "values.png").exists() and "1 reproduced" in (folder / "report.md").read_text()
    assert toy.measured == ["one"] and toy.trained == ["clip 1", "cua 1"]


def test_other_options_are_refused_or_measured_anew(toy: Toy, tmp_path: Path) -> None:
    run(tmp_path, "one")
    before = (tmp_path / "one" / "results.csv").read_bytes()
    part = tmp_path / "one" / "work" / "of-the-first"
    part.touch()
    more = Options(data="openmoji,n=12", seeds=(1, 2), threads=1)
    for how in ("resume", "redraw"):  # neither may take away what is finished
        with pytest.raises(
            GeomkitError, match=r"made with seeds \[1\] \(now \[1, 2\]\); give --over"
        ):
            run(tmp_path, "one", options=more, **{how: True})
    assert (tmp_path / "one" / "results.csv").read_bytes() == before and part.exists()
    run(tmp_path, "one", options=more, overwrite=True)
    assert toy.measured == ["one", "one"]
    assert toy.trained == ["clip 1", "cua 1", "clip 2", "cua 2"]
    assert not part.exists()  # what it kept of other options would be wrong here
    machine = Options(data="openmoji,n=12", seeds=(1, 2), threads=2, workers=0, device="cpu")
    run(tmp_path, "one", options=machine, resume=True)
    assert toy.measured == ["one", "one"]


def test_one_that_fails_does_not_stop_the_others(toy: Toy, tmp_path: Path) -> None:
    toy.fail["one"] = GeomkitError("no pairs")
    with pytest.raises(GeomkitError, match=r"1 of 2 experiments failed.*one: no pairs"):
        run(tmp_path)
    assert (tmp_path / "two" / "run.json").exists() and (tmp_path / "report.md").exists()
    with pytest.raises(GeomkitError, match=r"^no pairs"):
        run(tmp_path, "one")


def test_jobs_train_the_same_cells(tmp_path: Path) -> None:
    from geomkit.models.checkpoints import load_run
    from geomkit.reproduce.framework.grid import cell_path, finished, train_cells

    cells, told = [cell(), cell("cua")], []
    train_cells(cells, tmp_path / "1", OPTIONS)
    train_cells(cells, tmp_path / "2", OPTIONS, jobs=2, progress=lambda *what: told.append(what))
    for one in cells:
        assert finished(tmp_path / "2", one) and (one, 3, 3) in told
        a, b = (load_run(cell_path(tmp_path / n, one)).state_dict for n in "12")
        assert all(a[name].equal(b[name]) for name in a)
    with pytest.raises(GeomkitError, match=r"training (clip|cua) d=4 .*: batch size: 999"):
        bad = Cell(configure(**{**_fields(cell()), "batch_size": 999}))
        train_cells([bad, Cell(configure(**{**_fields(cell("cua")), "batch_size": 999}))],
                    tmp_path / "3", OPTIONS, jobs=2)  # fmt: skip


def _killed(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_job_that_is_killed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from geomkit.reproduce.framework import grid

    monkeypatch.setattr(grid, "_train_apart", _killed)
    with pytest.raises(GeomkitError, match=r"process was killed, by the system .*--jobs"):
        grid.train_cells([cell(), cell("cua")], tmp_path, OPTIONS, jobs=2)


def test_stored_embeddings_belong_to_the_weights_whatever_their_dates(
    toy: Toy, tmp_path: Path
) -> None:
    from dataclasses import replace

    import numpy as np

    from geomkit.models.checkpoints import load_run, save_run

    run(tmp_path, "one")
    path = tmp_path / "cells" / f"{cell().key}.pt"
    current = runner._Run(OPTIONS, tmp_path, "", 1, False, None, lambda: False)  # type: ignore
    before = current._context(tmp_path / "one", OPTIONS).embeddings(cell(), "val")
    stored = load_run(path)
    other = {name: w + 0.1 * w.std() if w.ndim == 2 else w for name, w in stored.state_dict.items()}
    save_run(path, replace(stored, state_dict=other))
    os.utime(path, (0, 0))  # older than what was measured of the other weights
    after = current._context(tmp_path / "one", OPTIONS).embeddings(cell(), "val")
    assert not np.allclose(before.image[:], after.image[:])
    assert len(list(path.parent.glob(f"{cell().key}.val.*npz"))) == 1


def _fields(one: Cell) -> dict[str, Any]:
    from dataclasses import asdict

    known = asdict(one.config)
    return {k: v for k, v in known.items() if v is not None and k not in ("epochs",)}


def test_plan_counts(toy: Toy, tmp_path: Path) -> None:
    planned = planning.plan(["all"], OPTIONS, tmp_path)
    assert (len(planned.cells), planned.trained, len(planned.left)) == (3, 0, 3)
    assert planned.seconds() == pytest.approx(sum(planning.cost(c) for c in planned.cells) + 10.0)
    run(tmp_path, "one")
    after = planning.plan(["two", "one"], OPTIONS, tmp_path)
    assert (len(after.cells), after.trained, len(after.left)) == (3, 2, 1)
    assert after.done == ("one",)
    for done in (cell(), cell("cua")):  # a machine at half the speed
        note = tmp_path / "cells" / f"{done.key}.json"
        slow = json.loads(note.read_text()) | {"seconds": 2 * planning.cost(done)}
        note.write_text(json.dumps(slow))
    after = planning.plan(["two", "one"], OPTIONS, tmp_path)
    assert after.seconds() == pytest.approx(2 * (planning.cost(after.left[0]) + 5.0))
    assert planning.plan(["one"], OPTIONS, tmp_path).seconds() == 0.0
    assert planning.plan(["one"], OPTIONS, tmp_path, overwrite=True).seconds() > 0.0


def test_quick_is_a_quarter_of_whatever_the_length_is_given_in() -> None:
    from geomkit.reproduce.experiments.cause_runs import cells
    from geomkit.reproduce.framework.cells import cell_of

    for pretrained, length, lengths in ((None, "steps", (600, 150)), ("hf:x", "epochs", (9, 2))):
        full, quick = (
            cell_of(Options(pretrained=pretrained, quick=q), loss="clip", dim=64, seed=1).config
            for q in (False, True)
        )
        assert (getattr(full, length), getattr(quick, length)) == lengths
        long = cells(Options(pretrained=pretrained, quick=True))[-1].config
        assert getattr(long, length) == round(0.25 * 3 * lengths[0])
    assert cell_of(Options(quick=True), loss="clip", dim=64, seed=1).config.eval_every == 50


def test_time_left_follows_what_was_measured() -> None:
    clock = [0.0]
    one, other = cell(), cell("cua")
    timer = progress.Clock({one: 100.0, other: 100.0}, now=lambda: clock[0])
    assert timer.left == pytest.approx(200.0)
    timer.advance(one, 0.5)  # it was half done when this run took it up
    timer.advance("unknown", 0.5)
    assert timer.left == pytest.approx(150.0)
    clock[0] = 100.0
    timer.advance(one, 1.0)  # fifty of work took a hundred
    assert timer.left == pytest.approx(100 * (100 + 10) / (50 + 10))
    timer.advance(other, 1.0)
    assert timer.left == 0.0


class _Page(html.parser.HTMLParser):
    """Tags that are left open, and whatever would be fetched from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        if tag not in ("meta", "img", "br", "source"):
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "srcset") and not value.startswith("data:"):
                self.fetched.append(value)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_report_says_all_of_it(toy: Toy, tmp_path: Path) -> None:
    run(tmp_path)
    folder = tmp_path / "one"
    text, page = ((folder / f"report.{suffix}").read_text() for suffix in ("md", "html"))
    for word in (
        "What is one?", "It is below nothing", "not reproduced", "values.png", "Read it", "−1",
        "geomkit reproduce", "CC BY-SA 4.0", "torch ", "0.661",
        "All emojis designed by OpenMoji", "of training", "results.csv",
    ):  # fmt: skip
        if word != "0.661":  # the toy's dimension is not the paper's
            assert word in text, word
            if word != "values.png":
                assert word in page, word
    assert text.count("geomkit train --loss") == page.count("geomkit train --loss") == 2
    for path in (folder / "report.html", tmp_path / "report.html"):
        parser = _Page()
        parser.feed(path.read_text())
        assert not parser.open
        index = path.parent == tmp_path  # the pages it leads to hold their pictures themselves
        both = [f"{name}/{name}{end}.png" for name in ("one", "two") for end in ("-dark", "")]
        assert parser.fetched == (both if index else [])
        assert "http" not in path.read_text().replace("https://arxiv.org", "")
    for name in ("values.png", "values.pdf", "run.json", "results.csv"):
        assert (folder / name).stat().st_size > 0
    index = (tmp_path / "report.md").read_text()
    assert "2 claims: 2 not reproduced." in index
    assert index.index("2 claims") < index.index("What did not reproduce, and the likely reason")
    assert (
        "Counts are positive." in index
        and index.count("geomkit reproduce\n") == 1
        and "(one/report.md)" in index
    )
    assert "![Counts of pairs](one/one.png)" in index and "Counts of `pairs`." in text


def test_index_holds_experiments_of_earlier_runs(toy: Toy, tmp_path: Path) -> None:
    run(tmp_path, "two")
    run(tmp_path, "one")
    index = (tmp_path / "report.md").read_text()
    assert index.index("Title of one") < index.index("Title of two")  # as listed, not as made


def test_numbers_stand_beside_the_published() -> None:
    rows = Rows(
        Row("figure2", "openmoji val", 128, loss, seed, "centroid_distance", 0.5 + seed / 10)
        for loss in ("clip", "ca") for seed in (0, 1)
    )  # fmt: skip
    paper = Rows([Row("p", "coco", 128, "clip", -1, "centroid_distance", 0.661, 0.048)])
    tables, whole = comparison(rows, paper)
    assert whole and len(tables) == 1
    assert tables[0].head == ("metric", "clip", "clip, paper", "ca")
    assert tables[0].rows == (
        # Its deviation is that of three as a population: √1.5 less than ours.
        ("`centroid_distance`", "0.550 ± 0.071", "0.661 ± 0.059", "0.550 ± 0.071"),
    )


def test_long_tables_are_cut_and_say_so() -> None:
    rows = Rows(Row("e", "d", 3, "clip", 0, "m", k, condition=f"step={k:03d}") for k in range(100))
    curve = Rows(Row("e", "d", 3, "clip", 0, f"v@{k}_image", k) for k in range(20))
    tables, whole = comparison(rows, Rows())
    assert not whole and len(tables) == 1 and len(tables[0].rows) < 80
    assert comparison(curve, Rows()) == ([], False)


def test_a_cell_is_escaped_in_html(tmp_path: Path) -> None:
    table = Table(("a", "b"), (("<b> & `x < y`", "0.1*x + 0.1*y"), ("1|2", "undecided")))
    page = to_html("\n".join(table.lines), tmp_path, title="<t>")
    assert "&lt;b&gt; &amp; <code>x &lt; y</code>" in page and '<td data-label="a">1|2</td>' in page
    assert '<td data-label="b">0.1*x + 0.1*y</td>' in page and "<title>&lt;t&gt; · geom" in page
    assert '<td data-label="b" class="mark open">undecided</td>' in page


def test_a_page_has_contents_images_of_both_themes_and_an_animation_that_stops(
    tmp_path: Path,
) -> None:
    for name in ("a.png", "a-dark.png", "b.png", "c.gif"):
        (tmp_path / name).write_bytes(name.encode())
    text = "# t\n\n## One <x>\n\n![an a](a.png)\n\n![a b](b.png)\n\n### Two\n\n![a c](c.gif)\n"
    page = to_html(text, tmp_path, title="t")
    assert '<a href="#s1">One &lt;x&gt;</a>' in page and '<h3 id="s2">Two</h3>' in page
    a, dark, b, c = (
        base64.b64encode(name.encode()).decode()
        for name in ("a.png", "a-dark.png", "b.png", "c.gif")
    )
    source = f'<source srcset="data:image/png;base64,{dark}" media="(prefers-color-scheme: dark)">'
    assert f'<a href="a.png"><picture>{source}<img src="data:image/png;base64,{a}"' in page
    assert f'<picture><img class="plain" src="data:image/png;base64,{b}" alt="a b">' in page
    start = page.index("<details><summary>Animation")
    assert f'src="data:image/gif;base64,{c}"' in page[start:]
    assert page.index("<nav") > page.index("</h1>")


@pytest.mark.parametrize(
    "fields",
    [
        {"loss": "cua", "dim": 64, "seed": 24},
        {"dim": 3, "recipe": "standard", "steps": 180, "warmup": 45, "eval_every": 30},
        {"dim": 3, "loss": "clip + 0.1*uniformity", "temperature": 0.07, "learn_temperature": True},
        {"model": "nano", "batch_size": 16, "lr": 5e-4, "distinct_captions": False, "pairs": 64},
        {"pretrained": "open_clip:ViT-B-32/x.pt", "dim": 32, "data": "coco:my coco"},
        {"pretrained": "hf:x", "dim": 32, "recipe": "paper", "steps": 600},
        {"pretrained": "hf:x", "dim": 32, "recipe": "paper", "steps": 180, "freeze": "backbone"},
        {"epochs": 2, "lock_image": 3, "captions": "random", "recipe": "standard"},
    ],
)
def test_command_of_a_cell_trains_that_cell(
    fields: dict, cli: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shlex

    import geomkit.training.loop

    Path("my coco").mkdir()  # a folder that is not there is refused before the training
    config = configure(**fields)
    seen = []
    monkeypatch.setattr(geomkit.training.loop, "train", lambda config, *a, **k: seen.append(config))
    command = commands.train_command(Cell(config), "cell.pt")
    outcome = cli(*shlex.split(command)[1:])
    assert outcome.status == 0, outcome
    assert Cell(seen[0]).key == Cell(config).key


def test_command_lists_plans_and_runs(toy: Toy, cli: Callable, tmp_path: Path) -> None:
    for words in ([], ["list"]):
        listed = cli("reproduce", *words)
        assert listed.status == 0 and listed.out.splitlines()[0].split() == [
            "one", "What", "is", "one?",
        ]  # fmt: skip
    asked = ["reproduce", "all", "--data", "openmoji,n=12", "--seeds", "1", "--threads", "1"]
    planned = cli(*asked, "--out", "r", "--plan")
    assert "2 experiments (one, two) into r" in planned.out
    assert "3 models, 0 trained already, 3 to train; about" in planned.out
    assert not Path("r").exists()
    toy.trained.clear()
    done = cli(*asked, "--out", "r")
    assert done.status == 0, done.err
    assert done.out.splitlines()[-1] == "r"
    assert done.out.splitlines()[0].split("\t")[:3] == [
        "one", "not reproduced", "It is below nothing",
    ]  # fmt: skip
    assert "trained clip d=4" in done.err and "done: two" in done.err
    command = json.loads(Path("r/one/run.json").read_text())["command"]
    assert command == ("geomkit reproduce all --data openmoji,n=12 --seeds 1 --threads 1 --out r")
    again = cli(*asked, "--out", "r", "--resume")
    assert again.status == 0 and again.out == done.out and toy.measured == ["one", "two"]
    quiet = cli("--quiet", *asked, "--out", "r", "--resume")
    assert quiet.err == "" and quiet.out == done.out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["figurine"], ("unknown experiment 'figurine'", "one")),
        (["one", "list"], ("list: expected no other name",)),
        (["one", "--seeds", "a,b"], ("--seeds", "24,42,44")),
        (["one", "--seeds", ","], ("seeds", "one or more")),
        (["one", "--seeds", "1,1"], ("seeds", "different")),
        (["one", "--jobs", "0"], ("--jobs", "1 or more")),
        (["one", "--threads", "-1"], ("--threads", "0 or more")),
        (["one", "--data", "openmojo"], ("unknown data set 'openmojo'", "openmoji")),
        (["one", "--data", "coco"], ("needs a path",)),
        (["one", "--model", "tiny", "--pretrained", "hf:x"], ("exclude each other",)),
        (["one", "--resume", "--overwrite"], ("exclude one another",)),
        (["one", "--redraw"], ("no finished run", "draw again")),
        (["one", "--task", "cifar"], ("unknown data set with classes 'cifar'", "cifar10")),
        (["one", "--task", "cifar10:nowhere"], ("nowhere", "no such folder")),
        (["one", "--simat", "nowhere"], ("nowhere", "no such folder")),
        (["one", "--device", "gpu"], ("unknown device 'gpu'",)),
    ],
)
def test_bad_input_is_a_line(toy: Toy, refused: Callable, words: list, says: tuple) -> None:
    refused("reproduce", *words, says=says)
    assert not toy.trained


def test_a_finished_folder_is_refused_in_a_line(toy: Toy, cli: Callable, refused: Callable) -> None:
    asked = ["reproduce", "one", "--data", "openmoji,n=12", "--seeds", "1", "--out", "r"]
    assert cli(*asked, "--threads", "1").status == 0
    refused(*asked, says=("r/one: exists already", "--resume"))
    Path("file").touch()
    refused(*asked[:-1], "file", says=("file", "no folder can be made"))


def test_ctrl_c_saves_and_exits(toy: Toy, cli: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    from geomkit_cli import reproduce as command

    from geomkit.models.checkpoints import load_run
    from geomkit.reproduce.framework.grid import cell_path

    asked = ["reproduce", "one", "--data", "openmoji,n=12", "--seeds", "7", "--threads", "1"]
    watch = command._Watcher.__call__

    def pressed(self: Any, event: Any) -> None:
        watch(self, event)
        if event.kind == "training" and event.step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(command._Watcher, "__call__", pressed)
    outcome = cli(*asked, "--out", "r")
    assert outcome.status == 130 and "saving after this step" in outcome.err
    assert load_run(cell_path(Path("r/cells"), cell(seed=7))).step == 2
    assert signal.getsignal(signal.SIGINT) is before
    monkeypatch.setattr(command._Watcher, "__call__", watch)
    assert cli(*asked, "--out", "r", "--resume").status == 0


def test_a_stray_record_is_left_out_and_said(toy: Toy, tmp_path: Path) -> None:
    run(tmp_path, "one")
    good = json.loads((tmp_path / "one" / "run.json").read_text())
    for name, content in {
        "list": [],
        "empty": {},
        "newer": good | {"schema_version": 2},
        "number": good | {"title": 3},
        "keys": good | {"cells": [{"loss": "clip"}]},
        "verdicts": good | {"verdicts": [{"claim": "x"}]},
        "seconds": good | {"seconds": {"training": "1", "measuring": 2}},
        "options": good | {"options": good["options"] | {"seeds": 1}},
        "other": good,  # of another experiment than its folder
        "a](javascript:x)": good | {"experiment": "a](javascript:x)"},
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(json.dumps(content))
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "run.json").write_text("[" * 100_000)
    events: list[Any] = []
    run(tmp_path, "one", resume=True, watch=events.append)
    said = [event.text for event in events if event.kind == "line"]
    assert len(said) == 11 and all("left out of the report" in text for text in said)
    index = (tmp_path / "report.md").read_text()
    assert "Title of one" in index and "javascript" not in index


@pytest.mark.parametrize(
    ("seeds", "says"),
    [
        ([], ""), ([{7}, {7}], "seed 7"), ([{7}, {8}], "1 seed"), ([{7, 8}, {7, 9}], "2 seeds"),
        ([{7}, {7, 8, 9}, {7, 8}], "1 to 3 seeds"),
    ],
)  # fmt: skip
def test_figures_say_how_many_seeds_their_settings_have(seeds: list[set[int]], says: str) -> None:
    assert report._counted_seeds(seeds) == says


def test_a_strangers_record_puts_no_link_and_no_html_into_the_report(
    toy: Toy, tmp_path: Path
) -> None:
    run(tmp_path, "one")
    wild = "<script>x</script> [y](javascript:z)\n\n[y]: javascript:z\n```\x1b<b>"
    good = json.loads((tmp_path / "one" / "run.json").read_text())
    bad = good | {"experiment": "bad", "title": wild, "command": wild, "versions": {wild: wild}}
    known = {"status": "undecided", "p": None}
    bad["verdicts"] = [dict.fromkeys(good["verdicts"][0], wild) | known]
    bad["options"] = good["options"] | {"data": wild}
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "run.json").write_text(json.dumps(bad))
    run(tmp_path, "one", resume=True)
    for name, tags in (
        ("report.md", ("<script>x", "<b>", "\x1b", "](javascript", "]: javascript")),
        ("report.html", ("<script>x", "<b>", "\x1b", 'href="javascript')),
    ):
        text = (tmp_path / name).read_text()
        assert "javascript:z" in text  # shown, but as text
        assert not [tag for tag in tags if tag in text], name


@pytest.mark.parametrize("cell_of_two", ["x" * 200_000, "²"])
def test_results_that_cannot_be_read_are_named(cell_of_two: str, tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    head = "experiment,data,dim,loss,seed,metric,value,stderr\n"
    path.write_text(f"{head}a,b,{cell_of_two},clip,1,alignment,0.1,0.1\n")
    with pytest.raises(GeomkitError, match=r"results\.csv: (cannot be read|line 2: not as)"):
        read_rows(path)
