"""How figures look: names, colours, intervals, sizes, themes; spheres in a row, circles, films."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import clouds
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from geomkit import plots
from geomkit.embeddings.embeddings import Embeddings
from geomkit.errors import GeomkitError
from geomkit.metrics import GapResult, gap
from geomkit.models.checkpoints.trained_run import TrainedRun
from geomkit.plots.animation import training_frames
from geomkit.plots.gaps import interval
from geomkit.plots.heatmap import colour_bar, heat_map
from geomkit.plots.style import INK, dark, distinct_looks, finish
from geomkit.plots.style import figure as empty_figure

SHARE = "text_retrieval_recall@1"
LONG = "a/path/of/sixty/letters/that/no/panel/has/any/room/for-{}/ckpt.pt"


@pytest.mark.parametrize("count", [12])
def test_long_names_are_whole_and_apart_in_every_figure(count: int) -> None:
    x, y = clouds(20, 4)
    sources = {LONG.format(k): (x, y) for k in range(count)}
    result = gap(x, y, metrics=["alignment", SHARE])
    drawn = [
        plots.spectrum(sources),
        plots.histograms(sources),
        plots.sphere(sources),
        plots.gap(dict.fromkeys(sources, result)),
    ]
    for figure in drawn:
        figure.draw_without_rendering()
        texts = [axes.title for axes in figure.axes]
        texts += [text for legend in figure.legends for text in legend.get_texts()]
        texts += [tick for axes in figure.axes if axes.axison
                  for tick in axes.get_yticklabels()]  # fmt: skip
        for text in texts:
            box = text.get_window_extent()
            assert box.x0 > -1 and box.x1 < figure.bbox.width + 1, text.get_text()
        titles = sorted((axes.title.get_window_extent() for axes in figure.axes),
                        key=lambda box: (round(box.y0), box.x0))  # fmt: skip
        for one, other in pairwise(titles):
            assert round(one.y0) != round(other.y0) or one.x1 < other.x0
    labels = [tick.get_text() for tick in drawn[-1].axes[0].get_yticklabels()]
    assert len(set(labels)) == count and all(len(label) <= 34 for label in labels)


def test_twelve_sources_are_told_apart() -> None:
    looks = distinct_looks([None] * 12)
    assert len({look.marker for look in looks}) == 12
    assert len({(look.colour, look.line) for look in looks}) == 12
    assert distinct_looks(["clip", "cua"])[0].line == "-"


def test_intervals_of_shares_are_wilsons() -> None:
    from scipy.stats import binomtest

    for hits, n in ((0, 40), (3, 40), (20, 40), (40, 40), (97, 100)):
        p = hits / n
        error = float(np.sqrt(p * (1 - p) / n))
        result = GapResult({SHARE: p}, n=n, dim=3, stderr={SHARE: error})
        wanted = binomtest(hits, n).proportion_ci(0.95, method="wilson")
        # 1.96 stands for the quantile of the normal distribution here.
        np.testing.assert_allclose(interval(result, SHARE), (wanted.low, wanted.high), atol=1e-5)
    near = GapResult({"linear_separability": 0.999}, 9, 3, stderr={"linear_separability": 0.01})
    assert interval(near, "linear_separability")[1] == 1.0
    assert np.isnan(interval(GapResult({"cka": 0.5}, 9, 3), "cka")).all()


def test_titles_sizes_and_themes() -> None:
    x, y = clouds(20, 4)
    for figure in (plots.spectrum(x, y), plots.sphere(x, y)):
        before = figure.get_size_inches()[1]
        finish(figure, title="a $b$", theme="dark")
        assert figure.get_suptitle() == "a $b$"
        assert figure.get_size_inches()[1] == pytest.approx(
            before + (0.3 if figure.get_layout_engine() is None else 0)
        )
        finish(figure, inches=(4, 5))
        assert figure.get_size_inches().tolist() == [4, 5]
        assert max(figure.get_facecolor()[:3]) < 0.1
        assert min(figure.axes[0].title.get_color()[:3]) > 0.7
    with pytest.raises(AssertionError):
        assert figure.axes[0].title.get_color() == INK
    dark(plots.histograms(x, y))


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("colours", ["cividis", "Greys"])
def test_numbers_of_a_heat_map_stand_out_from_their_fields(colours: str, theme: str) -> None:
    figure = Figure()
    axes, values = figure.add_subplot(), np.linspace(0, 1, 12).reshape(3, 4)
    image = heat_map(axes, values, across="abcd", down="efg", ends=(0, 1), colours=colours)
    colour_bar(figure, image, [axes], "share")
    finish(figure, theme=theme)
    assert len(axes.texts) == 12
    for number, value in zip(axes.texts, values.flat, strict=True):
        ink, field = (
            np.dot(to_rgb(c), (0.3, 0.59, 0.11)) for c in (number.get_color(), image.cmap(value))
        )
        assert abs(ink - field) >= 0.45, (value, ink, field)


def a_run(dim: int) -> TrainedRun:
    run = TrainedRun.__new__(TrainedRun)
    clouds_ = np.random.default_rng(0).standard_normal((3, 2, 9, dim))
    clouds_ /= np.linalg.norm(clouds_, axis=-1, keepdims=True)
    shots = [SimpleNamespace(step=k, image=x, text=y) for k, (x, y) in enumerate(clouds_)]
    past = [
        SimpleNamespace(step=k, epoch=k / 2, loss=1.0, metrics={SHARE: k / 3}) for k in range(3)
    ]
    object.__setattr__(run, "snapshots", shots)
    object.__setattr__(run, "history", past)
    return run


def test_two_dimensions_are_drawn_on_circles() -> None:
    figure = plots.sphere(a_run(2), stages=2)
    for axes in figure.axes:
        images, texts = (np.linalg.norm(dots.get_offsets(), axis=1) for dots in axes.collections)
        np.testing.assert_allclose(images, 1.0)
        np.testing.assert_allclose(texts, 0.85)
    x, y = clouds(9, 2)
    (axes,) = plots.sphere(x, y, lines=True).axes
    assert len(axes.collections[0].get_segments()) == 9


def test_a_run_is_drawn_as_a_film(tmp_path: Path) -> None:
    images = training_frames(a_run(3), 60)
    assert len(images) == 3
    plots.save_animation(images, tmp_path / "s.gif")
    with Image.open(tmp_path / "s.gif") as found:
        assert found.n_frames == 3


def test_commands_take_the_look_of_a_figure(cli, refused) -> None:
    x, y = clouds(30, 5)
    np.savez("e.npz", image=x, text=y)
    look = ["--title", "T", "--size", "4x3", "--dpi", "50", "--theme", "dark"]
    done = cli("plot-sphere", "e.npz", "e.npz", "--labels", "one, two", *look)
    assert done.status == 0, done.err
    with Image.open("sphere.png") as found:
        assert found.size == (200, 150) and max(found.getpixel((0, 0))[:3]) < 30
    done = cli("plot-pca", "e.npz", "e.npz", "--labels", "one,two", "--out", "p.svg")
    assert done.status == 0 and ">one</text>" in Path("p.svg").read_text("utf-8")
    refused("plot-pca", "e.npz", "--labels", "a,b", says=("--labels a,b", "expected 1"))
    refused("plot-gap", "e.npz", "--size", "4", says=("--size 4", "such as 7x4"))
    refused("plot-gap", "e.npz", "--theme", "blue", says=("unknown theme 'blue'",))
    refused("plot-gap", "e.npz", "--dpi", "3", says=("--dpi", "expected 20 to 2400"))
    refused("plot-sphere", "e.npz", "--out", "s.gif", says=("s.gif", "training run"))
    refused("plot-sphere", "e.npz", "e.npz", "--html", "s.html", says=("--html", "one source"))
    refused("plot-gap", "e.npz", "--out", "s.gif", says=("s.gif: a figure is saved as .png",))


def test_two_matrices_are_a_source(cli, refused) -> None:
    x, y = clouds(30, 5)
    np.save("x.npy", x)
    np.save("y.npy", y)
    np.savez("e.npz", image=x, text=y)
    two = ("--image", "x.npy", "--text", "y.npy")
    for command in ("plot-sphere", "plot-pca", "plot-gap --metrics gap"):
        done = cli(*command.split(), *two, "--out", f"{command.split()[0]}.svg")
        assert done.status == 0, done.err
    done = cli("plot-pca", "e.npz", *two, "--out", "p.svg")
    assert done.status == 0 and "x.npy, y.npy" in Path("p.svg").read_text("utf-8")
    refused("plot-pca", "--image", "x.npy", says=("--image and --text go together",))
    np.save("z.npy", y[:7])
    refused("plot-pca", "--image", "x.npy", "--text", "z.npy", says=("not paired",))
    refused("plot-pca", says=("name at least one",))


def test_wide_letters_fit_as_well() -> None:
    x, y = clouds(20, 4)
    sources = {f"VISION-MODELS-OF-WIDE-LETTERS-AND-A-LONG-NAME-{k}.npz": (x, y) for k in range(3)}
    for figure in (plots.sphere(sources), plots.histograms(sources), plots.spectrum(sources)):
        figure.draw_without_rendering()
        shown = [axes.title for axes in figure.axes]
        shown += [text for legend in figure.legends for text in legend.get_texts()]
        for text in shown:
            box = text.get_window_extent()
            assert box.x0 > -1 and box.x1 < figure.bbox.width + 1, text.get_text()


def test_images_lie_to_the_left_in_every_panel() -> None:
    for seed in range(4):
        x, y = clouds(40, 5, seed=seed)
        figure = plots.pca_planes({"a": Embeddings.of(x, y), "b": Embeddings.of(y, x)})
        for axes in figure.axes:
            colours = axes.collections[-1].get_facecolors()
            points = np.asarray(axes.collections[-1].get_offsets())
            red = colours[:, 0] > colours[:, 2]
            assert points[red, 0].mean() < points[~red, 0].mean()


def test_the_circles_of_two_dimensions_can_be_turned() -> None:
    figure = plots.sphere(a_run(2), interactive=True)
    traces = {trace.name: trace for trace in figure.data}
    assert traces["body"].visible is False
    radius = np.hypot(traces["text"].x, traces["text"].y)
    np.testing.assert_allclose(radius, 0.85, atol=1e-6)
    legend = plots.sphere(a_run(2)).legends[0]
    assert [text.get_text() for text in legend.get_texts()] == [
        "images (outer circle)", "texts (inner circle)",
    ]  # fmt: skip


def test_only_figures_of_geomkit_are_replaced_at_a_default_name(cli, refused) -> None:
    x, y = clouds(30, 5)
    np.savez("e.npz", image=x, text=y)
    assert cli("plot-pca", "e.npz").status == cli("plot-pca", "e.npz").status == 0
    Path("gap.png").write_text("precious")
    refused("plot-gap", "e.npz", "--metrics", "gap", says=("gap.png", "exists already"))
    Path("kept.png").write_bytes(Path("pca.png").read_bytes())
    Path("sphere.png").symlink_to("kept.png")
    refused("plot-sphere", "e.npz", says=("sphere.png", "exists already"))
    assert Path("gap.png").read_text() == "precious"
    words = ("--html", "s.html", "--theme", "dark")
    refused("plot-sphere", "e.npz", *words, says=("--theme", "s.html"))


def test_the_rows_that_are_drawn_are_spread_over_all(cli) -> None:
    rng = np.random.default_rng(0)
    x = 0.01 * rng.standard_normal((60, 3))
    x[:30, 0] += 1
    x[30:, 1] += 1
    np.savez("e.npz", image=x, text=x, ids=np.array([f"i{k}" for k in range(60)]))
    done = cli("plot-sphere", "e.npz", "--pairs", "6", "--html", "s.html", "--labels", "mine")
    assert done.status == 0, done.err
    page = Path("s.html").read_text("utf-8")
    assert "mine, 6 of 60 pairs" in page
    two = ("--image", "x.npy", "--text", "x.npy")
    np.save("x.npy", x)
    done = cli("plot-sphere", *two, "--html", "t.html")
    assert done.status == 0 and "x.npy, n=60" in Path("t.html").read_text("utf-8")


def test_metrics_of_a_figure_are_names_or_groups() -> None:
    x, y = clouds(30, 5)
    titles = [axes.get_title() for axes in plots.gap(x, y, metrics=["mmd", "pairs"]).axes]
    assert titles[0] == "MMD²" and "Paired cosine" in titles
    assert len(plots.gap(x, y, metrics="mmd").axes) == 1
    with pytest.raises(GeomkitError, match="unknown metric 'centroid_distanc'; did you mean"):
        plots.gap(x, y, metrics=["centroid_distanc"])


def test_options_of_a_sphere_that_do_not_fit_are_refused() -> None:
    x, y = clouds(9, 4)
    with pytest.raises(GeomkitError, match="pairs: expected 1 or more"):
        plots.sphere(x, y, pairs=-1)
    with pytest.raises(GeomkitError, match="stages: expected a training run"):
        plots.sphere(x, y, stages=3)
    with pytest.raises(GeomkitError, match="stages: expected 1 to 8, got 0"):
        plots.sphere(a_run(3), stages=0)
    with pytest.raises(GeomkitError, match="captions: expected 9"):
        plots.sphere(a_run(3), captions=["a"], interactive=True)


def test_a_figure_says_once_what_it_is_of() -> None:
    made = empty_figure(columns=1, height=2.0)
    finish(made, about="data")
    assert made.get_suptitle() == "data"
    finish(made, about="other data")  # it says it already
    finish(made, theme="dark")
    assert made.get_suptitle() == "data"
    fixed = empty_figure(columns=1, height=2.0)
    fixed.add_axes((0.0, 0.0, 1.0, 1.0))
    fixed.set_layout_engine("none")  # axes fill it to the top
    finish(fixed, about="data")
    assert not fixed.get_suptitle()
    finish(fixed, title="A title")
    assert fixed.get_suptitle() == "A title" and fixed.get_size_inches()[1] > 2.0
    assert fixed.axes[0].get_position().y1 < 1.0
