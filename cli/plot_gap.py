"""``geomkit plot-gap``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import console
from .many import colours, load_all, short_names
from .options import Device, Download, ModelData, ModelSplit, Overwrite, Workers

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from geomkit.reproduce.framework.results import Rows

__all__ = ["plot_gap"]

SHOWN = (
    "centroid_distance,linear_separability,paired_cosine,relative_modality_gap,uniformity,"
    "cross_uniformity,text_retrieval_recall@1,image_retrieval_recall@1"
)


def plot_gap(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Any number of checkpoints, models (with --data) or embeddings, a dot each; or "
            "results.csv files of geomkit reproduce, drawn against the dimension by loss."
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The picture: .png, .pdf or .svg.")
    ] = Path("gap.png"),
    metrics: Annotated[
        str, typer.Option(help="Names or groups, with commas; see geomkit metrics.")
    ] = SHOWN,
    published: Annotated[
        bool, typer.Option("--published", help="For results.csv: the paper's numbers beside them.")
    ] = False,
    data: ModelData = None,
    split: ModelSplit = None,
    seed: Annotated[int, typer.Option(help="Of folds, samples and permutations.")] = 0,
    device: Device = "auto",
    workers: Workers = None,
    download: Download = False,
    overwrite: Overwrite = False,
) -> None:
    """Draw the gap: metrics of sources side by side, or of results against the dimension.

    Dots of sources have 95% intervals over pairs, and beside them stands the value without a gap
    (or without pairing) on these very rows; lines of results have t intervals over seeds.
    """
    from geomkit.errors import GeomkitError
    from geomkit.metrics import select
    from geomkit.plots import check_figure_path, save_figure

    check_figure_path(out, overwrite=overwrite)
    names = select([word.strip() for word in metrics.split(",")])
    if metrics == SHOWN:  # in the order of the figure, which is not that of the table
        names = SHOWN.split(",")
    tables = [source.lower().endswith(".csv") for source in sources]
    if any(tables):
        if not all(tables):
            raise GeomkitError("name results.csv files, or models and embeddings; not both at once")
        for option, value in (("--data", data), ("--split", split)):
            if value is not None:
                raise GeomkitError(f"{option} applies to models, these are results")
        figure = _of_results(sources, names, published)
    elif published:
        raise GeomkitError("--published goes with results.csv, which have a dimension and a loss")
    else:
        from geomkit.metrics import gap
        from geomkit.plots.gap import Measured, side_by_side

        loaded = load_all(
            sources, data=data, split=split, device=device, workers=workers, download=download
        )
        measured = []
        looks = colours([loss for _, _, loss in loaded])
        for (name, embeddings, _), (colour, marker) in zip(loaded, looks, strict=True):
            found = gap(embeddings, metrics=names, seed=seed)
            measured.append(Measured(name, found.metrics, found.stderr, found.null, colour, marker))
            console.line(f"{name}: n={found.n}, d={found.dim}")
        figure = side_by_side(measured, names)
    save_figure(figure, out, overwrite=overwrite)
    typer.echo(out)


def _of_results(sources: list[str], names: list[str], published: bool) -> Figure:
    from dataclasses import replace

    from geomkit.errors import GeomkitError
    from geomkit.reproduce.experiments.figure2 import by_dimension
    from geomkit.reproduce.framework.results import Rows, read_rows
    from geomkit.reproduce.framework.results import published as read_published

    rows = Rows()
    for name, source in zip(short_names(sources), sources, strict=True):
        found = _comparable(read_rows(source), source)
        if len(sources) > 1:
            label = name.removesuffix("/results.csv").removesuffix(".csv")
            found = Rows(replace(row, loss=f"{row.loss}, {label}") for row in found)
        rows += found
    held = set(rows.values("metric"))
    if "uniformity_image" in held:
        held.add("uniformity")
    shown = [name for name in names if name in held]
    if not shown:
        raise GeomkitError(f"{', '.join(sources)}: hold none of {', '.join(names)}")
    theirs = read_published("coco-finetune") if published else None
    return by_dimension(rows, shown, theirs=theirs)


def _comparable(rows: Rows, source: str) -> Rows:
    """The rows that a dimension and a loss tell apart.

    Raises:
        GeomkitError: if there are none.
    """
    from geomkit.errors import GeomkitError

    found = rows.where(lambda row: row.dim > 0 and bool(row.loss), condition="")
    if not found:
        raise GeomkitError(
            f"{source}: no results by dimension and loss alone; name those of figure2, such as "
            "reports/openmoji/figure2/results.csv"
        )
    return found
