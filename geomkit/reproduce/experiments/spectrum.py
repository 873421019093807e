"""Explained variance of every loss and dimension: whether the clouds fill the space they have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from geomkit._core.array import to_numpy
from geomkit.embeddings.embeddings import Embeddings
from geomkit.metrics import explained_variance_with_error
from geomkit.plots.multiples import Series
from geomkit.plots.spectra import cumulative_figure
from geomkit.plots.style import loss_colour
from geomkit.reproduce.framework.cells import LOSSES, MATTERS, main_grid
from geomkit.reproduce.framework.claims import Claim, Comparison, above, below, contrast, equivalent
from geomkit.reproduce.framework.experiment import Cell, Context, Experiment
from geomkit.reproduce.framework.figures import series_of
from geomkit.reproduce.framework.measuring import each_cell, measured
from geomkit.reproduce.framework.results import Row, Rows, published, rows_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


__all__ = ["EXPERIMENT"]

SIDES = ("image", "text")
SCALARS = tuple(
    f"{name}_{side}"
    for name in ("components_to_80", "components_to_90", "effective_rank", "participation_ratio")
    for side in SIDES
)
SAME = 0.02
"""Areas under the curve that differ by less are the same: the paper's of clip and cua differ by
0.001 and 0.000, of clip and cuaxu by 0.054."""


def spectrum_rows(cell: Cell, embeddings: Embeddings) -> Rows:
    """The whole curve of both modalities, a row a component, and the areas under them."""
    rows = Rows()
    for side, found in zip(SIDES, embeddings.pairs(), strict=True):
        values, errors, area, error = explained_variance_with_error(to_numpy(found[:]))
        names = [f"cumulative_variance@{k}_{side}" for k in range(1, len(values) + 1)]
        names.append(f"explained_variance_auc_{side}")
        numbers = dict(zip(names, map(float, [*values, area]), strict=True))
        stderr = dict(zip(names, map(float, [*errors, error]), strict=True))
        rows += rows_of("spectrum", cell.config, "val", numbers, stderr)
    return rows


def _of_cell(cell: Cell, context: Context) -> Rows:
    curve = spectrum_rows(cell, context.embeddings(cell, "val"))
    return Rows(curve + measured("spectrum", cell, context, metrics=SCALARS))


def _curve(rows: Rows, side: str, name: str, **look: Any) -> Series:
    """The curve of rows of one loss and dimension, with intervals over seeds or pairs."""

    def component(row: Row) -> float:
        return float(row.metric.partition("@")[2].removesuffix(f"_{side}"))

    chosen = rows.where(
        lambda row: row.metric.startswith("cumulative_variance@") and row.metric.endswith(side)
    )
    return series_of(chosen, component, name=name, ends=(0, 1), **look)


def _draw(rows: Rows, context: Context) -> dict[str, Figure]:
    dims = rows.values("dim")
    dim = 128 if 128 in dims else max(dims)
    return {"spectrum": by_loss(rows, dim=dim), "spectrum-dimension": by_dimension(rows)}


def by_loss(rows: Rows, *, dim: int = 128) -> Figure:
    """Return the curves of images and of texts, one per loss, with the paper's points."""
    here, paper = rows.where(dim=dim), published("pca").where(dim=dim)
    shown = {}
    for side in SIDES:
        curves = []
        for loss in here.values("loss"):
            colour = loss_colour(loss)
            curves.append(_curve(here.where(loss=loss), side, loss, colour=colour))
            points = {row.metric: row.value for row in paper.where(loss=loss)}
            marks = [
                (x, y)
                for x, y in (
                    (8, points.get(f"cumulative_variance@8_{side}")),
                    (points.get(f"components_to_80_{side}"), 0.8),
                )
                if x is not None and y is not None and x <= dim
            ]
            if marks:
                curves.append(
                    Series.through(marks, colour=colour, marker="o", line="", published=True)
                )
        shown[f"{side.capitalize()}s, d = {dim}"] = curves
    return cumulative_figure(shown, published="paper, at 8 components and at 80%")


def by_dimension(rows: Rows) -> Figure:
    """Return a panel per dimension: losses in their colours, images solid and texts dashed."""
    shown = {
        f"d = {dim}": [
            _curve(rows.where(dim=dim, loss=loss), side, f"{loss}, {side}s", line=line,
                   colour=loss_colour(loss))
            for loss in rows.where(dim=dim).values("loss")
            for side, line in zip(SIDES, ("-", "--"), strict=True)
        ]
        for dim in sorted(rows.values("dim"))
    }  # fmt: skip
    return cumulative_figure(shown, across=3)


def _paper(metric: str, loss: str) -> str:
    found = published("pca").where(metric=metric)
    return f"{found.one(loss='clip').value:g} to {found.one(loss=loss).value:g}"


def _claim(
    text: str, test: Comparison, metric: str, loss: str, limit: float = 0.0, persists: bool = False
) -> Claim:
    """A claim on both modalities' difference from clip at d = 128."""
    return Claim(
        f"At d = 128 {text}",
        ", ".join(f"{side}s {_paper(f'{metric}_{side}', loss)}" for side in SIDES),
        [test(contrast(loss, "clip", metric=f"{metric}_{side}", dim=128), limit,
              f"{loss} − clip, {side}s", *([] if test is equivalent else [MATTERS[metric]]))
         for side in SIDES],
        persists=persists,
    )  # fmt: skip


_FIRST = "the first 8 components hold less of the variance under {0} than under clip"

EXPERIMENT = Experiment(
    name="spectrum",
    title="Explained variance by loss and dimension",
    question="Do the added terms spread the variance of each cloud over more of the dimensions it "
    "has?",
    cells=main_grid,
    measure=each_cell(main_grid, _of_cell),
    of_cell=_of_cell,
    draw=_draw,
    order=3,
    claims=(
        _claim(_FIRST.format("cua"), below, "cumulative_variance@8", "cua"),
        _claim(_FIRST.format("cuaxu"), below, "cumulative_variance@8", "cuaxu"),
        _claim("the area under cuaxu's curve is smaller than under clip's: more even a spectrum",
               below, "explained_variance_auc", "cuaxu"),
        _claim(f"the area under cua's curve is that of clip's, to within {SAME:g}",
               equivalent, "explained_variance_auc", "cua", limit=SAME, persists=True),
        _claim("cuaxu needs more components than clip for 80% of the variance",
               above, "components_to_80", "cuaxu"),
    ),
    seconds=lambda options: 0.15 * len(main_grid(options)),
    sequential=True,
    beside=True,
    published="pca",
    captions={
        "spectrum": "Cumulative explained variance of images and of texts at the largest "
        "dimension; circles are the paper's",
        "spectrum-dimension": "The same at each dimension; the diagonal is a spectrum that is even",
    },
    notes="Principal components are of each modality, centred. Bands are t intervals at 95% over "
    "seeds; of a single seed they come from a jackknife over groups of pairs. Circles are the "
    "paper's, of one seed: the share of the first 8 components, and the components to 80%. The "
    f"losses are {', '.join(LOSSES)}; the cells are those of figure 2.",
)  # fmt: skip
