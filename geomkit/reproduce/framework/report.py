"""What a run wrote down: a folder an experiment, and a page over all of them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geomkit._core.files import atomic_write
from geomkit.errors import GeomkitError
from geomkit.reproduce.framework.claims import NOT_REPRODUCED, REPRODUCED, UNDECIDED
from geomkit.reproduce.framework.commands import train_command
from geomkit.reproduce.framework.document import (
    Block,
    Code,
    Heading,
    Picture,
    Table,
    Text,
    to_html,
    to_markdown,
)
from geomkit.reproduce.framework.experiment import Experiment, Options
from geomkit.reproduce.framework.results import Rows, published
from geomkit.reproduce.framework.tables import comparison

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from geomkit.reproduce.framework.runner import Outcome

__all__ = ["write_index", "write_report"]

DPI = 200
PAPER = (
    "Fahim, Murphy, Fyshe, It's Not a Modality Gap: Characterizing and Addressing the Contrastive "
    "Gap, [arXiv 2405.18570](https://arxiv.org/abs/2405.18570)"
)
_MARKS = {REPRODUCED: "yes", NOT_REPRODUCED: "no", UNDECIDED: "open"}


def write_report(
    outcome: Outcome, figures: Mapping[str, Figure], details: dict[str, Any], options: Options
) -> None:
    """Write the figures (PNG and PDF), ``report.md`` and ``report.html`` of an experiment.

    Args:
        outcome: rows, verdicts and the folder, in which ``results.csv`` lies already.
        figures: by name.
        details: see :func:`geomkit.reproduce.framework.runner.run`.
        options: as asked for.
    """
    from geomkit.plots import save_figure

    folder = outcome.folder
    pictures = []
    for name, figure in figures.items():
        for suffix in ("png", "pdf"):
            save_figure(figure, folder / f"{name}.{suffix}", overwrite=True, dpi=DPI)
        caption = outcome.experiment.captions.get(name, _title(name))
        pictures.append(Picture(folder / f"{name}.png", caption, (f"{name}.pdf",)))
    for path in sorted(folder.glob("*.gif")):
        caption = outcome.experiment.captions.get(path.name, _title(path.stem))
        films = tuple(p.name for p in [path.with_suffix(".mp4")] if p.exists())
        pictures.append(Picture(path, caption, films))
    _write(folder, _report(outcome, pictures, details, options), outcome.experiment.title)


def _report(
    outcome: Outcome, pictures: Sequence[Picture], details: dict[str, Any], options: Options
) -> list[Block]:
    e = outcome.experiment
    blocks: list[Block] = [Heading(e.title, 1), Text(e.question)]
    verdicts = details["verdicts"]
    if verdicts:
        blocks.append(Text(f"**{_counted(verdicts)}**{_quick(options)}"))
    blocks += [Heading("Figures"), *pictures] if pictures else []
    if e.notes:
        blocks += [Heading("How to read this"), Text(e.notes)]
    if verdicts:
        lines = tuple((v["claim"], v["published"], v["status"], v["why"]) for v in verdicts)
        blocks += [
            Heading("Claims"),
            Table(("claim", "published", "here", "why"), lines),
            Text(
                "Intervals are at 95%: over seeds where there are several, else over pairs. A "
                "claim is reproduced if its whole interval lies on the claimed side, not "
                "reproduced if it lies on the other, undecided if it holds both."
            ),
        ]
    tables, complete = comparison(outcome.rows, published(e.published) if e.published else Rows())
    if tables:
        more = "" if complete else " Curves and what is too long for a table are there alone."
        blocks += [
            Heading("Numbers"),
            Text(
                "Mean ± standard deviation over seeds, or ± standard error over pairs where there "
                "is one seed (the paper's deviations too are a sample's here). All of it: "
                f"[results.csv](results.csv).{more}"
            ),
            *tables,
        ]
    return [*blocks, *_made_with(outcome, e, details, options)]


def _made_with(
    outcome: Outcome, e: Experiment, details: dict[str, Any], options: Options
) -> list[Block]:
    cells = list(dict.fromkeys(e.cells(options)))
    seconds = details["seconds"]
    blocks: list[Block] = [Heading("How it was made"), Code(details["command"])]
    if cells:
        lines = "\n".join(train_command(cell, f"cells/{cell.key}.pt") for cell in cells)
        blocks.append(Code(lines, f"Its {len(cells)} models one by one"))
    versions = ", ".join(f"{name} {version}" for name, version in details["versions"].items())
    training = f"{_minutes(seconds['training'])} of training"
    if cells:
        training += ", without models that were trained already for another experiment"
    text = f"{training}; {_minutes(seconds['measuring'])} of measuring.\n\n{versions}."
    specs = dict.fromkeys([*(cell.config.data for cell in cells), options.data, *options.tasks])
    blocks += [Text(text), Text("\n".join(f"- {line}" for line in _sources(specs)))]
    return [*blocks, Text(f"The paper: {PAPER}; its numbers are those its repository holds.")]


def _sources(specs: Mapping[str, Any]) -> list[str]:
    """Data with their licences, each once."""
    from geomkit.data import datasets, parse_spec

    lines = []
    for spec in specs:
        try:
            known = datasets()[parse_spec(spec).name]
        except (GeomkitError, KeyError):
            lines.append(f"Data `{spec}`")
            continue
        said = " ".join(filter(None, [f"({known.licence})" if known.licence else "",
                                      known.attribution]))  # fmt: skip
        lines.append(f"Data `{spec}` {said}".rstrip())
    if any(spec.startswith("openmoji") for spec in specs):
        lines.append("Figures that show OpenMoji's pictures are under CC BY-SA 4.0 as well")
    return lines


def write_index(out: Path) -> None:
    """Write ``report.md`` and ``report.html`` over every finished experiment in a folder.

    Those of earlier runs are among them, by what their ``run.json`` says.

    Args:
        out: the folder of results.
    """
    from geomkit.reproduce.framework.planning import experiments

    known = experiments()
    stored = {path.parent.name: _read(path) for path in sorted(out.glob("*/run.json"))}
    names = [n for n in dict.fromkeys([*known, *stored]) if stored.get(n)]
    found = {name: stored[name] for name in names}
    captions = {n: known[n].captions.get(n, _title(n)) for n in found if n in known}
    pictures = {
        name: Picture(path, captions.get(name, _title(name)), link=f"{name}/{path.name}")
        for name in found
        if (path := out / name / f"{name}.png").exists()
    }
    _write(out, _index(found, pictures), "Reproduction")


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    known = isinstance(content, dict) and content.get("format") == "geomkit-experiment"
    return content if known else {}


def _index(found: dict[str, dict[str, Any]], pictures: dict[str, Picture]) -> list[Block]:
    every = [v for details in found.values() for v in details["verdicts"]]
    quick = [name for name, details in found.items() if details["options"]["quick"]]
    blocks: list[Block] = [
        Heading("It's not a modality gap: what reproduces", 1),
        Text(f"The paper: {PAPER}."),
        Text(
            f"**{_counted(every)}**"
            + (f" Quick runs ({', '.join(quick)}):{_QUICK}" if quick else "")
        ),
    ]
    lines = []
    for name, details in found.items():
        counts = Counter(v["status"] for v in details["verdicts"])
        data = details["options"]["data"]
        numbers = [str(counts[s]) for s in (REPRODUCED, UNDECIDED, NOT_REPRODUCED)]
        lines.append((f"[{details['title']}]({name}/report.html)", data, *numbers))
    head = ("experiment", "data", REPRODUCED, UNDECIDED, NOT_REPRODUCED)
    blocks.append(Table(head, tuple(lines)))
    blocks.append(Heading("One by one"))
    for name, details in found.items():
        claims = tuple(
            (v["claim"], v["published"], v["status"], v["why"]) for v in details["verdicts"]
        )
        blocks.append(Heading(details["title"], 3))
        blocks += [pictures[name]] if name in pictures else []
        blocks += [Table(("claim", "published", "here", "why"), claims)] if claims else []
        blocks.append(Text(f"[Report]({name}/report.html), [results]({name}/results.csv)"))
    blocks += _unmet(found)
    seconds = sum(sum(details["seconds"].values()) for details in found.values())
    specs = dict.fromkeys(details["options"]["data"] for details in found.values())
    commands = dict.fromkeys(details["command"] for details in found.values())
    made = dict.fromkeys(
        ", ".join(f"{name} {version}" for name, version in details["versions"].items())
        for details in found.values()
    )
    return [
        *blocks,
        Heading("How it was made"),
        Code("\n".join(commands)),
        Text(f"{_minutes(seconds)} in all. {'; '.join(made)}."),
        Text("\n".join(f"- {line}" for line in _sources(specs))),
    ]


def _unmet(found: dict[str, dict[str, Any]]) -> list[Block]:
    """What did not reproduce, or could not be told, and the likely reason."""
    blocks: list[Block] = []
    for status, title in (
        (NOT_REPRODUCED, "What did not reproduce, and the likely reason"),
        (UNDECIDED, "What could not be decided"),
    ):
        items = []
        for details in found.values():
            for v in details["verdicts"]:
                if v["status"] == status:
                    reason = _reason(v, details["options"])
                    items.append(f"- **{v['claim']}** ({details['title']}): {v['why']}. {reason}")
        if items:
            blocks += [Heading(title), Text("\n".join(items))]
    return blocks


def _reason(verdict: dict[str, Any], options: dict[str, Any]) -> str:
    """The likely reason; of what is denied the claim may name its own."""
    if verdict["why"].startswith("cannot be tested"):
        return "The results hold no rows for it with these options."
    if verdict["status"] == UNDECIDED:
        if options["quick"]:
            return "A full run trains longer and over several seeds."
        if " seeds" in verdict["why"]:
            count = len(options["seeds"])
            return f"{count} seeds leave the interval too wide; more (`--seeds`) would narrow it."
        if " settings" in verdict["why"]:
            return "It holds in some settings and not in others; the figures say in which."
        return "One run, whose own interval holds both sides."
    if verdict.get("otherwise"):
        return str(verdict["otherwise"])
    if options["pretrained"] is None:
        return (
            "Here a small model is trained from scratch on few pairs; the paper fine-tunes a "
            "pretrained ViT-B/32 on COCO."
        )
    return "Data, model or length of training differ from the paper's."


_QUICK = (
    " one seed, three tenths of the steps; such a run may confirm a claim, but never denies it."
)


def _quick(options: Options) -> str:
    return f" A quick run:{_QUICK}" if options.quick else ""


def _counted(verdicts: Sequence[dict[str, Any]]) -> str:
    counts = Counter(v["status"] for v in verdicts)
    parts = [f"{counts[s]} {s}" for s in (REPRODUCED, UNDECIDED, NOT_REPRODUCED) if counts[s]]
    return f"{len(verdicts)} claims: {', '.join(parts)}." if parts else "No claims."


def _title(name: str) -> str:
    text = name.replace("_", " ").replace("-", " ")
    return text[:1].upper() + text[1:]


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} minutes"


def _write(folder: Path, blocks: Sequence[Block], title: str) -> None:
    pages = {
        # Each kind of page leads to its own kind.
        "report.md": to_markdown(blocks).replace("/report.html)", "/report.md)"),
        "report.html": to_html(blocks, title=title, marks=_MARKS),
    }
    for name, text in pages.items():
        with atomic_write(folder / name, overwrite=True) as file:
            file.write(text.encode())
