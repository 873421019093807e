"""Multimodal arithmetic: does a smaller gap make sums of images and texts work better?

The paper's data set is SIMAT, whose files a user supplies. OpenMoji has queries of the same kind:
an emoji moved from one skin tone to another, or from man to woman, with one right answer among all
images.
"""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

from geomkit._core.files import atomic_write
from geomkit.data import parse_spec
from geomkit.reproduce.experiments.arithmetic_figures import confusion, curves, examples
from geomkit.reproduce.framework import measuring
from geomkit.reproduce.framework.cells import LOSSES, main_grid
from geomkit.reproduce.framework.claims import Claim, Verdict, above, contrast
from geomkit.reproduce.framework.experiment import Cell, Context, Experiment, Options
from geomkit.reproduce.framework.measuring import cell_model, distinct, kept, openmoji_with
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


def _cells(options: Options) -> list[Cell]:
    data = openmoji_with(options, skin_tones=True, hold_out="variants")
    return main_grid(options, losses=LOSSES, dims=(DIM,), data=data)


def _queries(options: Options) -> tuple[str, str]:
    """DATA spec and split of the queries: held-out variants of OpenMoji.

    For models that were trained on other data, all emoji are held out.
    """
    if parse_spec(options.data)[0] != "openmoji":
        return "openmoji", "all"
    return openmoji_with(options, skin_tones=True, hold_out="variants", n=None), "val"


def _measure(context: Context) -> Rows:
    rows = Rows()
    for cell in _cells(context.options):
        context.say(f"adding words to pictures with {cell.label}")
        rows += kept(context, cell.key, partial(_openmoji, cell, context))
        if context.options.simat is not None:
            rows += kept(context, f"{cell.key}-simat", partial(_simat, cell, context))
    return distinct(rows)


def _openmoji(cell: Cell, context: Context) -> Rows:
    from geomkit.tasks.arithmetic import DIFFERENCES, arithmetic

    spec, split = _queries(context.options)
    results = arithmetic(
        cell_model(context, cell), spec, split=split, strengths=STRENGTHS,
        differences=DIFFERENCES, **measuring.running_on(context.options),
    )  # fmt: skip
    rows = Rows()
    for result in results:
        rows += _scores(cell, result, f"difference={result.difference};")
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
        rows += rows_of(NAME, c, result.split, {metric: value}, result.stderr, when)
        if result.strength == MAIN and result.difference == "words":
            counts = {"chance": result.chance[metric], "queries": float(result.counts[metric])}
            rows += data_rows(NAME, c, result.split, counts, f"of={metric}")
    return rows


def _details(cell: Cell, result: ArithmeticResult) -> Rows:
    of_cell = partial(rows_of, NAME, cell.config, result.split)
    rows = Rows()
    for name, part in result.per_value.items():
        rows += of_cell({"acc1_value": part.value}, {"acc1_value": part.stderr}, f"asked={name}")
    for attribute, table in result.taken_for.items():
        for wanted, found in table.items():
            for name, share in found.items():
                condition = f"attribute={attribute};found={name};wanted={wanted}"
                rows += of_cell({"taken_for": share}, condition=condition)
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


def _better(loss: str) -> Claim:
    theirs = published("simat")

    def told(dim: int) -> str:
        before, after = (theirs.where(loss=name, dim=dim).mean()[0] for name in ("clip", loss))
        return f"{before:.1f} to {after:.1f} at d = {dim}"

    def test(rows: Rows) -> Verdict:
        chosen: dict[str, Any] = {"metric": "acc1", "difference": "words"}
        words = "OpenMoji's skin tones and genders"
        if rows.where(metric="simat_score"):
            chosen, words = {"metric": "simat_score"}, "SIMAT"
        chosen |= {"lambda": f"{MAIN:g}", "dim": DIM}
        less = contrast(loss, "clip", **chosen)
        return above(less, 0.0, f"{loss} − clip on {words}, λ = {MAIN:g}")(rows)

    return Claim(
        f"{loss} does multimodal arithmetic better than clip at d = {DIM}",
        f"SIMAT score, %: {told(128)}, {told(64)}, {told(32)}",
        test,
        otherwise="OpenMoji's pictures differ in little but the attribute, and tiny models are "
        "trained on its names from scratch; SIMAT itself needs --simat and a pretrained model.",
    )


EXPERIMENT = Experiment(
    name=NAME,
    title="Multimodal arithmetic",
    question="Does a picture, moved by the difference of two words, land nearer to the picture "
    "meant when the gap is closed?",
    cells=_cells,
    measure=_measure,
    draw=_draw,
    order=5,
    claims=(_better("cua"), _better("cuaxu")),
    seconds=lambda options: (
        len(_cells(options)) * (8.0 + (600.0 if options.simat is not None else 0.0))
    ),
    published="simat",
    captions={
        "arithmetic": "Right answers by the weight of the texts' difference, by what is asked for "
        "at λ = 1, and the paper's SIMAT scores",
        "arithmetic-confusion": "Which skin tone the picture found has, by the one asked for",
        "arithmetic-examples": "Clearest successes and worst failures of one model",
    },
    notes="A query is unit(picture + λ(target's words − source's words)); it starts from a "
    "training picture and asks for a held-out one of the same emoji in another skin tone, or of "
    "the other gender; all other pictures are searched. λ = 0 asks without words, chance is one "
    "picture at random. Words are those of the attribute, as in SIMAT; names are the pictures' "
    "whole names. Where models were trained on other data, queries run between all emoji. "
    "Intervals are t intervals at 95% over seeds. The paper's scores are SIMAT's, in percent, "
    "weighted by its own rule; compare losses, not levels.",
)
