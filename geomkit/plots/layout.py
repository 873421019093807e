"""UMAP of images and texts together, to the plane or to the sphere."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from geomkit._core.array import to_numpy
from geomkit.embeddings.embeddings import Embeddings
from geomkit.errors import GeomkitError, unknown_name
from geomkit.plots.planes import Plane, spaced
from geomkit.plots.spheres import Stage

__all__ = ["DEFAULT", "METRICS", "NOTE", "UmapOptions", "umap_plane", "umap_points", "umap_sphere"]

METRICS = ("cosine", "euclidean", "correlation", "manhattan")
FEWEST = 8
NOTE = "UMAP: nearby points are nearby rows; distances between far points mean nothing"


@dataclass(frozen=True, kw_only=True)
class UmapOptions:
    """Options of a layout.

    Attributes:
        pairs: Largest number of pairs to fit and draw, evenly spaced.
        metric: Distance between rows, one of :data:`METRICS`.
        neighbours: Number of nearest rows that each row is to stay close to.
        min_dist: Smallest distance between points, 0 to 1.
        seed: Random seed. The same seed gives the same layout on the same machine.

    Raises:
        GeomkitError: For an unknown metric or a number out of range.
    """

    pairs: int = 1000
    metric: str = "cosine"
    neighbours: int = 15
    min_dist: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the options."""
        if self.metric not in METRICS:
            raise unknown_name("UMAP metric", self.metric, METRICS)
        for name, least in (("pairs", FEWEST), ("neighbours", 2), ("seed", 0)):
            if (value := getattr(self, name)) < least:
                raise GeomkitError(f"{name}: expected {least} or more, got {value}")
        if not 0 <= self.min_dist <= 1:
            raise GeomkitError(f"min dist: expected 0 to 1, got {self.min_dist:g}")


DEFAULT = UmapOptions()


def umap_plane(embeddings: Embeddings, options: UmapOptions = DEFAULT, *, title: str = "") -> Plane:
    """Lay out images and texts in one plane, fitted together.

    Args:
        embeddings: Images and texts; the first caption of each image counts.
        options: Options of the layout.
        title: Title of the plane.

    Raises:
        GeomkitError: For too few pairs, or modalities with different dimensions.
    """
    points = _fit(embeddings, options, sphere=False)
    n = len(points) // 2
    return Plane(points[:n], points[n:], title)


def umap_sphere(
    embeddings: Embeddings, options: UmapOptions = DEFAULT, *, title: str = ""
) -> Stage:
    """Lay out images and texts on one sphere (haversine distances), fitted together.

    Arguments and errors are those of :func:`umap_plane`.
    """
    polar, round_ = _fit(embeddings, options, sphere=True).T
    points = np.stack(
        [np.sin(polar) * np.cos(round_), np.sin(polar) * np.sin(round_), np.cos(polar)], axis=1
    )
    n = len(points) // 2
    return Stage(points[:n], points[n:], title)


def _fit(embeddings: Embeddings, options: UmapOptions, *, sphere: bool) -> np.ndarray:
    """Points of the images, then of the texts, ``(2k, 2)``."""
    if not embeddings.equal_dims:
        raise GeomkitError("UMAP of both modalities needs one dimension of both")
    if embeddings.n < FEWEST:
        raise GeomkitError(f"UMAP needs {FEWEST} pairs or more, got {embeddings.n}")
    kept = spaced(embeddings.n, options.pairs)
    rows = np.concatenate([to_numpy(side[kept]) for side in embeddings.pairs()])
    return umap_points(rows, options, sphere=sphere)


def umap_points(
    rows: np.ndarray, options: UmapOptions = DEFAULT, *, sphere: bool = False
) -> np.ndarray:
    """Return the layout of a matrix of rows, ``(n, 2)``: coordinates, or angles on the sphere.

    Args:
        rows: Rows ``(n, d)``, at least :data:`FEWEST`.
        options: Options of the layout, of which ``pairs`` does not count.
        sphere: Whether to lay out on the sphere.

    Raises:
        GeomkitError: If there are too few rows, or UMAP cannot lay them out.
    """
    from threadpoolctl import ThreadpoolController

    if len(rows) < FEWEST:
        raise GeomkitError(f"UMAP needs {FEWEST} rows or more, got {len(rows)}")
    pools = ThreadpoolController().select(user_api="openmp")
    with warnings.catch_warnings(), pools.limit():  # restores what numba changes
        warnings.simplefilter("ignore")  # of umap-learn and numba about their dependencies
        import umap

        layout = umap.UMAP(
            n_components=2,
            n_neighbors=min(options.neighbours, len(rows) - 1),
            min_dist=options.min_dist,
            metric=options.metric,
            random_state=options.seed,
            n_jobs=1,  # what UMAP sets anyway for a seed
            init="spectral" if len(rows) > 100 else "random",
            output_metric="haversine" if sphere else "euclidean",
        )
        try:
            return np.asarray(layout.fit_transform(rows.astype(np.float32)), float)
        except (ArithmeticError, TypeError, ValueError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise GeomkitError(f"UMAP cannot lay out these rows ({reason})") from error
