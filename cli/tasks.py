"""One run over models and one output for ``zeroshot``, ``probe`` and ``arithmetic``."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from geomkit._core.shown import shown

from . import console
from .options import TaskOptions
from .progress import Display

if TYPE_CHECKING:
    from geomkit.models.checkpoints.checkpoint import Checkpoint
    from geomkit.tasks.features import Running
    from geomkit.tasks.result import Result

__all__ = ["Models", "evaluate"]

Models = Annotated[
    list[str], typer.Argument(help="Models: checkpoints, open_clip:NAME/TAG and other SOURCEs.")
]


def evaluate(
    sources: Sequence[str],
    options: TaskOptions,
    run: Callable[[Checkpoint, Running, Display], Sequence[Result]],
    *,
    detail: bool,
) -> list[Result]:
    """Run a task on each model; print a table or JSON, and write JSON if --out names a file.

    Args:
        sources: SOURCE of each model.
        options: Shared options.
        run: Function of an opened model, of how to run it, and of the display, to results.
        detail: Whether the table and the JSON list every class or value.
    """
    from geomkit._core.files import atomic_write, check_target, sole_writer
    from geomkit._core.runtime import resolve_device, resolve_precision
    from geomkit.data.pairs import LeftOut
    from geomkit.interventions.applying import close_model
    from geomkit.sources import open_source
    from geomkit.tasks.result import table

    results: list[Result] = []
    with ExitStack() as held:
        if options.out is not None:
            check_target(options.out, overwrite=options.overwrite)
            held.enter_context(sole_writer(options.out))
        device = resolve_device(options.device)
        display = held.enter_context(Display())
        for source in sources:
            running: Running = {
                "device": device,
                "precision": resolve_precision(options.precision, device),
                "batch_size": options.batch_size,
                "workers": options.workers,
                "progress": partial(display.show, source),
            }
            checkpoint = open_source(source, download=options.download)
            checkpoint = close_model(checkpoint, options.close)
            console.notes(source, checkpoint.notes)
            results += run(checkpoint, running, display)
        found = [r.to_json(detail=detail) for r in results]
        whole = found[0]
        if len(found) > 1:
            whole = {"schema_version": found[0]["schema_version"], "results": found}
        text = json.dumps(whole, indent=2, ensure_ascii=False, allow_nan=False)
        if options.out is not None:
            with atomic_write(options.out, overwrite=options.overwrite) as file:
                file.write((shown(text) + "\n").encode())
    if options.as_json:
        console.out(text)
    else:
        console.table(table(results, detail=detail))
    for r in results:
        for name, reason in r.reasons.items():
            console.line(f"{r.source}: {name} is undefined: {reason}")
        if "note" in r.meta:
            console.line(f"{r.source}: {r.meta['note']}")
        for some in r.meta.get("left_out", ()):
            console.line(f"{r.source}: not used: {LeftOut(**some)}")
        if r.bad:
            console.line(
                f"{r.source}: {len(r.bad)} images left out, such as {r.bad[0].id}, which "
                f"{r.bad[0].reason}"
            )
    return results
