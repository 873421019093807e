"""plot-gap, plot-pca, plot-umap and the animation: what they draw, and what they refuse."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import clouds
from geomkit_cli.many import short_names
from PIL import Image

from geomkit import plots
from geomkit.embeddings.embeddings import Embeddings
from geomkit.errors import GeomkitError
from geomkit.metrics import gap
from geomkit.plots import Series, Stage, frames, save_animation
from geomkit.plots.labels import value_range
from geomkit.plots.planes import principal_plane
from geomkit.reproduce.framework.results import Row, Rows, write_rows

PNG = b"\x89PNG"


@pytest.fixture
def npz(tmp_path: Path) -> str:
    x, y = clouds(45, 6)
    np.savez(tmp_path / "e.npz", image=x, text=y)
    return "e.npz"


@pytest.fixture
def results(tmp_path: Path) -> str:
    write_rows(
        tmp_path / "r.csv",
        [
            Row("figure2", "openmoji val", dim, loss, seed, metric, 0.1 * seed + dim / 100, 0.01)
            for dim in (8, 16) for loss in ("clip", "cua") for seed in (1, 2)
            for metric in ("centroid_distance", "uniformity_image", "uniformity_text")
        ],
    )  # fmt: skip
    return "r.csv"


def test_plot_gap_of_sources(cli, npz: str, tmp_path: Path) -> None:
    x, y = clouds(30, 4, seed=1)
    np.save(tmp_path / "f.npy", np.stack([x, y]))
    done = cli("plot-gap", npz, "f.npy")
    assert done.status == 0 and done.out == "gap.png\n", done.err
    assert Path("gap.png").read_bytes().startswith(PNG)
    assert cli("plot-gap", npz).status == 0  # drawn again under its default name
    assert cli("plot-gap", npz, "--out", "gap.png").status == 2
    done = cli("plot-gap", npz, "--metrics", "gap,mmd", "--out", "g.svg", "--overwrite")
    assert done.status == 0 and "MMD²" in Path("g.svg").read_text("utf-8")


def test_dots_stand_where_gap_says() -> None:
    found = gap(*clouds(30, 5), metrics=["centroid_distance", "cka"])
    results = {"a": found, "b": replace(found, metrics={})}
    figure = plots.gap(results, metrics=["centroid_distance", "cka"])
    first = figure.axes[0]
    (bar,) = first.containers
    assert bar.lines[0].get_xdata()[0] == found.metrics["centroid_distance"]
    low, high = np.array(bar.lines[2][0].get_segments())[0, :, 0]
    assert high - low == pytest.approx(2 * 1.96 * found.stderr["centroid_distance"])
    assert [t.get_text() for t in first.texts] == ["undefined"]
    with pytest.raises(GeomkitError, match="at least one source"):
        plots.gap({}, metrics=["cka"])


def test_plot_gap_of_results(cli, results: str) -> None:
    done = cli("plot-gap", results, "--published", "--out", "r.svg")
    assert done.status == 0, done.err
    text = Path("r.svg").read_text("utf-8")
    assert "Uniformity, mean" in text and "paper" in text and "Recall" not in text
    Path("s.csv").write_text(Path("r.csv").read_text("utf-8"), "utf-8")
    assert cli("plot-gap", results, "s.csv", "--out", "two.png").status == 0


def test_plot_pca(cli, npz: str) -> None:
    assert cli("plot-pca", npz).out == "pca.png\n"
    assert cli("plot-pca", npz, npz, "--out", "two.pdf").status == 0
    scatter = ("plot-pca", npz, "--scatter", "--lines", "--pairs", "20", "--out", "s.svg")
    assert cli(*scatter).status == 0
    assert "of the variance" in Path("s.svg").read_text("utf-8")


def test_the_plane_is_that_of_pca() -> None:
    from sklearn.decomposition import PCA

    x, y = clouds(40, 5)
    plane = principal_plane(Embeddings.of(x, y), pairs=40)
    wanted = PCA(2).fit(np.concatenate([x, y]))
    ours = np.concatenate([plane.image, plane.text])
    theirs = wanted.transform(np.concatenate([x, y]))
    np.testing.assert_allclose(np.abs(ours), np.abs(theirs), atol=1e-9)
    share = round(100 * wanted.explained_variance_ratio_[0])
    assert plane.labels[0] == f"PC 1 ({share}% of the variance)"
    assert len(principal_plane(Embeddings.of(x, y), pairs=7).text) == 7


def test_plot_umap_to_plane_and_sphere(cli, npz: str) -> None:
    import torch

    from geomkit.plots.layout import UmapOptions, umap_plane, umap_sphere

    threads = torch.get_num_threads()
    few = ("plot-umap", npz, "--neighbours", "3", "--pairs", "10")
    done = cli(*few)
    assert done.status == 0 and done.out == "umap.png\n", done.err
    assert done.err == "e.npz: laying out 10 of 45 pairs, seed 0\n"
    sphere = (*few, "--sphere", "--no-lines", "--quiet", "--out", "s.png")
    done = cli(*sphere)
    assert done.status == 0 and done.err == ""
    done = cli("plot-sphere", npz, "--projection", "umap", "--pairs", "10", "--html", "s.html")
    assert done.status == 0 and '[["UMAP"]]' in Path("s.html").read_text("utf-8")
    e = Embeddings.of(*clouds(30, 5))
    one, two = (umap_plane(e, UmapOptions(neighbours=3, pairs=12, seed=3)) for _ in range(2))
    np.testing.assert_array_equal(one.image, two.image)
    globe = umap_sphere(e, UmapOptions(neighbours=3, pairs=12))
    assert globe.image.shape == globe.text.shape == (12, 3)
    np.testing.assert_allclose(np.linalg.norm(globe.image, axis=1), 1.0)
    assert torch.get_num_threads() == threads  # numba sets those of the whole process


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("plot-gap nope.npz", ("nope.npz", "no such file")),
        ("plot-gap e.npz r.csv", ("not both",)),
        ("plot-gap r.csv --data openmoji", ("--data",)),
        ("plot-gap e.npz --published", ("--published",)),
        ("plot-gap e.npz --metrics foo", ("foo",)),
        ("plot-gap r.csv --metrics mmd", ("r.csv", "mmd")),
        ("plot-gap conditions.csv", ("conditions.csv", "figure2")),
        ("plot-gap missing.csv", ("missing.csv",)),
        ("plot-gap", ("at least one checkpoint",)),
        ("plot-pca e.npz --lines", ("--scatter",)),
        ("plot-pca e.npz --pairs 0", ("pairs",)),
        ("plot-pca e.npz --data openmoji", ("--data",)),
        ("plot-pca open_clip:ViT-B-32/x", ("needs data",)),
        ("plot-pca e.npz --out a.jpg", ("a.jpg",)),
        ("plot-umap e.npz --metric cosin", ("did you mean 'cosine'",)),
        ("plot-umap e.npz --pairs 3", ("pairs", "8 or more")),
        ("plot-umap e.npz --min-dist 2", ("min dist",)),
        ("plot-umap few.npz", ("8 pairs",)),
        ("plot-umap e.npz --out missing/a.png", ("missing",)),
    ],
)
def test_refusals(refused, npz: str, results: str, words: str, says: tuple[str, ...]) -> None:
    x, y = clouds(4, 3)
    np.savez("few.npz", image=x, text=y)
    row = Row("figure1", "d", 3, "clip", 1, "centroid_distance", 1.0, condition="step=1")
    write_rows(Path("conditions.csv"), Rows([row]))
    refused(*words.split(), says=says)


def some_frames() -> list[Image.Image]:
    x, y = clouds(20, 3)
    stages = [Stage(x, y, "one"), Stage(y, x, "two")]
    return frames(stages, [0.0, 2.0], [Series("recall", [0.0, 2.0], [0.0, 0.5], colour="#6a3d9a")])


def test_an_animation_keeps_its_colours(tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    save_animation(some_frames(), path)
    with Image.open(path) as picture:
        assert picture.n_frames == 2  # type: ignore[attr-defined]
        picture.seek(1)
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3).astype(int)
    for colour in ((0xD1, 0x34, 0x2F), (0x24, 0x64, 0xB4), (0x6A, 0x3D, 0x9A)):
        assert np.abs(pixels - colour).sum(axis=1).min() < 40
    with pytest.raises(GeomkitError, match="exists already"):
        save_animation(some_frames(), path)
    with pytest.raises(GeomkitError, match="a time of each"):
        frames([], [], [])


def test_an_mp4_is_what_ffmpeg_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = some_frames()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(GeomkitError, match="needs ffmpeg"):
        save_animation(made, tmp_path / "a.mp4")
    with pytest.raises(GeomkitError, match=r"\.gif or \.mp4"):
        save_animation(made, tmp_path / "a.avi")
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "ffmpeg"
    program.write_text('#!/bin/sh\nfor last; do :; done\n/bin/cat > "$last"\n')
    program.chmod(0o755)
    save_animation(made, tmp_path / "a.mp4")
    width, height = made[0].size
    assert (tmp_path / "a.mp4").stat().st_size == (len(made) + 7) * width * height * 3
    program.write_text("#!/bin/sh\n/bin/cat > /dev/null\necho no codec >&2\nexit 1\n")
    with pytest.raises(GeomkitError, match=r"ffmpeg failed \(no codec\)"):
        save_animation(made, tmp_path / "b.mp4")
    assert not (tmp_path / "b.mp4").exists()


def test_values_lie_within_their_ranges() -> None:
    found = gap(*clouds(40, 5)).metrics
    for name, value in found.items():
        low, high = value_range(name)
        assert low - 1e-9 <= value <= high + 1e-9, name


WILD = "$x_1 \\frac{_[red]&<b>\x1b.npz"


@pytest.mark.parametrize("command", ["plot-gap", "plot-pca", "plot-pca --scatter", "plot-sphere"])
def test_names_with_dollars_and_escapes_are_drawn_as_they_are(
    command: str, cli, npz: str, tmp_path: Path
) -> None:
    from xml.etree import ElementTree

    for name in (WILD, f"_{WILD}"):
        (tmp_path / name).write_bytes((tmp_path / npz).read_bytes())
    sources = [WILD] if command == "plot-sphere" else [WILD, f"_{WILD}"]
    outcome = cli(*command.split(), *sources, "--out", "f.svg")
    assert outcome.status == 0, outcome
    words = "".join(ElementTree.parse(tmp_path / "f.svg").getroot().itertext())
    for source in sources:
        assert source.replace("\x1b", "\\u001b") in words


def test_results_with_dollars_are_drawn(cli, results: str, tmp_path: Path) -> None:
    path = tmp_path / results
    path.write_text(path.read_text().replace(",cua,", ",$c_{u}a\x1b[31m,"))
    assert cli("plot-gap", results, "--out", "f.svg").status == 0
    text = (tmp_path / "f.svg").read_text()
    assert "$c_{u}a\\u001b[31m" in text and "\x1b" not in text


@pytest.mark.parametrize("command", ["plot-gap", "plot-pca"])
def test_characters_that_the_font_lacks_are_one_line(
    command: str, cli, npz: str, tmp_path: Path
) -> None:
    (tmp_path / "特性.npz").write_bytes((tmp_path / npz).read_bytes())
    outcome = cli(command, "特性.npz", "--out", "f.png")
    assert outcome.status == 0 and "Warning" not in outcome.err
    if command == "plot-gap":
        assert "the font of the figure lacks 性特: they are drawn as boxes" in outcome.err


def test_the_middle_of_a_long_name_is_left_out_of_a_figure() -> None:
    (name,) = short_names(["a" * 100 + "b" * 100 + ".npz"])
    assert name == "a" * 30 + "…" + "b" * 26 + ".npz"
    alike = ["a" * 100 + middle + "b" * 100 for middle in "xy"]
    assert short_names(alike) == alike
