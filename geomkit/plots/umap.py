"""UMAP of images and texts together, to the plane or to the sphere."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from geomkit._core.array import to_numpy
from geomkit.embeddings.embeddings import Embeddings
from geomkit.errors import GeomkitError, unknown_name
from geomkit.plots.spectrum import Plane, modality_handles, spaced
from geomkit.plots.sphere import Stage, camera_for, draw_sphere
from geomkit.plots.style import panels, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["METRICS", "check_options", "globe_row", "umap_plane", "umap_sphere"]

METRICS = ("cosine", "euclidean", "correlation", "manhattan")
FEWEST = 8


def umap_plane(
    embeddings: Embeddings,
    *,
    pairs: int = 1000,
    metric: str = "cosine",
    neighbours: int = 15,
    min_dist: float = 0.1,
    seed: int = 0,
    title: str = "",
) -> Plane:
    """Images and texts in one plane, fitted together.

    Args:
        embeddings: whose first text an image counts.
        pairs: fit at most so many, evenly spaced.
        metric: between rows, of :data:`METRICS`.
        neighbours: of each row that are to stay near.
        min_dist: how closely points may be packed, 0 to 1.
        seed: of the optimisation; the same seed gives the same picture on the same machine.
        title: above the plane.

    Raises:
        GeomkitError: for too few pairs, modalities of different dimensions, or an option out of
            range.
    """
    points = _fit(embeddings, pairs, metric, neighbours, min_dist, seed, sphere=False)
    n = len(points) // 2
    return Plane(points[:n], points[n:], title)


def umap_sphere(
    embeddings: Embeddings,
    *,
    pairs: int = 1000,
    metric: str = "cosine",
    neighbours: int = 15,
    min_dist: float = 0.1,
    seed: int = 0,
    title: str = "",
) -> Stage:
    """Images and texts on one sphere (haversine distances in the layout), fitted together.

    Arguments and errors are those of :func:`umap_plane`.
    """
    angles = _fit(embeddings, pairs, metric, neighbours, min_dist, seed, sphere=True)
    polar, round_ = angles.T
    points = np.stack(
        [np.sin(polar) * np.cos(round_), np.sin(polar) * np.sin(round_), np.cos(polar)], axis=1
    )
    n = len(points) // 2
    return Stage(points[:n], points[n:], title)


def check_options(*, pairs: int, metric: str, neighbours: int, min_dist: float, seed: int) -> None:
    """Refuse, before a model runs, what no layout can be made with.

    Raises:
        GeomkitError: for an unknown metric or a number out of range.
    """
    if metric not in METRICS:
        raise unknown_name("UMAP metric", metric, METRICS)
    for name, value, least in (("pairs", pairs, FEWEST), ("neighbours", neighbours, 2),
                               ("seed", seed, 0)):  # fmt: skip
        if value < least:
            raise GeomkitError(f"{name}: expected {least} or more, got {value}")
    if not 0 <= min_dist <= 1:
        raise GeomkitError(f"min dist: expected 0 to 1, got {min_dist:g}")


def _fit(
    embeddings: Embeddings,
    pairs: int,
    metric: str,
    neighbours: int,
    min_dist: float,
    seed: int,
    *,
    sphere: bool,
) -> np.ndarray:
    """Points of the images, then of the texts, ``(2k, 2)``."""
    check_options(pairs=pairs, metric=metric, neighbours=neighbours, min_dist=min_dist, seed=seed)
    if not embeddings.equal_dims:
        raise GeomkitError("UMAP of both modalities needs one dimension of both")
    if embeddings.n < FEWEST:
        raise GeomkitError(f"UMAP needs {FEWEST} pairs or more, got {embeddings.n}")
    kept = spaced(embeddings.n, pairs)
    rows = np.concatenate([to_numpy(side[kept]) for side in embeddings.pairs()])
    return _quietly(
        rows.astype(np.float32),
        n_components=2,
        n_neighbors=min(neighbours, len(rows) - 1),
        min_dist=min_dist,
        metric=metric,
        random_state=seed,
        n_jobs=1,  # what a seed makes of it anyway
        init="spectral" if len(rows) > 100 else "random",
        output_metric="haversine" if sphere else "euclidean",
    )


def _quietly(rows: np.ndarray, **options: Any) -> np.ndarray:
    """umap-learn and numba warn about their own dependencies, and of graphs in several parts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import umap

        try:
            return np.asarray(umap.UMAP(**options).fit_transform(rows), float)
        except (ArithmeticError, TypeError, ValueError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise GeomkitError(f"UMAP cannot lay out these rows ({reason})") from error


def globe_row(stages: Sequence[Stage], *, lines: bool = False, across: int = 3) -> Figure:
    """Spheres side by side, each seen from where most of its points are.

    Args:
        stages: left to right.
        lines: whether to join the pairs, along the sphere.
        across: spheres in a row.

    Raises:
        GeomkitError: if there are none.
    """
    if not stages:
        raise GeomkitError("nothing to draw: expected at least one source")
    across = min(across, len(stages))
    rows = -(-len(stages) // across)
    side = (3.2, 3.2, 2.25)[across - 1] if across < 4 else 1.8
    figure, axes = panels(rows, across, columns=1 if across == 1 else 2, height=side * rows + 0.4)
    with style():
        for place, stage in zip(axes.flat, stages, strict=False):
            draw_sphere(place, stage, camera_for([stage]), fontsize=8, scale=0.8, lines=lines)
        for place in axes.flat[len(stages) :]:
            place.remove()
        figure.legend(handles=modality_handles(), loc="outside lower center", ncols=2, fontsize=7.5)
    return figure
