"""Figures 1 and 2 and the spectrum, at toy size and on made-up rows; figures by their data."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import clouds
from PIL import Image

from geomkit.errors import GeomkitError
from geomkit.extraction.load import load_source
from geomkit.metrics import explained_variance_with_error
from geomkit.models.checkpoints import load_run
from geomkit.plots import save_figure
from geomkit.plots.style import LOSS_COLOURS, loss_colour, loss_marker
from geomkit.reproduce.experiments import figure1, figure2, spectrum
from geomkit.reproduce.framework.claims import NOT_REPRODUCED, REPRODUCED, UNDECIDED
from geomkit.reproduce.framework.experiment import Cell, Context, Experiment, Options
from geomkit.reproduce.framework.figures import by_dimension
from geomkit.reproduce.framework.grid import cell_path, train_cells
from geomkit.reproduce.framework.measuring import each_cell
from geomkit.reproduce.framework.results import Row, Rows, published, read_rows, write_rows
from geomkit.training.config import configure

pytestmark = pytest.mark.usefixtures("trained_once")

OPTIONS = Options(data="openmoji,n=40", model="nano", seeds=(1, 2), threads=1)
COCO_MINI = Path(__file__).parents[3] / "shared" / "data" / "coco-mini"


def context(folder: Path, cells: Path, options: Options = OPTIONS) -> Context:
    return Context(
        options,
        folder,
        checkpoint=lambda cell: load_run(cell_path(cells, cell)),
        embeddings=lambda cell, split: load_source(cell_path(cells, cell), split=split)[0],
    )


def verdicts(experiment: Experiment, rows: Rows, *, quick: bool = False) -> list[str]:
    return [claim.verdict(rows, quick=quick).status for claim in experiment.claims]


# Figure 1


def short(monkeypatch: pytest.MonkeyPatch, **more: object) -> None:
    """The 3-D runs in four steps."""
    real = figure1.cell_of

    def cell_of(options: Options, **given: object) -> Cell:
        made = real(options, **{**given, "model": "nano"})
        size = min(12, made.config.pairs or 12)
        shorter = {"steps": 4, "warmup": 1, "eval_every": 2, "batch_size": size, **more}
        return Cell(replace(made.config, **shorter))

    monkeypatch.setattr(figure1, "cell_of", cell_of)


def test_figure_1_from_training_to_animation(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    short(monkeypatch)
    options = replace(OPTIONS, data="openmoji,n=30")
    cells = figure1.cells(options)
    assert [c.config.loss for c in cells] == ["clip", "cua"]
    assert {(c.config.dim, c.config.seed, c.config.pairs) for c in cells} == {(3, 1, 30)}
    assert [c.config.loss for c in figure1.cells(replace(options, quick=True))] == ["clip"]
    train_cells(cells, tmp_path / "cells", options)
    found = context(tmp_path, tmp_path / "cells", options)
    rows = figure1.EXPERIMENT.measure(found)
    steps = rows.where(loss="clip").values("step")
    assert [int(step) for step in steps] == [0, 1, 2, 4]
    for step in steps:
        here = rows.where(loss="clip", step=step)
        sides = [here.one(metric=f"cumulative_variance@1_{s}").value for s in ("image", "text")]
        assert here.one(metric="cumulative_variance@1").value == pytest.approx(np.mean(sides))
        both = here.one(metric="cumulative_variance@2").value
        assert max(sides) <= 1 and np.mean(sides) <= both <= 1
    figures = figure1._draw(rows, found)
    save_figure(figures["figure1"], tmp_path / "f.png", dpi=50)
    with Image.open(tmp_path / "figure1.gif") as picture:
        assert picture.n_frames == 4  # type: ignore[attr-defined]
    assert (tmp_path / "figure1.gif").stat().st_size < 2e6
    panels = figures["figure1"].subfigs[1].axes
    drawn = panels[2].lines[0].get_ydata()
    wanted = [r.value for r in figure1.over_time(rows, "centroid_distance")]
    np.testing.assert_allclose(drawn, wanted)
    paper = next(line for line in panels[0].lines if line.get_linestyle() == "None")
    assert list(paper.get_ydata())[:3] == [0.6, 0.993, 0.918]
    assert not any(s == REPRODUCED for s in verdicts(figure1.EXPERIMENT, rows)[:3])


@pytest.mark.skipif(not COCO_MINI.is_dir(), reason="no COCO folder here")
def test_figure_1_of_few_pairs_of_coco(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    short(monkeypatch, steps=2, eval_every=2)
    options = replace(OPTIONS, data=f"coco:{COCO_MINI}", quick=True)
    cells = figure1.cells(options)
    assert cells[0].config.pairs is not None and 2 <= cells[0].config.pairs < 80
    train_cells(cells, tmp_path / "cells", options)
    assert figure1.EXPERIMENT.measure(context(tmp_path, tmp_path / "cells", options))


def course(first: list[float], both: list[float], *, error: float = 0.01, **ends: float) -> Rows:
    """A made-up 3-D run by its shares of variance."""
    rows = Rows()
    for k, (one, two) in enumerate(zip(first, both, strict=True)):
        share = k / (len(first) - 1)
        values = {
            "cumulative_variance@1": one,
            "cumulative_variance@2": two,
            "centroid_distance": 1.5 + share * (ends.get("distance", 0.01) - 1.5),
            "uniformity": -0.5 + share * (ends.get("uniformity", -2.08) + 0.5),
            "text_retrieval_recall@1": share * ends.get("recall", 0.95),
        }
        rows += [
            Row("figure1", "d train", 3, "clip", 1, metric, value, error, f"epoch={k};step={4 * k}")
            for metric, value in values.items()
        ]
    return rows


def test_claims_of_figure_1() -> None:
    paper = course([0.6, 0.993, 0.918, 0.6, 0.51, 0.34], [0.96, 1.0, 1.0, 1.0, 0.99, 0.67])
    assert verdicts(figure1.EXPERIMENT, paper) == [REPRODUCED] * 5
    # Two cones that only swell, apart as they are.
    still = course([0.6, 0.6, 0.55], [0.9, 0.9, 0.9], distance=1.4, uniformity=-0.4, recall=0.3)
    assert verdicts(figure1.EXPERIMENT, still) == [NOT_REPRODUCED] * 5
    assert verdicts(figure1.EXPERIMENT, still, quick=True) == [UNDECIDED] * 5
    # An arc that never bends into a ring.
    arc = course([0.6, 0.95, 0.93, 0.34], [0.96, 1.0, 1.0, 0.67])
    assert verdicts(figure1.EXPERIMENT, arc)[:3] == [REPRODUCED, NOT_REPRODUCED, REPRODUCED]
    unsure = course([0.6, 0.91, 0.7, 0.44], [0.9, 1.0, 0.96, 0.79], error=0.1, recall=0.81)
    found = verdicts(figure1.EXPERIMENT, unsure)
    assert found[:3] == [UNDECIDED] * 3 and found[4] == UNDECIDED
    assert verdicts(figure1.EXPERIMENT, Rows()) == [UNDECIDED] * 5


# Figure 2 and the spectrum


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Cell], Path]:
    """Two losses, two dimensions and two seeds, in three steps each."""
    folder = tmp_path_factory.mktemp("grid")
    cells = [
        Cell(
            configure(loss=loss, dim=dim, seed=seed, model="nano", data=OPTIONS.data, steps=3,
                      batch_size=8, warmup=1, eval_every=3)
        )
        for dim in (4, 6) for loss in ("clip", "cua") for seed in (1, 2)
    ]  # fmt: skip
    train_cells(cells, folder, OPTIONS)
    return cells, folder


def test_figure_2_from_cells_to_figure(grid: tuple, tmp_path: Path) -> None:
    cells, folder = grid
    found = context(tmp_path, folder)
    rows = each_cell(lambda options: cells, figure2._of_cell)(found)
    assert len(rows) == len(cells) * len(figure2.METRICS)
    for name, figure in figure2.EXPERIMENT.draw(rows, found).items():
        save_figure(figure, tmp_path / f"{name}.png", dpi=40)
    # Drawn means are those of the rows, and the same after a trip through CSV.
    write_rows(tmp_path / "r.csv", rows)
    figure = by_dimension(read_rows(tmp_path / "r.csv"), ["centroid_distance"])
    line = figure.axes[0].lines[0]
    wanted = [
        np.mean([r.value for r in rows.where(metric="centroid_distance", loss="clip", dim=dim)])
        for dim in (4, 6)
    ]
    np.testing.assert_allclose(line.get_ydata(), wanted)
    assert line.get_color() == LOSS_COLOURS["clip"]
    assert set(verdicts(figure2.EXPERIMENT, rows)[:10]) == {UNDECIDED}  # no d of the paper's


def like_the_paper(change: Callable[[Row], float] = lambda row: row.value) -> Rows:
    """Three seeds about the paper's means."""
    rng = np.random.default_rng(0)
    return Rows(
        Row("figure2", "made up", r.dim, r.loss, seed, r.metric,
            change(r) + 1e-4 * float(rng.standard_normal()))
        for r in figure2.with_uniformity(published("coco-finetune"))
        for seed in (1, 2, 3)
    )  # fmt: skip


