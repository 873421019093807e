"""``geomkit plot-gap``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from geomkit._core.choices import SHOWN
from geomkit._core.shown import shown
from geomkit.errors import GeomkitError

from . import console
from .many import Figure, draws, load_all, short_names
from .options import Drawn, ModelOptions

if TYPE_CHECKING:
    from geomkit.reproduce.framework.results import Rows

__all__ = ["plot_gap"]

_DEFAULT = ",".join(SHOWN)


@draws("gap.png")
def plot_gap(
    sources: list[str] | None = None,
    *,
    metrics: Annotated[
        str, typer.Option(show_default="eight of gap, spread, retrieval")
    ] = _DEFAULT,
    published: bool = False,
    seed: int = 0,
    drawn: Drawn,
    options: ModelOptions,
) -> Figure:
    """Draw the modality gap: metrics of sources side by side, or results against the dimension.

    Dots of sources have 95% intervals over pairs; a grey bar is the value without a gap, or without
    pairing, on the same rows. Lines of results have t intervals over seeds.

    Args:
        sources: Checkpoints, models (with --data) or embeddings, a dot each; or results.csv files
            of geomkit reproduce, drawn against the dimension by loss.
        metrics: Names or groups, with commas; see geomkit metrics.
        published: For results.csv: add the paper's numbers.
        seed: Random seed of folds, samples and permutations.
        drawn: Further matrices, and names.
        options: How models become embeddings.

    Examples:
        $ geomkit plot-gap clip.pt cua.pt
        $ geomkit plot-gap reports/openmoji/figure2/results.csv --published
    """
    from geomkit.metrics import gap, select
    from geomkit.plots import gap as draw

    names = select([word.strip() for word in metrics.split(",")])
    if metrics == _DEFAULT:
        names = list(SHOWN)
    sources = sources or []
    tables = [source.lower().endswith(".csv") for source in sources]
    if any(tables):
        if not all(tables):
            raise GeomkitError("name results.csv files, or models and embeddings; not both at once")
        given = {"--data": options.data, "--split": options.split, "--close": options.close,
                 "--image": drawn.image, "--labels": drawn.labels}  # fmt: skip
        for option, value in given.items():
            if value is not None:
                raise GeomkitError(f"{option} applies to models, these are results")
        return _of_results(sources, names, published)
    if published:
        raise GeomkitError("--published needs results.csv files, with a dimension and a loss")
    results = {}
    for name, embeddings in load_all(sources, options, drawn).items():
        results[name] = gap(embeddings, metrics=names, seed=seed)
        console.line(f"{name}: n={results[name].n}, d={results[name].dim}")
    return draw(results, metrics=names)


def _of_results(sources: list[str], names: list[str], published: bool) -> Figure:
    from dataclasses import replace

    from geomkit.reproduce.framework.figures import by_dimension
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
    paper = read_published("coco-finetune") if published else None
    return by_dimension(rows, shown, published=paper)


def _comparable(rows: Rows, source: str) -> Rows:
    """The rows with a dimension and a loss.

    Raises:
        GeomkitError: If there are none.
    """
    from dataclasses import replace

    from geomkit.reproduce.framework.results import Rows

    found = rows.where(lambda row: row.dim > 0 and bool(row.loss), condition="")
    if not found:
        raise GeomkitError(
            f"{source}: no results by dimension and loss alone; name those of figure2, such as "
            "reports/openmoji/figure2/results.csv"
        )
    return Rows(replace(row, loss=shown(row.loss)) for row in found)
