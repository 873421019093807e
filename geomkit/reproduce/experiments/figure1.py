"""Figure 1: a 3-D CLIP in training, from two cones through arc and ring to the whole sphere."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from geomkit._core.array import to_numpy
from geomkit.embeddings.embeddings import Embeddings
from geomkit.errors import GeomkitError
from geomkit.functional import uniform_sphere_limit
from geomkit.metrics import explained_variance_with_error, gap
from geomkit.plots.animation import can_save_mp4, frames, save_animation
from geomkit.plots.multiples import Panel, Series
from geomkit.plots.spheres import Stage
from geomkit.plots.stages import stages_figure
from geomkit.plots.style import loss_colour
from geomkit.reproduce.framework import claims
from geomkit.reproduce.framework.cells import GEOMETRY, cell_of, training_pairs
from geomkit.reproduce.framework.claims import NOT_REPRODUCED, Claim, Test, Verdict
from geomkit.reproduce.framework.experiment import Cell, Context, Experiment, Options
from geomkit.reproduce.framework.figures import series_of
from geomkit.reproduce.framework.measuring import each_cell
from geomkit.reproduce.framework.results import Row, Rows, published, rows_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from geomkit.models.checkpoints import Snapshot, TrainedRun

__all__ = ["EXPERIMENT", "cells", "snapshot_rows"]

SIDES = ("image", "text")
PAIRS = 1024
EVERY = {"clip": 25, "cua": 50}
"""Steps between snapshots: many of the run that the claims are about."""
QUICK_EVERY = 35
VARIANCE_COLOUR = "#6a3d9a"
PC1, PC2 = "cumulative_variance@1", "cumulative_variance@2"
ARC, RING_BOTH, RING_ONE, SPHERE_ONE, SPHERE_BOTH, RECALL = 0.9, 0.95, 0.75, 0.45, 0.8, 0.8


def cells(options: Options) -> list[Cell]:
    """The 3-D run of clip, and one of cua beside it unless it has to be quick; one seed.

    From scratch whatever the options start from, as the paper's is, and with fewer pairs where the
    data have fewer.
    """
    fresh = replace(options, pretrained=None)
    pairs = min(PAIRS, training_pairs(options.data))
    every = {"clip": QUICK_EVERY} if options.quick else EVERY
    shared: dict[str, Any] = {
        "recipe": "sphere",
        "dim": 3,
        "seed": options.used_seeds[0],
        "pairs": pairs,
    }
    return [cell_of(fresh, loss=loss, eval_every=n, **shared) for loss, n in every.items()]


def snapshot_rows(cell: Cell, checkpoint: TrainedRun) -> Rows:
    """Metrics of every snapshot of a 3-D run, a row each, with the step and epoch as condition.

    ``cumulative_variance@k`` is the mean of the images' and the texts' shares, each modality
    centred on its own, as the paper's plots of this run have it; by modality it is there too.
    """
    c = cell.config
    records = {record.step: record for record in checkpoint.history}
    rows = Rows()
    for snapshot in checkpoint.snapshots:
        record = records[snapshot.step]
        clouds = [to_numpy(getattr(snapshot, side)) for side in SIDES]
        result = gap(Embeddings.of(*clouds), metrics=GEOMETRY, seed=c.seed)
        numbers, stderr = {**result.metrics, "loss": record.loss}, dict(result.stderr)
        spectra = [explained_variance_with_error(cloud)[:2] for cloud in clouds]
        for k in (1, 2):
            name = f"cumulative_variance@{k}"
            shares = [float(found[k - 1]) for found, _ in spectra]
            errors = [float(found[k - 1]) for _, found in spectra]
            sides = [f"{name}_{side}" for side in SIDES]
            numbers |= {**dict(zip(sides, shares, strict=True)), name: float(np.mean(shares))}
            # Errors of the two go together: their mean is the safe side.
            stderr |= {**dict(zip(sides, errors, strict=True)), name: float(np.mean(errors))}
        when = f"epoch={record.epoch:g};step={record.step}"
        rows += rows_of("figure1", c, "train", numbers, stderr, when)
    return rows


def _of_cell(cell: Cell, context: Context) -> Rows:
    context.say(f"measuring the snapshots of {cell.label}")
    return snapshot_rows(cell, context.checkpoint(cell))


def over_time(rows: Rows, metric: str, loss: str = "clip") -> Rows:
    """Rows of one metric and loss, by step."""
    found = rows.where(metric=metric, loss=loss)
    return Rows(sorted(found, key=lambda row: int(row.conditions["step"])))


def _draw(rows: Rows, context: Context) -> dict[str, Figure]:
    """The figure, and the animation of the same snapshots beside it."""
    runs = {
        cell.config.loss: stages_of(rows, cell.config.loss, context.checkpoint(cell).snapshots)
        for cell in cells(context.options)
    }
    panels = time_panels(rows, list(runs))
    shown = [panels[1].series[0], *(s for s in panels[0].series if not s.published)]
    names = ("I→T recall@1", "variance, PC1", "variance, PC1+PC2")
    traces = [replace(series, name=name) for series, name in zip(shown, names, strict=True)]
    images = frames(runs["clip"], list(traces[0].x), traces)
    save_animation(images, context.folder / "figure1.gif", overwrite=True)
    if can_save_mp4():
        try:
            save_animation(images, context.folder / "figure1.mp4", overwrite=True)
        except GeomkitError as error:  # an ffmpeg without the codec; the rest is drawn
            context.say(str(error))
    return {"figure1": stages_figure(runs, panels, published="paper (squares: PC1+PC2)")}


def stages_of(rows: Rows, loss: str, snapshots: list[Snapshot]) -> list[Stage]:
    """Every snapshot of a run as a sphere, with its epoch and recall above it."""
    recall = over_time(rows, "text_retrieval_recall@1", loss)
    return [
        Stage(
            to_numpy(snapshot.image),
            to_numpy(snapshot.text),
            f"epoch {float(row.conditions['epoch']):.3g}\nI→T {100 * row.value:.0f}%",
        )
        for snapshot, row in zip(snapshots, recall, strict=True)
    ]


def time_panels(rows: Rows, losses: list[str]) -> list[Panel]:
    """The panels below the spheres: clip's variance ratios, and three metrics of each loss."""

    def course(metric: str, loss: str, name: str, marker: str = "o", **look: Any) -> list[Series]:
        found = series_of(over_time(rows, metric, loss), "epoch", name=name, **look)
        marks = _published(metric) if loss == "clip" else []
        look |= {"marker": marker, "line": "", "published": True}
        return [found, Series.through(marks, **look)] if marks else [found]

    def panel(metric: str, title: str, low: float, high: float | None = None, **more: Any) -> Panel:
        series = [
            one for loss in losses for one in course(metric, loss, loss, colour=loss_colour(loss))
        ]
        return Panel(series, title, "Epoch", limits=(low, high), bands=True, grid="y", **more)

    variance = [
        *course("cumulative_variance@1", "clip", "PC1", colour=VARIANCE_COLOUR),
        *course("cumulative_variance@2", "clip", "PC1+PC2", "s", colour=VARIANCE_COLOUR, line="--"),
    ]
    return [
        Panel(variance, "Explained variance, clip", "Epoch", bands=True, grid="y",
              limits=(0.0, 1.04)),
        panel("text_retrieval_recall@1", "I→T recall@1", -0.02, 1.02),
        panel("centroid_distance", "Centroid distance", 0.0),
        panel("uniformity", "Uniformity, mean", -2.6, 0.05,
              references={uniform_sphere_limit(3): "whole sphere"}),
    ]  # fmt: skip


