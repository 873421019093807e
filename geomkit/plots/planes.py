"""Pairs as points of a plane: images red, texts blue, each pair joined if asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from geomkit._core.array import Array, like, to_numpy
from geomkit.embeddings.embeddings import Embeddings
from geomkit.engine.moments import Moments
from geomkit.errors import GeomkitError
from geomkit.plots.labels import fitted, short_titles
from geomkit.plots.style import COLUMN_WIDTHS, INK, MODALITY_COLOURS, axes_grid, label, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

__all__ = ["Plane", "blocks", "draw_pairs", "join", "mean_row", "modality_handles", "pair_alpha",
           "pca_planes", "plane_row", "principal_plane", "scatter", "shuffled", "spaced",
           "spaced_rows"]  # fmt: skip

_BLOCK = 4096
"""Rows converted at once."""


@dataclass(frozen=True, eq=False)
class Plane:
    """Paired points of a plane.

    Attributes:
        image, text: Points, shape ``(n, 2)``.
        title: Title above the plane.
        labels: Labels of the two axes. Empty: neither scale nor direction means anything.
    """

    image: np.ndarray
    text: np.ndarray
    title: str
    labels: tuple[str, str] = ("", "")


def pca_planes(
    embeddings: Mapping[str, Embeddings], *, pairs: int = 1000, lines: bool = False
) -> Figure:
    """Return a figure of pairs on the first two principal components of both modalities together.

    Args:
        embeddings: Embeddings of each source, by name.
        pairs: Largest number of pairs to draw; the components are those of all pairs.
        lines: Whether to join the pairs.

    Raises:
        GeomkitError: If there are no embeddings, or as :func:`principal_plane`.

    >>> pairs = Embeddings.of(*np.random.default_rng(0).standard_normal((2, 50, 8)))
    >>> pca_planes({"random": pairs}, lines=True).axes[0].get_title()
    'random'
    """
    titles = short_titles(embeddings)
    planes = [
        principal_plane(one, pairs=pairs, title=title)
        for title, one in zip(titles, embeddings.values(), strict=True)
    ]
    return plane_row(planes, lines=lines)


def principal_plane(embeddings: Embeddings, *, pairs: int = 1000, title: str = "") -> Plane:
    """Return the pairs on the first two principal components of both modalities, centred.

    The labels say which share of the variance of both each axis has.

    Args:
        embeddings: Images and texts; the first caption of each image counts.
        pairs: Largest number of pairs to keep; the components are those of all pairs.
        title: Title of the plane.

    Raises:
        GeomkitError: For fewer than 2 dimensions, modalities with different dimensions, or rows
            that are all equal.
    """
    if not embeddings.equal_dims or embeddings.image.shape[1] < 2:
        raise GeomkitError(
            "a plane of both modalities needs two or more dimensions that they share"
        )
    sides = embeddings.pairs()
    means = [mean_row([rows]) for rows in sides]
    mean = (means[0] + means[1]) / 2
    values, vectors = np.linalg.eigh(scatter(sides, mean))
    basis = vectors[:, ::-1][:, :2]
    # An arbitrary sign would flip the figure from one machine to the next.
    basis = basis * np.sign(basis[np.abs(basis).argmax(axis=0), [0, 1]])
    if (means[0] - means[1]) @ basis[:, 0] > 0:  # images to the left in every panel
        basis[:, 0] *= -1
    total = values.sum()
    if total <= 2 * embeddings.n * Moments.ROUNDING:
        raise GeomkitError(
            f"{title}{title and ': '}all rows are equal but for rounding; there is no variance to "
            "show"
        )
    shares = values[::-1][:2] / total
    first, second = (f"PC {k} ({100 * s:.0f}% of the variance)" for k, s in enumerate(shares, 1))
    x, y = ((rows - mean) @ basis for rows in spaced_rows(sides, pairs))
    return Plane(x, y, title, (first, second))


def blocks(sides: Iterable[Array]) -> Iterator[np.ndarray]:
    """Yield the rows of matrices in float64, some at a time."""
    for rows in sides:
        for begin in range(0, len(rows), _BLOCK):
            yield to_numpy(rows[begin : begin + _BLOCK]).astype(np.float64)


def mean_row(sides: Sequence[Array]) -> np.ndarray:
    """Return the mean of the rows of all matrices, shape ``(d,)``."""
    return np.sum([part.sum(axis=0) for part in blocks(sides)], axis=0) / sum(map(len, sides))


def scatter(sides: Sequence[Array], centre: np.ndarray | float = 0.0) -> np.ndarray:
    """Return the sum of the outer products of all rows about a point, shape ``(d, d)``."""
    total = np.zeros((d := int(sides[0].shape[1]), d))
    for part in blocks(sides):
        part -= centre
        total += part.T @ part
    return total


def spaced_rows(sides: Sequence[Array], most: int | None) -> Iterator[np.ndarray]:
    """Yield evenly spaced rows of each matrix in float64; all for ``None``."""
    for rows in sides:
        some = rows[:] if most is None else rows[like(spaced(len(rows), most), rows)]
        yield to_numpy(some).astype(np.float64)


def spaced(n: int, most: int) -> np.ndarray:
    """Return at most ``most`` of n row numbers, evenly spaced, which do not depend on a draw.

    Args:
        n: Number of rows.
        most: Largest number of row numbers.

    >>> spaced(10, 4).tolist()
    [0, 3, 6, 9]
    """
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(int))


def plane_row(
    planes: Sequence[Plane], *, lines: bool = False, equal: bool = True, note: str = ""
) -> Figure:
    """Return a figure of planes: images red, texts blue.

    Args:
        planes: Planes, row by row.
        lines: Whether to join the pairs.
        equal: Whether both axes have one scale, the same in all planes.
        note: Words below the planes, above the legend.

    Raises:
        GeomkitError: If there are no planes.
    """
    if not planes:
        raise GeomkitError("nothing to draw: expected at least one source")
    across = min(3, len(planes))
    rows = -(-len(planes) // across)
    side = (3.0, 3.1, 2.2)[across - 1]
    columns, height = 1 if across == 1 else 2, side * rows + 0.3
    titles = fitted([plane.title for plane in planes], 0.74 * COLUMN_WIDTHS[columns] / across, 8)
    figure, places = axes_grid(len(planes), across, columns=columns, height=height)
    rows_of = [np.concatenate([plane.image, plane.text]) for plane in planes]
    half = 0.53 * max(float(np.ptp(points, axis=0).max()) for points in rows_of)
    with style():
        for axes, plane, points, title in zip(places, planes, rows_of, titles, strict=True):
            draw_pairs(axes, plane.image, plane.text, lines=lines)
            label(axes, title=title, x=plane.labels[0], y=plane.labels[1])
            if equal:
                axes.set_aspect("equal")
                x, y = (points.min(axis=0) + points.max(axis=0)) / 2
                axes.set(xlim=(x - half, x + half), ylim=(y - half, y + half))
            if not any(plane.labels):
                axes.set_xticks([])
                axes.set_yticks([])
        figure.legend(handles=modality_handles(), loc="outside lower center", ncols=2, fontsize=7.5,
                      title=note or None, title_fontsize=7)  # fmt: skip
    return figure


def modality_handles(size: float = 3.6) -> list[Line2D]:
    """Red dots for images and blue ones for texts, for a legend."""
    from matplotlib.lines import Line2D

    return [
        Line2D([], [], color=colour, marker="o", linestyle="none", markersize=size, label=f"{key}s")
        for key, colour in MODALITY_COLOURS.items()
    ]


def draw_pairs(axes: Axes, image: np.ndarray, text: np.ndarray, *, lines: bool) -> None:
    """Dots of both modalities in a shuffled order, so that neither is always on top."""
    n = len(image)
    if lines:
        join(axes, np.stack([image, text], axis=1), alpha=pair_alpha(n), zorder=1)
    points, colours = shuffled(image, text)
    size = float(np.clip(2600 / (2 * n), 1.5, 10.0))
    axes.scatter(points[:, 0], points[:, 1], c=colours, s=size, alpha=0.75, linewidths=0, zorder=2)


def shuffled(image: np.ndarray, text: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points of both modalities and their colours, in one seeded order."""
    points = np.concatenate([image, text])
    colours = np.repeat(list(MODALITY_COLOURS.values()), len(image))
    order = np.random.default_rng(0).permutation(len(points))
    return points[order], colours[order]


def pair_alpha(n: int) -> float:
    """Opacity of the lines between n pairs: the more, the fainter."""
    return float(np.clip(60 / n, 0.06, 0.4))


def join(axes: Axes, segments: np.ndarray, *, alpha: float, zorder: float) -> None:
    """Draw thin line segments, shape ``(k, 2, 2)``."""
    from matplotlib.collections import LineCollection

    lines = LineCollection(segments.tolist(), colors=INK, linewidths=0.35, alpha=alpha,
                           zorder=zorder)  # fmt: skip
    axes.add_collection(lines)
