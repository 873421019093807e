"""The figures a user draws from Python: of arrays, embeddings or results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from geomkit._core.choices import PROJECTIONS, SHOWN
from geomkit._core.shown import shown
from geomkit.embeddings.embeddings import Embeddings
from geomkit.errors import GeomkitError, unknown_name
from geomkit.metrics import GapResult, select
from geomkit.metrics import gap as measure
from geomkit.metrics.inputs import given
from geomkit.models.checkpoints.kinds import find_kind
from geomkit.models.checkpoints.trained_run import TrainedRun, load_run
from geomkit.plots.charts import hover_labels, interactive_panels, interactive_planes
from geomkit.plots.cosines import cosine_panels
from geomkit.plots.gaps import gap_figure, gap_panels
from geomkit.plots.interactive import MAX_FRAMES, interactive_sphere
from geomkit.plots.labels import short_titles
from geomkit.plots.layout import DEFAULT, NOTE, UmapOptions, umap_plane, umap_sphere
from geomkit.plots.multiples import small_multiples
from geomkit.plots.planes import plane_row, spaced
from geomkit.plots.spectra import cumulative_figure, cumulative_panels, spectrum_curves
from geomkit.plots.spheres import Stage, project_to_sphere, sphere_row, training_stages

if TYPE_CHECKING:
    from matplotlib.figure import Figure as StaticFigure
    from plotly.graph_objects import Figure as PlotlyFigure

    Figure: TypeAlias = StaticFigure | PlotlyFigure

__all__ = ["PROJECTIONS", "gap", "histograms", "spectrum", "sphere", "umap"]

_STAGES = 5
_T = TypeVar("_T")


def sphere(
    embeddings: Any,
    text: Any = None,
    *,
    stages: int | None = None,
    projection: str = "pca",
    pairs: int = 1000,
    lines: bool = False,
    captions: Sequence[str] = (),
    interactive: bool = False,
) -> Figure:
    """Draw images (red) and texts (blue) on the unit sphere.

    Rows of three dimensions are drawn as they are. Others are projected on their first three
    principal components, uncentred, and put back on the sphere, or laid out on it by UMAP. Of a
    3-D training run, the stages of training are drawn.

    Args:
        embeddings: Image rows, ``(n, d)``; :class:`~geomkit.Embeddings`; a file of embeddings; a
            dictionary of several of these by name; or a 3-D training run or its checkpoint.
        text: Text rows, ``(n, d)``, if ``embeddings`` is image rows.
        stages: Number of stages of a run, 1 to 8 (default: 5), or 1 to 60 if interactive (default:
            all).
        projection: ``"pca"`` or ``"umap"``.
        pairs: Largest number of pairs to draw, the first ones of a run, else evenly spaced.
        lines: Whether to join the pairs along the sphere.
        captions: Caption of each pair, shown beside the pointer in an interactive figure.
        interactive: Whether to return a plotly figure, which can be turned with the mouse.

    Returns:
        A matplotlib figure, or a plotly figure if ``interactive``.

    Raises:
        GeomkitError: If the rows are unfit, have no pairs or fewer than 3 dimensions, or an option
            is out of range.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> x, y = rng.standard_normal((2, 50, 8))
        >>> figure = sphere(x + 2, y - 2)
        >>> print(figure.axes[0].get_title())
        3 of 8 uncentred PCs, 89%
        of squared length, renormalised
    """
    if projection not in PROJECTIONS:
        raise unknown_name("projection", projection, PROJECTIONS)
    if pairs < 1:
        raise GeomkitError(f"pairs: expected 1 or more, got {pairs}")
    run = _run(embeddings)
    if run is None and stages is not None:
        raise GeomkitError("stages: expected a training run, got embeddings")
    if run is not None and text is None:
        if projection != PROJECTIONS[0]:
            raise GeomkitError("projection: the stages of a run have two or three dimensions")
        if captions and run.snapshots and len(captions) != (n := len(run.snapshots[0].image)):
            raise GeomkitError(f"captions: expected {n}, one for each image, got {len(captions)}")
        if stages is None:
            stages = MAX_FRAMES if interactive else _STAGES
        if not interactive:
            return sphere_row(training_stages(run, stages), pairs=pairs, lines=lines)
        shown = training_stages(run, stages, most=MAX_FRAMES)
        beside = [[caption] for caption in captions]
        return interactive_sphere(shown, captions=beside, pairs=pairs, lines=lines)
    sources = sources_of(embeddings, text)
    make = partial(project_to_sphere, pairs=pairs)
    if projection == "umap":
        make = partial(umap_sphere, options=UmapOptions(pairs=pairs))
    return _on_spheres(sources, make, pairs, lines, captions, interactive)


def gap(
    results: Any,
    text: Any = None,
    *,
    metrics: Sequence[str] | None = None,
    interactive: bool = False,
) -> Figure:
    """Draw metrics of several sources side by side: a panel for each metric, a dot for each source.

    Dots have 95% intervals over pairs. A grey bar is the value with no gap, or with no pairing, of
    the metrics that have one.

    Args:
        results: A :class:`~geomkit.GapResult`, or a dictionary of results by name, top to bottom;
            or what is measured first: image rows, :class:`~geomkit.Embeddings`, a file of
            embeddings, or a dictionary of these by name.
        text: Text rows, ``(n, d)``, if ``results`` is image rows.
        metrics: Names of metrics. Default: eight of the gap, the spread and retrieval.
        interactive: Whether to return a plotly figure.

    Returns:
        A matplotlib figure, or a plotly figure if ``interactive``.

    Raises:
        GeomkitError: If there is no source or no metric, or as :func:`geomkit.gap`.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> x, y = rng.standard_normal((2, 30, 4))
        >>> figure = gap(x, y, metrics=["alignment", "mmd"])
        >>> [axes.get_title() for axes in figure.axes]
        ['Alignment', 'MMD²']
    """
    if metrics is not None:
        given = [metrics] if isinstance(metrics, str) else list(metrics)
        metrics = [name for word in given for name in select([word])]
    found = _named(results, text, GapResult, lambda one: _measured(one, metrics))
    held = {name for result in found.values() for name in result.metrics}
    names = metrics or [name for name in SHOWN if name in held] or sorted(held)
    return interactive_panels(gap_panels(found, names)) if interactive else gap_figure(found, names)


def spectrum(embeddings: Any, text: Any = None, *, interactive: bool = False) -> Figure:
    """Draw cumulative explained variance against the number of principal components.

    The components are those of each modality, centred. Bands are 95% intervals over pairs. One
    source has a curve for each modality; several sources have a panel for each modality. The thin
    diagonal is a cloud with the same variance in every direction.

    Args:
        embeddings: Image rows, ``(n, d)``; :class:`~geomkit.Embeddings`; a file of embeddings; or
            a dictionary of several of these by name.
        text: Text rows, ``(n, d)``, if ``embeddings`` is image rows.
        interactive: Whether to return a plotly figure.

    Returns:
        A matplotlib figure, or a plotly figure if ``interactive``.

    Raises:
        GeomkitError: If the rows are unfit, have no pairs, or are all equal.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> x, y = rng.standard_normal((2, 50, 8))
        >>> len(spectrum(x, y).axes), len(spectrum({"a": (x, y), "b": (y, x)}).axes)
        (1, 2)
    """
    curves = spectrum_curves(sources_of(embeddings, text))
    return (
        interactive_panels(cumulative_panels(curves)) if interactive else cumulative_figure(curves)
    )


def umap(
    embeddings: Any,
    text: Any = None,
    *,
    options: UmapOptions = DEFAULT,
    sphere: bool = False,
    lines: bool = True,
    captions: Sequence[str] = (),
    interactive: bool = False,
) -> Figure:
    """Lay out images (red) and texts (blue) together by UMAP, in the plane or on the sphere.

    Nearby points are nearby rows. Distances between far points mean nothing: measure the gap with
    :func:`geomkit.gap`.

    Args:
        embeddings: Image rows, ``(n, d)``; :class:`~geomkit.Embeddings`; a file of embeddings; or
            a dictionary of several of these by name.
        text: Text rows, ``(n, d)``, if ``embeddings`` is image rows.
        options: Options of the layout.
        sphere: Whether to lay out on the sphere instead of the plane.
        lines: Whether to join the pairs.
        captions: Caption of each pair, shown beside the pointer in an interactive figure.
        interactive: Whether to return a plotly figure.

    Returns:
        A matplotlib figure, or a plotly figure if ``interactive``.

    Raises:
        GeomkitError: If the rows are unfit, fewer than 8 pairs, or the modalities differ in
            dimension.

    Example:
        >>> import numpy as np
        >>> x, y = np.random.default_rng(0).standard_normal((2, 50, 8))
        >>> figure = umap(x, y, options=UmapOptions(neighbours=5))  # doctest: +SKIP
    """
    sources = sources_of(embeddings, text)
    if sphere:
        make = partial(umap_sphere, options=options)
        return _on_spheres(sources, make, options.pairs, lines, captions, interactive)
    planes = [umap_plane(one, options, title=name) for name, one in sources.items()]
    if not interactive:
        return plane_row(planes, lines=lines, equal=False, note=NOTE)
    labels = [_labels(one, captions, options.pairs) for one in sources.values()]
    return interactive_planes(planes, labels=labels, lines=lines)


def histograms(embeddings: Any, text: Any = None, *, interactive: bool = False) -> Figure:
    """Draw the densities of cosines: of pairs, of unpaired images and texts, within each modality.

    Where the modality gap is wide, cosines within a modality are larger than those of pairs. Pairs
    are found by retrieval as far as their density lies to the right of the unpaired one. All pairs
    count; of more than 3,000 rows, evenly spaced ones are compared with each other.

    Args:
        embeddings: Image rows, ``(n, d)``; :class:`~geomkit.Embeddings`; a file of embeddings; or
            a dictionary of several of these by name.
        text: Text rows, ``(n, d)``, if ``embeddings`` is image rows.
        interactive: Whether to return a plotly figure.

    Returns:
        A matplotlib figure with a panel for each source, or a plotly figure if ``interactive``.

    Raises:
        GeomkitError: If the rows are unfit or have no pairs, or the modalities differ in dimension.

    Example:
        >>> import numpy as np
        >>> x, y = np.random.default_rng(0).standard_normal((2, 50, 8))
        >>> [line.get_label() for line in histograms(x, y).axes[0].lines]
        ['pairs', 'images', 'texts', 'unpaired']
    """
    panels = cosine_panels(sources_of(embeddings, text))
    if interactive:
        return interactive_panels(panels)
    columns = 1 if len(panels) == 1 else 2
    return small_multiples(panels, across=3, columns=columns, height=2.2, sharex=True)


def sources_of(embeddings: Any, text: Any = None) -> dict[str, Embeddings]:
    """Return embeddings by name, whatever form a user gives them in.

    Args:
        embeddings: What :func:`geomkit.gap` takes, or a dictionary of it by name, with a tuple for
            image and text rows. One source without a name has the empty one.
        text: Text rows, if ``embeddings`` is image rows.

    Raises:
        GeomkitError: If they are unfit, or hold no pairs.
    """
    return _named(embeddings, text, Embeddings, _embeddings)


def _named(
    what: Any, text: Any, kind: type[_T], make: Callable[[tuple[Any, ...]], _T]
) -> dict[str, _T]:
    """Values of one kind by name; what is of no such kind is made one."""

    def one(value: Any, *more: Any) -> _T:
        return value if isinstance(value, kind) and not more else make((value, *more))

    if isinstance(what, Mapping) and not what:
        raise GeomkitError("nothing to draw: expected at least one source")
    if text is None and isinstance(what, Mapping) and any(map(_whole, what.values())):
        titles = short_titles(distinct_names(what))
        found = [one(*v) if _rows(v) else one(v) for v in what.values()]
        return dict(zip(titles, found, strict=True))
    return {"": one(what) if text is None else one(what, text)}


def distinct_names(what: Iterable[object]) -> list[str]:
    """Return the names of sources as they are shown.

    Raises:
        GeomkitError: If two are the same, as those of 1 and "1" are.
    """
    names = [shown(str(name)) for name in what]
    for k, name in enumerate(names):
        if name in names[:k]:
            raise GeomkitError(f"two sources have the name '{name}'; give each a name of its own")
    return names


def _rows(value: Any) -> bool:
    """Whether a value is image and text rows, and not what ``load_source`` returns."""
    return isinstance(value, tuple) and not isinstance(value[0], Embeddings | GapResult)


def _whole(value: Any) -> bool:
    """Whether a value of a dictionary is a source of its own, and no matrix of one modality."""
    return isinstance(value, Embeddings | GapResult | tuple | str | Path | Mapping)


def _embeddings(what: tuple[Any, ...]) -> Embeddings:
    parts = given(*what).parts
    if len(parts) > 1:
        raise GeomkitError(f"{len(parts)} pairs of modalities given; draw one figure for each")
    if not isinstance(parts[0], Embeddings):
        raise GeomkitError(
            "a figure needs pairs: row i of the images belongs to row i of the texts; give as many "
            "texts as images, or Embeddings with an image_index"
        )
    return parts[0]


def _measured(what: tuple[Any, ...], metrics: Sequence[str] | None) -> GapResult:
    found = measure(*what, metrics=SHOWN if metrics is None else metrics)
    if not isinstance(found, GapResult):
        raise GeomkitError(f"{len(found)} pairs of modalities given; draw one figure for each")
    return found


def _run(what: Any) -> TrainedRun | None:
    """The training run, or that of a checkpoint; ``None`` for anything else."""
    if isinstance(what, str | Path):
        kind = find_kind(what)
        return load_run(what) if kind is not None and kind.name == "geomkit" else None
    return what if isinstance(what, TrainedRun) else None


def _on_spheres(
    sources: Mapping[str, Embeddings],
    make: Callable[..., Stage],
    pairs: int,
    lines: bool,
    captions: Sequence[str],
    interactive: bool,
) -> Figure:
    stages = [make(one, title=name) for name, one in sources.items()]
    if not interactive:
        return sphere_row(stages, pairs=pairs, lines=lines, across=4, shared_view=False)
    if len(sources) > 1:
        raise GeomkitError("an interactive sphere shows one source; draw one figure for each")
    (one,) = sources.values()
    beside = [[label] for label in _labels(one, captions, pairs)]
    figure = interactive_sphere(
        stages, captions=beside, pairs=pairs, lines=lines, modalities=one.modalities
    )
    if title := stages[0].title:
        words = {"text": hover_labels([title])[0], "x": 0.5, "font": {"size": 13}}
        figure.update_layout(title=words, margin_t=70)
    return figure


def _labels(one: Embeddings, captions: Sequence[str], pairs: int) -> list[str]:
    """The caption, or else the id, of each pair that is drawn."""
    if captions and len(captions) != one.n:
        raise GeomkitError(f"captions: expected {one.n}, one for each image, got {len(captions)}")
    known = captions or one.ids
    return [known[i] for i in spaced(one.n, pairs)] if known else []
