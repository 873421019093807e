"""What else was blamed for the gap: a panel each, and whether it is enough, or needed.

Liang et al. ("Mind the Gap", arXiv 2203.02053) name the cone that random weights confine each
modality to; others mismatched pairs and too short a training. The paper holds all of them fixed
and finds the gap all the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from geomkit.plots.multiples import DASHED, Panel, Series, small_multiples
from geomkit.plots.style import IMAGE_COLOUR, INK, TEXT_COLOUR, finish, loss_colour
from geomkit.reproduce.controls.control_rows import at_end, last_step, rise
from geomkit.reproduce.experiments import cause_runs
from geomkit.reproduce.experiments.cause_runs import LONGER, LOSSES, METRICS
from geomkit.reproduce.framework import claims
from geomkit.reproduce.framework.claims import Claim, above, average, below, contrast
from geomkit.reproduce.framework.experiment import Experiment
from geomkit.reproduce.framework.figures import curve, over_steps
from geomkit.reproduce.framework.results import Rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["EXPERIMENT", "by_cause", "cones"]


_ENCODER_LOOKS = {
    ("separate", "two"): ("separate", "#404040"),
    ("copied", "two"): ("copied", "#0072b2"),
    ("shared", "two"): ("shared", "#b8860b"),
    ("copied", "same"): ("copied, one input", "#56b4e9"),
}


def by_cause(rows: Rows) -> Figure:
    """Return centroid distance and separability of held-out pairs over training, by cause."""
    shown = rows.where(lambda row: row.split != "train" and "step" in row.conditions)
    usual = shown.where(cause="training", run="standard")
    changed = {
        0: (shown.where(cause="mismatch", pairs="mismatched"), "mismatched", "matched"),
        1: (shown.where(cause="training", run="long"), f"{LONGER}× steps", "usual"),
        3: (shown.where(cause="start", gap="closed"), "closed", "open"),
    }

    def curves(column: int, metric: str) -> list[Series]:
        if column == 2:
            return [
                curve(found, label, colour, width=1.4)
                for (encoders, views), (label, colour) in _ENCODER_LOOKS.items()
                if (found := shown.where(cause="encoders", encoders=encoders, views=views,
                                         metric=metric))
            ]  # fmt: skip
        after, name, before = changed[column]
        return [
            curve(found, f"{loss}, {what}", loss_colour(loss), width=1.4, line=line)
            for loss in LOSSES
            for chosen, what, line in ((usual, before, "-"), (after, name, DASHED))
            if (found := chosen.where(loss=loss, metric=metric))
        ]

    notes = {
        column: row.conditions["reason"]
        for column, cause in ((0, "mismatch"), (2, "encoders"), (3, "start"))
        for row in rows.where(cause=cause, metric="left_out")[:1]
    }
    titles = ["Mismatched pairs", "Longer training", "Encoders", "Gap closed at the start"]
    return over_steps(titles, METRICS, curves, notes=notes, legend="column", height=1.55)


def cones(rows: Rows) -> Figure:
    """Return geometry before training: a dot per initialisation, and their mean."""
    shown = (
        ("intra_cosine_image", "Cosine,\nimages", IMAGE_COLOUR),
        ("intra_cosine_text", "Cosine,\ntexts", TEXT_COLOUR),
        ("centroid_distance", "Centroid\ndistance", INK),
        ("linear_separability", "Linear\nseparability", INK),
    )
    series = [
        Series("", [at], [float(np.mean(values))], each=[values], colour=colour, marker="_",
               size=28.0, line="")
        for at, (metric, _, colour) in enumerate(shown)
        if (values := [row.value for row in rows.where(cause="cone", metric=metric)])
    ]  # fmt: skip
    panel = Panel(series, y="Before training", categories=[name for _, name, _ in shown],
                  spread=0.16, grid="y", limits=(0.0, None))  # fmt: skip
    made = small_multiples([panel], height=1.75)
    first = rows.where(cause="cone")
    count = len({row.seed for row in first})
    finish(made, about=" · ".join([*first.values("data"), f"{count} random initialisations"]))
    return made


_CONE = {"cause": "cone"}
_CLOSED = {"split": "val", "cause": "start", "gap": "closed"}


def _patient(rows: Rows) -> claims.Verdict:
    long = {"split": "val", "cause": "training", "run": "long", "loss": "clip"}
    last = last_step(rows.where(**long))
    usual = at_end("centroid_distance", **{**long, "run": "standard"})(rows)
    tests = (
        above(at_end("linear_separability", **long), 0.95, f"separability, step {last}"),
        above(at_end("centroid_distance", **long), 0.5 * usual.value,
              f"centroid distance, step {last}, against half that of the usual run"),
    )  # fmt: skip
    return claims.together([test(rows) for test in tests])


def _copied_less_shared(rows: Rows) -> claims.Interval:
    found = rows.where(split="val", cause="encoders", views="two", loss="clip")
    less = contrast({"encoders": "copied"}, {"encoders": "shared"}, metric="centroid_distance")
    return less(found.where(step=last_step(found)))


def _kept(rows: Rows) -> claims.Verdict:
    found = rows.where(**_CLOSED)
    less = contrast("cua", "clip", metric="centroid_distance", step=last_step(found))
    clip = at_end("centroid_distance", loss="clip")(found).value
    return below(less, -0.5 * clip, "centroid distance at the end, cua less clip")(found)


EXPERIMENT = Experiment(
    name="causes",
    title="What else was blamed for the gap",
    question=(
        "The gap has been put down to the cone that random weights make, to mismatched pairs, to "
        "short training, and to separate encoders. Which of them does it need, and does it come "
        "back where it was closed?"
    ),
    cells=cause_runs.cells,
    measure=cause_runs.measure,
    draw=lambda rows, context: {"causes": by_cause(rows), "causes-cone": cones(rows)},
    order=7,
    claims=(
        Claim(
            "Random weights confine each modality to a cone before any training",
            "Liang et al. 2022: mean cosine well above 0 in every network",
            # The mean cosine is the squared length of the centroid: half way out from the centre.
            [above(average(metric=f"intra_cosine_{side}", **_CONE), 0.25,
                   f"mean cosine within {side}s, random weights") for side in ("image", "text")],
        ),
        Claim(
            "The cones of the two modalities are disjoint: a gap before any training",
            "Liang et al. 2022: the two are clearly apart",
            above(average(metric="linear_separability", **_CONE), 0.95,
                  "separability, random weights"),
        ),
        Claim(
            "The gap needs no mismatched pairs: with every pair right the two are disjoint",
            "separability 1.00 with one input for both encoders",
            above(average(cause="mismatch", pairs="matched", loss="clip",
                          metric="linear_separability"), 0.95, "separability, every pair right"),
            persists=True,
        ),
        Claim(
            f"Training {LONGER} times as long does not close it",
            "separability 1.00 at a loss of 0.00", _patient, persists=True,
        ),
        Claim(
            "Encoders that start with the same weights drift apart",
            "not given",
            above(_copied_less_shared, 0.0, "centroid distance at the end, copied less shared"),
        ),
        Claim(
            "Closed before training, the gap comes back with the contrastive loss",
            "centroid distance 0.00 → 0.06, separability 0.50 → 1.00 (one modality)",
            [above(rise("centroid_distance", loss="clip", **_CLOSED), 0.0,
                   "centroid distance, end less start"),
             above(at_end("linear_separability", loss="clip", **_CLOSED), 0.95,
                   "separability at the end")],
        ),
        Claim(
            "Uniformity and alignment keep it at less than half of that",
            "at d = 128 from an open gap: centroid distance 0.661 clip, 0.082 cua", _kept,
        ),
    ),
    seconds=cause_runs.seconds,
    captions={
        "causes": "Held-out pairs over training: the usual run beside what is changed in it, a "
        "column a cause",
        "causes-cone": "Geometry before any training, a dot an initialisation",
    },
    notes=(
        "All numbers are of held-out pairs. Curves of one colour: the usual run (solid, from the "
        "main grid, all seeds) and what is changed in it (dashed, first seed, from scratch). "
        "Mismatched pairs: every picture learns the name of the next one, always the same. Where "
        "partners are wrong only when measured, centroids are what they were. Encoders: two image "
        "encoders see two forms of a picture. Copies that see one and the same input would get "
        "equal gradients and stay one, were it not for rounding: what it leaves between them the "
        "loss makes a gap of, so that a closed gap is no state to rest in. Verdicts on the changed "
        "runs are over pairs of one seed."
    ),
)  # fmt: skip
"""Cone, mismatch, short training, encoders, and the start."""
