"""``geomkit gap``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import console

if TYPE_CHECKING:
    from geomkit.metrics import GapResult

__all__ = ["gap"]


def gap(
    context: typer.Context,
    sources: Annotated[
        list[str], typer.Argument(help="Checkpoints, or .npz / .npy files of embeddings.")
    ],
    split: Annotated[
        str | None, typer.Option(help="For checkpoints: train, val (the default) or all.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="For checkpoints: another DATA spec than the trained one.")
    ] = None,
    metrics: Annotated[
        str | None, typer.Option(help="Names or groups, with commas; all if not given.")
    ] = None,
    caption_index: Annotated[
        int, typer.Option(help="Which text of an image all but retrieval uses.")
    ] = 0,
    folds: Annotated[
        str, typer.Option(help="Of the linear separability: a number, or paper (one 80/20 split).")
    ] = "5",
    seed: Annotated[int, typer.Option(help="Of the folds.")] = 0,
    device: Annotated[str, typer.Option(help="For checkpoints: auto, cpu, cuda[:n] or mps.")] = (
        "auto"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print CSV: a line a source and metric.")
    ] = False,
) -> int:
    """Measure the gap: one table for any number of sources.

    Any metric can be given a limit, --max-NAME or --min-NAME with a number (such as
    --max-centroid-distance 0.1): exit status 1 if a source misses it.
    """
    from geomkit.errors import GeomkitError
    from geomkit.metrics import gap as measure
    from geomkit.metrics import select
    from geomkit.sources import load_source

    if as_json and as_csv:
        raise GeomkitError("--json and --csv exclude each other; give one")
    sources, limits = _limits([*sources, *context.args])
    names = select(metrics.split(",") if metrics else None)
    wanted = names + [m for m, *_ in limits if m not in names]
    number_of_folds = int(folds) if folds.isdigit() else folds
    results = []
    for source in sources:
        embeddings, found_split = load_source(source, data=data, split=split, device=device)
        results.append(
            measure(
                embeddings,
                metrics=wanted,
                caption_index=caption_index,
                folds=number_of_folds,
                seed=seed,
                source=source,
                split=found_split,
            )
        )
    if as_json:
        from geomkit.metrics.measure import SCHEMA_VERSION

        whole = {"schema_version": SCHEMA_VERSION, "results": [r.to_json() for r in results]}
        typer.echo(json.dumps(whole, indent=2, ensure_ascii=False, allow_nan=False))
    elif as_csv:
        _print_csv(results)
    else:
        _print_table(results)
    return _missed(results, limits)


def _limits(words: list[str]) -> tuple[list[str], list[tuple[str, str, float]]]:
    """Part sources from limits such as ``--max-centroid-distance 0.1``.

    There is a limit for every metric, so they are read here and not declared one by one.
    """
    from geomkit.errors import GeomkitError, unknown_name
    from geomkit.metrics import METRICS

    by_option = {name.replace("_", "-"): name for name in METRICS}
    sources, limits = [], []
    rest = iter(words)
    for word in rest:
        if not word.startswith("-"):
            sources.append(word)
            continue
        option, equals, value = word.partition("=")
        side, name = option[2:5], option[6:]
        if not option.startswith(("--max-", "--min-")):
            raise GeomkitError(f"unknown option '{word}'; see geomkit gap --help")
        if name not in by_option:
            raise unknown_name(f"metric in {option}", name, by_option)
        text = value if equals else next(rest, "")
        try:
            limits.append((by_option[name], side, float(text)))
        except ValueError:
            raise GeomkitError(f"{option}: expected a number, got '{text}'") from None
    if not sources:
        raise GeomkitError("name at least one checkpoint or file of embeddings")
    return sources, limits


def _missed(results: list[GapResult], limits: list[tuple[str, str, float]]) -> int:
    status = 0
    for result in results:
        for name, side, limit in limits:
            value = result.metrics[name]
            kept = value <= limit if side == "max" else value >= limit
            if not kept:  # an undefined value keeps no limit
                status = 1
                relation = "above" if side == "max" else "below"
                text = f"{result.source}: {name} {value:.6g} is {relation} the limit {limit:g}"
                print(f"geomkit: {text}", file=sys.stderr)
    return status


def _print_csv(results: list[GapResult]) -> None:
    import csv

    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["source", "split", "n", "dim", "metric", "value"])
    for r in results:
        for name, value in r.metrics.items():
            text = repr(value) if value == value else ""
            writer.writerow([r.source, r.split or "", r.n, r.dim, name, text])


def _print_table(results: list[GapResult]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from geomkit.metrics import METRICS, uniform_sphere_limit

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("metric", no_wrap=True)
    for r in results:
        table.add_column(_title(r), justify="right", no_wrap=True)
    table.add_column("reads", style="dim")
    limits = {f"{uniform_sphere_limit(r.dim):.2f}" for r in results}
    limit = limits.pop() if len(limits) == 1 else "its limit"
    group = ""
    for name in results[0].metrics:
        metric = METRICS[name]
        if group and metric.group != group:
            table.add_section()
        group = metric.group
        values = [_number(r.metrics[name]) for r in results]
        table.add_row(name, *values, metric.ends.replace("{limit}", limit))
    # Off a terminal a table is never folded to a width that nobody asked for.
    width = None if sys.stdout.isatty() else 160 + 24 * len(results)
    Console(width=width, highlight=False).print(table)
    for r in results:
        reasons: dict[str, Any] = r.meta["reasons"]
        for name, reason in reasons.items():
            console.line(f"{r.source}: {name} is undefined: {reason}")


def _title(r: GapResult) -> str:
    texts = f", {r.meta['texts']} texts" if r.meta["texts"] != r.n else ""
    split = f" {r.split}" if r.split else ""
    return f"{Path(r.source).name}{split}\nn={r.n}{texts}, d={r.dim}"


def _number(value: float) -> str:
    if value != value:
        return "–"
    return f"{value:.0f}" if value == int(value) and abs(value) >= 2 else f"{value:.4f}"
