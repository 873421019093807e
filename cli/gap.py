"""``geomkit gap``."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from geomkit.errors import GeomkitError, unknown_name
from geomkit.models.checkpoints.kinds import model_forms

from . import console
from .many import say_notes, says_data, short_names
from .options import ModelOptions, one_of
from .ranks import joined

if TYPE_CHECKING:
    from geomkit.embeddings.embeddings import Clouds, Embeddings
    from geomkit.metrics import GapResult

__all__ = ["gap"]

_SAID = 3
"""Sources up to which each is told in words above the table."""


def gap(
    context: typer.Context,
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            help=f"Checkpoints; third-party models, with --data ({model_forms()}); or embeddings: "
            ".npz, .npy (2, n, d), .safetensors, .pt, .parquet, .csv, .jsonl, or a folder of them."
        ),
    ] = None,
    *,
    image: Path | None = None,
    text: Path | None = None,
    modality: list[str] | None = None,
    unpaired: bool = False,
    options: ModelOptions,
    metrics: str | None = None,
    caption_index: int = 0,
    folds: str = "5",
    seed: int = 0,
    exact_limit: int | None = None,
    compare: bool = False,
    form: Annotated[str, one_of("text", "markdown", "latex", flag="--format")] = "text",
    as_json: bool = False,
    as_csv: bool = False,
) -> int:
    """Measure the modality gap: one table for any number of sources.

    Any metric can have a limit, --max-NAME or --min-NAME with a number: the exit status is 1 if a
    source misses it.

    Args:
        context: Arguments that are no options of the command.
        sources: What to measure.
        image: A file with one matrix (n, d) of image embeddings; goes with --text.
        text: A file with one matrix (n, d) of text embeddings.
        modality: NAME=FILE, repeatable: every pair of modalities is measured.
        unpaired: Row i of one modality does not belong to row i of the other.
        options: How models become embeddings.
        metrics: Comma-separated metrics or groups, or all; see geomkit metrics. Default: a dozen;
            all for --json and --csv.
        caption_index: Text of each image for every metric that is not a recall or rank, from 0.
        folds: Folds of the linear separability: a number, or paper for one 80/20 split.
        seed: Random seed of folds, samples, projections and permutations.
        exact_limit: Number of rows up to which all pairs are compared; past it sampled rows are
            compared with all rows. Default: exact if it takes at most two minutes.
        compare: Add the difference of each source from the first one, with the standard error of
            the difference over pairs and a two-sided p-value; all must have the same pairs in the
            same order.
        form: Form of the table; latex needs the package booktabs.
        as_json (--json): Print one JSON object.
        as_csv (--csv): Print CSV, one line per source and metric.

    Examples:
        $ geomkit gap ckpt.pt
        $ geomkit gap clip.pt cua.pt --metrics gap,retrieval --compare
    """
    from geomkit.extraction.load import load_modalities, load_pairs
    from geomkit.metrics import METRICS, select
    from geomkit.metrics import gap as measure
    from geomkit.metrics.comparison import alike, differences_json, differences_table
    from geomkit.metrics.result import to_csv, to_json

    with joined(options.device) as team:
        if as_json and as_csv:
            raise GeomkitError("--json and --csv exclude each other; give one")
        sources, limits = _limits([*(sources or []), *context.args])
        named = _modalities(image, text, modality)
        if not sources and not named:
            raise GeomkitError("name at least one checkpoint, file or folder of embeddings")
        if sources and named:
            raise GeomkitError("name sources, or modalities by --image, --text and --modality")
        console.check_form(form, ("text", "markdown", "latex"))
        if form != "text" and (as_json or as_csv):
            raise GeomkitError("--format is about tables; leave --json and --csv out")
        if compare and as_csv:
            raise GeomkitError("--compare prints a table or --json; leave --csv out")
        if compare and len(sources) < 2:
            raise GeomkitError("--compare takes two sources or more")
        chosen = metrics or ("all" if as_json or as_csv else "summary")
        names = select([word.strip() for word in chosen.split(",")])

        def loaded() -> Iterator[tuple[str, Embeddings | Clouds, str | None]]:
            if named:
                pairs = load_modalities(named, device=options.device, close=options.close)
                say_notes("", pairs[0])  # each note names its file
                yield from ((e.meta["path"], e, None) for e in pairs)
            for source in sources:
                pairs, split = load_pairs(
                    source, **options.arguments(), announce=says_data(source), team=team
                )
                say_notes(source, pairs[0])
                if compare and not getattr(pairs[0], "ids", ()):
                    console.line(f"{source}: has no ids: row i is taken for pair i of the others")
                yield from ((source, e, split) for e in pairs)

        results = [
            measure(
                embeddings,
                paired=not unpaired,
                metrics=[*names, *(name for name, *_ in limits)],
                caption_index=caption_index,
                folds=int(folds) if folds.isdecimal() else folds,
                seed=seed,
                exact_limit=exact_limit,
                parts=compare,
                source=name,
                split=found_split,
                team=team,
            )
            for name, embeddings, found_split in alike(loaded(), compare)
        ]
    if team.rank:
        return 0  # the first rank reports for all
    for r in results:
        _say_undefined(r)
    if as_json:
        whole = to_json(results)
        if compare:
            whole["differences"] = differences_json(results)
        console.out(json.dumps(whole, indent=2, ensure_ascii=False, allow_nan=False))
    elif as_csv:
        console.out(to_csv(results), end="")
    else:
        _print_table(results, form, flat=not metrics)
        if not metrics:
            console.line(f"{len(names)} of {len(METRICS)} metrics; --metrics all for the rest")
        if compare:
            console.out("")
            console.table(differences_table(results), form)
            _say_unpaired(results)
    return _missed(results, limits)


def _modalities(
    image: Path | None, text: Path | None, more: list[str] | None
) -> dict[str, str | Path]:
    """The named matrices, in the order given."""
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
    """Separate sources from limits such as ``--max-centroid-distance 0.1``.

    Every metric has a limit, so limits are parsed here and not declared one by one.
    """
    from geomkit.metrics import METRICS

    by_option = {name.replace("_", "-"): name for name in METRICS}
    sources, limits = [], []
    rest = iter(words)
    for word in rest:
        if not word.startswith("-"):
            sources.append(word)
            continue
        option, equals, value = word.partition("=")
        side, name = option[2:5], option[6:].replace("_", "-")
        if not option.startswith(("--max-", "--min-")):
            raise GeomkitError(f"unknown option '{word}'; see geomkit gap --help")
        if name not in by_option:
            raise unknown_name(f"metric in {option}", name, by_option, see="geomkit metrics")
        text = value if equals else next(rest, "")
        try:
            limit = float(text)
        except ValueError:
            limit = math.nan
        if math.isnan(limit):
            raise GeomkitError(f"{option}: expected a number, got '{text}'")
        limits.append((by_option[name], side, limit))
    return sources, limits


def _missed(results: list[GapResult], limits: list[tuple[str, str, float]]) -> int:
    status = 0
    for result in results:
        for name, side, limit in limits:
            value = result.metrics[name]
            kept = value <= limit if side == "max" else value >= limit
            if not kept:  # an undefined value misses every limit
                status = 1
                relation = "above" if side == "max" else "below"
                text = f"{value:.6g} is {relation} the limit {limit:g}"
                if math.isnan(value):
                    text = f"is undefined and misses the limit {limit:g}"
                console.line(f"geomkit: {result.source}: {name} {text}", even_if_quiet=True)
    return status


def _say_unpaired(results: list[GapResult]) -> None:
    """Print which differences have no error."""
    known = results[0].metrics
    without = [n for n in known if n not in results[0].parts and not math.isnan(known[n])]
    if without:
        console.line(f"without an error of the difference: {', '.join(without)}")


def _say_undefined(r: GapResult) -> None:
    """Print why metrics have no value, a line for each reason."""
    reasons = r.meta["reasons"]
    for reason in dict.fromkeys(reasons.values()):
        names = [name for name in reasons if reasons[name] == reason]
        console.line(f"{r.source}: {', '.join(names)} undefined: {reason}")


def _print_table(results: list[GapResult], form: str, *, flat: bool) -> None:
    """Print the words and the table, without lines between groups if it is to fit a terminal."""
    from geomkit.metrics import verdict
    from geomkit.metrics.result import table

    said = [verdict(r) for r in results]
    if any(said) and len(said) <= _SAID:
        names = short_names([r.source for r in results])
        if len({r.modalities for r in results}) > 1:
            names = [
                f"{name}, {'–'.join(r.modalities)}" for name, r in zip(names, results, strict=True)
            ]
        for name, words in zip(names, said, strict=True):
            line = f"{name}: {words}" if len(said) > 1 else words
            console.words(f"% {line}" if form == "latex" else line)
        console.out("")
    whole = table(results)
    if flat:
        whole = replace(whole, sections=[[row for section in whole.sections for row in section]])
    console.table(whole, form)
    for r in results:
        if not r.exact:
            seconds = r.meta.get("exact_seconds")
            took = f"; all pairs would take about {seconds:.0f} s" if seconds else ""
            if not r.meta.get("paired", True):
                console.line(f"{r.source}: ~ estimated from {r.meta['queries']:,} rows of each")
                continue
            console.line(
                f"{r.source}: ~ estimated from {r.meta['queries']} rows against all "
                f"{r.n:,}{took} (--exact-limit {max(r.n, r.meta['texts'])} for exact)"
            )
