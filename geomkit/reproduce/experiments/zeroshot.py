"""Zero-shot classification by the same models: does a smaller gap classify better?

OpenMoji's own attributes (skin tone, man or woman, flag or not) and Unicode's groups and subgroups
are asked of emoji that were held out with all their variants; data sets on the user's disk are
asked besides. Models are trained with captions that hold the words of the groups of other emoji.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geomkit.data import parse_spec
from geomkit.data.relations import RELATIONS
from geomkit.errors import GeomkitError
from geomkit.plots.multiples import DASHED, Panel, Series, small_multiples
from geomkit.reproduce.framework import measuring
from geomkit.reproduce.framework.cells import DIMS, LOSSES, MATTERS, main_grid
from geomkit.reproduce.framework.claims import Claim, Verdict, above, contrast
from geomkit.reproduce.framework.experiment import Cell, Context, Experiment, Options
from geomkit.reproduce.framework.figures import by_loss
from geomkit.reproduce.framework.measuring import (
    cell_model,
    distinct,
    each_cell,
    kept,
    openmoji_with,
)
from geomkit.reproduce.framework.results import Row, Rows, data_rows, published, rows_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from geomkit.data.labelled import ClassData
    from geomkit.models.checkpoints import Checkpoint
    from geomkit.tasks.result import TaskResult

__all__ = [
    "ATTRIBUTE_TASKS",
    "EXPERIMENT",
    "LEAST",
    "Asked",
    "asked",
    "by_dimension",
    "by_task",
    "by_variance",
]

NAME = "zeroshot"
DIM = 128
"""Of the claims, and of a quick run."""
GROUP_TASKS = ("group", "subgroup")
ATTRIBUTE_TASKS = ("skin_tone", "gender", "flag", "keycap", *GROUP_TASKS)
LEAST = 10
"""Images that the smallest class of an attribute must have for its recall to mean anything."""
_LABELS = {
    "skin_tone": "skin tone",
    "imagenet": "ImageNet",
    "dtd": "DTD",
    "caltech101": "Caltech-101",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
}
_FIRST = (
    "zeroshot_mean", "acc1", "mean_per_class_recall", "chance", "images", "emoji",
    "class_variance_share",
)  # fmt: skip
"""Metrics in the order of their weight."""
_OWN = "OpenMoji's attributes and groups"
_CLASSES = {"imagenet": 1000, "dtd": 47, "caltech101": 101, "cifar10": 10, "cifar100": 100}
"""Number of classes of the paper's data sets."""


@dataclass(frozen=True)
class Asked:
    """One task.

    Attributes:
        name: in the rows' conditions.
        spec: DATA spec with classes.
        split: of it, ``None`` for its default.
        given: by the user, rather than one of OpenMoji's attributes.
    """

    name: str
    spec: str
    split: str | None
    given: bool

    @property
    def metric(self) -> str:
        """Name of the score: accuracy as in the paper; mean recall per class for attributes."""
        return "acc1" if self.given else _score(self.name)


def asked(options: Options) -> list[Asked]:
    """The tasks of a run.

    Models trained on OpenMoji are asked about its held-out pictures, others about all of them.
    """
    data, _, given = parse_spec(options.data)
    ours = data == "openmoji"
    seed = f",seed={given['seed']}" if ours and "seed" in given else ""
    found = [
        Asked(name, f"openmoji,attribute={name}{tones}{seed}", "val" if ours else "all", False)
        for name in ATTRIBUTE_TASKS
        # Flags and keycaps have no skin tones: people five times over would only weigh more.
        for tones in ([",skin_tones=true"] if name in ("skin_tone", "gender") else [""])
    ]
    names = dict.fromkeys(ATTRIBUTE_TASKS, 1)
    for spec in options.tasks:
        kind, _, root = spec.partition(":")
        name = Path(root).name if kind == "imagefolder" else kind
        name = "".join(c if c.isalnum() or c in "_-." else "_" for c in name) or kind
        names[name] = names.get(name, 0) + 1
        suffix = f"-{names[name]}" if names[name] > 1 else ""
        found.append(Asked(name + suffix, spec, None, True))
    return found


