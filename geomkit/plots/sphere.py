"""Spheres: images and texts on the unit sphere, through the stages of training.

The sphere is drawn in orthographic projection, by depth and not by plot order: points on the far
side lie under the body of the sphere, points on the near side on top of it. (matplotlib's 3-D
axes sort whole collections, and would let the far side shine through.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from geomkit._core.array import to_numpy
from geomkit.embeddings.embeddings import Embeddings
from geomkit.errors import GeomkitError
from geomkit.plots.style import IMAGE_COLOUR, INK, TEXT_COLOUR, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from geomkit.models.checkpoints import TrainedRun

__all__ = [
    "Stage", "camera_for", "choose_stages", "draw_sphere", "project_to_sphere", "sphere_row",
    "training_stages",
]  # fmt: skip

MAX_STAGES = 8


@dataclass(frozen=True)
class Stage:
    """One sphere of a row.

    Attributes:
        image, text: ``(n, 3)`` unit rows.
        title: what stands above it.
    """

    image: np.ndarray
    text: np.ndarray
    title: str


def training_stages(checkpoint: TrainedRun, count: int = 5) -> list[Stage]:
    """The stages of a 3-D training run: its start, its end, and where most changed between.

    Args:
        checkpoint: of a 3-D model, with snapshots.
        count: how many, 1 to 8; fewer if there are fewer snapshots. One means the end.

    Raises:
        GeomkitError: if the count is out of range or there are no snapshots.
    """
    if not 1 <= count <= MAX_STAGES:
        raise GeomkitError(f"stages: expected 1 to {MAX_STAGES}, got {count}")
    snapshots = checkpoint.snapshots
    if not snapshots:
        raise GeomkitError("this checkpoint holds no sphere snapshots: its dimension is not 3")
    records = {record.step: record for record in checkpoint.history}
    clouds = [np.stack([to_numpy(s.image), to_numpy(s.text)]) for s in snapshots]
    stages = []
    for k in choose_stages(clouds, count):
        step = snapshots[k].step
        record = records[step]
        recall = record.metrics["text_retrieval_recall@1"]
        title = f"step {step}\nI→T {100 * recall:.0f}%, loss {record.loss:.2f}"
        stages.append(Stage(clouds[k][0], clouds[k][1], title))
    return stages


def choose_stages(clouds: Sequence[np.ndarray], count: int) -> list[int]:
    """Indices of ``count`` snapshots that cut the path of training into stretches of equal length.

    The length of a step is how far the shape of the two clouds moved: the shares of variance of
    their principal components (cone, arc, ring and sphere differ in them), how far out their
    centroids lie, and the distance between these. No rotation of the sphere changes any of it.

    Args:
        clouds: images and texts of each snapshot, ``(2, n, 3)``.
        count: how many to choose; the last is always among them, and from two on the first.

    >>> square = np.eye(3)[None].repeat(2, 0)
    >>> choose_stages([square, square, -square, square * 0 + [1, 0, 0]], 2)
    [0, 3]
    """
    last = len(clouds) - 1
    if count >= len(clouds):
        return list(range(len(clouds)))
    if count == 1:
        return [last]
    shapes = [_shape(cloud) for cloud in clouds]
    moves = [float(np.abs(b - a).sum()) for a, b in pairwise(shapes)]
    path = np.concatenate([[0.0], np.cumsum(moves)])
    chosen = [0]
    for k in range(1, count - 1):
        target = path[-1] * k / (count - 1)
        # Each choice leaves enough snapshots behind it for the choices still to come.
        free = range(chosen[-1] + 1, last - (count - 2 - k))
        chosen.append(min(free, key=lambda i: abs(path[i] - target)))
    return [*chosen, last]


def _shape(cloud: np.ndarray) -> np.ndarray:
    """Two clouds as numbers that tell the stages of training apart, each between 0 and 1."""
    shares = np.stack([np.linalg.eigvalsh(np.cov(side.T, bias=True)) for side in cloud])
    total = shares.sum(axis=1, keepdims=True)
    shares = np.divide(shares, total, out=np.zeros_like(shares), where=total > 1e-12)
    centroids = cloud.mean(axis=1)
    out = np.linalg.norm(centroids, axis=1)
    apart = np.linalg.norm(centroids[0] - centroids[1]) / 2
    return np.concatenate([shares.ravel() / 2, out / 4, [apart]])


def project_to_sphere(embeddings: Embeddings, *, title: str = "") -> Stage:
    """Embeddings of d > 3 through their first three principal components, back on the sphere.

    The components are those of images and texts together, **uncentred**, so that where the clouds
    lie on the sphere, and with it the gap between them, survives; each row is then normalised. The
    title says how much of the squared length the three components keep.

    Raises:
        GeomkitError: if d < 3.
    """
    x, y = (to_numpy(rows[:]).astype(np.float64) for rows in embeddings.pairs())
    if x.shape[1] != y.shape[1]:
        raise GeomkitError(
            f"a sphere needs images and texts of one dimension, these have {x.shape[1]} and "
            f"{y.shape[1]}"
        )
    if x.shape[1] < 3:
        raise GeomkitError(f"a sphere needs at least 3 dimensions, these rows have {x.shape[1]}")
    if x.shape[1] == 3:
        return Stage(x, y, title)
    both = np.concatenate([x, y])
    values, vectors = np.linalg.eigh(both.T @ both)
    basis = vectors[:, ::-1][:, :3]
    kept = values[::-1][:3].sum() / values.sum()
    image, text = x @ basis, y @ basis
    image /= np.linalg.norm(image, axis=1, keepdims=True)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    lines = [title] if title else []
    lines.append(f"3 of {x.shape[1]} principal components, {100 * kept:.0f}% of the variance")
    return Stage(image, text, "\n".join(lines))


def sphere_row(stages: Sequence[Stage], *, pairs: int = 1000) -> Figure:
    """A row of spheres: images red, texts blue, the far side under the sphere's body.

    All spheres are seen from one side, the one that has most of the points of the stages before
    the last in front.

    Args:
        stages: what to draw, left to right.
        pairs: draw at most so many of each.

    Raises:
        GeomkitError: if there are no stages or no pairs.
    """
    if not stages or pairs < 1:
        raise GeomkitError("expected at least one stage and one pair to draw")
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    camera = camera_for(stages)
    with style():
        width = 2.3 * len(stages) if len(stages) > 1 else 3.6
        side = width / len(stages)
        height = side + 0.85
        figure = Figure(figsize=(width, height))
        for k, stage in enumerate(stages):
            axes = figure.add_axes((k / len(stages), 0.32 / height, 1 / len(stages), side / height))
            draw_sphere(axes, stage, camera, pairs=pairs)
        handles = [
            Line2D([], [], color=colour, marker="o", linestyle="none", markersize=4, label=name)
            for colour, name in ((IMAGE_COLOUR, "images"), (TEXT_COLOUR, "texts"))
        ]
        figure.legend(handles=handles, loc="lower center", ncols=2, frameon=False, borderpad=0.1)
    return figure


def camera_for(stages: Sequence[Stage]) -> np.ndarray:
    """The side that all spheres are seen from: rows right, up and towards the viewer."""
    early = stages[:-1] or stages
    points = np.concatenate([np.concatenate([s.image, s.text]) for s in early])
    towards = points.mean(axis=0)
    if np.linalg.norm(towards) < 0.05:
        towards = np.array([0.6, -0.6, 0.5])
    towards /= np.linalg.norm(towards)
    # Seen from straight above a cone is a blob: step aside along the widest spread.
    _, vectors = np.linalg.eigh(np.cov(points.T))
    aside = vectors[:, -1] - (vectors[:, -1] @ towards) * towards
    if np.linalg.norm(aside) < 1e-6:
        aside = np.cross(towards, [0.3, 0.2, 1.0])
    aside /= np.linalg.norm(aside)
    towards = np.cos(0.45) * towards + np.sin(0.45) * np.cross(towards, aside)
    towards /= np.linalg.norm(towards)
    right = aside - (aside @ towards) * towards
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(towards, right), towards])


def draw_sphere(
    axes: Axes,
    stage: Stage,
    camera: np.ndarray,
    *,
    pairs: int = 1000,
    scale: float = 1.0,
    fontsize: float = 8.5,
    lines: bool = False,
) -> None:
    """One sphere in axes of its own.

    Args:
        axes: to draw in.
        stage: what to draw.
        camera: as :func:`camera_for` gives it.
        pairs: draw at most so many of each.
        scale: of the dots' areas, for spheres smaller than a row of five has.
        fontsize: of the title, in pt.
        lines: whether to join the pairs along the sphere.
    """
    from matplotlib.patches import Circle

    axes.set_aspect("equal")
    axes.set_axis_off()
    axes.set_xlim(-1.08, 1.08)
    axes.set_ylim(-1.08, 1.08)
    _grid(axes, front=False)
    # A seeded shuffle of both modalities together, so that neither is always on top.
    points = np.concatenate([stage.image[:pairs], stage.text[:pairs]]) @ camera.T
    colours = np.repeat([IMAGE_COLOUR, TEXT_COLOUR], len(points) // 2)
    order = np.random.default_rng(0).permutation(len(points))
    points, colours = points[order], colours[order]
    size = scale * float(np.clip(2600 / len(points), 2.0, 9.0))
    far = points[:, 2] < 0
    dots: dict[str, Any] = {"s": size, "linewidths": 0}
    back, front = points[far], points[~far]
    axes.scatter(back[:, 0], back[:, 1], c=colours[far], alpha=0.55, zorder=2, **dots)
    axes.add_patch(Circle((0, 0), 1.0, facecolor="white", alpha=0.7, zorder=3, linewidth=0))
    _shade(axes)
    _grid(axes, front=True)
    if lines:
        _join(axes, stage.image[:pairs] @ camera.T, stage.text[:pairs] @ camera.T)
    axes.add_patch(Circle((0, 0), 1.0, fill=False, edgecolor="#9a9a9a", linewidth=0.6, zorder=5))
    axes.scatter(front[:, 0], front[:, 1], c=colours[~far], alpha=0.9, zorder=6, **dots)
    axes.set_title(stage.title, fontsize=fontsize, pad=3, linespacing=1.35)


def _join(axes: Axes, a: np.ndarray, b: np.ndarray) -> None:
    """Arcs of great circles between paired points, the far side fainter."""
    from matplotlib.collections import LineCollection

    share = np.linspace(0, 1, 17)[:, None, None]
    arcs = (1 - share) * a + share * b
    arcs /= np.maximum(np.linalg.norm(arcs, axis=-1, keepdims=True), 1e-9)
    parts = np.stack([arcs[:-1], arcs[1:]], axis=2).reshape(-1, 2, 3)
    far = parts[:, :, 2].mean(axis=1) < 0
    strength = float(np.clip(60 / len(a), 0.06, 0.4))
    for chosen, alpha, order in ((far, 0.5 * strength, 2.5), (~far, strength, 5.5)):
        axes.add_collection(
            LineCollection(
                parts[chosen, :, :2].tolist(), colors=INK, linewidths=0.35, alpha=alpha,
                zorder=order,
            )
        )  # fmt: skip


def _shade(axes: Axes) -> None:
    """The light on the body of the sphere, from the upper left."""
    u = np.linspace(-1, 1, 256)
    right, up = np.meshgrid(u, u)
    radius = right**2 + up**2
    depth = np.sqrt(np.clip(1 - radius, 0, None))
    light = np.clip((-0.45 * right + 0.55 * up + 0.7 * depth), 0, 1)
    shade = np.zeros((*light.shape, 4))
    shade[..., 3] = np.where(radius <= 1, 0.17 * (1 - light), 0.0)
    axes.imshow(shade, extent=(-1, 1, -1, 1), origin="lower", zorder=4, interpolation="bilinear")


def _grid(axes: Axes, *, front: bool) -> None:
    """Meridians and parallels of a globe tilted towards the viewer, the near or the far half."""
    tilt = np.deg2rad(20.0)
    turn = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    angle = np.linspace(0, 2 * np.pi, 181)
    circles = [
        np.stack([np.cos(a) * np.sin(angle), np.cos(angle), np.sin(a) * np.sin(angle)])
        for a in np.arange(0, np.pi, np.pi / 6)
    ]
    circles += [
        np.stack([np.cos(h) * np.cos(angle), np.full_like(angle, np.sin(h)),
                  np.cos(h) * np.sin(angle)])
        for h in np.deg2rad([-60, -30, 0, 30, 60])
    ]  # fmt: skip
    for circle in circles:
        right, up, depth = turn @ circle
        hidden = depth < 0 if front else depth >= 0
        axes.plot(
            np.where(hidden, np.nan, right),
            np.where(hidden, np.nan, up),
            color=INK,
            linewidth=0.35,
            alpha=0.16,
            zorder=4.5 if front else 1,
        )
