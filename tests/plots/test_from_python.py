"""The figures that are drawn from Python: their inputs, and what plotly is given."""

from __future__ import annotations

import tracemalloc
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import clouds

from geomkit import plots
from geomkit.embeddings.embeddings import Embeddings
from geomkit.errors import GeomkitError
from geomkit.metrics import explained_variance_with_error, gap
from geomkit.plots.charts import interactive_panels
from geomkit.plots.cosines import cosine_densities
from geomkit.plots.multiples import Panel, Series
from geomkit.plots.planes import spaced
from geomkit.plots.spheres import project_to_sphere


def test_densities_are_histograms_of_all_cosines() -> None:
    e = Embeddings.of(*clouds(30, 4))
    found = cosine_densities(e, bins=12)
    n = range(e.n)
    wanted = {
        "pairs": [e.image[i] @ e.text[i] for i in n],
        "unpaired": [e.image[i] @ e.text[j] for i in n for j in n if i != j],
        "images": [e.image[i] @ e.image[j] for i, j in combinations(n, 2)],
        "texts": [e.text[i] @ e.text[j] for i, j in combinations(n, 2)],
    }
    ends = min(map(min, wanted.values())), max(map(max, wanted.values()))
    np.testing.assert_allclose(found.edges[[0, -1]], ends, atol=1e-12)
    for kind, cosines in wanted.items():
        density, _ = np.histogram(cosines, found.edges, density=True)
        np.testing.assert_allclose(getattr(found, kind), density, atol=1e-9)


@pytest.mark.parametrize("n", [1023, 1024, 1025, 2049])
def test_densities_on_both_sides_of_a_block(n: int) -> None:
    rng = np.random.default_rng(0)
    e = Embeddings.of(*rng.standard_normal((2, n, 3)))
    found = cosine_densities(e, rows=n, bins=8)
    width = np.diff(found.edges)[0]
    cosines = e.image @ e.text.T
    counts, _ = np.histogram(cosines[~np.eye(n, dtype=bool)], found.edges)
    # An edge that rounding moves may shift a cosine or two.
    np.testing.assert_allclose(found.unpaired * width * n * (n - 1), counts, atol=2)
    assert found.images.sum() * width == pytest.approx(1, abs=1e-9)


def test_densities_of_rows_that_coincide_and_of_many() -> None:
    one = np.ones((5, 3))
    found = cosine_densities(Embeddings.of(one, one))
    assert np.isfinite(found.pairs).all() and found.edges[-1] > found.edges[0]
    part = cosine_densities(Embeddings.of(*clouds(40, 3)), rows=10)
    assert (part.n, part.rows) == (40, 10)
    figure = plots.histograms(Embeddings.of(*clouds(3001, 3)))
    assert figure.axes[0].get_xlabel() == "Cosine, 3,000 of 3,001 rows"


def test_sources_of_every_form_are_drawn_alike(tmp_path: Path) -> None:
    x, y = clouds(20, 5)
    np.savez(tmp_path / "e.npz", image=x, text=y)
    whole = Embeddings.of(x, y)
    forms = {
        "arrays": (x, y), "embeddings": whole, "file": tmp_path / "e.npz",
        "modalities": {"image": x, "text": y},
    }  # fmt: skip
    figure = plots.spectrum(forms)
    for axes in figure.axes:
        curves = [line.get_ydata() for line in axes.lines if line.get_label() in forms]
        assert len(curves) == 4
        for curve in curves:
            np.testing.assert_allclose(curve, curves[0], atol=1e-12)
    alone = plots.spectrum({"image": x, "text": y}).axes[0].lines[0].get_ydata()
    np.testing.assert_allclose(alone, figure.axes[0].lines[0].get_ydata(), atol=1e-12)
    names = ["centroid_distance"]
    result = gap(whole, metrics=names)
    for what in (result, {"a": result, "b": (x, y)}):
        (axes,) = plots.gap(what, metrics=names).axes
        values = {bar.lines[0].get_xdata()[0] for bar in axes.containers}
        assert {round(v, 9) for v in values} == {round(result.metrics[names[0]], 9)}
    assert len(plots.gap(result).axes) == 1  # what it holds of those drawn by default


