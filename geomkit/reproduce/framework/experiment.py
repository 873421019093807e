"""What an experiment is: models to train, numbers to measure, figures, and claims to test."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geomkit.errors import GeomkitError, unknown_name
from geomkit.reproduce.framework.claims import Claim
from geomkit.reproduce.framework.results import Rows
from geomkit.training.config import TrainConfig

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from geomkit.embeddings.embeddings import Embeddings
    from geomkit.models.checkpoints import TrainedRun

__all__ = [
    "FEW", "FINETUNE", "FIRST_LOOK", "PROTOCOLS", "SCRATCH", "SEEDS", "SHARES", "Cell", "Context",
    "Experiment", "Options", "computation", "digest",
]  # fmt: skip

PROTOCOLS = FINETUNE, SCRATCH = "finetune", "scratch"
SEEDS = (24, 42, 44, *range(101, 110))
"""Default seeds: the paper's three, then others."""
FEW = 3
"""Number of seeds where no claim waits for more: the paper's own."""
FIRST_LOOK = 6
"""Number of seeds at which claims are judged before all seeds are used."""
SHARES = 0.2, 0.8
"""Shares of the error of 5% at the first look, and at the one with all seeds: most claims are
clear early, and those that are not need narrow intervals at the end."""


@dataclass(frozen=True)
class Options:
    """What the user asked for; the same for all experiments of a run.

    Attributes:
        data: DATA spec to train on.
        model: Architecture, or ``None`` for the recipe's.
        pretrained: SOURCE to fine-tune by the paper's recipe, or ``None``.
        protocol: ``finetune``: the cells of the main grid start from one small model, which is
            pretrained with ``clip`` on the same data; ``scratch``: from random weights.
        seeds: Random seeds of the trainings, in the order in which they are added.
        quick: Whether to use one seed, fewer steps, and only the corners of larger grids.
        device: Device to compute on.
        workers: Processes that decode images, or ``None`` for one per core.
        threads: CPU threads per training; 0 for all.
        download: Whether a pretrained model may be downloaded.
        tasks: DATA specs of further zero-shot tasks.
        simat: Folder of SIMAT's tables and images, or ``None``.
    """

    data: str = "openmoji"
    model: str | None = None
    pretrained: str | None = None
    protocol: str = FINETUNE
    seeds: tuple[int, ...] = SEEDS
    quick: bool = False
    device: str = "auto"
    workers: int | None = None
    threads: int = 0
    download: bool = False
    tasks: tuple[str, ...] = ()
    simat: str | None = None

    def __post_init__(self) -> None:
        """Refuse options that contradict each other."""
        if not self.seeds:
            raise GeomkitError("seeds: expected one or more, such as --seeds 24,42,44")
        if min(self.seeds) < 0 or len(set(self.seeds)) < len(self.seeds):
            given = ",".join(map(str, self.seeds))
            raise GeomkitError(f"seeds: expected different numbers of 0 or more, got {given}")
        if self.model is not None and self.pretrained is not None:
            raise GeomkitError(
                "--model and --pretrained exclude each other: a pretrained model "
                "has an architecture"
            )
        if self.protocol not in PROTOCOLS:
            raise unknown_name("protocol", self.protocol, PROTOCOLS)
        if self.protocol == SCRATCH and self.pretrained is not None:
            raise GeomkitError(
                "--protocol scratch and --pretrained exclude each other: one starts from random "
                "weights, the other does not"
            )

    def first(self, count: int) -> Options:
        """The same options with the first seeds only."""
        return replace(self, seeds=self.seeds[:count])

    @property
    def looks(self) -> tuple[int, ...]:
        """Numbers of seeds at which claims are judged, the last with all of them."""
        if self.quick:
            return (1,)
        return (*((FIRST_LOOK,) if len(self.seeds) > FIRST_LOOK else ()), len(self.seeds))

    @property
    def beside(self) -> Options | None:
        """Options of the verdicts from scratch that stand beside those of fine-tuning."""
        if self.protocol == SCRATCH or self.pretrained is not None or self.quick:
            return None
        return replace(self.first(FEW), protocol=SCRATCH)

    @property
    def used_seeds(self) -> tuple[int, ...]:
        """Seeds that are trained, only the first in a quick run."""
        return self.seeds[:1] if self.quick else self.seeds

    @property
    def decisive(self) -> Options:
        """Options without those of the machine, which do not decide the numbers."""
        return replace(self, device="auto", workers=None, threads=0, download=False)

    def to_json(self) -> dict[str, Any]:
        """Decisive options, as ``run.json`` holds them."""
        content = asdict(self.decisive)
        del content["download"]
        return content | {"seeds": list(self.seeds), "tasks": list(self.tasks)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Options:
        """Options that ``run.json`` holds.

        Raises:
            TypeError: For an unknown option.
        """
        lists = {name: tuple(content[name]) for name in ("seeds", "tasks")}
        before = {} if "protocol" in content else {"protocol": SCRATCH}  # written by older versions
        return cls(**{**content, **lists, **before})

    def differences(self, other: Options) -> str:
        """Decisive options that differ, as ``name value (now value)``; empty if none does."""
        mine, now = self.to_json(), other.to_json()
        names = [k for k in sorted(mine) if mine[k] != now[k]]
        return ", ".join(f"{k} {mine[k]} (now {now[k]})" for k in names)


def computation(config: TrainConfig) -> dict[str, Any]:
    """Configuration without what depends on the machine.

    A field that is newer than stored cells is part of it only where it is given, so that their
    names stay.
    """
    values = asdict(config)
    if config.final_temperature is None:
        del values["final_temperature"]
    return {k: v for k, v in values.items() if k not in ("precision", "threads")}


def digest(content: Mapping[str, Any]) -> str:
    """Short name of plain values."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Cell:
    """One trained model of a grid; experiments that name the same cell share it.

    Attributes:
        config: Configuration of the training. With ``start``, its ``pretrained`` is the file name
            of that cell's checkpoint, which lies in the same folder.
        start: Cell whose model it is fine-tuned from.
    """

    config: TrainConfig
    start: Cell | None = None

    @property
    def key(self) -> str:
        """Name that depends on the configuration only, not on the machine."""
        return digest(computation(self.config))

    @property
    def label(self) -> str:
        """Description in logs and errors."""
        c = self.config
        length = f"{c.epochs} epochs" if c.epochs else f"{c.steps} steps"
        length = f"fine-tuned, {length}" if c.pretrained else length
        tau = f"{'learned from ' if c.learn_temperature else ''}{c.temperature:g}"
        return f"{c.loss} d={c.dim} τ={tau} seed {c.seed}, {length} of {c.batch_size}"


@dataclass
class Context:
    """What an experiment uses while it measures and draws.

    Attributes:
        options: Options of the run.
        folder: Folder of the experiment, for further files. Parts of a measurement are kept in
            its subfolder ``work``, which is emptied when options or cells change.
        checkpoint: From a cell to its training run.
        embeddings: From a cell and a split to its embeddings, extracted once.
        jobs: Number of trainings at a time.
        say: Receives a line of progress.
    """

    options: Options
    folder: Path
    checkpoint: Callable[[Cell], TrainedRun]
    embeddings: Callable[[Cell, str], Embeddings]
    jobs: int = 1
    say: Callable[[str], None] = field(default=lambda text: None)


@dataclass(frozen=True)
class Experiment:
    """Declaration of an experiment; the runner trains, measures, draws and judges accordingly.

    A module of :mod:`geomkit.reproduce.experiments` that holds one is found without being listed
    anywhere.

    Attributes:
        name: Name on the command line and of the folder of results.
        title: Title of the report.
        question: Question that it answers, in one or two sentences.
        cells: From the options to the models that it needs trained.
        measure: From the trained cells to tidy rows. Slow measurements keep their parts under
            ``context.folder / "work"``, so that an interrupted run continues.
        draw: From rows to figures by name. It uses only the rows where possible.
        claims: The paper's claims, with their tests on the rows.
        seconds: Approximate time of ``measure`` alone, on two cores.
        published: Name of the published experiment shown beside it.
        notes: How to read the figures, and differences from the paper's protocol.
        captions: Captions of figures by name, and of animations by file name.
        order: Position among the experiments; those with equal order are sorted by name.
        of_cell: From one trained cell to its rows, where each row is of one cell; ``None`` where
            models are trained beside the cells. A verification measures single cells with it.
        sequential: Whether seeds are added until every claim is decided.
        beside: Whether its claims are also judged on models that are trained from scratch.
        explains: Whether its claims are explanations of ours, which are not counted as the paper's.
    """

    name: str
    title: str
    question: str
    cells: Callable[[Options], list[Cell]]
    measure: Callable[[Context], Rows]
    draw: Callable[[Rows, Context], dict[str, Figure]]
    claims: tuple[Claim, ...] = ()
    seconds: Callable[[Options], float] = lambda options: 30.0
    published: str | None = None
    notes: str = ""
    captions: Mapping[str, str] = field(default_factory=dict, hash=False)
    order: int = 100
    of_cell: Callable[[Cell, Context], Rows] | None = None
    sequential: bool = False
    beside: bool = False
    explains: bool = False

    def stages(self, options: Options) -> list[Options]:
        """Options of each look: the seeds grow from one to the next."""
        looks = options.looks if self.sequential else (min(FEW, len(options.seeds)),)
        return [options.first(count) for count in looks]

    def share(self, options: Options, seeds: int) -> float:
        """Share of the error that a look at this number of seeds has."""
        looks = [len(stage.seeds) for stage in self.stages(options)]
        if len(looks) == 1:
            return 1.0
        # A report of an earlier version may have looked at another number.
        return SHARES[looks.index(seeds)] if seeds in looks else min(SHARES)

    def from_scratch(self, options: Options) -> Options | None:
        """Options of the verdicts from scratch beside the others, if it has them."""
        return options.beside if self.beside else None

    def every_cell(self, options: Options, seeds: int = 0, *, beside: bool = True) -> list[Cell]:
        """Cells that it needs, after what they start from.

        Args:
            options: Options of the run.
            seeds: Number of seeds used; 0 for as many as it can need.
            beside: Whether those of the verdicts from scratch are among them, if it has these.
        """
        scratch = self.from_scratch(options) if beside else None
        found = self.cells(options.first(seeds) if seeds else self.stages(options)[-1])
        found += self.cells(scratch) if scratch else []
        return list(dict.fromkeys(c for cell in found for c in (cell.start, cell) if c is not None))

    def distinct_cells(self, options: Options) -> list[Cell]:
        """Cells to train, each once."""
        return list(dict.fromkeys(self.cells(options)))
