"""Spheres: images and texts on the unit sphere, through the stages of training.

The sphere is drawn in orthographic projection, by depth and not by plot order: points on the far
side lie under the body of the sphere, points on the near side on top of it. (matplotlib's 3-D
axes sort whole collections, and would let the far side shine through.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from geomkit._core.array import to_numpy
from geomkit.embeddings.embeddings import Embeddings
from geomkit.errors import GeomkitError
from geomkit.plots.labels import fitted
from geomkit.plots.planes import join, modality_handles, pair_alpha, scatter, shuffled, spaced_rows
from geomkit.plots.style import INK, MODALITY_COLOURS, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from geomkit.models.checkpoints import Record, TrainedRun

__all__ = [
    "Stage", "arcs", "camera_for", "choose_stages", "draw_sphere", "project_to_sphere",
    "recorded_stages", "sphere_row", "training_stages",
]  # fmt: skip

MAX_STAGES = 8
_TITLE = 8.5
"""Font size of titles in pt."""
INNER = 0.85
"""Radius of the circle of texts, of two dimensions."""


@dataclass(frozen=True, eq=False)
class Stage:
    """One sphere of a row.

    Attributes:
        image, text: Unit rows, shape ``(n, 3)``.
        title: Title above the sphere.
        circle: Whether the rows have two dimensions; their third number is 0.
    """

    image: np.ndarray
    text: np.ndarray
    title: str
    circle: bool = False


def training_stages(
    checkpoint: TrainedRun, count: int = 5, *, most: int = MAX_STAGES
) -> list[Stage]:
    """Return stages of a 2-D or 3-D training run: start, end, and those between with most change.

    Args:
        checkpoint: Content of the checkpoint of a 2-D or 3-D model, with snapshots.
        count: Number of stages; fewer if there are fewer snapshots. One means the end.
        most: Largest number of stages that may be asked for.

    Raises:
        GeomkitError: If the count is out of range or there are no snapshots.
    """
    return [stage for stage, _ in recorded_stages(checkpoint, count, most=most)]


def recorded_stages(checkpoint: TrainedRun, count: int, *, most: int) -> list[tuple[Stage, Record]]:
    """Return the stages of :func:`training_stages`, each with its evaluation."""
    if not 1 <= count <= most:
        raise GeomkitError(f"stages: expected 1 to {most}, got {count}")
    snapshots = checkpoint.snapshots
    if not snapshots:
        raise GeomkitError("this checkpoint holds no snapshots: its dimension is neither 2 nor 3")
    records = {record.step: record for record in checkpoint.history}
    clouds = [
        np.stack([_in_space(to_numpy(rows)) for rows in (s.image, s.text)]) for s in snapshots
    ]
    stages = []
    for k in choose_stages(clouds, count):
        record = records[snapshots[k].step]
        recall = record.metrics.get("text_retrieval_recall@1")  # if it was evaluated
        found = "" if recall is None else f"I→T {100 * recall:.0f}%, "
        title = f"step {record.step}\n{found}loss {record.loss:.2f}"
        flat = snapshots[k].image.shape[1] == 2
        stages.append((Stage(clouds[k][0], clouds[k][1], title, circle=flat), record))
    return stages


def _in_space(rows: np.ndarray) -> np.ndarray:
    """Rows of two numbers as rows of three, in the plane that is seen from above."""
    return np.pad(rows, ((0, 0), (0, 3 - rows.shape[1])))


def choose_stages(clouds: Sequence[np.ndarray], count: int) -> list[int]:
    """Return indices of ``count`` snapshots that divide the path of training into equal lengths.

    The length of a step is the change in the shape of the two clouds: the variance ratios of their
    principal components (which differ among cone, arc, ring and sphere), the norms of their
    centroids, and the centroid distance. A rotation of the sphere changes none of them.

    Args:
        clouds: Images and texts of each snapshot, shape ``(2, n, 3)``.
        count: Number of snapshots. The last is always chosen, and from two on the first.

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
        # Each choice leaves enough snapshots for the choices that follow.
        free = range(chosen[-1] + 1, last - (count - 2 - k))
        chosen.append(min(free, key=lambda i: abs(path[i] - target)))
    return [*chosen, last]


def _shape(cloud: np.ndarray) -> np.ndarray:
    """Two clouds as numbers between 0 and 1 that differ among the stages of training."""
    shares = np.stack([np.linalg.eigvalsh(np.cov(side.T, bias=True)) for side in cloud])
    total = shares.sum(axis=1, keepdims=True)
    shares = np.divide(shares, total, out=np.zeros_like(shares), where=total > 1e-12)
    centroids = cloud.mean(axis=1)
    out = np.linalg.norm(centroids, axis=1)
    apart = np.linalg.norm(centroids[0] - centroids[1]) / 2
    return np.concatenate([shares.ravel() / 2, out / 4, [apart]])