def _cells(options: Options) -> list[Cell]:
    # Emoji are asked with all their variants: none of them may be trained on, whatever is held out
    # elsewhere. What the cells start from has learnt the words of groups.
    data = openmoji_with(options, skin_tones=True, hold_out=None)
    dims = (DIM,) if options.quick else DIMS
    return main_grid(options, losses=LOSSES, dims=dims, data=data)


def _of_cell(cell: Cell, context: Context) -> Rows:
    context.say(f"classifying with {cell.label}")
    tasks = asked(context.options)
    model = cache(partial(cell_model, context, cell))
    rows = Rows()
    for task in tasks:
        make = partial(_task_rows, cell, task, model, context)
        rows += kept(context, f"{cell.key}-{task.name}", make)
    c = cell.config
    for whose in ("openmoji", "given"):
        mine = [t for t in tasks if t.given == (whose == "given")]
        found = [r for t in mine for r in rows.where(metric=t.metric, task=t.name, seed=c.seed)]
        if found:
            value, error = ({"zeroshot_mean": number} for number in Rows(found).mean())
            rows += rows_of(NAME, c, "val", value, error, f"tasks={whose}")
    # Tables show the first metrics that they meet.
    return Rows(sorted(rows, key=lambda row: [*_FIRST, row.metric].index(row.metric)))


def _task_rows(
    cell: Cell, task: Asked, open_model: Callable[[], Checkpoint], context: Context
) -> Rows:
    from geomkit.data.labelled import load_classes
    from geomkit.tasks import zeroshot

    c, condition, model = cell.config, f"task={task.name}", open_model()
    classes = load_classes(task.spec, preprocess=model.preprocess, split=task.split)
    split, smallest = classes.data.split, int(classes.counts.min())
    of_data = {
        "smallest_class": smallest,
        "images": len(classes),
        "classes": len(classes.class_names),
        "classes_with_images": int((classes.counts > 0).sum()),
    }
    if classes.groups is not None:
        of_data["emoji"] = len(np.unique(classes.groups))
    rows = data_rows(NAME, c, split, {k: float(v) for k, v in of_data.items()}, condition)
    for some in classes.data.left_out:
        context.say(f"{task.name}: left out, {some}")
    if task.metric == "mean_per_class_recall" and smallest < LEAST:
        name = classes.class_names[int(classes.counts.argmin())]
        few = f"{smallest} images of '{name}', expected {LEAST} or more"
        context.say(f"{task.name}: left out, {few}")
        return rows
    running = measuring.running_on(context.options)
    result = zeroshot(model, classes, workers=context.options.workers, **running)
    rows += data_rows(NAME, c, split, {"chance": result.scored.chance[task.metric]}, condition)
    finite = {name: value for name, value in result.metrics.items() if math.isfinite(value)}
    rows += rows_of(NAME, c, split, finite, result.stderr, condition)
    if not task.given:
        rows += rows_of(NAME, c, split, _reasons(classes, result), condition=condition)
    return rows


def _reasons(classes: ClassData, result: TaskResult) -> dict[str, float]:
    """Return what may explain a score: how much of the images' spread is between the classes.

    ``class_variance_share`` is the share of the variance of the image embeddings that lies between
    the means of the classes, whatever the texts. ``within_one_recall`` of skin tones is the share
    that is classified right or as the next tone.
    """
    found = {"class_variance_share": result.meta["class_variance_share"] or 0.0}
    if classes.class_names == RELATIONS["skin_tone"].values:
        confusion = result.scored.confusion
        near = sum(float(confusion.trace(step)) for step in (-1, 0, 1))
        found["within_one_recall"] = near / float(confusion.sum())
    return found


