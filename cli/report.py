"""``geomkit report``."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from geomkit._core.choices import PROJECTIONS
from geomkit.errors import GeomkitError, unknown_name

from . import console
from .many import for_rows, load_one, originals, say_notes, says_data, short_names
from .options import ModelOptions, Overwrite, one_of, within

if TYPE_CHECKING:
    from geomkit.reporting import Reported

__all__ = ["report"]


def report(
    sources: Annotated[
        list[str], typer.Argument(help="Checkpoints, models (with --data) or embeddings.")
    ],
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="Page to write, .html.")] = Path(
        "report.html"
    ),
    title: str = "Modality gap",
    projection: Annotated[str, one_of(*PROJECTIONS, "none")] = "pca",
    pairs: Annotated[int, within(8, 5000)] = 500,
    method: list[str] | None = None,
    caption_index: Annotated[int, within(0, math.inf)] = 0,
    seed: Annotated[int, within(0, math.inf)] = 0,
    exact_limit: int | None = None,
    overwrite: Overwrite = False,
    options: ModelOptions,
) -> None:
    """Write one page about the modality gap, to send to somebody: it needs no other file.

    Words first, then the metrics with errors, nulls and ideals, cosines, spectra, a projection,
    neighbours across modalities with images and captions, and hubs; several SOURCES side by side.
    Embeddings from a file get captions and images by their ids from --data.

    Args:
        sources: What to report on, up to 8.
        out: Page to write.
        title: Title of the page.
        projection: Projection of both modalities together: pca on a sphere, umap in a plane.
        pairs: Largest number of pairs to draw, 8 to 5,000.
        method: Method of geomkit close, repeatable, or all: adds what closing the gap after
            training does. So does --close with the name of a method.
        caption_index: Text of each image for every metric that is not a recall or rank, from 0.
        seed: Random seed of folds, samples, the layout and the examples.
        exact_limit: Number of rows up to which all pairs are compared; as for gap.
        overwrite: Whether to replace the page.
        options: How models become embeddings.

    Examples:
        $ geomkit report clip.pt cua.pt --method all
        $ geomkit report embeddings.parquet --projection umap --out page.html
    """
    from geomkit._core.files import sole_writer
    from geomkit.plots import check_page_path, save_page

    if len(sources) > 8:
        raise GeomkitError(f"a report is about 1 to 8 sources, got {len(sources)}")
    check_page_path(out, overwrite=overwrite)
    with sole_writer(out):
        from geomkit.interventions import INTERVENTIONS
        from geomkit.interventions.applying import check_method
        from geomkit.reporting import report as make

        if projection not in (*PROJECTIONS, "none"):
            raise unknown_name("projection", projection, (*PROJECTIONS, "none"))
        methods = list(method or ())
        named = str(options.close or "")
        if named.partition(":")[0] in ("all", *INTERVENTIONS) and not Path(named).exists():
            methods.append(named)  # no file: a method whose gain and cost the page shows
            options = replace(options, close=None)
        for one in methods:
            if one != "all":
                check_method(one)
        found: dict[str, Reported] = {}
        for name, source in zip(short_names(sources), sources, strict=True):
            for label, part in _loaded(source, name, options):
                if methods:
                    part = _closed(source, part, methods, options, caption_index, seed, exact_limit)
                found[f"{label} ({len(found) + 1})" if label in found else label] = part
        page = make(
            found,
            title=title,
            projection=projection,
            pairs=pairs,
            caption_index=caption_index,
            seed=seed,
            exact_limit=exact_limit,
            command=shlex.join(["geomkit", *console.settings.words]),
            announce=console.line,
        )
        save_page(page, out, overwrite=overwrite)
    console.wrote(out)


def _loaded(source: str, name: str, options: ModelOptions) -> Iterator[tuple[str, Reported]]:
    """Every pair of modalities of a source, by a name with its split."""
    from geomkit.embeddings.embeddings import Embeddings
    from geomkit.extraction.load import load_pairs
    from geomkit.reporting import Reported

    own = for_rows(source, options)
    parts, split = load_pairs(source, **own.arguments(), announce=says_data(source))
    say_notes(source, parts[0])
    for part in parts:
        label = name + (f", {split}" if split else "")
        if not isinstance(part, Embeddings):
            yield label, Reported(part, split, notes=part.meta.get("notes", ()))
            continue
        if len(parts) > 1:
            label += f", {'–'.join(part.modalities)}"
        found = originals(source, part, split, options)
        notes = [*part.meta.get("notes", ()), *found.notes]
        yield label, Reported(part, split, found, notes=notes)


def _closed(
    source: str,
    part: Reported,
    methods: list[str],
    options: ModelOptions,
    caption_index: int,
    seed: int,
    exact_limit: int | None,
) -> Reported:
    """A source with what methods do to it; where that is not to be had, a note says why."""
    from geomkit.embeddings.embeddings import Clouds
    from geomkit.interventions.closing import close
    from geomkit.models.checkpoints.kinds import find_kind

    kind, fit_on = find_kind(source), None
    if kind and kind.knows_data and options.data is None and part.split not in ("train", "all"):
        fit_on, _ = load_one(source, replace(options, split="train"))
    console.line(f"{source}: closing the gap")
    try:
        if isinstance(part.embeddings, Clouds):
            raise GeomkitError(part.embeddings.reason)
        closing = close(
            part.embeddings, methods, fit_on=fit_on, fit_from="train", seed=seed,
            caption_index=caption_index, exact_limit=exact_limit, source=source, split=part.split,
        )  # fmt: skip
    except GeomkitError as error:
        console.line(f"{source}: nothing is closed: {error}")
        return replace(part, notes=[*part.notes, f"nothing is closed: {error}"])
    return replace(part, closing=closing)
