"""Figures of multimodal arithmetic: scores against λ, confusions, pictures asked for and found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from geomkit.errors import GeomkitError
from geomkit.plots.heatmap import colour_bar, heat_map
from geomkit.plots.multiples import DASHED, Panel, Series, slant, small_multiples
from geomkit.plots.style import INK, axes_grid, figure, label, style
from geomkit.reproduce.framework.figures import by_loss
from geomkit.reproduce.framework.results import Rows, published

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["confusion", "curves", "examples"]

_SHORT = {"another emoji": "other emoji"}
_SCORE = "Right answers (0 to 1)"


def _short(value: str) -> str:
    return _SHORT.get(value, value.removesuffix(" skin tone"))


def curves(rows: Rows, *, dim: int) -> Figure:
    """Return the score against λ by words and by names, by value asked for, and the paper's SIMAT.

    Args:
        rows: Rows of the experiment.
        dim: Dimension of the models drawn.

    Raises:
        GeomkitError: If there are no scores.
    """
    own = rows.where(dim=dim)
    chance = [row.value for row in rows.where(metric="chance", of="acc1")[:1]]
    lines = {
        kind: by_loss(own.where(difference=kind), "acc1", "lambda", ends=(0, 1))
        for kind in ("words", "names")
    }
    if not all(lines.values()):
        raise GeomkitError("nothing to draw: no scores of arithmetic among the rows")
    highest = max(np.nanmax([s.value, s.high]) for found in lines.values() for s in found)
    titles = {"words": "Difference of the two words", "names": "Difference of whole names"}
    against = [
        Panel(
            [*found, *(Series("chance", [0, 2], [level] * 2, line=DASHED, width=0.8)
                       for level in chance)],
            titles[kind], "λ, weight of the texts' difference", _SCORE, bands=True, grid="y",
            limits=(0.0, min(1.0, 1.1 * highest)),
        )
        for kind, found in lines.items()
    ]  # fmt: skip
    asked = [value for value in rows.values("asked") if value]
    values = Panel(
        by_loss(own, "acc1_value", lambda row: asked.index(row.conditions["asked"]), line="",
                ends=(0, 1)),
        "By what is asked for, words, λ = 1", "", _SCORE, dodge=True, grid="y", limits=(0.0, None),
        categories=[_short(value.partition(": ")[2]) for value in asked],
    )  # fmt: skip
    made = small_multiples([*against, values, _simat(own)], across=2, columns=2, height=1.95)
    for axes in made.axes[:2]:
        axes.axvline(1.0, color="#bbbbbb", linewidth=0.7, zorder=0)
    return made


def _simat(own: Rows) -> Panel:
    """The paper's scores by dimension, and geomkit's where SIMAT was given."""
    paper = Rows(replace(row, metric="simat_score") for row in published("simat"))
    dims = sorted(paper.values("dim"))
    names = [f"paper\nd = {d}" for d in dims]
    look: dict[str, Any] = {"line": "", "ends": (0, 100)}
    series = by_loss(paper, "simat_score", lambda row: dims.index(row.dim), published=True, **look)
    scores = own.where(metric="simat_score", **{"lambda": "1"})
    if scores:
        series += by_loss(scores, "simat_score", lambda row: len(dims), **look)
        names.append(f"geomkit\nd = {scores[0].dim}")
    return Panel(series, "SIMAT, dev", "", "SIMAT score (0 to 100%)", categories=names,
                 dodge=True, grid="y")  # fmt: skip


def confusion(rows: Rows, *, attribute: str = "skin_tone") -> Figure:
    """Return what was found when a value was asked for, a map per loss, mean over seeds.

    Args:
        rows: Rows of the experiment.
        attribute: Attribute of the queries.

    Raises:
        GeomkitError: If there is nothing to draw.
    """
    chosen = rows.where(metric="taken_for", attribute=attribute)
    if not chosen:
        raise GeomkitError(f"nothing to draw: no confusions of {attribute} among the rows")
    losses = chosen.values("loss")
    wanted, found = chosen.values("wanted"), chosen.values("found")
    made, axes = axes_grid(len(losses), len(losses), height=2.6, sharey=True)
    with style():
        for place, loss in zip(axes, losses, strict=True):
            mine = chosen.where(loss=loss)
            table = [
                [np.mean([r.value for r in mine.where(wanted=w, found=f)]) for f in found]
                for w in wanted
            ]
            image = heat_map(
                place, np.array(table), across=[_short(f) for f in found],
                down=[_short(w) for w in wanted], ends=(0.0, 1.0), colours="Greys", text=_share,
            )  # fmt: skip
            slant(place, 40.0)
            label(place, title=loss)
            # What is no variant of the emoji at all stands apart.
            place.axvline(len(found) - 1.5, color="white", linewidth=2.5)
        label(axes[0], y="Asked for")
        made.supxlabel("Found: the same emoji in this skin tone, or another emoji", fontsize=8)
        colour_bar(made, image, axes, "Share of answers (0 to 1)")
    return made


def _share(share: float) -> str:
    return f"{share:.2f}".removeprefix("0") if share < 0.995 else "1"


def examples(found: Sequence[dict[str, Any]], *, title: str = "", size: int = 96) -> Figure:
    """Return images: where queries start, the words, what was found and, if not that, wanted.

    Args:
        found: Examples as :class:`~geomkit.tasks.result.ArithmeticResult` writes them.
        title: Name of the model that answered.
        size: Side of the images in pixels.

    Raises:
        GeomkitError: If there are no examples.
    """
    from geomkit.data import load_data

    if not found:
        raise GeomkitError("nothing to draw: no examples")
    data = load_data("openmoji,skin_tones=true", split="all", size=size)
    row = {code: i for i, code in enumerate(data.ids)}
    columns = {"source": ("from", 0.05), "retrieved": ("found", 1.9), "wanted": ("wanted", 2.65)}
    halves = (
        (0.05, "Clearest successes", list(columns)[:2], [e for e in found if e["margin"] > 0]),
        (3.55, "Worst failures", list(columns), [e for e in found if e["margin"] <= 0]),
    )
    made = figure(columns=2, height=0.66 * max(len(half[-1]) for half in halves) + 0.75)
    made.set_layout_engine("none")
    wide, tall = made.get_size_inches()
    side, top = 0.54, tall - 0.12

    def say(x: float, y: float, words: str, size: float = 7.5, **look: Any) -> None:
        made.text(x / wide, y / tall, words, fontsize=size, color=INK, **{"ha": "center"} | look)

    with style():
        for left, heading, shown, chosen in halves:
            say(left, top, heading, 8, ha="left", va="top", weight="bold")
            for words, place in (columns[name] for name in shown):
                say(left + place + side / 2, top - 0.2, words, 7, va="top")
            for k, example in enumerate(chosen):
                bottom = top - 0.38 - (k + 1) * 0.64
                for name in shown:
                    place = left + columns[name][1]
                    box = (place / wide, bottom / tall, side / wide, side / tall)
                    axes = made.add_axes(box)
                    axes.imshow(data.pixels([row[example[name]]])[0])
                    axes.set_axis_off()
                away, added = (_short(word) for word in example["words"])
                middle = left + (columns["source"][1] + side + columns["retrieved"][1]) / 2
                say(middle, bottom + 0.34, f"− {away}")
                say(middle, bottom + 0.16, f"+ {added}")
        foot = f"{title}. {data.attribution}" if title else data.attribution
        say(wide / 2, 0.05, foot, 6, va="bottom")
    return made
