"""The idealised control: two encoders of one kind, on one kind of input, grow a gap all the same.

If modality made the gap, two image encoders on the same pictures would have none. The paper closes
what gap their random weights make by a fixed orthogonal map, trains until the loss is zero, and
finds the two clouds apart.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from geomkit.plots.multiples import DOTTED, Series
from geomkit.plots.style import loss_colour
from geomkit.reproduce.controls.control_rows import (
    at_end,
    control_rows,
    last_step,
    rise,
    run_apart,
)
from geomkit.reproduce.framework import claims
from geomkit.reproduce.framework.cells import quick_share
from geomkit.reproduce.framework.claims import Claim, above, average, below, equivalent
from geomkit.reproduce.framework.experiment import Context, Experiment, Options
from geomkit.reproduce.framework.figures import curve, over_steps
from geomkit.reproduce.framework.results import Rows, published
from geomkit.training.config import TrainConfig, configure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["EXPERIMENT", "MAIN", "RUNS", "by_step", "config_of"]

DIM = 128
"""What ``tiny`` carries: its width. The paper's ViT-B/32 gives 512."""
STEPS = 300
CLOSED = 0.03
"""A centroid distance below this is closed: half of what the paper's control ends with."""
CHANCE, SLACK = 0.5, 0.05
"""Held-out accuracy of a classifier that finds nothing lies a little below one half: each fold's
own means differ from the rest's the other way."""
OPEN_COLOUR, ANNEALED_COLOUR = "#8a8acb", "#b03a8c"
SHOWN = ("contrastive_loss", "centroid_distance", "linear_separability")
SECONDS_A_STEP = 0.18
"""On two cores, of a batch of 128 pairs; measuring adds about a third."""


@dataclass(frozen=True)
class Run:
    """One of the controls.

    Attributes:
        name: Value of the rows' condition ``control``.
        first, second: Views that the two encoders see.
        title: Title of its column, with OpenMoji and with other data.
        closed: Whether the gap is closed at the start.
        loss: Loss of the training.
        schedule: Schedule of the learning rate; the paper's is constant.
    """

    name: str
    first: str
    second: str
    title: tuple[str, str]
    closed: bool = True
    loss: str = "clip"
    schedule: str = "constant"

    @property
    def gap(self) -> str:
        """Gap at the start."""
        return "closed" if self.closed else "open"

    @property
    def label(self) -> str:
        """Legend entry."""
        falling = ", falling learning rate" * (self.schedule != "constant")
        return f"{self.loss}, gap {self.gap} at the start{falling}"

    @property
    def colour(self) -> str:
        """Colour of its curves."""
        if self.schedule != "constant":
            return ANNEALED_COLOUR
        return loss_colour(self.loss) if self.closed else OPEN_COLOUR

    @property
    def chosen(self) -> dict[str, str]:
        """Fields and conditions that choose its rows."""
        return {"loss": self.loss, "control": self.name, "gap": self.gap, "schedule": self.schedule}

    @property
    def condition(self) -> str:
        """Condition of its rows, without the step."""
        return f"control={self.name};gap={self.gap};schedule={self.schedule}"


MAIN = Run("pictures", "picture", "picture", ("Same pictures", "Same pictures"))
"""The paper's own control, the one that every seed runs."""
CHANGED = replace(MAIN, closed=False), replace(MAIN, schedule="cosine"), replace(MAIN, loss="cua")
OTHERS = (
    Run("two-pictures", "picture", "other picture", ("Colour and outline", "Full and half size")),
    Run("names", "name", "name", ("Same names", "Same captions")),
    Run("two-names", "name", "other name", ("Two languages", "Two captions")),
)
RUNS = (MAIN, *CHANGED, *OTHERS)


