"""``geomkit arithmetic``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

import typer

from . import console
from .options import Device, Download, JsonOut, MaxBad, Models, Overwrite, Precision, Workers
from .zeroshot import drawing, progress_of, written

if TYPE_CHECKING:
    from geomkit.tasks.arithmetic_result import ArithmeticResult

__all__ = ["arithmetic"]


def arithmetic(
    sources: Models,
    data: Annotated[
        str,
        typer.Option(
            help="openmoji (skin tones and genders, exact answers), or simat:ROOT, SIMAT's tables, "
            "photographs and oscar_similarity_matrix.pt."
        ),
    ] = "openmoji",
    strengths: Annotated[
        list[float] | None,
        typer.Option("--lambda", help="Multiplies the difference of the texts; may be repeated."),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="OpenMoji: val (from training pictures to held-out ones) or all; SIMAT: dev or "
            "test. The first if not given."
        ),
    ] = None,
    difference: Annotated[
        str, typer.Option(help="OpenMoji: of the attribute's words, or of the whole names.")
    ] = "words",
    per_value: Annotated[
        bool, typer.Option("--per-value", help="With the score for each value asked for.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    out: JsonOut = None,
    overwrite: Overwrite = False,
    device: Device = "auto",
    precision: Precision = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures and texts at a time.")] = 256,
    workers: Workers = None,
    max_bad: MaxBad = 0.01,
    download: Download = False,
) -> None:
    """Multimodal arithmetic: does a picture, moved by words, land on the picture meant?"""
    from geomkit._core.files import check_target
    from geomkit._core.runtime import resolve_device, resolve_precision
    from geomkit.errors import GeomkitError
    from geomkit.sources import open_source
    from geomkit.tasks.arithmetic import arithmetic as compute
    from geomkit.tasks.arithmetic import arithmetic_spec
    from geomkit.tasks.arithmetic_result import plain
    from geomkit.tasks.simat import simat

    root = data.removeprefix("simat:") if data.startswith("simat") else None
    if root is not None and (root == data or not root):
        raise GeomkitError(f"data '{data}': expected simat:ROOT")
    if not all(math.isfinite(strength) for strength in strengths or []):
        raise GeomkitError("--lambda: expected numbers")
    if root is None:
        data = arithmetic_spec(data)
    elif difference != "words":
        raise GeomkitError("--difference: SIMAT's is that of its words")
    if out is not None:
        check_target(out, overwrite=overwrite)
    device = resolve_device(device)
    precision = resolve_precision(precision, device)
    results: list[ArithmeticResult] = []
    for source in sources:
        loaded = open_source(source, download=download)
        wanted = strengths or [1.0]
        if root is None:
            found = compute(
                loaded,
                data,
                split=split or "val",
                strengths=wanted,
                differences=[difference],
                device=device,
                precision=precision,
                batch_size=batch_size,
                progress=drawing,
            )
        else:
            found = simat(
                loaded,
                root,
                split=split or "dev",
                strengths=wanted,
                device=device,
                precision=precision,
                batch_size=batch_size,
                workers=workers,
                max_bad=max_bad,
                progress=progress_of(source),
            )
        if not results:
            _say(found[0])
        _warn(found[0])
        results += found
    text = written([r.to_json() for r in results], out, overwrite=overwrite)
    typer.echo(text if as_json else plain(results, per_value=per_value))


def _say(result: ArithmeticResult) -> None:
    console.line(
        f"{result.dataset} ({result.split}): {next(iter(result.counts.values())):,} queries, "
        f"{result.gallery:,} pictures searched but for a query's own; difference of "
        f"{result.difference}; {result.meta['device']}, {result.meta['precision']}"
    )
    if result.meta.get("attribution"):
        console.line(result.meta["attribution"])


def _warn(result: ArithmeticResult) -> None:
    """Held-out pictures are new only to a model that was trained without them."""
    trained_on = result.meta.get("trained_on")
    if trained_on and result.split == "val" and trained_on != result.dataset:
        console.line(
            f"{result.source}: was trained on '{trained_on}', which may hold out other pictures"
        )
    for bad in result.bad[:1]:
        console.line(
            f"{result.source}: {len(result.bad)} pictures left out, such as {bad.id}, which "
            f"{bad.reason}"
        )