def by_task(rows: Rows, *, dim: int = DIM) -> Figure:
    """Return accuracy by task and loss, with the paper's beside it.

    Args:
        rows: Rows of the experiment.
        dim: Dimension of both, if the paper has it.

    Raises:
        GeomkitError: If there is nothing to draw.
    """
    here = rows.where(dim=(dim, 0))  # the level of chance has no dimension
    attributes = tuple(task for task in ATTRIBUTE_TASKS if task not in GROUP_TASKS)
    recalls = here.where(metric=("mean_per_class_recall", "chance"), task=attributes)
    grouped = here.where(metric=("acc1", "chance"), task=GROUP_TASKS)
    given = here.where(
        lambda row: row.conditions.get("task", "") not in ("", *ATTRIBUTE_TASKS),
        metric=("acc1", "chance"),
    )
    paper = published("zero-shot")
    its_dim = dim if dim in paper.values("dim") else 128
    paper = Rows(
        replace(row, metric=name, value=value, condition=f"task={row.data}")
        for row in paper.where(dim=its_dim)
        for name, value in (("acc1", row.value), ("chance", 1 / _CLASSES[row.data]))
    )
    if not recalls and not grouped and not given:
        raise GeomkitError("nothing to draw: no accuracy of any task")
    panels = [
        _panel("Held-out OpenMoji", "Mean recall per class (0 to 1)", recalls),
        _panel("Unicode's groups", "Accuracy (0 to 1)", grouped),
        _panel("Other data sets, geomkit", "Accuracy (0 to 1)", given),
        _panel(f"Paper, ViT-B/32, d = {its_dim}", "Accuracy (0 to 1)", paper, published=True),
    ]
    shown = [panel for panel in panels if panel.series]
    widths = [max(2, len(panel.categories)) for panel in shown]
    return small_multiples(shown, columns=2, height=2.05, width_ratios=widths)


def _panel(title: str, label: str, rows: Rows, **look: Any) -> Panel:
    scores = rows.where(lambda row: row.metric != "chance")
    tasks = scores.values("task")
    series = []
    for metric in scores.values("metric"):
        series += by_loss(scores, metric, lambda row: tasks.index(row.conditions["task"]),
                          line="", ends=(0, 1), **look)  # fmt: skip
    for row in distinct(rows.where(metric="chance", task=tasks)):
        at = tasks.index(row.conditions["task"])
        series.append(
            Series("chance", [at - 0.42, at + 0.42], [row.value] * 2, line=DASHED, width=0.8)
        )
    return Panel(series, title, "", label, categories=[_LABELS.get(t, t) for t in tasks],
                 dodge=True, grid="y", limits=(0.0, 1.0))  # fmt: skip


def by_dimension(rows: Rows) -> Figure:
    """Return the mean over tasks against the dimension, with the paper's over its data sets.

    Args:
        rows: Rows of the experiment; the data sets that were given, or else OpenMoji's attributes.

    Raises:
        GeomkitError: If there is nothing to draw.
    """
    means = rows.where(metric="zeroshot_mean")
    own, title, label = means.where(tasks="given"), "geomkit: data sets given", "Accuracy"
    if not own:
        own, title, label = means.where(tasks="openmoji"), "geomkit: OpenMoji", "Mean score"
    all_published = published("zero-shot")
    paper = Rows(
        Row(NAME, "", dim, loss, -1, "zeroshot_mean", found.mean()[0])
        for dim in all_published.values("dim")
        for loss in LOSSES
        if (found := all_published.where(dim=dim, loss=loss))
    )
    panels = [
        Panel(by_loss(found, "zeroshot_mean", published=found is paper), name,
              "Embedding dimension", f"{what}, 0 to 1", log=True, dodge=True)
        for name, what, found in (
            (title, label, own), ("Paper: five data sets", "Accuracy", paper),
        )
    ]  # fmt: skip
    return small_multiples(panels, published="paper (ViT-B/32)")


def by_variance(rows: Rows, *, dim: int = DIM) -> Figure:
    """Return differences from clip by task: of scores, and of the variance between the classes.

    Differences are taken within a seed.

    Args:
        rows: Rows of the experiment.
        dim: Dimension of the models.

    Raises:
        GeomkitError: If no loss stands beside clip on OpenMoji's attributes or groups.
    """
    here = rows.where(dim=dim, task=ATTRIBUTE_TASKS)
    clip = {_measure(row): row.value for row in here.where(loss="clip")}
    less = Rows(
        replace(row, value=row.value - clip[_measure(row)], stderr=math.nan)
        for row in here if row.loss != "clip" and _measure(row) in clip
    )  # fmt: skip
    shares = less.where(metric="class_variance_share")
    tasks = shares.values("task")
    scores = less.where(lambda row: row.metric == _score(row.conditions["task"]), task=tuple(tasks))
    return small_multiples(
        [
            Panel(by_loss(Rows(replace(row, metric="") for row in found), "",
                          lambda row: tasks.index(row.conditions["task"]), line="", ends=(-1, 1)),
                  title, "", "Difference from clip", dodge=True, grid="y", references={0.0: ""},
                  categories=[_LABELS.get(t, t) for t in tasks])
            for title, found in (
                ("Score: recall, or accuracy of groups", scores),
                ("Share of image variance between classes", shares),
            )
        ], columns=2, height=2.05,
    )  # fmt: skip


