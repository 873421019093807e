"""Figures of multimodal arithmetic: scores against λ, confusions, pictures asked for and found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from geomkit.errors import GeomkitError
from geomkit.reproduce.experiments.tasks import dots, slant
from geomkit.reproduce.framework.common import LOSSES, dot_of
from geomkit.reproduce.framework.results import Rows, published

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["confusion", "curves", "examples"]

_SHORT = {"another emoji": "other emoji"}


def _short(value: str) -> str:
    return _SHORT.get(value, value.removesuffix(" skin tone"))


def curves(rows: Rows, *, dim: int) -> Figure:
    """Score against λ by words and by names, by the value asked for, and the paper's SIMAT.

    Args:
        rows: the experiment's.
        dim: of the models drawn.

    Raises:
        GeomkitError: if there is nothing to draw.
    """
    from geomkit.plots.style import panel, panels, style

    ours = rows.where(dim=dim)
    figure, axes = panels(2, 2, columns=2, height=4.3)
    words, names, values, simat = axes.flat
    with style():
        chance = rows.where(metric="chance", of="acc1")
        top = 0.0
        for place, kind in ((words, "words"), (names, "names")):
            found = ours.where(metric="acc1", difference=kind)
            top = max(top, _against_lambda(place, found, chance[0].value if chance else None))
            panel(
                place,
                title=f"Difference of {'the two words' if kind == 'words' else 'whole names'}",
                x="λ, weight of the texts' difference",
                y="Right answers (0 to 1)",
                grid="y",
            )
        for place in (words, names):
            place.set_ylim(0.0, min(1.0, 1.1 * top) if top else 1.0)
        asked = rows.values("asked")
        asked = [value for value in asked if value]
        series = {
            loss: [dot_of(ours.where(metric="acc1_value", loss=loss, asked=v)) for v in asked]
            for loss in LOSSES
        }
        dots(values, [_short(v.partition(": ")[2]) for v in asked], series)
        panel(
            values, title="By what is asked for, words, λ = 1", y="Right answers (0 to 1)", grid="y"
        )
        slant(values)
        values.set_ylim(bottom=0.0)
        _simat(simat, ours)
        handles = words.get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower center", ncols=4, fontsize=7.5)
    return figure


def _against_lambda(axes: Axes, rows: Rows, chance: float | None) -> float:
    """Lines with bands over seeds; the highest value drawn."""
    from geomkit.plots.style import INK, loss_colour, loss_marker

    if not rows:
        raise GeomkitError("nothing to draw: no scores of arithmetic among the rows")
    top = 0.0
    strengths = sorted(rows.values("lambda"), key=float)
    x = np.array([float(s) for s in strengths])
    for loss in rows.values("loss"):
        found = [dot_of(rows.where(loss=loss, **{"lambda": s})) for s in strengths]
        value, low, high = (
            np.array([getattr(d, k) if d else np.nan for d in found])
            for k in ("value", "low", "high")
        )
        colour = loss_colour(loss)
        axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.plot(x, value, color=colour, marker=loss_marker(loss), ms=3.5, label=loss)
        top = max(top, float(np.nanmax(np.concatenate([value, high]))))
    if chance is not None:
        axes.axhline(
            chance, color=INK, linewidth=0.8, linestyle=(0, (3, 2)), label="chance", zorder=1
        )
    axes.axvline(1.0, color="#bbbbbb", linewidth=0.7, zorder=0)
    return top


def _simat(axes: Axes, ours: Rows) -> None:
    """The paper's scores by dimension, and ours where SIMAT was given."""
    from geomkit.plots.style import panel

    theirs = published("simat")
    dims = sorted(theirs.values("dim"))
    names = [f"paper\nd = {d}" for d in dims]
    series = {
        loss: [dot_of(theirs.where(loss=loss, dim=d), most=100.0) for d in dims] for loss in LOSSES
    }
    dots(axes, names, series, hollow=True)
    main: dict[str, Any] = {"metric": "simat_score", "lambda": "1"}
    scores = ours.where(**main)
    if scores:
        blank = [None] * len(dims)
        own = {loss: [*blank, dot_of(scores.where(loss=loss), most=100.0)] for loss in LOSSES}
        dots(axes, [*names, f"ours\nd = {scores[0].dim}"], own)
    panel(axes, title="SIMAT, dev", y="SIMAT score (0 to 100%)", grid="y")