def test_claims_of_figure_2() -> None:
    count = len(figure2.EXPERIMENT.claims)
    assert verdicts(figure2.EXPERIMENT, like_the_paper()) == [REPRODUCED] * count
    turned = like_the_paper(lambda row: -row.value)
    found = verdicts(figure2.EXPERIMENT, turned)
    assert found[:-2] == [NOT_REPRODUCED] * (count - 2)
    assert found[-2:] == [REPRODUCED] * 2  # a difference is comparable either way round
    assert verdicts(figure2.EXPERIMENT, turned, quick=True)[:-2] == [UNDECIDED] * (count - 2)
    worse = like_the_paper(lambda r: r.value - 0.1 * ("recall" in r.metric and r.loss != "clip"))
    assert verdicts(figure2.EXPERIMENT, worse)[-2:] == [NOT_REPRODUCED] * 2
    one_seed = like_the_paper().where(seed=1)  # and no error over pairs
    assert verdicts(figure2.EXPERIMENT, one_seed) == [UNDECIDED] * count


def test_the_papers_numbers_stand_apart() -> None:
    figure = by_dimension(
        like_the_paper(), ["linear_separability"], published=published("coco-finetune")
    )
    hollow = [c for c in figure.axes[0].containers if c.lines[0].get_markerfacecolor() == "white"]
    assert len(hollow) == 3 and len(figure.axes[0].containers) == 6
    np.testing.assert_allclose(hollow[0].lines[0].get_ydata(), [0.782477, 0.999161, 1.0])
    bars = np.concatenate([np.array(c.lines[2][0].get_segments())[:, :, 1] for c in hollow])
    assert bars.max() <= 1.0  # no interval where no accuracy can be
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["clip", "cua", "cuaxu", "geomkit", "paper (ViT-B/32, COCO)"]


