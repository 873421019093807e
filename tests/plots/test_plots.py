"""Figures, by their data; drawn once each without a warning."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import clouds, unit

from geomkit.data import load_data
from geomkit.embeddings.embeddings import Embeddings
from geomkit.errors import GeomkitError
from geomkit.plots import Stage, contact_sheet, project_to_sphere, save_figure, sphere_row
from geomkit.plots.spheres import choose_stages


def ball(spread: float, n: int = 60, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack([unit(spread * rng.standard_normal((n, 3)) + [1, 0, 0]) for _ in range(2)])


def test_stages_fall_where_the_shape_changes() -> None:
    still = [ball(0.1)] * 8
    clouds_ = [*still, ball(0.5), ball(1.0), ball(4.0), *[ball(20.0)] * 6]
    chosen = choose_stages(clouds_, 4)
    assert chosen[0] == 0 and chosen[-1] == len(clouds_) - 1
    assert all(7 <= k <= 11 for k in chosen[1:-1])
    assert len(choose_stages(clouds_, 50)) == len(clouds_)
    assert choose_stages(clouds_, 1) == [len(clouds_) - 1]


def test_cone_arc_ring_and_sphere_are_a_stage_each() -> None:
    rng = np.random.default_rng(0)
    turn, plain = rng.uniform(-np.pi, np.pi, 200), rng.standard_normal((200, 3))
    shapes = [
        unit(0.1 * plain + [1, 0, 0]),
        *(np.stack([np.cos(t), np.sin(t), 0 * t], 1) for t in (0.3 * turn, turn)),
        unit(plain),
    ]
    clouds_ = [np.stack([shape, shape]) for shape in shapes for _ in range(5)]
    assert [k // 5 for k in choose_stages(clouds_, 4)] == [0, 1, 2, 3]


@pytest.mark.parametrize("count", [2, 3, 5, 7])
def test_stages_are_distinct_and_in_order(count: int) -> None:
    snapshots = [ball(1.0)] * 5 + [ball(2.0)] * 5
    chosen = choose_stages(snapshots, count)
    assert len(chosen) == count and sorted(set(chosen)) == chosen


def test_points_on_the_far_side_lie_under_the_body() -> None:
    x, y = (rows[:, :3] for rows in clouds(200, 3, shift=0))
    figure = sphere_row([Stage(unit(x), unit(y), "t")])
    axes = figure.axes[0]
    far, near = axes.collections
    body = next(p for p in axes.patches if p.get_facecolor()[3] > 0 and p.get_fill())
    assert far.get_zorder() < body.get_zorder() < near.get_zorder()
    offsets = np.concatenate([far.get_offsets(), near.get_offsets()])
    assert len(offsets) == 400 and np.hypot(*offsets.T).max() <= 1 + 1e-9
    assert abs(len(near.get_offsets()) - 200) < 100
    # red for images and blue for texts, as many of each
    colours, counts = np.unique(
        np.concatenate([far.get_facecolors(), near.get_facecolors()])[:, :3],
        axis=0,
        return_counts=True,
    )
    assert counts.tolist() == [200, 200]
    assert (colours[0, 2] > colours[0, 0]) and (colours[1, 0] > colours[1, 2])


def test_projection_of_more_dimensions_says_what_it_keeps() -> None:
    rng = np.random.default_rng(0)
    flat = rng.standard_normal((50, 3)) @ rng.standard_normal((3, 9))
    stage = project_to_sphere(Embeddings.of(flat, flat + 0.0), title="t")
    assert "3 of 9 uncentred PCs, 100%" in stage.title
    np.testing.assert_allclose(stage.image @ stage.image.T, unit(flat) @ unit(flat).T, atol=1e-9)
    assert project_to_sphere(Embeddings.of(np.eye(2), np.eye(2))).circle
    with pytest.raises(GeomkitError, match="at least 2 dimensions"):
        project_to_sphere(Embeddings.of(np.ones((2, 1)), np.ones((2, 1))))


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_figures_are_saved_by_suffix(tmp_path: Path, suffix: str) -> None:
    x, y = ball(1.0)
    figure = sphere_row([Stage(x, y, "one"), Stage(y, x, "two")])
    path = tmp_path / f"s.{suffix}"
    save_figure(figure, path, dpi=40)
    start = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}[suffix]
    assert path.read_bytes().startswith(start)
    with pytest.raises(GeomkitError, match="exists already"):
        save_figure(figure, path)


def test_contact_sheet_shows_pictures_with_captions(tmp_path: Path) -> None:
    data = load_data("openmoji,captions=5", split="val")
    figure = contact_sheet(data, samples=12, columns=4)
    assert len(figure.axes) == 12
    texts = [t.get_text() for t in figure.texts]
    assert "OpenMoji" in texts[-1] and len(texts) == 13
    save_figure(figure, tmp_path / "sheet.png", dpi=30)


@pytest.mark.parametrize("name", ["a.jpg", "a", "missing/a.png"])
def test_paths_that_no_figure_can_have_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(GeomkitError):
        save_figure(sphere_row([Stage(*ball(1.0), "t")]), tmp_path / name)
