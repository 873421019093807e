"""``geomkit plot-sphere``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from geomkit._core.choices import PROJECTIONS
from geomkit.errors import GeomkitError, unknown_name

from . import console
from .many import Drawing, draws, load_all, load_one
from .options import Drawn, ModelOptions, PlotPairs, one_of

if TYPE_CHECKING:
    from geomkit.data import PairData
    from geomkit.plots import Labels

__all__ = ["plot_sphere"]


@draws("sphere.png", animated=True)
def plot_sphere(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            help="Geomkit checkpoints, or any SOURCES: models or embeddings. Default: ckpt.pt."
        ),
    ] = None,
    *,
    stages: int | None = None,
    pairs: PlotPairs = 1000,
    projection: Annotated[str, one_of(*PROJECTIONS)] = "pca",
    drawn: Drawn,
    options: ModelOptions,
) -> Drawing:
    """Draw the stages of training on the sphere; rows with d > 3 on their first three PCs.

    The stages are snapshots that a 3-D checkpoint stores; those of a 2-D one are drawn on circles.
    With --data, --split, --close or another SOURCE, its embeddings are drawn; several SOURCES are
    drawn side by side. A .gif shows all stages one after the other. The page of --html can be
    turned, has a slider over the stages, and shows the image and captions of each point; it needs
    no network.

    Args:
        sources: What to draw.
        stages: Number of stages: 1 to 8 spheres in the row (default: 5), 1 to 60 on the page
            or in a .gif (default: all).
        pairs: Number of pairs.
        projection: How rows of embeddings get to the sphere.
        drawn: Further matrices, and names.
        options: How models become embeddings.

    Examples:
        $ geomkit plot-sphere ckpt.pt --stages 5 --out sphere.pdf
        $ geomkit plot-sphere ckpt.pt --html sphere.html
    """
    from geomkit.extraction.originals import pairs_of_embeddings, pairs_of_run
    from geomkit.plots import (
        MAX_FRAMES,
        UmapOptions,
        project_to_sphere,
        spaced,
        sphere,
        sphere_page,
        sphere_row,
        training_frames,
        training_stages,
        umap_sphere,
    )
    from geomkit.sources import run_of

    if projection not in PROJECTIONS:
        raise unknown_name("projection", projection, PROJECTIONS)
    matrices = drawn.image is not None or drawn.text is not None
    if not (sources or matrices):
        sources = ["ckpt.pt"]
    if len(sources or []) + matrices > 1:
        if stages is not None:
            raise GeomkitError("--stages shows one training run; name one checkpoint")
        loaded = load_all(sources, options, drawn)
        return Drawing(lambda: sphere(loaded, projection=projection, pairs=pairs))
    source = sources[0] if sources else ""
    others = (options.data, options.split, options.close)
    run = run_of(source) if source and others == (None,) * 3 else None
    name = drawn.labels or (Path(source).name if source else str(drawn.image))

    def page_of_run() -> str:
        assert run is not None
        count, notes = MAX_FRAMES if stages is None else stages, []
        if count < len(run.snapshots):
            notes.append(f"{count} of {len(run.snapshots)} stages")
        trust = options.trust_data
        labels = _labels(name, notes, lambda: pairs_of_run(run, source, pairs, trust=trust))
        title = drawn.labels or f"{run.loss}, {run.data.get('split', 'train')} split"
        shown = training_stages(run, count, most=MAX_FRAMES)
        return sphere_page(shown, title=title, labels=labels, notes=notes, pairs=pairs)

    if run is not None and run.snapshots and projection == "pca":
        shown = 5 if stages is None else stages
        return Drawing(
            lambda: sphere_row(training_stages(run, shown), pairs=pairs),
            page_of_run,
            lambda: training_frames(run, MAX_FRAMES if stages is None else stages),
        )
    if stages is not None:
        raise GeomkitError("--stages shows a 2-D or 3-D training run; these are embeddings")
    if matrices:
        (embeddings,), split = load_all(None, options, drawn).values(), None
    else:
        embeddings, split = load_one(source, options)
    what = run.loss if run is not None and not drawn.labels else name
    count = f"n={embeddings.n:,}"
    if pairs < embeddings.n:
        count = f"{pairs:,} of {embeddings.n:,} pairs"
    title = f"{what}, {split} split, {count}" if split else f"{what}, {count}"
    some = embeddings.subset(spaced(embeddings.n, pairs))
    if projection == "umap":
        stage = umap_sphere(some, UmapOptions(pairs=pairs), title=f"{title}\nUMAP")
    else:
        stage = project_to_sphere(embeddings, title=title, pairs=pairs)

    def page() -> str:
        notes = [*embeddings.meta.get("notes", ())]

        def found() -> PairData:
            data, said = pairs_of_embeddings(some, split, some.n)
            notes.extend(said)
            console.notes(source, said)
            return data

        labels = _labels(name, notes, found, some.ids)
        return sphere_page(
            [stage], title=title, labels=labels, notes=notes, pairs=pairs,
            modalities=embeddings.modalities,
        )  # fmt: skip

    return Drawing(lambda: sphere_row([stage], pairs=pairs), page)


def _labels(
    name: str, notes: list[str], find: Callable[[], PairData], ids: tuple[str, ...] = ()
) -> Labels:
    """Captions and images; where they are not to be had, the ids, and a note that says why."""
    from geomkit.plots import Labels

    try:
        return Labels.of(find())
    except GeomkitError as error:
        notes.append(f"no captions and images: {error}")
        console.line(f"{name}: {notes[-1]}")
        return Labels(ids=ids)
