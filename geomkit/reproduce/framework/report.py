"""Reports of a run: one per experiment in its folder, and an index over all of them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from geomkit._core.shown import in_markdown
from geomkit.errors import GeomkitError
from geomkit.reproduce.framework import catalogue
from geomkit.reproduce.framework.cells import pairs_of
from geomkit.reproduce.framework.claims import (
    NO_DIFFERENCE,
    NOT_REPRODUCED,
    STATUSES,
    UNDECIDED,
    holm,
)
from geomkit.reproduce.framework.commands import train_command
from geomkit.reproduce.framework.document import DARK, document, write_pages
from geomkit.reproduce.framework.experiment import FEW, SHARES, Experiment
from geomkit.reproduce.framework.numbers import one_minus
from geomkit.reproduce.framework.record import JudgedClaim, Outcome, Record, read_record
from geomkit.reproduce.framework.results import Rows, published
from geomkit.reproduce.framework.tables import Table, comparison

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "STATUSES",
    "UNMET",
    "claims_table",
    "counted",
    "index_pages",
    "overview",
    "report_pages",
    "stored_records",
    "told",
    "write_index",
    "write_report",
]  # fmt: skip

DPI = 200
PAPER = (
    "Fahim, Murphy, Fyshe, It's Not a Modality Gap: Characterizing and Addressing the Contrastive "
    "Gap, [arXiv 2405.18570](https://arxiv.org/abs/2405.18570)"
)
QUICK = "one seed, a quarter of the steps; such a run may confirm a claim, but never denies it."
_NAME = re.compile(r"[\w.-]+")
UNMET = {
    NO_DIFFERENCE: "Where no difference is large enough to matter",
    NOT_REPRODUCED: "What did not reproduce, and the likely reason",
    UNDECIDED: "What could not be decided",
}
"""Statuses whose likely reason is said, with the heading of it."""


@dataclass(frozen=True)
class Image:
    """An image of a report.

    Attributes:
        link: Path from the report to the file.
        caption: Caption.
        others: Paths of other formats of it.
    """

    link: str
    caption: str
    others: tuple[str, ...] = ()


def write_report(outcome: Outcome, figures: Mapping[str, Figure], record: Record) -> list[str]:
    """Write the figures (PNG and PDF), ``report.md`` and ``report.html`` of an experiment.

    Args:
        outcome: Outcome; its folder holds ``results.csv`` already.
        figures: Figures by name.
        record: Content of ``run.json``.

    Returns:
        Names of the files of the report, animations included, in the order of the report.
    """
    from geomkit.plots import finish, save_figure

    folder, written = outcome.folder, []
    about = _about(outcome, record)
    for name, figure in figures.items():
        finish(figure, about=about)
        for suffix in ("png", "pdf"):
            save_figure(figure, folder / f"{name}.{suffix}", overwrite=True, dpi=DPI)
            figure.set_layout_engine("none")  # the others have the places of the first
        finish(figure, theme="dark")
        save_figure(figure, folder / f"{name}{DARK}.png", overwrite=True, dpi=DPI)
        written += [f"{name}.png", f"{name}.pdf", f"{name}{DARK}.png"]
    for path in sorted(folder.glob("*.gif")):
        written += [p.name for p in (path, path.with_suffix(".mp4")) if p.exists()]
    pages = report_pages(outcome, written, record)
    write_pages(folder, pages)
    return [*written, *pages]


def _about(outcome: Outcome, record: Record) -> str:
    """What figures are of: data and number of pairs, protocol, seeds.

    Figures of an experiment with both protocols say themselves which is which.
    """
    options, rows = record.options, outcome.rows
    cells = outcome.experiment.cells(options.first(record.seeds or len(options.seeds)))
    starts = {cell.start is not None for cell in cells}
    if len(starts) > 1:
        return ""
    protocol = "fine-tuned from one pretrained model" if True in starts else "from scratch"
    if options.pretrained is not None and cells:
        protocol = f"fine-tuned from {options.pretrained}"
    data = [row.data for row in rows.where(lambda row: row.seed >= 0)]
    # Tasks ask some of the images each, and controls use some of the pairs.
    whole = cells and "task" not in {key for row in rows for key in row.conditions}
    most = [cell.config.pairs for cell in cells if cell.config.pairs]
    sizes = [
        f"{name}, n = {min([n, *most]):,}" if whole and (n := pairs_of(name)) else name
        for name in dict.fromkeys(data)
    ]
    # Of trainings; measures before any training may use more.
    seeds: dict[Hashable, set[int]] = {}
    for cell in cells:
        seeds.setdefault(replace(cell.config, seed=0), set()).add(cell.config.seed)
    for row in rows.where(lambda row: row.seed >= 0) if not cells else ():
        seeds.setdefault(row.setting, set()).add(row.seed)
    return " · ".join(filter(None, [*sizes[:2], protocol, _counted_seeds([*seeds.values()])]))


def _counted_seeds(seeds: Sequence[set[int]]) -> str:
    """How many seeds the settings of an experiment have, in words."""
    if len(each := set[int]().union(*seeds)) < 2:
        return "".join(f"seed {seed}" for seed in each)
    few, most = min(map(len, seeds)), max(map(len, seeds))
    return f"{few} to {most} seeds" if few < most else f"{most} seed{'s' * (most > 1)}"


def report_pages(outcome: Outcome, files: Iterable[str], record: Record) -> dict[str, bytes]:
    """Content of ``report.md`` and ``report.html`` of an experiment, by name.

    Args:
        outcome: Outcome; its folder holds the figures.
        files: Names of the figures and animations in all their formats, in order.
        record: Content of ``run.json``.
    """
    folder, e, options, record = (
        outcome.folder, outcome.experiment, record.options, record.in_markdown()
    )  # fmt: skip
    seeds = record.seeds or len(options.seeds)
    cells = e.every_cell(options, seeds, beside=bool(record.beside))
    rows = Rows(
        replace(row, data=in_markdown(row.data), loss=in_markdown(row.loss),
                metric=in_markdown(row.metric), condition=in_markdown(row.condition))
        for row in outcome.rows
    )  # fmt: skip
    tables, complete = comparison(rows, published(e.published) if e.published else Rows())
    return document(
        folder, "report.md.jinja", e.title,
        experiment=e, record=record, images=_images(e, files), claims=claims_table(record),
        tables=tables, complete=complete, counted=counted, quick=QUICK, paper=PAPER,
        few=min(FEW, len(options.seeds)),
        looks=[len(stage.seeds) for stage in e.stages(options)],
        shares=[f"{0.05 * share:.0%}" for share in SHARES],
        commands=[train_command(cell, f"cells/{cell.key}.pt") for cell in cells],
        sources=_sources([*(cell.config.data for cell in cells), options.data, *options.tasks]),
    )  # fmt: skip


def _images(experiment: Experiment, files: Iterable[str]) -> list[Image]:
    """Figures and animations among files, each with its other format."""
    found, names = [], list(files)
    for name in names:
        stem, _, suffix = name.rpartition(".")
        if suffix == "gif" or (suffix == "png" and not stem.endswith(DARK)):
            other, of = (f"{stem}.mp4", name) if suffix == "gif" else (f"{stem}.pdf", stem)
            others = (other,) if other in names else ()
            found.append(Image(name, _caption(experiment, of), others))
    return found


def write_index(out: Path) -> list[Path]:
    """Write ``report.md`` and ``report.html`` over every finished experiment in a folder.

    Experiments of earlier runs are included, as their ``run.json`` describes them.

    Args:
        out: Folder of results.

    Returns:
        Files ``run.json`` that are left out: damaged, or of another experiment than their folder.
    """
    pages, left_out = index_pages(out)
    write_pages(out, pages)
    return left_out


def index_pages(out: Path) -> tuple[dict[str, bytes], list[Path]]:
    """Content of the files that :func:`write_index` writes, and what it returns."""
    known = catalogue.all_experiments()
    records, left_out = stored_records(out)
    claims = {name: claims_table(record) for name, record in records.items()}
    verdicts = [(record, v) for record in records.values() for v in record.verdicts]
    pages = document(
        out, "index.md.jinja", "Reproduction",
        records=records, claims=claims, counted=counted, quick=QUICK, paper=PAPER,
        told=told(records),
        quick_runs=[name for name, record in records.items() if record.options.quick],
        overview=overview(records),
        multiplicity=_multiplicity([v for record, v in verdicts if not record.explains]),
        images={
            name: Image(f"{name}/{first}.png", _caption(known.get(name), first))
            for name, record in records.items()
            if (first := _first_figure(name, record)) and (out / name / f"{first}.png").exists()
        },
        unmet={
            title: [(record, v) for record, v in verdicts if v.status == status]
            for status, title in UNMET.items()
        },
        commands=list(dict.fromkeys(record.command for record in records.values())),
        seconds=sum(r.seconds.training + r.seconds.measuring for r in records.values()),
        made_with=list(dict.fromkeys(record.made_with for record in records.values())),
        sources=_sources(record.options.data for record in records.values()),
    )  # fmt: skip
    return pages, left_out


def _first_figure(name: str, record: Record) -> str:
    """Name of the figure that stands for an experiment; older records do not list theirs."""
    own = [file for file in record.files if file.endswith(".png")]
    return (own[0] if own else f"{name}.png").removesuffix(".png")


def stored_records(out: Path) -> tuple[dict[str, Record], list[Path]]:
    """Records of the finished experiments in a folder as Markdown shows them, in order.

    Returns:
        Records by experiment, and files ``run.json`` that are left out.
    """
    stored, left_out = {}, []
    for path in sorted(out.glob("*/run.json")):
        name, found = path.parent.name, read_record(path.parent)
        if found is None or found.experiment != name or not _NAME.fullmatch(name):
            left_out.append(path)
        else:
            stored[name] = found.in_markdown()
    order = dict.fromkeys([*catalogue.all_experiments(), *stored])
    return {name: stored[name] for name in order if name in stored}, left_out


def overview(records: Mapping[str, Record], base: str = "") -> Table:
    """Number of claims by verdict, an experiment a line.

    Args:
        records: Records by experiment.
        base: Path from the document to the folder of results, with a slash at its end.
    """
    lines = []
    for name, record in records.items():
        numbers = (str(sum(v.status == s for v in record.verdicts)) for s in STATUSES)
        link = f"[{record.title}]({base}{name}/report.md)"
        lines.append((link, in_markdown(record.options.data), *numbers))
    return Table(("experiment", "data", *STATUSES), tuple(lines))


def _caption(experiment: Experiment | None, name: str) -> str:
    text = name.removesuffix(".gif").replace("_", " ").replace("-", " ")
    default = text[:1].upper() + text[1:]
    return experiment.captions.get(name, default) if experiment else default


def claims_table(record: Record) -> Table:
    """Claims and their verdicts, with those from scratch in a column of their own."""
    beside = {v.claim: v.status for v in record.beside}
    lines = tuple(
        (v.claim, one_minus(v.published), v.status, *([beside.get(v.claim, "")] if beside else []),
         one_minus(v.why)) for v in record.verdicts
    )  # fmt: skip
    scratch = ("from scratch",) if beside else ()
    return Table(("claim", "published", "here", *scratch, "why"), lines)


def _multiplicity(verdicts: Sequence[JudgedClaim]) -> str:
    """How far verdicts hold where all claims are taken together."""
    decided = [1.0 if v.p is None else v.p for v in verdicts if v.status != UNDECIDED]
    kept = holm([*decided, *[1.0] * (len(verdicts) - len(decided))])
    return (
        f"Each verdict by itself is wrong with a probability of at most 5%; of {len(verdicts)} "
        f"claims, up to {0.05 * len(verdicts):.1f} could be decided wrongly by chance. With that "
        f"error for all claims together (Holm), {kept} of the {len(decided)} verdicts stand."
    )


def counted(verdicts: Sequence[JudgedClaim]) -> str:
    """Number of claims by verdict, in one sentence."""
    counts = Counter(v.status for v in verdicts)
    parts = [f"{counts[status]} {status}" for status in STATUSES if counts[status]]
    return f"{len(verdicts)} claims: {', '.join(parts)}." if parts else "No claims."


def told(records: Mapping[str, Record]) -> str:
    """Number of the paper's claims by verdict, and of our explanations, in one or two sentences."""
    paper, ours = (
        [v for record in records.values() if record.explains is which for v in record.verdicts]
        for which in (False, True)
    )
    text = counted(paper)
    return f"{text} Of explanations of ours, {counted(ours)}" if ours else text


def _sources(specs: Iterable[str]) -> list[str]:
    """Data with their licences, each once."""
    from geomkit.data import datasets, parse_spec

    specs = list(dict.fromkeys(specs))
    lines = []
    for spec in specs:
        try:
            known = datasets()[parse_spec(spec).name]
        except (GeomkitError, KeyError):
            lines.append(f"Data `{in_markdown(spec)}`")
            continue
        licence = f"({known.licence})" if known.licence else ""
        data = f"Data `{in_markdown(spec)}`"
        lines.append(" ".join(filter(None, [data, licence, known.attribution])))
    if any(spec.startswith("openmoji") for spec in specs):
        lines.append("Figures that show OpenMoji's pictures are under CC BY-SA 4.0 as well")
    return lines