def _published(metric: str) -> list[tuple[float, float]]:
    named = ((row.metric.partition("_epoch"), row.value) for row in published("sphere-3d"))
    return [(float(epoch), value) for (name, _, epoch), value in named if name == metric]


def _judge(row: Row, sign: str, limit: float, what: str) -> Verdict:
    what += f" at epoch {float(row.conditions['epoch']):.3g}"
    return claims.judge(claims.mean_of([row]), sign, limit, what)


def _course(rows: Rows, metric: str, *, trained: bool = False) -> Rows:
    """Clip's rows of a metric by step; ``trained`` leaves out the initial weights.

    Random weights make a narrow cone, which may look like an arc.
    """
    found = over_time(rows, metric)[int(trained) :]
    if not found:
        raise claims.MissingRows("no snapshots")
    return Rows(found)


def _arc(rows: Rows) -> Verdict:
    most = max(_course(rows, PC1, trained=True), key=lambda row: row.value)
    return _judge(most, ">", ARC, "PC1")


def _ring(rows: Rows) -> Verdict:
    """After the arc, a snapshot that two components hold and one does not."""
    first, both = (_course(rows, metric, trained=True) for metric in (PC1, PC2))
    arc = next((k for k, row in enumerate(first) if row.value >= ARC), None)
    if arc is None:
        return Verdict(NOT_REPRODUCED, f"there is no arc (PC1 ≥ {ARC:g}) for a ring to follow")
    later = list(zip(first, both, strict=True))[arc + 1 :]
    flat = [pair for pair in later if pair[1].value >= RING_BOTH]
    if not flat:
        return Verdict(NOT_REPRODUCED, f"after the arc PC1+PC2 is never ≥ {RING_BOTH:g}")
    one, two = min(flat, key=lambda pair: pair[0].value)
    parts = _judge(one, "<", RING_ONE, "PC1"), _judge(two, ">", RING_BOTH, "PC1+PC2")
    return claims.together(parts)