def project_to_sphere(
    embeddings: Embeddings, *, title: str = "", pairs: int | None = None
) -> Stage:
    """Return embeddings with d > 3 on their first three principal components, as unit rows.

    The components are those of images and texts together, **uncentred**, which keeps the positions
    of the clouds and the gap between them. Each row is then normalised. The title says which share
    of the squared length the three components have.

    Args:
        embeddings: Images and texts; the first caption of each image counts.
        title: First line of the title.
        pairs: Largest number of pairs to keep, evenly spaced; default: all. The components are
            those of all pairs.

    Raises:
        GeomkitError: If d < 2.

    >>> pairs = Embeddings.of(*np.random.default_rng(0).standard_normal((2, 9, 3)))
    >>> project_to_sphere(pairs, title="no projection").image.shape
    (9, 3)
    """
    sides = embeddings.pairs()
    d, e = (int(rows.shape[1]) for rows in sides)
    if d != e:
        raise GeomkitError(
            f"a sphere needs images and texts of one dimension, these have {d} and {e}"
        )
    if d < 2:
        raise GeomkitError(f"a sphere needs at least 2 dimensions, these rows have {d}")
    x, y = spaced_rows(sides, pairs)
    if d <= 3:
        return Stage(_in_space(x), _in_space(y), title, circle=d == 2)
    values, vectors = np.linalg.eigh(scatter(sides))
    basis = vectors[:, ::-1][:, :3]
    kept = values[::-1][:3].sum() / values.sum()
    share = f"3 of {d} uncentred PCs, {100 * kept:.0f}%\nof squared length, renormalised"
    return Stage(_unit(x @ basis), _unit(y @ basis), f"{title}\n{share}".strip())


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-9)


