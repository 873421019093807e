"""``geomkit gap``."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import console
from .options import Device, Download, ModelData, ModelSplit, Workers

if TYPE_CHECKING:
    from geomkit.embeddings.embeddings import Embeddings
    from geomkit.metrics import GapResult

__all__ = ["gap"]


def gap(
    context: typer.Context,
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            help="Checkpoints, models of others with --data (open_clip:NAME/TAG_OR_PATH, hf:DIR, "
            "openai:FILE, paper:FILE), or embeddings: .npz, .npy (2, n, d), .safetensors, .pt, "
            ".parquet, or a folder of them."
        ),
    ] = None,
    image: Annotated[
        Path | None, typer.Option(help="A .npy (n, d) of images, to go with --text.")
    ] = None,
    text: Annotated[Path | None, typer.Option(help="A .npy (n, d) of texts.")] = None,
    modality: Annotated[
        list[str] | None,
        typer.Option(help="NAME=FILE, any number: every pair of modalities is reported."),
    ] = None,
    split: ModelSplit = None,
    data: ModelData = None,
    metrics: Annotated[
        str | None, typer.Option(help="Names or groups, with commas; all if not given.")
    ] = None,
    caption_index: Annotated[
        int, typer.Option(help="Which text of an image all but retrieval uses.")
    ] = 0,
    folds: Annotated[
        str, typer.Option(help="Of the linear separability: a number, or paper (one 80/20 split).")
    ] = "5",
    seed: Annotated[int, typer.Option(help="Of folds, samples, projections and permutations.")] = 0,
    exact_limit: Annotated[
        int | None,
        typer.Option(
            help="Rows up to which all pairs are compared; past it sampled rows are compared with "
            "all. By default as long as it takes two minutes."
        ),
    ] = None,
    device: Device = "auto",
    workers: Workers = None,
    download: Download = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print CSV: a line a source and metric.")
    ] = False,
) -> int:
    """Measure the gap: one table for any number of sources.

    Any metric can be given a limit, --max-NAME or --min-NAME with a number (such as
    --max-centroid-distance 0.1): exit status 1 if a source misses it.
    """
    from geomkit._core.parallel import Team
    from geomkit.errors import GeomkitError
    from geomkit.metrics import gap as measure
    from geomkit.metrics import select
    from geomkit.sources import load_modalities, load_source

    if as_json and as_csv:
        raise GeomkitError("--json and --csv exclude each other; give one")
    sources, limits = _limits([*(sources or []), *context.args])
    if not sources and not (image or text or modality):
        raise GeomkitError("name at least one checkpoint, file or folder of embeddings")
    names = select([word.strip() for word in metrics.split(",")] if metrics else None)
    wanted = names + [m for m, *_ in limits if m not in names]
    number_of_folds = int(folds) if folds.isdigit() else folds
    team = Team.from_environment()
    named = _modalities(image, text, modality)
    loaded: list[tuple[str, Embeddings, str | None]] = []
    if named:
        if sources:
            raise GeomkitError("name sources, or modalities by --image, --text and --modality")
        for e in load_modalities(named, device=device):
            loaded.append((" ".join(str(named[m]) for m in e.modalities), e, None))
    results = []
    for source in sources or [""]:
        if source:
            found = load_source(
                source, data=data, split=split, device=device, download=download, workers=workers
            )
            loaded = [(source, *found)]
        results += [
            measure(
                embeddings,
                metrics=wanted,
                caption_index=caption_index,
                folds=number_of_folds,
                seed=seed,
                exact_limit=exact_limit,
                source=name,
                split=found_split,
                team=team,
            )
            for name, embeddings, found_split in loaded
        ]
    team.close()
    if team.rank:
        return 0  # the first rank speaks for all
    if as_json:
        from geomkit.metrics.measure import SCHEMA_VERSION

        whole = {"schema_version": SCHEMA_VERSION, "results": [r.to_json() for r in results]}
        typer.echo(json.dumps(whole, indent=2, ensure_ascii=False, allow_nan=False))
    elif as_csv:
        _print_csv(results)
    else:
        _print_table(results)
    return _missed(results, limits)


def _modalities(
    image: Path | None, text: Path | None, more: list[str] | None
) -> dict[str, str | Path]:
    """The named matrices, in the order given."""
    from geomkit.errors import GeomkitError

    named: dict[str, str | Path] = {}
    if image:
        named["image"] = image
    if text:
        named["text"] = text
    for word in more or []:
        name, equals, path = word.partition("=")
        if not (name and equals and path):
            raise GeomkitError(f"--modality {word}: expected NAME=FILE")
        if name in named:
            raise GeomkitError(f"--modality {word}: '{name}' is named twice")
        named[name] = path
    return named


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
    columns = ("value", "stderr", "null", "ideal", "p_value")
    writer.writerow(["source", "split", "modalities", "n", "dim", "metric", *columns, "estimated"])
    for r in results:
        for name, value in r.metrics.items():
            numbers = [value, *(getattr(r, c).get(name, math.nan) for c in columns[1:])]
            texts = [repr(number) if math.isfinite(number) else "" for number in numbers]
            start = [r.source, r.split or "", " ".join(r.modalities), r.n, r.dim, name]
            writer.writerow([*start, *texts, int(name in r.estimated)])


def _print_table(results: list[GapResult]) -> None:
    from rich.console import Console

    from geomkit.metrics.table import plain, rich_table

    if sys.stdout.isatty():
        Console(highlight=False).print(rich_table(results))
    else:  # never folded to a width that nobody asked for
        typer.echo(plain(results))
    for r in results:
        reasons: dict[str, Any] = r.meta["reasons"]
        for name, reason in reasons.items():
            console.line(f"{r.source}: {name} is undefined: {reason}")
        if not r.exact:
            seconds = r.meta.get("exact_seconds")
            took = f"; all pairs would take about {seconds:.0f} s" if seconds else ""
            console.line(
                f"{r.source}: ~ estimated from {r.meta['queries']} rows against all "
                f"{r.n:,}{took} (--exact-limit {max(r.n, r.meta['texts'])} for exact)"
            )
