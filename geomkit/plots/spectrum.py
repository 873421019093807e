"""Spectra in figures: cumulative explained variance, and clouds through their principal axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from geomkit._core.array import to_numpy
from geomkit.embeddings.embeddings import Embeddings
from geomkit.errors import GeomkitError
from geomkit.plots.style import INK, MODALITY_COLOURS, panels, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Curve", "Plane", "cumulative_curves", "draw_pairs", "plane_row", "principal_plane"]


@dataclass(frozen=True)
class Curve:
    """Cumulative explained variance of one cloud.

    Attributes:
        name: in the legend; curves of one name are one entry.
        values: share of the variance that the first k components hold, ``(k,)``.
        colour: of the line.
        dashes: matplotlib's line style.
        low, high: bounds of its interval, ``(k,)``, or ``None``.
        marks: another's numbers for it, as (component, share): hollow circles.
    """

    name: str
    values: np.ndarray
    colour: str
    dashes: Any = "-"
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    marks: Sequence[tuple[int, float]] = ()


def cumulative_curves(
    shown: Sequence[tuple[str, Sequence[Curve]]], *, theirs: str = "paper", across: int = 2
) -> Figure:
    """Cumulative explained variance against the number of components, panel by panel.

    Intervals are bands; levels of 80 and 90% are marked; the thin diagonal is a cloud whose
    variance is the same in every direction.

    Args:
        shown: title and curves of each panel.
        theirs: what the hollow circles are, where there are some.
        across: panels in a row.

    Raises:
        GeomkitError: if there is no curve.
    """
    from matplotlib.lines import Line2D

    curves = [curve for _, found in shown for curve in found]
    if not curves:
        raise GeomkitError("nothing to draw: expected at least one curve")
    across = min(across, len(shown))
    rows = -(-len(shown) // across)
    columns = 1 if across == 1 else 2
    height = (2.3 if across < 3 else 1.9) * rows + 0.4
    figure, axes = panels(rows, across, columns=columns, height=height)
    with style():
        for k, (place, (title, found)) in enumerate(zip(axes.flat, shown, strict=False)):
            place.set_title(title, fontsize=8, pad=4)
            for level in (0.8, 0.9):
                place.axhline(level, color="#aaaaaa", linewidth=0.6, linestyle=":", zorder=0)
            for curve in found:
                _curve(place, curve)
            most = max((len(curve.values) for curve in found), default=1)
            place.plot([0, most], [0, 1], color="#bbbbbb", linewidth=0.6, zorder=0)
            place.set_xlim(0, most)
            place.set_ylim(0, 1.02)
            place.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0])
            if k % across == 0:
                place.set_ylabel("Cumulative variance", fontsize=8, labelpad=2)
            if k + across >= len(shown):
                place.set_xlabel("Principal components", fontsize=8, labelpad=2)
        for place in axes.flat[len(shown) :]:
            place.remove()
        seen = {curve.name: curve for curve in curves}
        handles = [
            Line2D([], [], color=c.colour, linestyle=c.dashes, label=c.name) for c in seen.values()
        ]
        if any(curve.marks for curve in curves):
            handles.append(
                Line2D([], [], color="#888888", marker="o", markerfacecolor="white", markersize=3.6,
                       linestyle="none", label=theirs)
            )  # fmt: skip
        figure.legend(
            handles=handles,
            loc="outside lower center",
            ncols=2 if columns == 1 else len(handles) if len(handles) < 6 else 3,
            fontsize=7.5,
            handlelength=2.4,
            columnspacing=1.4,
        )
    return figure


def _curve(axes: Axes, curve: Curve) -> None:
    k = np.arange(1, len(curve.values) + 1)
    look: dict[str, Any] = {"color": curve.colour, "linestyle": curve.dashes}
    axes.plot(k, curve.values, linewidth=1.1, zorder=3, **look)
    if curve.low is not None and curve.high is not None:
        axes.fill_between(k, curve.low, curve.high, color=curve.colour, alpha=0.18, linewidth=0)
    for component, share in curve.marks:
        if component > len(curve.values):
            continue
        axes.plot([component], [share], marker="o", markersize=3.6, markerfacecolor="white",
                  color=curve.colour, markeredgewidth=0.9, zorder=4, clip_on=False)  # fmt: skip


@dataclass(frozen=True)
class Plane:
    """Paired points of a plane.

    Attributes:
        image, text: ``(n, 2)``.
        title: above it.
        labels: of the two axes.
    """

    image: np.ndarray
    text: np.ndarray
    title: str
    labels: tuple[str, str] = ("", "")


def principal_plane(embeddings: Embeddings, *, pairs: int = 1000, title: str = "") -> Plane:
    """Images and texts through the first two principal components of both together, centred.

    The labels say which share of the variance of both each axis holds.

    Args:
        embeddings: whose first text an image counts.
        pairs: keep at most so many; the components are those of all.
        title: above the plane.

    Raises:
        GeomkitError: for fewer than 2 dimensions, or modalities of different ones.
    """
    if not embeddings.equal_dims or embeddings.image.shape[1] < 2:
        raise GeomkitError(
            "a plane of both modalities needs two or more dimensions that they share"
        )
    x, y = (to_numpy(rows[:]).astype(np.float64) for rows in embeddings.pairs())
    both = np.concatenate([x, y])
    mean = both.mean(axis=0)
    values, vectors = np.linalg.eigh((both - mean).T @ (both - mean))
    basis = vectors[:, ::-1][:, :2]
    # A sign of its own would turn the picture over from one machine to the next.
    basis = basis * np.sign(basis[np.abs(basis).argmax(axis=0), [0, 1]])
    total = values.sum()
    shares = values[::-1][:2] / total if total > 0 else np.full(2, np.nan)
    kept = spaced(len(x), pairs)
    labels = tuple(f"PC {k + 1} ({100 * share:.0f}% of the variance)" for k, share in
                   enumerate(shares))  # fmt: skip
    return Plane((x[kept] - mean) @ basis, (y[kept] - mean) @ basis, title, (labels[0], labels[1]))


def spaced(n: int, most: int) -> np.ndarray:
    """At most so many row numbers, evenly spaced, so that they do not depend on a draw.

    >>> spaced(10, 4).tolist()
    [0, 3, 6, 9]
    """
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(int))


def plane_row(
    planes: Sequence[Plane], *, lines: bool = False, equal: bool = True, across: int = 3
) -> Figure:
    """Scatter plots of pairs: images red, texts blue, each pair joined if asked for.

    Args:
        planes: left to right.
        lines: whether to join the pairs.
        equal: whether both axes have one scale.
        across: planes in a row.

    Raises:
        GeomkitError: if there are none.
    """
    if not planes:
        raise GeomkitError("nothing to draw: expected at least one source")
    across = min(across, len(planes))
    rows = -(-len(planes) // across)
    columns = 1 if across == 1 else 2
    side = (3.0, 3.1, 2.2)[across - 1] if across < 4 else 1.8
    figure, axes = panels(rows, across, columns=columns, height=side * rows + 0.3)
    with style():
        for place, plane in zip(axes.flat, planes, strict=False):
            draw_pairs(place, plane.image, plane.text, lines=lines)
            place.set_title(plane.title, fontsize=8, pad=4)
            if equal:
                place.set_aspect("equal", adjustable="datalim")
            if any(plane.labels):
                place.set_xlabel(plane.labels[0], fontsize=7.5, labelpad=2)
                place.set_ylabel(plane.labels[1], fontsize=7.5, labelpad=2)
            else:  # neither scale nor direction means anything
                place.set_xticks([])
                place.set_yticks([])
        for place in axes.flat[len(planes) :]:
            place.remove()
        figure.legend(handles=modality_handles(), loc="outside lower center", ncols=2, fontsize=7.5)
    return figure


def modality_handles() -> list:
    """Red dots for images and blue ones for texts, for a legend."""
    from matplotlib.lines import Line2D

    return [
        Line2D([], [], color=MODALITY_COLOURS[key], marker="o", linestyle="none", markersize=3.6,
               label=f"{key}s")
        for key in ("image", "text")
    ]  # fmt: skip


def draw_pairs(axes: Axes, image: np.ndarray, text: np.ndarray, *, lines: bool) -> None:
    """Dots of both modalities in a shuffled order, so that neither is always on top."""
    from matplotlib.collections import LineCollection

    n = len(image)
    if lines:
        axes.add_collection(
            LineCollection(
                np.stack([image, text], axis=1).tolist(), colors=INK, linewidths=0.35,
                alpha=float(np.clip(60 / n, 0.06, 0.4)), zorder=1,
            )
        )  # fmt: skip
    points = np.concatenate([image, text])
    colours = np.repeat([MODALITY_COLOURS["image"], MODALITY_COLOURS["text"]], n)
    order = np.random.default_rng(0).permutation(2 * n)
    axes.scatter(
        points[order, 0],
        points[order, 1],
        c=colours[order],
        s=float(np.clip(2600 / (2 * n), 1.5, 10.0)),
        alpha=0.75,
        linewidths=0,
        zorder=2,
    )