def test_cumulative_variance_is_that_of_pca() -> None:
    from sklearn.decomposition import PCA

    x, _ = clouds(90, 7)
    x = x * np.linspace(2, 0.5, 7)
    values, errors, area, error = explained_variance_with_error(x)
    wanted = np.cumsum(PCA().fit(x).explained_variance_ratio_)
    np.testing.assert_allclose(values, wanted, atol=1e-12)
    assert area == pytest.approx(wanted.mean())
    # The jackknife by its definition: PCA anew without each group.
    left = np.array(
        [
            np.cumsum(PCA().fit(np.delete(x, np.s_[g::20], axis=0)).explained_variance_ratio_)
            for g in range(20)
        ]
    )
    np.testing.assert_allclose(errors, np.sqrt(19 / 20 * ((left - left.mean(0)) ** 2).sum(0)),
                               atol=1e-12)  # fmt: skip
    means = left.mean(axis=1)
    assert error == pytest.approx(math.sqrt(19 / 20 * ((means - means.mean()) ** 2).sum()))
    assert np.isnan(explained_variance_with_error(x[:30])[1]).all()


def test_spectrum_from_cells_to_figure(grid: tuple, tmp_path: Path) -> None:
    cells, folder = grid
    found = context(tmp_path, folder)
    rows = each_cell(lambda options: cells, spectrum._of_cell)(found)
    for dim in (4, 6):
        curve = rows.where(lambda r: r.metric.endswith("_image") and "@" in r.metric,
                           dim=dim, loss="cua", seed=1)  # fmt: skip
        assert len(curve) == dim and curve[-1].value == 1.0
        assert [r.value for r in curve] == sorted(r.value for r in curve)
    write_rows(tmp_path / "r.csv", rows)
    figures = {
        "loss": spectrum.by_loss(read_rows(tmp_path / "r.csv"), dim=6),
        **spectrum._draw(Rows(replace(r, dim=128 if r.dim == 6 else r.dim) for r in rows), found),
    }
    for name, figure in figures.items():
        save_figure(figure, tmp_path / f"{name}.png", dpi=40)
    line = next(x for x in figures["loss"].axes[0].lines if x.get_color() == LOSS_COLOURS["cua"])
    wanted = [
        np.mean([r.value for r in rows.where(metric=f"cumulative_variance@{k}_image", dim=6,
                                             loss="cua")])
        for k in range(1, 7)
    ]  # fmt: skip
    np.testing.assert_allclose(line.get_ydata(), wanted)