def config_of(options: Options, run: Run, seed: int, **changed: Any) -> TrainConfig:
    """Configuration of a control; fields that are given go before the usual ones."""
    steps = round(changed.pop("steps", STEPS) * quick_share(options))
    usual: dict[str, Any] = {
        "recipe": "standard", "data": options.data, "model": options.model or "tiny",
        "loss": run.loss, "dim": DIM, "batch_size": 128, "temperature": 0.07, "steps": steps,
        "warmup": min(20, steps // 4), "schedule": run.schedule, "seed": seed,
    }  # fmt: skip
    return configure(**usual | changed)


def _runs(options: Options) -> list[tuple[Run, int]]:
    """Runs with their seeds; a quick one leaves out what is beside the paper's own question."""
    first, *others = options.used_seeds
    runs = (MAIN, OTHERS[0]) if options.quick else RUNS
    return [(run, seed) for run in runs for seed in (first, *(others if run is MAIN else ()))]


def _measure(context: Context) -> Rows:
    from geomkit.reproduce.controls.control import Control

    found = [
        (Control(config_of(context.options, run, seed), run.first, run.second, closed=run.closed),
         run.condition)
        for run, seed in _runs(context.options)
    ]  # fmt: skip
    run_apart([control for control, _ in found], context)
    rows = Rows()
    for control, condition in found:
        rows += control_rows("idealized", control, context, condition)
    return rows


def by_step(rows: Rows) -> Figure:
    """Return loss, centroid distance and separability over training, a column per control."""
    paper = published("idealized-same-modality")
    own = bool(rows) and rows[0].data.startswith("openmoji")
    shown = (MAIN, *OTHERS)
    left_out = [rows.where(metric="left_out", control=run.name)[:1] for run in shown]

    def curves(column: int, metric: str) -> list[Series]:
        name, series = shown[column].name, []
        chosen = rows.where(control=name, metric=metric)
        for split, look in (("train", {"width": 1.4}), ("val", {"width": 0.9, "line": DOTTED})):
            for run in (run for run in RUNS if run.name == name):
                if found := chosen.where(split=split, **run.chosen):
                    label = run.label if split == "train" else "held-out pairs"
                    line = curve(found, label, run.colour, **look)
                    series.append(line if split == "train" else replace(line, low=(), high=()))
        ends = [paper.where(metric=f"{metric}_{when}")[:1] for when in ("start", "end")]
        if name == "pictures" and chosen and all(ends):
            at = (0, int(last_step(rows.where(control=name))))
            series.append(
                Series("", at, [mark.value for (mark,) in ends], marker="D", size=4.5, line="",
                       published=True)
            )  # fmt: skip
        return series

    return over_steps(
        [run.title[0 if own else 1] for run in shown],
        SHOWN,
        curves,
        notes={k: row.conditions["reason"] for k, found in enumerate(left_out) for row in found},
    )


# The paper's control, measured on the training pairs as the paper does.
_MAIN = {"split": "train", **MAIN.chosen}


def _over_chance(rows: Rows) -> claims.Interval:
    over = (replace(row, value=row.value - CHANCE) for row in rows)
    return average(metric="linear_separability", step="0", **_MAIN)(Rows(over))


def _everywhere(rows: Rows) -> claims.Verdict:
    checks = []
    measured = rows.where(lambda row: row.metric != "left_out")
    for run in OTHERS:
        chosen = {"split": "train", **run.chosen}
        if measured.where(**chosen):
            checks += [
                above(at_end("linear_separability", **chosen), CHANCE + SLACK,
                      f"separability at the end, {run.name}"),
                # Two forms are separable before training too: training adds the distance.
                above(rise("centroid_distance", **chosen), 0.0,
                      f"centroid distance, end less start, {run.name}"),
            ]  # fmt: skip
    if not checks:
        raise claims.MissingRows("no other control was run")
    return claims.together([check(measured) for check in checks])


def _seconds(options: Options) -> float:
    steps = STEPS * quick_share(options)
    return len(_runs(options)) * (steps * SECONDS_A_STEP * 1.3 + 5)


EXPERIMENT = Experiment(
    name="idealized",
    title="The loss makes the gap, not the modality",
    question=(
        "Two encoders of one kind see the same inputs, and a fixed map closes their gap before "
        "training. Does the contrastive loss open it again?"
    ),
    cells=lambda options: [],
    measure=_measure,
    draw=lambda rows, context: {"idealized": by_step(rows)},
    order=6,
    sequential=True,
    claims=(
        Claim(
            "The map closes the gap before training: the centres coincide",
            "centroid distance 0.00",
            below(average(metric="centroid_distance", step="0", **_MAIN), CLOSED,
                  "centroid distance before training"),
        ),
        Claim(
            "Before training no linear classifier tells the two clouds apart",
            "linear separability 0.50",
            equivalent(_over_chance, SLACK, "separability before training, less 0.5"),
        ),
        Claim(
            "Training brings the contrastive loss to zero: it is not cut short",
            "loss 4.83 → 0.00",
            below(at_end("contrastive_loss", **_MAIN), 0.1, "contrastive loss at the end"),
        ),
        Claim(
            "Training moves the centres apart again",
            "centroid distance 0.00 → 0.06",
            above(rise("centroid_distance", **_MAIN), 0.0, "centroid distance, end less start"),
        ),
        Claim(
            "After training one does, though all is of one modality",
            "linear separability 0.50 → 1.00",
            above(at_end("linear_separability", **_MAIN), CHANCE + SLACK,
                  "separability at the end"),
        ),
        Claim(
            "After training it errs hardly at all: the two clouds are disjoint",
            "linear separability 1.00",
            above(at_end("linear_separability", **_MAIN), 0.95, "separability at the end"),
            "The clouds are disjoint early; as the loss nears zero, training undoes a part of the "
            "gap. Of all that was changed by itself more pairs keep more of it, and only a lower "
            "temperature leaves the clouds disjoint: see `reasons`.",
        ),
        Claim(
            "Texts, and two forms of one thing, are driven apart as well",
            "not measured", _everywhere,
        ),
    ),
    seconds=_seconds,
    published="idealized-same-modality",
    captions={
        "idealized": "Contrastive loss, centroid distance and separability over training, a column "
        "a pair of inputs; diamonds are the paper's start and end"
    },
    notes=(
        "Solid curves: the pairs trained on, as the paper has it; dashed ones: held-out pairs. "
        "Diamonds: the paper's start and end (COCO, d = 512, two pretrained-size ViTs). Encoders "
        "are trained from scratch whatever --pretrained says. Batches of 128 at τ = 0.07 as in "
        "the paper, at a constant learning rate, as its code has it; one run lets the rate fall to "
        "zero instead, since what noise it makes is part of what keeps the clouds apart. Where "
        "data hold fewer pairs, a batch is as large as they are. At the start "
        "the map is fitted to at most 2,048 training pairs. Two forms of a picture are OpenMoji's "
        "coloured drawing and its outline (those whose outline no other has), or the picture at "
        "full and half resolution; two names are English and German, or an image's first two "
        "captions."
    ),
)  # fmt: skip
"""The paper's idealised control, and its neighbours."""