def sphere_row(
    stages: Sequence[Stage],
    *,
    pairs: int = 1000,
    lines: bool = False,
    across: int = MAX_STAGES,
    shared_view: bool = True,
) -> Figure:
    """Return a figure with a row of spheres: images red, texts blue.

    Points on the far side lie under the body of the sphere. Rows of two dimensions are drawn on
    circles, images on the outer and texts on the inner one.

    Args:
        stages: Spheres to draw, left to right.
        pairs: Largest number of pairs to draw.
        lines: Whether to join the pairs along the sphere.
        across: Spheres in a row.
        shared_view: Whether all spheres are seen from one side, the one with most of the points of
            the stages before the last in front; else each from where most of its points are.

    Raises:
        GeomkitError: If there are no stages or no pairs.

    >>> rows = np.eye(3)
    >>> [axes.get_title() for axes in sphere_row([Stage(rows, -rows, "opposite")]).axes]
    ['opposite']
    """
    if not stages or pairs < 1:
        raise GeomkitError("nothing to draw: expected at least one source and one pair")
    from matplotlib.figure import Figure

    across = min(across, len(stages))
    rows = -(-len(stages) // across)
    side, foot, head = (2.3 if len(stages) > 1 else 3.6), 0.32, 0.53
    width, height = across * side, rows * (side + head) + foot
    camera = camera_for(stages)
    titles = fitted([stage.title for stage in stages], 0.97 * side, _TITLE)
    stages = [replace(stage, title=title) for stage, title in zip(stages, titles, strict=True)]
    flat = all(stage.circle for stage in stages)
    with style():
        figure = Figure(figsize=(width, height))
        for k, stage in enumerate(stages):
            row, column = divmod(k, across)
            bottom = foot + (rows - 1 - row) * (side + head)
            box = (column / across, bottom / height, 1 / across, side / height)
            view = camera if shared_view else camera_for([stage])
            draw_sphere(figure.add_axes(box), stage, view, pairs=pairs, lines=lines)
        handles = modality_handles(4)
        for handle, where in zip(handles, ("outer", "inner") if flat else ("", ""), strict=True):
            handle.set_label(f"{handle.get_label()}{where and f' ({where} circle)'}")
        figure.legend(handles=handles, loc="lower center", ncols=2, borderpad=0.1)
    return figure


def camera_for(stages: Sequence[Stage]) -> np.ndarray:
    """Return the side that spheres are seen from: rows right, up and towards the viewer."""
    if all(stage.circle for stage in stages):
        return np.eye(3)
    early = stages[:-1] or stages
    points = np.concatenate([np.concatenate([s.image, s.text]) for s in early])
    towards = points.mean(axis=0)
    if np.linalg.norm(towards) < 0.05:
        towards = np.array([0.6, -0.6, 0.5])
    towards = _unit(towards)
    # From straight above, a cone is a disc: turn aside along the widest spread.
    _, vectors = np.linalg.eigh(np.cov(points.T))
    aside = vectors[:, -1] - (vectors[:, -1] @ towards) * towards
    if np.linalg.norm(aside) < 1e-6:
        aside = np.cross(towards, [0.3, 0.2, 1.0])
    aside = _unit(aside)
    towards = _unit(np.cos(0.45) * towards + np.sin(0.45) * np.cross(towards, aside))
    right = _unit(aside - (aside @ towards) * towards)
    apart = sum(s.image.mean(axis=0) - s.text.mean(axis=0) for s in early)
    if apart @ right > 0:  # images to the left in every row
        right = -right
    return np.stack([right, np.cross(towards, right), towards])


def draw_sphere(
    axes: Axes,
    stage: Stage,
    camera: np.ndarray,
    *,
    pairs: int = 1000,
    scale: float = 1.0,
    fontsize: float = _TITLE,
    lines: bool = False,
) -> None:
    """Draw one sphere in axes of its own.

    Args:
        axes: Axes to draw in.
        stage: Sphere to draw.
        camera: View, from :func:`camera_for`.
        pairs: Largest number of pairs to draw.
        scale: Factor of the dots' areas, for small spheres.
        fontsize: Font size of the title in pt.
        lines: Whether to join the pairs along the sphere.
    """
    from matplotlib.patches import Circle

    axes.set_aspect("equal")
    axes.set_axis_off()
    axes.set_xlim(-1.08, 1.08)
    axes.set_ylim(-1.08, 1.08)
    if stage.circle:
        _draw_circles(axes, stage, pairs, scale, lines)
        axes.set_title(stage.title, fontsize=fontsize, pad=3, linespacing=1.35)
        return
    _grid(axes, front=False)
    image, text = stage.image[:pairs] @ camera.T, stage.text[:pairs] @ camera.T
    points, colours = shuffled(image, text)
    size = scale * float(np.clip(2600 / len(points), 2.0, 9.0))
    far = points[:, 2] < 0
    dots: dict[str, Any] = {"s": size, "linewidths": 0}
    back, front = points[far], points[~far]
    axes.scatter(back[:, 0], back[:, 1], c=colours[far], alpha=0.55, zorder=2, **dots)
    axes.add_patch(Circle((0, 0), 1.0, facecolor="white", alpha=0.7, zorder=3, linewidth=0))
    _shade(axes)
    _grid(axes, front=True)
    if lines:
        _join(axes, image, text)
    axes.add_patch(Circle((0, 0), 1.0, fill=False, edgecolor="#9a9a9a", linewidth=0.6, zorder=5))
    axes.scatter(front[:, 0], front[:, 1], c=colours[~far], alpha=0.9, zorder=6, **dots)
    axes.set_title(stage.title, fontsize=fontsize, pad=3, linespacing=1.35)


def _draw_circles(axes: Axes, stage: Stage, pairs: int, scale: float, lines: bool) -> None:
    """Images on the unit circle, texts on a smaller one: on one circle they would hide each other.

    A pair that coincides lies on one radius.
    """
    from matplotlib.patches import Circle

    image, text = stage.image[:pairs, :2], INNER * stage.text[:pairs, :2]
    for radius in (1.0, INNER):
        axes.add_patch(Circle((0, 0), radius, fill=False, edgecolor="#9a9a9a", linewidth=0.6))
    if lines:
        join(axes, np.stack([image, text], axis=1), alpha=pair_alpha(len(image)), zorder=1)
    size = scale * float(np.clip(2600 / len(image), 2.0, 9.0))
    for modality, points in zip(MODALITY_COLOURS, (image, text), strict=True):
        axes.scatter(points[:, 0], points[:, 1], s=size, linewidths=0, alpha=0.7, zorder=2,
                     color=MODALITY_COLOURS[modality])  # fmt: skip


def arcs(a: np.ndarray, b: np.ndarray, *, parts: int = 8) -> np.ndarray:
    """Return points on the arcs of great circles between paired points, ``(parts + 1, n, 3)``.

    >>> arcs(np.array([[1.0, 0, 0]]), np.array([[0, 1.0, 0]]), parts=2)[1].round(3).tolist()
    [[0.707, 0.707, 0.0]]
    """
    share = np.linspace(0, 1, parts + 1)[:, None, None]
    return _unit((1 - share) * a + share * b)


def _join(axes: Axes, a: np.ndarray, b: np.ndarray) -> None:
    """Arcs of great circles between paired points, the far side fainter."""
    points = arcs(a, b, parts=16)
    parts = np.stack([points[:-1], points[1:]], axis=2).reshape(-1, 2, 3)
    far = parts[:, :, 2].mean(axis=1) < 0
    alpha = pair_alpha(len(a))
    join(axes, parts[far, :, :2], alpha=0.5 * alpha, zorder=2.5)
    join(axes, parts[~far, :, :2], alpha=alpha, zorder=5.5)


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
        shown = np.where(hidden, np.nan, [right, up])
        axes.plot(*shown, color=INK, linewidth=0.35, alpha=0.16, zorder=4.5 if front else 1)