def test_claims_of_the_spectrum() -> None:
    def made(sign: float = 1.0, error: float = math.nan, seeds: tuple = (1, 2, 3)) -> Rows:
        rng = np.random.default_rng(0)
        return Rows(
            Row("spectrum", "made up", 128, r.loss, s, r.metric,
                sign * r.value + 1e-4 * float(rng.standard_normal()), error)
            for r in published("pca") for s in seeds
        )  # fmt: skip

    assert verdicts(spectrum.EXPERIMENT, made()) == [REPRODUCED] * 5
    found = verdicts(spectrum.EXPERIMENT, made(-1.0))
    assert found == [NOT_REPRODUCED] * 3 + [REPRODUCED, NOT_REPRODUCED]
    assert verdicts(spectrum.EXPERIMENT, made(seeds=(1,))) == [UNDECIDED] * 5
    assert verdicts(spectrum.EXPERIMENT, made(seeds=(1,), error=1e-4))[:4] == [REPRODUCED] * 4


# Colours


def test_every_loss_has_a_look_of_its_own() -> None:
    looks = {(loss_colour(name), loss_marker(name)) for name in LOSS_COLOURS}
    assert len(looks) == len(LOSS_COLOURS) == len(set(LOSS_COLOURS.values()))
    assert loss_colour("clip+alignment + uniformity") == LOSS_COLOURS["cua"]
    other = loss_colour("clip + 0.5*uniformity")
    assert other not in LOSS_COLOURS.values() and other == loss_colour("clip + 0.5*uniformity")


def test_results_that_are_cut_or_measured_twice_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "r.csv"
    write_rows(file, [Row("e", "d", 8, "a\x1b[31m", seed, "cka", 0.5, 0.1) for seed in (1, 2)])
    whole = file.read_text("utf-8")
    assert read_rows(file).values("loss") == ["a\\u001b[31m"]
    for text, says in [
        (whole + whole.splitlines()[1] + "\n", "line 4: measured in line 2 already"),
        (whole[: whole.rindex("0.5") + 2], "line 3: .*number of cells"),
    ]:
        file.write_text(text, "utf-8")
        with pytest.raises(GeomkitError, match=says):
            read_rows(file)