def _ends(metric: str, sign: str, limit: float, what: str) -> Test:
    return lambda rows: _judge(_course(rows, metric)[-1], sign, limit, what)


def _falls(metric: str, share: float, what: str) -> Test:
    """Test that a metric ends below a share of its first value."""

    def test(rows: Rows) -> Verdict:
        found = _course(rows, metric)
        end, limit = claims.mean_of(found[-1:]), found[0].value * share
        return claims.judge(end, "<", limit, f"{what} at the end")

    return test


EXPERIMENT = Experiment(
    name="figure1",
    title="Figure 1: the stages of training on the sphere",
    question="Does a 3-D CLIP start as two narrow cones, and does the contrastive loss alone draw "
    "them out into an arc, a ring and at last over the whole sphere?",
    cells=cells,
    measure=each_cell(cells, _of_cell),
    of_cell=_of_cell,
    draw=_draw,
    order=1,
    claims=(
        Claim(
            f"Training passes through an arc: one component holds {ARC:g} of the variance or more",
            "PC1 0.993 at epoch 12",
            _arc,
        ),
        Claim(
            f"Training then passes through a ring: two components hold {RING_BOTH:g} or more, one "
            f"{RING_ONE:g} or less",
            "PC1 0.60, PC1+PC2 1.00 at epoch 100",
            _ring,
        ),
        Claim(
            f"It ends spread over the sphere: PC1 at {SPHERE_ONE:g} or less, PC1+PC2 at "
            f"{SPHERE_BOTH:g} or less",
            "PC1 0.34, PC1+PC2 0.67 at epoch 275",
            [_ends(PC1, "<", SPHERE_ONE, "PC1"), _ends(PC2, "<", SPHERE_BOTH, "PC1+PC2")],
        ),
        Claim(
            "The clouds come together as they spread: centroid distance and uniformity both fall",
            "shown in its figure, without numbers; tested as: to less than half, and below the "
            "start's",
            [_falls("centroid_distance", 0.5, "centroid distance"),
             _falls("uniformity", 1.0, "uniformity")],
        ),
        Claim(
            f"At the end {RECALL:g} of the training images or more find their own caption",
            "0.87 at epoch 275",
            _ends("text_retrieval_recall@1", ">", RECALL, "I→T@1"),
        ),
    ),
    seconds=lambda options: 12.0 if options.quick else 30.0,
    published="sphere-3d",
    captions={
        "figure1": "Six stages of training in three dimensions, images red and texts blue, and the "
        "course of explained variance, recall, centroid distance and uniformity",
        "figure1.gif": "Every snapshot of `clip`, and nothing between them",
    },
    notes="One seed, on the training pairs, as the paper's run; spheres and metrics are those of "
    "the first 1,000. A share of variance is the mean of the images' and the texts', each "
    "centred on its own: so the paper's plots of this run have it. Bands are 95% intervals over "
    "pairs. Hollow marks are the paper's; its run is longer and its temperature 0.01 (here 0.05, "
    "with warm-up: at 0.01 training from scratch collapses to two points). `figure1.gif` shows "
    "every snapshot of clip and nothing between them.",
)  # fmt: skip
