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
    at_start,
    control_rows,
    last_step,
    left_out,
    rise,
)
from geomkit.reproduce.framework.cells import QUICK_STEPS
from geomkit.reproduce.framework.claims import (
    Claim,
    Interval,
    MissingRows,
    Verdict,
    above,
    below,
    equivalent,
    together,
)
from geomkit.reproduce.framework.experiment import Cell, Context, Experiment, Options
from geomkit.reproduce.framework.figures import curve, over_steps
from geomkit.reproduce.framework.results import Rows, published
from geomkit.training.config import TrainConfig, configure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["EXPERIMENT", "RUNS", "Run", "by_step"]

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
        name: in the rows' condition ``control``.
        first, second: what the encoders see.
        title: for people; of OpenMoji's, and of other data.
        closed: whether the gap is closed at the start.
        loss: trained with.
        schedule: of the learning rate; the paper's is constant.
        every_seed: whether all seeds are run, or the first alone.
    """

    name: str
    first: str
    second: str
    title: tuple[str, str]
    closed: bool = True
    loss: str = "clip"
    schedule: str = "constant"
    every_seed: bool = False

    @property
    def label(self) -> str:
        """In a legend."""
        start = "closed" if self.closed else "open"
        falling = ", falling learning rate" * (self.schedule != "constant")
        return f"{self.loss}, gap {start} at the start{falling}"

    @property
    def chosen(self) -> dict[str, str]:
        """Fields and conditions that choose its rows."""
        start = "closed" if self.closed else "open"
        return {"control": self.name, "gap": start, "schedule": self.schedule, "loss": self.loss}

    @property
    def condition(self) -> str:
        """Of its rows, but for the step."""
        start = "closed" if self.closed else "open"
        return f"control={self.name};gap={start};schedule={self.schedule}"


_SAME, _NAMES = ("Same pictures",) * 2, ("Same names", "Same captions")
_FORMS = ("Colour and outline", "Full and half size")
RUNS = (
    Run("pictures", "picture", "picture", _SAME, every_seed=True),
    Run("pictures", "picture", "picture", _SAME, closed=False),
    Run("pictures", "picture", "picture", _SAME, schedule="cosine"),
    Run("pictures", "picture", "picture", _SAME, loss="cua"),
    Run("two-pictures", "picture", "other picture", _FORMS),
    Run("names", "name", "name", _NAMES),
    Run("two-names", "name", "other name", ("Two languages", "Two captions")),
)


def _config(options: Options, run: Run, seed: int) -> TrainConfig:
    steps = round(STEPS * QUICK_STEPS) if options.quick else STEPS
    return configure(
        recipe="standard",
        data=options.data,
        model=options.model or "tiny",
        loss=run.loss,
        dim=DIM,
        batch_size=128,
        temperature=0.07,
        steps=steps,
        warmup=min(20, steps // 4),
        schedule=run.schedule,
        seed=seed,
    )


def _seeds(options: Options, run: Run) -> tuple[int, ...]:
    """Which seeds of a run; a quick one leaves out what is beside the paper's own question."""
    if options.quick and not (run.closed and run.loss == "clip" and run.schedule == "constant"):
        return ()
    return options.used_seeds if run.every_seed else options.used_seeds[:1]


def _measure(context: Context) -> Rows:
    from geomkit.reproduce.controls.control import Control
    from geomkit.reproduce.controls.views import NoView

    rows = Rows()
    for run in RUNS:
        for seed in _seeds(context.options, run):
            config = _config(context.options, run, seed)
            control = Control(config, run.first, run.second, closed=run.closed)
            try:
                rows += control_rows("idealized", control, context, run.condition)
            except NoView as error:
                rows.append(left_out("idealized", config, run.condition, str(error), context))
    return rows


def _draw(rows: Rows, context: Context) -> dict[str, Figure]:
    return {"idealized": by_step(rows)}


def by_step(rows: Rows) -> Figure:
    """Return loss, centroid distance and separability over training, a column per control."""
    paper = published("idealized-same-modality")
    own = bool(rows) and rows[0].data.startswith("openmoji")
    names = list(dict.fromkeys(run.name for run in RUNS))
    left_out = [rows.where(metric="left_out", control=name)[:1] for name in names]

    def curves(column: int, metric: str) -> list[Series]:
        name, series = names[column], []
        chosen = rows.where(control=name, metric=metric)
        for split, look in (("train", {"width": 1.4}), ("val", {"width": 0.9, "line": DOTTED})):
            for run in (run for run in RUNS if run.name == name):
                colour = loss_colour(run.loss) if run.closed else OPEN_COLOUR
                if run.schedule != "constant":
                    colour = ANNEALED_COLOUR
                if found := _rows_of(chosen, run, split):
                    label = run.label if split == "train" else "held-out pairs"
                    line = curve(found, label, colour, **look)
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
        [next(r.title[0 if own else 1] for r in RUNS if r.name == name) for name in names],
        SHOWN,
        curves,
        notes={k: row.conditions["reason"] for k, found in enumerate(left_out) for row in found},
    )


def _rows_of(rows: Rows, run: Run, split: str) -> Rows:
    return rows.where(split=split, **run.chosen)


# The paper's control, measured on the training pairs as the paper does.
_MAIN = {"split": "train", **RUNS[0].chosen}


def _over_chance(rows: Rows) -> Interval:
    found = at_start("linear_separability", **_MAIN)(rows)
    low, value, high = (x - CHANCE for x in (found.low, found.value, found.high))
    return replace(found, value=value, low=low, high=high)


def _everywhere(rows: Rows) -> Verdict:
    checks = []
    measured = rows.where(lambda row: row.metric != "left_out")
    for run in (run for run in RUNS if run.name != RUNS[0].name):
        chosen: dict[str, Any] = {"split": "train", **run.chosen}
        if measured.where(**chosen):
            checks += [
                above(at_end("linear_separability", **chosen), CHANCE + SLACK,
                      f"separability at the end, {run.name}"),
                # Two forms are separable before training too: training adds the distance.
                above(rise("centroid_distance", **chosen), 0.0,
                      f"centroid distance, end less start, {run.name}"),
            ]  # fmt: skip
    if not checks:
        raise MissingRows("no other control was run")
    return together([check(measured) for check in checks])


def _cells(options: Options) -> list[Cell]:
    return []


def _seconds(options: Options) -> float:
    runs = sum(len(_seeds(options, run)) for run in RUNS)
    return runs * (STEPS * (QUICK_STEPS if options.quick else 1.0) * SECONDS_A_STEP * 1.3 + 5)


EXPERIMENT = Experiment(
    name="idealized",
    title="The loss makes the gap, not the modality",
    question=(
        "Two encoders of one kind see the same inputs, and a fixed map closes their gap before "
        "training. Does the contrastive loss open it again?"
    ),
    cells=_cells,
    measure=_measure,
    draw=_draw,
    order=6,
    claims=(
        Claim(
            "The map closes the gap before training: the centres coincide",
            "centroid distance 0.00",
            below(at_start("centroid_distance", **_MAIN), CLOSED,
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
            "Separability is at 1 early, while the loss is still high, and falls as the loss nears "
            "zero; where the learning rate falls too, it falls farther. Small models on few pairs "
            "get near zero within these steps, and part of the gap is undone again on the way; the "
            "paper's encoders are far larger, at d = 512.",
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
