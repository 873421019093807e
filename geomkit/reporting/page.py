"""One page about embeddings, to send to somebody: words first, then numbers, figures, examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from geomkit._core.choices import PROJECTIONS
from geomkit._core.shown import one_minus, shown
from geomkit.data import PairData
from geomkit.embeddings.embeddings import Clouds, Embeddings
from geomkit.errors import GeomkitError, unknown_name
from geomkit.extraction.originals import UNKNOWN, Originals
from geomkit.interventions.closing import Closing
from geomkit.metrics import GapResult, gap
from geomkit.metrics.wording import plural, verdict
from geomkit.plots.figures import distinct_names, histograms, sources_of, spectrum, sphere, umap
from geomkit.plots.layout import UmapOptions
from geomkit.plots.page import SIDES, SIZE, compressed, in_base64, page_environment, thumbnails
from geomkit.plots.planes import spaced
from geomkit.reporting.drawing import inline_svg
from geomkit.reporting.examples import Search, search
from geomkit.reporting.tables import closing_table, metric_tables, undefined

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Reported", "report"]

_MOST = 8
_DRAWN = 20_000
"""Pairs that figures are of at most."""


@dataclass(frozen=True)
class Reported:
    """What a page shows of one source.

    Attributes:
        embeddings: What is measured.
        split: Split of the data, if known.
        originals: Images and captions, see
            :meth:`geomkit.extraction.originals.Originals.of`.
        closing: What interventions do to it, from :func:`geomkit.interventions.closing.close`.
        notes: What was assumed, and what is not used.
    """

    embeddings: Embeddings | Clouds
    split: str | None = None
    originals: Originals = UNKNOWN
    closing: Closing | None = None
    notes: Sequence[str] = ()


def report(
    sources: Any,
    text: Any = None,
    *,
    title: str = "Modality gap",
    projection: str = "pca",
    pairs: int = 500,
    caption_index: int = 0,
    seed: int = 0,
    exact_limit: int | None = None,
    command: str = "",
    date: str | None = None,
    announce: Callable[[str], None] = lambda line: None,
) -> str:
    """Return a page about one or several sources that needs no other file, script or network.

    It says in words what was found, then shows the metrics with errors, nulls and ideals, cosines,
    spectra, a projection, neighbours across modalities with images and captions, and hubs.

    Args:
        sources: Image rows, ``(n, d)``; :class:`~geomkit.Embeddings`; a file of embeddings; or a
            dictionary by name of up to 8 of these, or of :class:`Reported`.
        text: Text rows, ``(n, d)``, if ``sources`` is image rows.
        title: Title of the page.
        projection: ``pca``, on the sphere of the first three principal components; ``umap``, in the
            plane; or ``none``.
        pairs: Largest number of pairs to draw.
        caption_index: Text of each image for every metric that is no recall or rank.
        seed: Random seed of folds, samples, the layout and the examples.
        exact_limit: Number of rows up to which all pairs are compared, as for :func:`geomkit.gap`.
        command: Command that makes the page again, to be shown.
        date: Date to be shown; default: today.
        announce: Function called with what is being done.

    Returns:
        HTML, of about 8 MB at most.

    Raises:
        GeomkitError: If there are no sources or more than 8, or as :func:`geomkit.gap`.

    Example:
        >>> x, y = np.random.default_rng(0).standard_normal((2, 40, 4))
        >>> page = report(x + 2, y - 2, title="a <b>", projection="none")
        >>> "<title>a &lt;b&gt;</title>" in page, "Disjoint clouds" in page
        (True, True)
    """
    if projection not in (*PROJECTIONS, "none"):
        raise unknown_name("projection", projection, (*PROJECTIONS, "none"))
    if pairs < 1:
        raise GeomkitError(f"pairs: expected 1 or more, got {pairs}")
    parts = _reported(sources, text)
    if not 1 <= len(parts) <= _MOST:
        raise GeomkitError(f"a report is about 1 to {_MOST} sources, got {len(parts)}")
    results: dict[str, GapResult] = {}
    for name, part in parts.items():
        announce(f"{name}: measuring")
        results[name] = gap(
            part.embeddings, caption_index=caption_index, seed=seed, exact_limit=exact_limit,
            source=name, split=part.split,
        )  # fmt: skip
    announce("drawing, and searching for neighbours")
    drawn = [_figures(kind, parts, caption_index) for kind in _kinds(projection, pairs, seed)]
    searches = {
        name: search(part.embeddings, part.originals, seed=seed, caption_index=caption_index)
        for name, part in parts.items()
    }
    environment = page_environment("geomkit.reporting")
    environment.globals["words"] = plural
    environment.filters["breakable"] = _breakable
    environment.filters["signed"] = one_minus
    template = environment.get_template("report.html.jinja")
    missing = dict.fromkeys(
        (card["name"], card["note"]) for kind in drawn for card in kind["cards"] if not card["svg"]
    )
    content: dict[str, Any] = {
        "title": shown(title),
        "sources": [_source(name, parts[name], results[name]) for name in parts],
        "tables": metric_tables(list(results.values())),
        "reasons": [*((n, why) for n, r in results.items() for why in undefined(r)), *missing],
        "figures": [kind for kind in drawn if any(card["svg"] for card in kind["cards"])],
        "searches": searches,
        "closings": [closing_table(name, p.closing) for name, p in parts.items() if p.closing],
        "paired": any(r.meta.get("paired", True) for r in results.values()),
        "command": shown(command),
        "date": date or datetime.now(UTC).date().isoformat(),
        "versions": f"geomkit {version('geomkit')}, numpy {version('numpy')}",
        "seed": seed,
        "attributions": dict.fromkeys(
            shown(p.originals.data.attribution)
            for p in parts.values()
            if p.originals.data and p.originals.data.attribution
        ),
    }
    pixels = {name: _pixels(parts[name].originals.data, found) for name, found in searches.items()}
    page = template.render(**content, pictures={name: {} for name in parts})
    for side in SIDES if any(pixels.values()) else ():
        pictures = {
            name: {row: in_base64(compressed(one, side)) for row, one in some.items()}
            for name, some in pixels.items()
        }
        with_pictures = template.render(**content, pictures=pictures)
        if len(with_pictures.encode()) <= SIZE:
            return with_pictures
    return page


def _reported(sources: Any, text: Any) -> dict[str, Reported]:
    """What to report on, by name, from whatever a user gives."""
    kinds = (Reported, Embeddings, Clouds)
    if text is None and isinstance(sources, kinds):
        sources = {"embeddings": sources}
    if isinstance(sources, Mapping) and any(isinstance(v, kinds) for v in sources.values()):
        whole = {
            name: value if isinstance(value, kinds) else sources_of({"": value})[""]
            for name, value in zip(distinct_names(sources), sources.values(), strict=True)
        }
        return {n: v if isinstance(v, Reported) else Reported(v) for n, v in whole.items()}
    found = sources_of(sources, text)
    return {shown(name) or "embeddings": Reported(one) for name, one in found.items()}


def _source(name: str, part: Reported, result: GapResult) -> dict[str, Any]:
    """What a source is, and what was found, in words."""
    meta = part.embeddings.meta
    n, m = result.n, result.meta.get("texts", result.n)
    counts = [f"{n:,} {plural(result.modalities[0])}"]
    counts += [f"{m:,} {plural(result.modalities[-1])}"] * (len(result.modalities) > 1)
    size = [*counts, f"d = {result.dim}", *([f"{part.split} split"] if part.split else [])]
    told = {
        "From": meta.get("path"), "Data": meta.get("data"), "Model": meta.get("model"),
        "Kind": meta.get("kind"), "Loss": meta.get("loss"),
        "Architecture": meta.get("architecture"), "Precision": meta.get("precision"),
        "Closed by": meta.get("closed_by"),
    }  # fmt: skip
    notes = list(dict.fromkeys([*(part.notes or meta.get("notes", ())), *part.originals.notes]))
    if result.estimated and (queries := result.meta.get("queries")):
        notes.append(f"~ is estimated from {queries:,} rows against all {n:,}")
    return {
        "name": name,
        "verdict": verdict(result),
        "size": ", ".join(size),
        "facts": {key: shown(str(value)) for key, value in told.items() if value},
        "notes": [shown(str(note)) for note in notes],
    }


@dataclass(frozen=True)
class _Kind:
    """A kind of figure, one of which is drawn of each source."""

    key: str
    heading: str
    words: str
    label: str
    make: Callable[[Embeddings], Figure]


def _kinds(projection: str, pairs: int, seed: int) -> list[_Kind]:
    kinds = [
        _Kind(
            "cosines", "Cosines",
            "How similar pairs are, and images and captions that do not belong together, and rows "
            "of one modality. Where the gap is wide, two rows of one modality are more similar "
            "than a pair. A pair is found by retrieval if its cosine is right of the unpaired "
            "ones of its row.",
            "Densities of the cosines of pairs, of unpaired rows, and within each modality",
            histograms,
        ),
        _Kind(
            "spectra", "Spectra",
            "Share of the variance of each modality that its first principal components hold, "
            "with 95% intervals. The thin diagonal is a cloud with the same variance in every "
            "direction. Dotted lines mark 80 and 90%.",
            "Cumulative explained variance of images and captions against components",
            spectrum,
        ),
    ]  # fmt: skip
    if projection == "pca":
        kinds.append(_Kind(
            "sphere", "Sphere",
            "Images and captions on the unit sphere: of more than three dimensions the first three "
            "principal components of both together, put back on the sphere. What the others hold "
            "is not seen: the table has the distances.",
            "Images and captions as dots on a sphere",
            partial(sphere, pairs=pairs),
        ))  # fmt: skip
    if projection == "umap":
        kinds.append(_Kind(
            "umap", "UMAP",
            "Nearby dots are nearby rows. Distances between far dots mean nothing.",
            "Images and captions as dots of a plane, laid out by UMAP",
            partial(umap, options=UmapOptions(pairs=pairs, seed=seed), lines=False),
        ))  # fmt: skip
    return kinds


def _figures(kind: _Kind, parts: Mapping[str, Reported], caption_index: int) -> dict[str, Any]:
    """A figure of each source, or why there is none."""
    made: dict[str, Figure] = {}
    notes: dict[str, str] = {}
    for name, part in parts.items():
        if isinstance(part.embeddings, Clouds):
            notes[name] = f"figures: {part.embeddings.reason}"
            continue
        try:
            made[name] = kind.make(_thinned(part.embeddings, caption_index))
        except GeomkitError as error:
            notes[name] = f"{kind.heading.lower()}: {error}"
    if kind.key == "cosines" and made:  # sources are compared along one axis
        ends = [axes.get_xlim() for figure in made.values() for axes in figure.axes]
        for figure in made.values():
            figure.axes[0].set_xlim(min(low for low, _ in ends), max(high for _, high in ends))
    cards = [
        {
            "name": name,
            "svg": inline_svg(made[name], f"{kind.label}: {name}", f"{kind.key}{k}")
            if name in made
            else "",
            "note": notes.get(name) or _part(parts[name].embeddings),
        }
        for k, name in enumerate(parts)
    ]
    return {"key": kind.key, "heading": kind.heading, "words": kind.words, "cards": cards}


def _thinned(embeddings: Embeddings, caption_index: int) -> Embeddings:
    """The pairs that figures are of: all, or of very many evenly spaced ones."""
    n = embeddings.n
    some = embeddings if n <= _DRAWN else embeddings.subset(spaced(n, _DRAWN))
    if not caption_index:
        return some
    image, text = some.pairs(caption_index)
    return replace(some, image=image, text=text, image_index=np.arange(some.n))


def _part(embeddings: Embeddings | Clouds) -> str:
    n = embeddings.n if isinstance(embeddings, Embeddings) else 0
    return f"of {_DRAWN:,} evenly spaced pairs of {n:,}" if n > _DRAWN else ""


def _breakable(name: str) -> Markup:
    """A name that may be broken after each underscore."""
    return Markup("_<wbr>").join(name.split("_"))


def _pixels(data: PairData | None, found: Search) -> dict[int, np.ndarray]:
    """The images that are shown, by their row."""
    if data is None or not found.images:
        return {}
    rows = sorted(found.images)
    return dict(zip(rows, thumbnails(data.take(np.array(rows))), strict=True))
