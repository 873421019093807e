"""``geomkit reproduce``."""

from __future__ import annotations

import inspect
import math
import shlex
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from geomkit._core.shown import shown
from geomkit._core.table import Table
from geomkit.errors import GeomkitError

from . import console
from .options import Device, Download, Workers, one_of, within
from .progress import Display, StopSignal
from .verify import verify

if TYPE_CHECKING:
    from geomkit.reproduce import Experiment, Options, Outcome, Plan
    from geomkit.reproduce.framework.progress import Event
    from geomkit.reproduce.framework.rerun import Again, Compared

__all__ = ["reproduce"]

_MACHINE = ("device", "workers", "threads", "download")
_OF_VERIFY = {"names", "cells", "seed", "jobs", "form", *_MACHINE}
"""Options that verify takes; the others are those of the report."""
_COLOURS = {
    "reproduced": "green", "not reproduced": "red", "undecided": "yellow",
    "no difference that matters": "red",
}  # fmt: skip


def reproduce(
    names: list[str] | None = None,
    *,
    data: str = "openmoji",
    model: str | None = None,
    pretrained: str | None = None,
    protocol: Annotated[str, one_of("finetune", "scratch")] = "finetune",
    seeds: str | None = None,
    minutes: float | None = None,
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
    cells: Annotated[float | None, within(0, 1)] = None,
    seed: Annotated[int | None, within(0, math.inf)] = None,
    form: Annotated[str, one_of("text", "markdown", "csv", flag="--format")] = "text",
) -> int:
    """Reproduce the paper's experiments: train, measure, draw, and judge its claims.

    Trained models are kept and shared among the experiments. An interrupted run continues where it
    stopped. `verify FOLDER` checks a finished report: that its files are those of one run and
    belong together, and that a part of its models, trained again, gives its numbers. Where
    something differs, the exit status is 1.

    Args:
        names: Names of experiments, or all. Default: list, which shows them. Or: verify FOLDER.
        data: DATA spec to train on.
        model: Architecture: tiny, nano, or one of open_clip.
        pretrained: SOURCE to fine-tune by the paper's recipe.
        protocol: Start of the models: one small model pretrained on the same data, or random
            weights.
        seeds: Random seeds, with commas; more are added while claims are undecided. Default:
            24,42,44,101,102,103,104,105,106,107,108,109; with --pretrained the paper's, 24,42,44.
        minutes: Time after which no seeds are added.
        out (--out, -o): Folder of results; default: reports/DATA[-quick].
        quick: Use one seed, a quarter of the steps, the corners of large grids.
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
        cells: Share of the models that verify trains again, 0 to 1; default: 0.1.
        seed: Random seed of their choice; default: 0.
        form: Form of the verdicts, of the list and of the numbers of verify.

    Examples:
        $ geomkit reproduce all --jobs 2 --resume
        $ geomkit reproduce verify reports/openmoji --cells 0.1
    """
    given = dict(locals())
    from geomkit.reproduce import Options
    from geomkit.reproduce.framework.catalogue import all_experiments
    from geomkit.reproduce.framework.experiment import FEW, SEEDS
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
    if names[0] == "verify":
        return _verify(given)
    _refuse(given, {"cells", "seed"}, "only with verify")
    used = SEEDS[: FEW if pretrained else None] if seeds is None else _numbers(seeds)
    options = Options(
        data=data, model=model, pretrained=pretrained, protocol=protocol, seeds=used,
        quick=quick, device=device, workers=workers, threads=threads, download=download,
        tasks=tuple(task or ()), simat=None if simat is None else str(simat),
    )  # fmt: skip
    if resume + overwrite + redraw > 1:
        raise GeomkitError("--resume, --overwrite and --redraw exclude one another; give one")
    if minutes is not None and not 0 < minutes < math.inf:
        raise GeomkitError(f"--minutes: expected a positive number, got {minutes:g}")
    _check(options, jobs=jobs)
    name = data.partition(":")[0].partition(",")[0] + ("-quick" if quick else "")
    out = out or Path("reports") / name
    planned = plan(names, options, out, overwrite=overwrite)
    if only_plan:
        console.out(_plan(planned, out, minutes))
        return 0
    console.line(_plan(planned, out, minutes))
    return _run(
        planned, options, out, jobs=jobs, resume=resume, overwrite=overwrite, redraw=redraw,
        minutes=minutes, command=_command(names, options, out, jobs, minutes), form=form,
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


def _verify(given: dict[str, Any]) -> int:
    """Verify a report: options that its runs decided are refused."""
    from geomkit.reproduce import Options
    from geomkit.reproduce.framework.rerun import rerun
    from geomkit.training.loop import Interrupted

    _, *folders = given["names"]
    if len(folders) != 1:
        raise GeomkitError(f"verify: expected one folder of a report, got {len(folders)}")
    _refuse(given, given.keys() - _OF_VERIFY, "not with verify, which reads it from the report")
    folder, share = Path(folders[0]), given["cells"]
    machine = Options(**{name: given[name] for name in _MACHINE})
    _check(machine, jobs=given["jobs"])
    with StopSignal("stopping after this step", graceful=False) as stop:

        def again(work: list[Again]) -> Iterator[list[Compared]]:
            with _Watcher(stop) as watcher:
                yield from rerun(
                    folder, work, jobs=given["jobs"], watch=watcher, should_stop=stop,
                    planned=lambda plan: console.line(
                        f"training {len(plan.left)} model{'s' * (len(plan.left) != 1)} again; "
                        f"about {_duration(plan.seconds())}"
                    ),
                )  # fmt: skip

        try:
            good = verify(
                folder, machine, share=0.1 if share is None else share, seed=given["seed"] or 0,
                form=given["form"], rerun=again,
            )  # fmt: skip
        except Interrupted:
            console.line(f"geomkit: stopped; nothing was written to {folder}")
            return 128 + (stop.number or signal.SIGINT)
    return int(not good)


def _refuse(given: dict[str, Any], names: Iterable[str], why: str) -> None:
    """Refuse options that are given where they mean nothing."""
    usual = inspect.signature(reproduce).parameters
    for name in sorted(names):
        if given[name] != usual[name].default:
            flag = name if name != "only_plan" else "plan"
            raise GeomkitError(f"--{flag}: {why}")


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


def _command(
    names: list[str], options: Options, out: Path, jobs: int, minutes: float | None
) -> str:
    """Command that makes all of this again, without options that do not decide the numbers."""
    from geomkit.reproduce.framework.experiment import FINETUNE

    words = ["geomkit", "reproduce", *names]
    for name, value in [
        ("data", options.data),
        ("model", options.model),
        ("pretrained", options.pretrained),
        ("simat", options.simat),
        ("protocol", None if options.protocol == FINETUNE else options.protocol),
        ("seeds", ",".join(map(str, options.seeds))),
        ("minutes", None if minutes is None else f"{minutes:g}"),
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


def _plan(planned: Plan, out: Path, minutes: float | None) -> str:
    seconds = planned.seconds(math.inf if minutes is None else 60.0 * minutes)
    names = ", ".join(e.name for e in planned.experiments)
    lines = [
        f"{len(planned.experiments)} experiment{'s' * (len(planned.experiments) > 1)} ({names}) "
        f"into {out}",
        f"{len(planned.cells)} models, {planned.trained} trained already, {len(planned.left)} to "
        f"train; {'at most' if planned.most else 'about'} {_duration(seconds)} in all",
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
