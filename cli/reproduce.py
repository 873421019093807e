"""``geomkit reproduce``."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from geomkit._core.shown import shown
from geomkit._core.table import Table
from geomkit.errors import GeomkitError

from . import console
from .options import Device, Download, Workers, one_of
from .progress import Display, StopSignal

if TYPE_CHECKING:
    from geomkit.reproduce import Experiment, Options, Outcome, Plan
    from geomkit.reproduce.framework.progress import Event

__all__ = ["reproduce"]

_COLOURS = {"reproduced": "green", "not reproduced": "red", "undecided": "yellow"}


def reproduce(
    names: list[str] | None = None,
    *,
    data: str = "openmoji",
    model: str | None = None,
    pretrained: str | None = None,
    seeds: str = "24,42,44",
    out: Path | None = None,
    quick: bool = False,
    jobs: int = 1,
    task: list[str] | None = None,
    simat: Path | None = None,
    device: Device = "auto",
    workers: Workers = None,
    threads: int = 0,
    download: Download = False,
    only_plan: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    redraw: bool = False,
    form: Annotated[str, one_of("text", "markdown", "csv", flag="--format")] = "text",
) -> int:
    """Reproduce the paper's experiments: train, measure, draw, and judge its claims.

    Trained models are kept and shared among the experiments. An interrupted run continues where it
    stopped.

    Args:
        names: Names of experiments, or all. Default: list, which shows them.
        data: DATA spec to train on.
        model: Architecture: tiny, nano, or one of open_clip.
        pretrained: SOURCE to fine-tune by the paper's recipe; default: train from scratch.
        seeds: Random seeds of the trainings, with commas.
        out (--out, -o): Folder of results; default: reports/DATA[-quick].
        quick: Use one seed, three tenths of the steps, the corners of large grids.
        jobs: Number of trainings at a time.
        task: DATA spec of a further zero-shot task, such as cifar10:ROOT; repeatable.
        simat: Folder of SIMAT's tables and images.
        device: Device.
        workers: Processes.
        threads: CPU threads per training; 0: all cores, shared among the jobs.
        download: Whether to download weights.
        only_plan (--plan): Print what would be done and about how long it takes, and stop.
        resume: Keep finished experiments, continue the others.
        overwrite: Measure finished experiments again.
        redraw: Draw and judge finished experiments from their results.
        form: Form of the verdicts and of the list.

    Examples:
        $ geomkit reproduce figure2 --quick
        $ geomkit reproduce all --jobs 2 --resume
    """
    from geomkit.reproduce import Options
    from geomkit.reproduce.framework.catalogue import all_experiments
    from geomkit.reproduce.framework.planning import plan

    console.check_form(form, ("text", "markdown", "csv"))
    names = names or ["list"]
    if "list" in names:
        if len(names) > 1:
            raise GeomkitError(
                "list: expected no other name beside it; name experiments, or list to see them"
            )
        _print_list(all_experiments().values(), form)
        return 0
    options = Options(
        data=data, model=model, pretrained=pretrained, seeds=_numbers(seeds), quick=quick,
        device=device, workers=workers, threads=threads, download=download,
        tasks=tuple(task or ()), simat=None if simat is None else str(simat),
    )  # fmt: skip
    if resume + overwrite + redraw > 1:
        raise GeomkitError("--resume, --overwrite and --redraw exclude one another; give one")
    _check(options, jobs=jobs)
    name = data.partition(":")[0].partition(",")[0] + ("-quick" if quick else "")
    out = out or Path("reports") / name
    planned = plan(names, options, out, overwrite=overwrite)
    if only_plan:
        console.out(_plan(planned, out))
        return 0
    console.line(_plan(planned, out))
    return _run(
        planned, options, out, jobs=jobs, resume=resume, overwrite=overwrite, redraw=redraw,
        command=_command(names, options, out, jobs), form=form,
    )  # fmt: skip


def _run(planned: Plan, options: Options, out: Path, *, command: str, form: str, **how: Any) -> int:
    from geomkit.reproduce import run
    from geomkit.training.loop import Interrupted

    with StopSignal("saving after this step", graceful=False) as stop:
        try:
            with _Watcher(stop) as watcher:
                outcomes = run(
                    planned, options, out, command=command, watch=watcher, should_stop=stop, **how
                )
        except Interrupted as error:
            console.line(f"geomkit: {error}")
            return 128 + (stop.number or signal.SIGINT)
    with console.finished(out):
        _print_verdicts(outcomes, form)
        console.out(str(out))
    return 0


def _numbers(seeds: str) -> tuple[int, ...]:
    words = [word.strip() for word in seeds.split(",") if word.strip()]
    if not all(word.isdecimal() for word in words):
        raise GeomkitError(f"--seeds: expected numbers with commas, such as 24,42,44, got {seeds}")
    return tuple(map(int, words))


def _check(options: Options, *, jobs: int) -> None:
    """Refuse bad options before anything is trained."""
    from geomkit._core.runtime import resolve_device
    from geomkit.data.labelled.classes import check_spec
    from geomkit.data.registry import parse_spec
    from geomkit.training.config import MAX_THREADS

    if jobs < 1:
        raise GeomkitError(f"--jobs: expected 1 or more, got {jobs}")
    if not 0 <= options.threads <= MAX_THREADS:
        raise GeomkitError(
            f"--threads: expected 0 or more, up to {MAX_THREADS:,}, got {options.threads}"
        )
    parse_spec(options.data)
    for spec in options.tasks:
        check_spec(spec)
    if options.simat is not None and not Path(options.simat).is_dir():
        raise GeomkitError(f"{options.simat}: no such folder; give SIMAT's folder to --simat")
    if options.device != "auto":
        resolve_device(options.device)


def _command(names: list[str], options: Options, out: Path, jobs: int) -> str:
    """Command that makes all of this again, without options that do not decide the numbers."""
    words = ["geomkit", "reproduce", *names]
    for name, value in [
        ("data", options.data),
        ("model", options.model),
        ("pretrained", options.pretrained),
        ("simat", options.simat),
        ("seeds", ",".join(map(str, options.seeds))),
        *(("task", spec) for spec in options.tasks),
        ("quick", options.quick),
        ("jobs", jobs if jobs > 1 else None),
        ("threads", options.threads),
        ("out", out),
    ]:
        if value:
            words += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return shlex.join(words)


def _print_table(
    headings: Sequence[str], rows: list[list[str]], plain: list[str], form: str
) -> None:
    """Print rows: as a table on a terminal, elsewhere as the lines of ``plain``, or in a form."""
    if form != "text":
        console.table(Table(headings, [rows], remarks=True), form)
        return
    if not sys.stdout.isatty():
        for line in plain:
            console.out(line)
        return
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    table = RichTable(box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading, no_wrap=heading in ("experiment", "verdict"))
    for row in rows:
        table.add_row(*(Text(shown(cell), style=_COLOURS.get(cell, "")) for cell in row))
    Console(highlight=False).print(table)


def _print_list(found: Iterable[Experiment], form: str) -> None:
    rows = [[e.name, " ".join(e.question.split())] for e in found]
    width = max(len(name) for name, _ in rows)
    plain = [f"{name:<{width}}  {question}" for name, question in rows]
    _print_table(("experiment", "question"), rows, plain, form)


def _plan(planned: Plan, out: Path) -> str:
    names = ", ".join(e.name for e in planned.experiments)
    lines = [
        f"{len(planned.experiments)} experiment{'s' * (len(planned.experiments) > 1)} ({names}) "
        f"into {out}",
        f"{len(planned.cells)} models, {planned.trained} trained already, {len(planned.left)} to "
        f"train; about {_duration(planned.seconds)} in all",
    ]
    if planned.done:
        lines.append(f"finished with these options: {', '.join(planned.done)}")
    return "\n".join(lines)


def _duration(seconds: float) -> str:
    """Time in words, as coarse as an estimate.

    >>> _duration(40), _duration(600), _duration(9000)
    ('40 s', '10 min', '2 h 30 min')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def _print_verdicts(outcomes: list[Outcome], form: str) -> None:
    rows = [
        [" ".join(text.split()) for text in (o.experiment.name, v.status, claim.text, v.why)]
        for o in outcomes
        for claim, v in zip(o.experiment.claims, o.verdicts, strict=True)
    ]
    plain = ["\t".join(row) for row in rows]
    _print_table(("experiment", "verdict", "claim", "why"), rows, plain, form)


class _Watcher(Display):
    """Two bars on a terminal, all work and the current training; a line per piece elsewhere."""

    def __init__(self, stop: StopSignal) -> None:
        super().__init__(remaining=False)
        self.stop = stop

    def __call__(self, event: Event) -> None:
        # A training saves first; anything else stops at once and keeps its finished parts.
        self.stop.graceful = event.kind in ("training", "trained")
        left = f"{_duration(event.left)} left"
        self.show("all", event.done, max(event.total, 1), f"steps · {left}")
        training = event.kind == "training"
        self.show(
            event.text if training else "", event.step, max(event.steps, 1), "steps",
            row=1, visible=training,
        )  # fmt: skip
        words = {
            "trained": "trained", "measuring": "measuring", "done": "done:",
            "skipped": "finished already:", "drawn": "drawn:", "failed": "failed:", "line": " ",
        }  # fmt: skip
        if event.kind in words:
            more = f" ({left})" if event.kind in ("trained", "done") else ""
            self.log(f"{words[event.kind]} {event.text}{more}")