def confusion(rows: Rows, *, attribute: str = "skin_tone") -> Figure:
    """What was found when a value was asked for, a panel a loss, mean over seeds.

    Args:
        rows: the experiment's.
        attribute: of the queries.

    Raises:
        GeomkitError: if there is nothing to draw.
    """
    from geomkit.plots.style import INK, panels, style

    chosen = rows.where(metric="taken_for", attribute=attribute)
    if not chosen:
        raise GeomkitError(f"nothing to draw: no confusions of {attribute} among the rows")
    losses = [loss for loss in LOSSES if chosen.where(loss=loss)]
    wanted, found = chosen.values("wanted"), chosen.values("found")
    figure, axes = panels(1, len(losses), columns=2, height=2.6, sharey=True)
    with style():
        for k, (place, loss) in enumerate(zip(axes.flat, losses, strict=True)):
            mine = chosen.where(loss=loss)
            table = np.array(
                [
                    [np.mean([r.value for r in mine.where(wanted=w, found=f)]) for f in found]
                    for w in wanted
                ]
            )
            image = place.imshow(table, vmin=0.0, vmax=1.0, cmap="Greys", aspect="auto")
            for (i, j), share in np.ndenumerate(table):
                colour = "white" if share > 0.55 else INK
                place.text(j, i, _share(share), ha="center", va="center", fontsize=7, color=colour)
            place.set_title(loss, fontsize=8, pad=4)
            place.set_xticks(range(len(found)), [_short(f) for f in found])
            slant(place, 40.0)
            place.set_yticks(range(len(wanted)), [_short(w) for w in wanted])
            if not k:
                place.set_ylabel("Asked for", fontsize=8, labelpad=2)
            place.tick_params(length=0)
            # What is no variant of the emoji at all stands apart.
            place.axvline(len(found) - 1.5, color="white", linewidth=2.5)
        figure.supxlabel("Found: the same emoji in this skin tone, or another emoji", fontsize=8)
        bar = figure.colorbar(image, ax=list(axes.flat), fraction=0.03, pad=0.01)
        bar.set_label("Share of answers (0 to 1)", fontsize=8)
        bar.ax.tick_params(labelsize=7, length=2)
    return figure


def _share(share: float) -> str:
    return f"{share:.2f}".removeprefix("0") if share < 0.995 else "1"


def examples(found: Sequence[dict[str, Any]], *, title: str = "", size: int = 96) -> Figure:
    """Pictures: where queries start, the words, what was found and, if it is another, wanted.

    Args:
        found: examples as :class:`~geomkit.tasks.result.ArithmeticResult` writes
            them.
        title: whose answers these are.
        size: of the pictures, px.

    Raises:
        GeomkitError: without examples.
    """
    from geomkit.data import load_data
    from geomkit.plots.style import INK, figure, style

    if not found:
        raise GeomkitError("nothing to draw: no examples")
    data = load_data("openmoji,skin_tones=true", split="all", size=size)
    row = {code: i for i, code in enumerate(data.ids)}
    halves = [[e for e in found if e["margin"] > 0], [e for e in found if e["margin"] <= 0]]
    lines = max(map(len, halves))
    made = figure(columns=2, height=0.66 * lines + 0.75)
    made.set_layout_engine("none")
    wide, tall = made.get_size_inches()
    side = 0.54
    columns = {"source": 0.05, "retrieved": 1.9, "wanted": 2.65}
    with style():
        for half, (left, heading) in enumerate(
            ((0.05, "Clearest successes"), (3.55, "Worst failures"))
        ):
            top = tall - 0.12
            made.text(left / wide, top / tall, heading, fontsize=8, va="top", weight="bold")
            for name, place in columns.items():
                label = {"source": "from", "retrieved": "found", "wanted": "wanted"}[name]
                if half or name != "wanted":
                    x = (left + place + side / 2) / wide
                    made.text(x, (top - 0.2) / tall, label, fontsize=7, ha="center", va="top")
            for k, example in enumerate(halves[half]):
                bottom = top - 0.38 - (k + 1) * 0.64
                for name, place in columns.items():
                    if name == "wanted" and not half:
                        continue
                    box = ((left + place) / wide, bottom / tall, side / wide, side / tall)
                    axes = made.add_axes(box)
                    axes.imshow(data.pixels([row[example[name]]])[0])
                    axes.set_axis_off()
                away, added = (_short(word) for word in example["words"])
                middle = left + (columns["source"] + side + columns["retrieved"]) / 2
                for text, rise in ((f"− {away}", 0.34), (f"+ {added}", 0.16)):
                    x, y = middle / wide, (bottom + rise) / tall
                    made.text(x, y, text, fontsize=7.5, ha="center", color=INK)
        foot = f"{title}. {data.attribution}" if title else data.attribution
        made.text(0.5, 0.05 / tall, foot, ha="center", va="bottom", fontsize=6, color=INK)
    return made