def test_what_cannot_be_drawn_is_refused() -> None:
    x, y = clouds(20, 5)
    with pytest.raises(GeomkitError, match="a figure needs pairs"):
        plots.histograms(x, y[:7])
    with pytest.raises(GeomkitError, match="draw one figure for each"):
        plots.spectrum({"image": x, "text": y, "audio": y})
    with pytest.raises(GeomkitError, match="one dimension of both"):
        plots.histograms(x, y[:, :3])
    with pytest.raises(GeomkitError, match="unknown projection 'tsne'"):
        plots.sphere(x, y, projection="tsne")
    with pytest.raises(GeomkitError, match="captions: expected 20"):
        plots.sphere(x, y, captions=["one"], interactive=True)
    with pytest.raises(GeomkitError, match="shows one source"):
        plots.sphere({"a": (x, y), "b": (x, y)}, interactive=True)
    with pytest.raises(GeomkitError, match="at least one source"):
        plots.spectrum({})
    with pytest.raises(GeomkitError, match="two sources have the name '1'"):
        plots.spectrum({1: (x, y), "1": (y, x)})
    alike = np.outer(np.linspace(1, 7, 20), y[0])  # rows that rounding alone tells apart
    for kind in (np.float32, np.float64):
        with pytest.raises(GeomkitError, match="a: the captions are all equal but for rounding"):
            plots.spectrum({"a": (x, alike.astype(kind)), "b": (x, y)})
        with pytest.raises(GeomkitError, match="all rows are equal"):
            plots.pca_planes({"a": Embeddings.of(*[alike.astype(kind)] * 2)})


def test_densities_end_at_zero_and_a_turned_sphere_says_what_it_shows() -> None:
    x, y = clouds(30, 8)
    for line in plots.histograms(x, y).axes[0].lines:
        assert line.get_ydata()[0] == line.get_ydata()[-1] == 0
    title = plots.sphere({"a <b>": (x, y)}, interactive=True).layout.title.text
    assert title.startswith("a &lt;b&gt;<br>3 of 8 uncentred PCs")


def test_figures_convert_no_whole_matrix() -> None:
    x, y = np.random.default_rng(0).standard_normal((2, 30_000, 64)).astype(np.float32)
    e = Embeddings.of(x, y)
    rows = e.image.astype(np.float64), e.text.astype(np.float64)
    wanted = np.linalg.svd(np.concatenate(rows), full_matrices=False)[2][:3]
    tracemalloc.start()
    stage = project_to_sphere(e, pairs=100)
    values, *_ = explained_variance_with_error(x)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < x.nbytes  # all rows in float64 would be four times that
    found = rows[0][spaced(e.n, 100)] @ wanted.T
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    np.testing.assert_allclose(np.abs(stage.image), np.abs(found), atol=1e-6)
    covariance = np.linalg.eigvalsh(np.cov(x.astype(np.float64).T))[::-1]
    np.testing.assert_allclose(values, np.cumsum(covariance) / covariance.sum(), atol=1e-12)


def test_interactive_figures_hold_the_same_numbers() -> None:
    x, y = clouds(20, 5)
    result = gap(x, y, metrics=["centroid_distance", "uniformity"])
    figure = plots.gap({"<b>one": result}, interactive=True)
    dots = [trace for trace in figure.data if trace.marker.symbol != "line-ns-open"]
    found = [result.metrics[name] for name in ("centroid_distance", "uniformity")]
    np.testing.assert_allclose([trace.x[0] for trace in dots], found)
    half = 1.96 * result.stderr["centroid_distance"]
    assert dots[0].error_x.array[0] == pytest.approx(half)
    assert figure.layout.yaxis.ticktext == ("&lt;b&gt;one",)
    flat = plots.histograms(x, y)
    turned = plots.histograms(x, y, interactive=True)
    named = {trace.name: trace.y for trace in turned.data if trace.mode == "lines"}
    for line in flat.axes[0].lines:
        np.testing.assert_allclose(named[line.get_label()], line.get_ydata())
    sphere = plots.sphere(
        x, y, captions=[f"a <i>{k}" for k in range(20)], pairs=4, interactive=True
    )
    clouds_ = [trace for trace in sphere.data if trace.name in ("image", "text")]
    assert [trace.hovertext for trace in clouds_] == [
        ("a &lt;i&gt;0", "a &lt;i&gt;6", "a &lt;i&gt;13", "a &lt;i&gt;19")
    ] * 2


def test_stages_of_a_run_are_drawn_from_python() -> None:
    from geomkit.models.checkpoints.trained_run import TrainedRun

    run = TrainedRun.__new__(TrainedRun)
    x, y = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in clouds(9, 3))
    shots = [SimpleNamespace(step=k, image=x, text=y if k else x) for k in range(3)]
    past = [SimpleNamespace(step=k, metrics={}, loss=1.0) for k in range(3)]
    object.__setattr__(run, "snapshots", shots)
    object.__setattr__(run, "history", past)
    assert len(plots.sphere(run, stages=2).axes) == 2
    assert len(plots.sphere(run, interactive=True, captions=["c"] * 9).frames) == 3
    with pytest.raises(GeomkitError, match="stages: expected 1 to 8, got 9"):
        plots.sphere(run, stages=9)


def test_dark_ink_is_seen_on_a_dark_page() -> None:
    dark, red = (Series(c, [0], [1.0], colour=c) for c in ("#333333", "#d1342f"))
    figure = interactive_panels([Panel([dark, red])])
    assert [trace.line.color for trace in figure.data] == ["#808080", "#d1342f"]
