"""``geomkit probe``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import console
from .options import Data, TaskOptions
from .tasks import Models, evaluate

if TYPE_CHECKING:
    from geomkit.models.checkpoints.checkpoint import Checkpoint
    from geomkit.tasks.features import Running
    from geomkit.tasks.result import TaskResult

    from .progress import Display

__all__ = ["probe"]


def probe(
    sources: Models,
    *,
    data: Data,
    options: TaskOptions,
    train_split: str | None = None,
    test_split: str | None = None,
    C: float | None = None,
    seed: int = 0,
    fast_decode: bool = False,
    per_class: bool = False,
) -> None:
    """Linear probe: logistic regression on image embeddings, scored on held-out images.

    Args:
        sources: Models.
        data: DATA spec.
        options: How models are evaluated.
        train_split: Split to train on; default: the data set's own, such as train+val.
        test_split: Split to test on; default: the data set's own, else 1/5 of each class.
        C (--C): Inverse strength of the L2 penalty; default: chosen by cross-validation.
        seed: Random seed for the folds, and for a split where there is none.
        fast_decode: Decode large JPEGs at a reduced size, which moves the embeddings a little.
        per_class: Show the recall of each class.

    Examples:
        $ geomkit probe ckpt.pt --data openmoji,attribute=gender
        $ geomkit probe ckpt.pt --data imagefolder:/data
    """
    from geomkit.data.labelled import load_parts
    from geomkit.tasks import probe as fit_and_score

    def run(checkpoint: Checkpoint, running: Running, display: Display) -> list[TaskResult]:
        train, test = load_parts(
            data,
            preprocess=checkpoint.preprocess,
            train_split=train_split,
            test_split=test_split,
            seed=seed,
            max_bad=options.max_bad,
            fast_decode=fast_decode,
            progress=display.preparing,
        )
        display.once(
            f"{data}: {len(train):,} images to train on ({train.data.split}), "
            f"{len(test):,} to test on ({test.data.split}), {len(test.class_names)} classes; "
            f"{running['device']}, {running['precision']}",
            test.data.attribution,
        )
        return [fit_and_score(checkpoint, train, test, C=C, seed=seed, **running)]

    for r in evaluate(sources, options, run, detail=per_class):
        how = f"by {r.meta['folds']}-fold cross-validation" if r.meta["C_chosen"] else "as given"
        console.line(f"{r.source}: C {r.meta['C']:.4g}, {how}")
        if not r.meta["converged"]:
            console.line(f"{r.source}: warning: the regression did not converge; try a smaller --C")
        if r.meta["unseen_classes"]:
            names = ", ".join(r.meta["unseen_classes"][:3])
            console.line(
                f"{r.source}: warning: {len(r.meta['unseen_classes'])} classes have no training "
                f"image and count as missed ({names})"
            )