def _measure(row: Row) -> tuple:
    return row.seed, row.metric, row.condition


def _score(task: str) -> str:
    """Metric that is the score of one of OpenMoji's tasks.

    The few classes of an attribute differ in size. Of the many subgroups some have one image that
    is held out, or none: what they share is the error over images.
    """
    return "acc1" if task in GROUP_TASKS else "mean_per_class_recall"


def _better(loss: str) -> Claim:
    theirs = published("zero-shot").where(dim=DIM)

    before, after = (theirs.where(loss=name).mean()[0] for name in ("clip", loss))
    told = ", ".join(
        f"{_LABELS[d]} {theirs.one(loss='clip', data=d).value:.3f} to "
        f"{theirs.one(loss=loss, data=d).value:.3f}"
        for d in theirs.values("data")
    )

    def test(rows: Rows) -> Verdict:
        given = bool(rows.where(metric="zeroshot_mean", tasks="given"))
        tasks, words = ("given", "the data sets given") if given else ("openmoji", _OWN)
        less = contrast(loss, "clip", metric="zeroshot_mean", tasks=tasks, dim=DIM)
        what = f"{loss} − clip, mean over {words}"
        return above(less, 0.0, what, MATTERS["zeroshot_mean"])(rows)

    return Claim(
        f"{loss} classifies better without training than clip, on the mean of the tasks",
        f"at d = {DIM} the mean of five data sets {before:.3f} to {after:.3f} ({told})",
        test,
        otherwise="Tiny models learn OpenMoji's attributes and groups from its captions under any "
        "loss. A uniformity term spreads images over further directions; where that leaves less of "
        "their variance between the classes, the classes are harder to tell apart: see the second "
        "panel of the last figure. The paper's transfer to other data sets needs --task and a "
        "pretrained model.",
    )


EXPERIMENT = Experiment(
    name=NAME,
    title="Zero-shot classification",
    question="Do models whose gap is closed classify better by their texts alone?",
    cells=_cells,
    measure=each_cell(_cells, _of_cell),
    of_cell=_of_cell,
    draw=lambda rows, context: {
        "zeroshot": by_task(rows, dim=DIM),
        "zeroshot-dimension": by_dimension(rows),
        "zeroshot-variance": by_variance(rows, dim=DIM),
    },
    order=4,
    claims=(_better("cua"), _better("cuaxu")),
    sequential=True,
    seconds=lambda options: len(_cells(options)) * (3.0 + 60.0 * len(options.tasks)),
    published="zero-shot",
    captions={
        "zeroshot": f"Zero-shot classification by task and loss at d = {DIM}: ours to the left, "
        "the paper's to the right; dashes are chance",
        "zeroshot-dimension": "The mean over tasks, against the dimension",
        "zeroshot-variance": "Why scores differ: differences of cua and cuaxu from clip with the "
        f"same seed at d = {DIM}, in the score and in the share of the images' variance that lies "
        "between the classes",
    },
    notes="OpenMoji's attributes, and Unicode's 9 groups and 98 subgroups, are asked of emoji held "
    "out with all their skin tones, and of all emoji where the models were trained on other "
    "data. In pretraining, captions of other emoji say the words of their groups. The score of "
    "an attribute is "
    "the mean recall of its classes, that of the groups the accuracy; each task counts alike in "
    "the mean. Standard errors take the variants of an emoji together. class_variance_share in "
    "the results is the share of the variance of image embeddings that lies between the "
    "classes. Dots are means over seeds with t intervals at 95%, small dots the seeds, dashes "
    "chance; hollow dots are the paper's, with the interval that its deviation over three seeds "
    f"gives. An attribute with fewer than {LEAST} images of a class is left out: of OpenMoji's "
    "keycaps two are held out.",
)
