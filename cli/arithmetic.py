"""``geomkit arithmetic``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from geomkit.errors import GeomkitError

from .options import TaskOptions
from .tasks import Models, evaluate

if TYPE_CHECKING:
    from geomkit.models.checkpoints.checkpoint import Checkpoint
    from geomkit.tasks.features import Running
    from geomkit.tasks.result import ArithmeticResult

    from .progress import Display

__all__ = ["arithmetic"]


def arithmetic(
    sources: Models,
    *,
    options: TaskOptions,
    data: str = "openmoji",
    strengths: list[float] | None = None,
    split: str | None = None,
    difference: str = "words",
    per_value: bool = False,
) -> None:
    """Multimodal arithmetic: an image plus a difference of texts; is the nearest image right?

    Args:
        sources: Models.
        options: How models are evaluated.
        data: DATA spec: openmoji (skin tone, gender, colour and six other relations, with exact
            answers), or simat:ROOT (SIMAT's tables, images and oscar_similarity_matrix.pt).
        strengths (--lambda): Factor of the difference of texts; may be repeated.
        split: Queries to ask. OpenMoji: val (from training images to held-out ones; default) or
            all. SIMAT: dev (default) or test.
        difference: OpenMoji: texts to subtract: the relation's words, or whole names.
        per_value: Show the score of each value asked for.

    Examples:
        $ geomkit arithmetic ckpt.pt
        $ geomkit arithmetic ckpt.pt --data openmoji,hold_out=relations
    """
    from geomkit.data import parse_spec
    from geomkit.data.queries import arithmetic_spec, same_held_out
    from geomkit.tasks.arithmetic import arithmetic as compute
    from geomkit.tasks.simat import simat

    root = parse_spec(data, "queries").path  # SIMAT's; OpenMoji has none
    if not all(math.isfinite(strength) for strength in strengths or []):
        raise GeomkitError("--lambda: expected numbers")
    if root is None:
        data = arithmetic_spec(data)
    elif difference != "words":
        raise GeomkitError("--difference: SIMAT subtracts words; leave the option out")

    def run(checkpoint: Checkpoint, running: Running, display: Display) -> list[ArithmeticResult]:
        wanted = strengths or [1.0]
        if root is None:
            running["progress"] = display.preparing
            found = compute(
                checkpoint, data, split=split or "val", strengths=wanted,
                differences=[difference], **running,
            )  # fmt: skip
        else:
            found = simat(
                checkpoint, root, split=split or "dev", strengths=wanted,
                max_bad=options.max_bad, **running,
            )  # fmt: skip
        result = found[0]
        display.once(
            f"{result.dataset} ({result.split}): {next(iter(result.counts.values())):,} queries, "
            f"each searching {result.gallery:,} images except its own; difference of "
            f"{result.difference}; {result.meta['device']}, {result.meta['precision']}",
            result.meta.get("attribution", ""),
        )
        # Held-out images are new only to a model that was trained without them.
        trained_on = result.meta.get("trained_on")
        if trained_on and result.split == "val" and not same_held_out(trained_on, result.dataset):
            display.log(
                f"{checkpoint.source}: was trained on '{trained_on}', which may hold out other "
                "images"
            )
        return found

    evaluate(sources, options, run, detail=per_value)
