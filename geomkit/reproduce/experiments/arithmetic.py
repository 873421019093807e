"""Multimodal arithmetic: does a smaller gap make sums of images and texts work better?

The paper's data set is SIMAT, whose files a user supplies. OpenMoji has queries of the same kind:
an emoji moved from one skin tone to another, from man to woman, from one colour to another, with
one right answer among all images. Nine such relations count alike in the score.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from geomkit._core.files import atomic_write
from geomkit.data import parse_spec
from geomkit.data.openmoji import ATTRIBUTION, picture
from geomkit.data.pairs import LeftOut
from geomkit.data.relations import LEAST, MEAN
from geomkit.errors import GeomkitError
from geomkit.plots.heatmap import colour_bar, heat_map
from geomkit.plots.multiples import DASHED, Panel, Series, slant, small_multiples
from geomkit.plots.style import INK, axes_grid, figure, label, style
from geomkit.reproduce.framework import measuring
from geomkit.reproduce.framework.cells import LOSSES, MATTERS, main_grid
from geomkit.reproduce.framework.claims import Claim, Verdict, above, contrast
from geomkit.reproduce.framework.experiment import Cell, Context, Experiment, Options
from geomkit.reproduce.framework.figures import by_loss
from geomkit.reproduce.framework.measuring import cell_model, each_cell, kept, openmoji_with
from geomkit.reproduce.framework.results import Rows, data_rows, published, rows_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from geomkit.tasks.result import ArithmeticResult

__all__ = ["EXPERIMENT", "STRENGTHS"]

NAME = "arithmetic"
DIM = 128
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)
SHOWN = "cua"
"""Loss whose answers are shown as images."""
MAIN = 1.0
"""λ of the paper."""
MOST_SHOWN = 5
"""Values of a relation whose confusions are kept."""
_SHORT = {"another emoji": "other emoji"}
_SCORE = "Right answers (0 to 1)"
_MEAN_SCORE = "Mean of relations (0 to 1)"


def _cells(options: Options) -> list[Cell]:
    data = openmoji_with(options, skin_tones=True, hold_out="relations")
    return main_grid(options, losses=LOSSES, dims=(DIM,), data=data)


def _queries(options: Options) -> tuple[str, str]:
    """DATA spec and split of the queries: single images of OpenMoji that are held out.

    For models that were trained on other data, all emoji are held out.
    """
    if parse_spec(options.data)[0] != "openmoji":
        return "openmoji", "all"
    return openmoji_with(options, skin_tones=True, hold_out="relations", n=None), "val"


def _of_cell(cell: Cell, context: Context) -> Rows:
    context.say(f"adding words to pictures with {cell.label}")
    rows = kept(context, cell.key, partial(_openmoji, cell, context))
    if context.options.simat is not None:
        rows += kept(context, f"{cell.key}-simat", partial(_simat, cell, context))
    return rows


def _openmoji(cell: Cell, context: Context) -> Rows:
    from geomkit.tasks.arithmetic import DIFFERENCES, arithmetic

    spec, split = _queries(context.options)
    results = arithmetic(
        cell_model(context, cell), spec, split=split, strengths=STRENGTHS,
        differences=DIFFERENCES, **measuring.running_on(context.options),
    )  # fmt: skip
    for some in results[0].meta.get("left_out", ()):
        context.say(f"left out: {LeftOut(**some)}")
    rows = Rows()
    for result in results:
        rows += _scores(cell, result, f"difference={result.difference};")
        if result.strength == MAIN:
            norm = {"difference_norm": result.meta["difference_norm"]}
            condition = f"difference={result.difference};lambda={MAIN:g}"
            rows += rows_of(NAME, cell.config, result.split, norm, condition=condition)
        if result.strength == MAIN and result.difference == "words":
            rows += _details(cell, result)
            _keep_examples(cell, result, context)
    return rows


def _simat(cell: Cell, context: Context) -> Rows:
    from geomkit.tasks.simat import simat

    options = context.options
    assert options.simat is not None
    results = simat(
        cell_model(context, cell), options.simat, strengths=STRENGTHS, workers=options.workers,
        **measuring.running_on(options),
    )  # fmt: skip
    return Rows(row for result in results for row in _scores(cell, result, ""))


def _scores(cell: Cell, result: ArithmeticResult, before: str) -> Rows:
    c, when = cell.config, f"{before}lambda={result.strength:g}"
    rows = Rows()
    for metric, value in result.metrics.items():
        main = result.strength == MAIN and result.difference == "words"
        if metric.startswith("acc1_"):
            if not main:
                continue  # the course over λ is that of the mean, and of all queries
            rows += rows_of(NAME, c, result.split, {metric: value}, result.stderr)
        else:
            rows += rows_of(NAME, c, result.split, {metric: value}, result.stderr, when)
        if main:
            counts = {"chance": result.chance[metric], "queries": float(result.counts[metric])}
            rows += data_rows(NAME, c, result.split, counts, f"of={metric}")
    return rows


def _details(cell: Cell, result: ArithmeticResult) -> Rows:
    of_cell = partial(rows_of, NAME, cell.config, result.split)
    rows = Rows()
    for name, part in result.per_value.items():
        metric = f"acc1_value@{name}"
        rows += of_cell({metric: part.value}, {metric: part.stderr})
    for attribute, table in result.taken_for.items():
        if len(table) > MOST_SHOWN:
            continue  # sixteen roles are 272 shares; acc1_value says how each fares
        for wanted, found in table.items():
            for name, share in found.items():
                condition = f"attribute={attribute};found={name};wanted={wanted}"
                rows += of_cell({f"taken_for@{wanted}": share}, condition=condition)
    return rows


def _keep_examples(cell: Cell, result: ArithmeticResult, context: Context) -> None:
    """Write the examples of one model, for the figure of images."""
    c = cell.config
    if c.loss == SHOWN and c.seed == context.options.used_seeds[0]:
        with atomic_write(context.folder / "examples.json", overwrite=True) as file:
            file.write(json.dumps(result.to_json()["examples"], indent=1).encode())


def _draw(rows: Rows, context: Context) -> dict[str, Figure]:
    figures = {"arithmetic": curves(rows, dim=DIM), "arithmetic-confusion": confusion(rows)}
    seed = context.options.used_seeds[0]
    path = context.folder / "examples.json"
    if path.exists() and (found := json.loads(path.read_text("utf-8"))):
        title = f"{SHOWN}, d = {DIM}, seed {seed}"
        figures["arithmetic-examples"] = examples(found, title=title)
    return figures


def _short(value: str) -> str:
    return _SHORT.get(value, value.removesuffix(" skin tone"))


def curves(rows: Rows, *, dim: int) -> Figure:
    """Return the score against λ by words and by names, by relation, and the paper's SIMAT.

    Args:
        rows: Rows of the experiment.
        dim: Dimension of the models drawn.

    Raises:
        GeomkitError: If there are no scores.
    """
    own = rows.where(dim=dim)
    chance = [row.value for row in rows.where(metric="chance", of=MEAN)[:1]]
    lines = {
        kind: by_loss(own.where(difference=kind), MEAN, "lambda", ends=(0, 1))
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
            titles[kind], "λ, weight of the texts' difference", _MEAN_SCORE, bands=True, grid="y",
            limits=(0.0, min(1.0, 1.1 * highest)),
        )
        for kind, found in lines.items()
    ]  # fmt: skip
    made = small_multiples(
        [*against, _relations(own, chance), _simat_panel(own)], across=2, columns=2, height=1.95
    )
    for axes in made.axes[:2]:
        axes.axvline(1.0, color="#bbbbbb", linewidth=0.7, zorder=0)
    return made


def _relations(own: Rows, chance: Sequence[float]) -> Panel:
    """The score of each relation by words at λ = 1."""
    scores = Rows(
        replace(row, metric="acc1", condition=f"relation={row.metric.removeprefix('acc1_')}")
        for row in own.where(condition="")
        if row.metric.startswith("acc1_") and "@" not in row.metric
    )
    names = scores.values("relation")
    series = by_loss(scores, "acc1", lambda row: names.index(row.conditions["relation"]), line="",
                     ends=(0, 1))  # fmt: skip
    ends = [-0.5, len(names) - 0.5]
    series += [Series("chance", ends, [level] * 2, line=DASHED, width=0.8) for level in chance]
    shown = [name.replace("_", " ") for name in names]
    return Panel(series, "By relation, words, λ = 1", "", _SCORE, dodge=True, grid="y",
                 limits=(0.0, None), categories=shown)  # fmt: skip


def _simat_panel(own: Rows) -> Panel:
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


def confusion(rows: Rows) -> Figure:
    """Return what was found when a skin tone was asked for, a map per loss, mean over seeds.

    Args:
        rows: Rows of the experiment.

    Raises:
        GeomkitError: If there is nothing to draw.
    """
    chosen = rows.where(attribute="skin_tone")
    if not chosen:
        raise GeomkitError("nothing to draw: no confusions of skin_tone among the rows")
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


def examples(found: Sequence[dict[str, Any]], *, title: str = "") -> Figure:
    """Return images: where queries start, the words, what was found and, if not that, wanted.

    Args:
        found: Examples as :class:`~geomkit.tasks.result.ArithmeticResult` writes them.
        title: Name of the model that answered.

    Raises:
        GeomkitError: If there are no examples.
    """
    if not found:
        raise GeomkitError("nothing to draw: no examples")
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
                    axes.imshow(picture(example[name], 96))
                    axes.set_axis_off()
                away, added = (_short(word) for word in example["words"])
                middle = left + (columns["source"][1] + side + columns["retrieved"][1]) / 2
                say(middle, bottom + 0.34, f"− {away}")
                say(middle, bottom + 0.16, f"+ {added}")
        foot = f"{title}. {ATTRIBUTION}" if title else ATTRIBUTION
        say(wide / 2, 0.05, foot, 6, va="bottom")
    return made


def _better(loss: str) -> Claim:
    theirs = published("simat")

    def told(dim: int) -> str:
        before, after = (theirs.where(loss=name, dim=dim).mean()[0] for name in ("clip", loss))
        return f"{before:.1f} to {after:.1f} at d = {dim}"

    def test(rows: Rows) -> Verdict:
        chosen: dict[str, Any] = {"metric": MEAN, "difference": "words"}
        words = "the mean of OpenMoji's relations"
        if rows.where(metric="simat_score"):
            chosen, words = {"metric": "simat_score"}, "SIMAT"
        chosen |= {"lambda": f"{MAIN:g}", "dim": DIM}
        less = contrast(loss, "clip", **chosen)
        what = f"{loss} − clip on {words}, λ = {MAIN:g}"
        scale = 100.0 if "metric" in chosen and chosen["metric"] == "simat_score" else 1.0
        return above(less, 0.0, what, scale * MATTERS["arithmetic"])(rows)

    return Claim(
        f"{loss} does multimodal arithmetic better than clip at d = {DIM}",
        f"SIMAT score, %: {told(128)}, {told(64)}, {told(32)}",
        test,
        otherwise="λ = 1 moves images by another length under each loss (difference_norm in the "
        "results), and its best value differs. Moved by the difference of whole names instead of "
        "single words, the losses come in another order: see the second panel of the figure. "
        "SIMAT itself needs --simat and a pretrained model.",
    )


EXPERIMENT = Experiment(
    name=NAME,
    title="Multimodal arithmetic",
    question="Does a picture, moved by the difference of two words, land nearer to the picture "
    "meant when the gap is closed?",
    cells=_cells,
    measure=each_cell(_cells, _of_cell),
    of_cell=_of_cell,
    draw=_draw,
    order=5,
    claims=(_better("cua"), _better("cuaxu")),
    sequential=True,
    seconds=lambda options: (
        len(_cells(options)) * (4.5 + (600.0 if options.simat is not None else 0.0))
    ),
    published="simat",
    captions={
        "arithmetic": "Right answers by the weight of the texts' difference (mean of the "
        "relations), by relation at λ = 1, and the paper's SIMAT scores",
        "arithmetic-confusion": "Which skin tone the picture found has, by the one asked for",
        "arithmetic-examples": "Clearest successes and worst failures of one model",
    },
    notes="A query is unit(picture + λ(target's words − source's words)); it starts from a "
    "training picture and asks for a held-out one that differs in one relation: skin tone, gender, "
    "hair, age, role, the way it faces or points, colour, hour. All other pictures are searched. "
    "The score is the mean of the relations, whatever their numbers of queries; one with fewer "
    f"than {LEAST} queries, or about one emoji alone, is left out. λ = 0 asks without words; "
    "chance is one picture at random. Words are those of the attribute, as in SIMAT; names are the "
    "pictures' whole names. Where models were trained on other data, queries run between all "
    "emoji. Intervals are t intervals at 95% over seeds. The paper's scores are SIMAT's, in "
    "percent, weighted by its own rule; compare losses, not levels.",
)
