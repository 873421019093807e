"""What an experiment is: cells to train, things to measure, figures to draw, claims to judge."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from geomkit.errors import GeomkitError
from geomkit.reproduce.framework.claims import Claim
from geomkit.reproduce.framework.results import Rows
from geomkit.training.config import TrainConfig

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from geomkit.embeddings.embeddings import Embeddings
    from geomkit.models.checkpoints import TrainedRun

__all__ = ["Cell", "Context", "Experiment", "Options"]


@dataclass(frozen=True)
class Options:
    """What the user asked for; the same for all experiments of a run.

    Attributes:
        data: DATA spec to train on.
        model: architecture, or ``None`` for the recipe's.
        pretrained: SOURCE to start from, or ``None`` for from scratch.
        seeds: of the trainings.
        quick: one seed, fewer steps, and of the larger grids their corners.
        device, workers, threads: of the machine.
        download: whether a pretrained model may be fetched.
        tasks: DATA specs of further zero-shot tasks.
        simat: folder of SIMAT's files and pictures, or ``None``.
    """

    data: str = "openmoji"
    model: str | None = None
    pretrained: str | None = None
    seeds: tuple[int, ...] = (24, 42, 44)
    quick: bool = False
    device: str = "auto"
    workers: int | None = None
    threads: int = 0
    download: bool = False
    tasks: tuple[str, ...] = ()
    simat: str | None = None

    def __post_init__(self) -> None:
        if not self.seeds:
            raise GeomkitError("seeds: expected one or more, such as --seeds 24,42,44")
        if min(self.seeds) < 0 or len(set(self.seeds)) < len(self.seeds):
            given = ",".join(map(str, self.seeds))
            raise GeomkitError(f"seeds: expected different numbers of 0 or more, got {given}")
        if self.model is not None and self.pretrained is not None:
            raise GeomkitError(
                "--model and --pretrained exclude each other: a pretrained model has one"
            )

    @property
    def used_seeds(self) -> tuple[int, ...]:
        """The first one alone if it has to be quick."""
        return self.seeds[:1] if self.quick else self.seeds


@dataclass(frozen=True)
class Cell:
    """One trained model of a grid; experiments that name the same one share it.

    Attributes:
        config: what is trained.
    """

    config: TrainConfig

    @property
    def key(self) -> str:
        """A name that its configuration alone decides, whatever the machine."""
        plain = {k: v for k, v in asdict(self.config).items() if k not in ("precision", "threads")}
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def label(self) -> str:
        """For people."""
        c = self.config
        length = f"{c.epochs} epochs" if c.epochs else f"{c.steps} steps"
        tau = f"{'learned from ' if c.learn_temperature else ''}{c.temperature:g}"
        return f"{c.loss} d={c.dim} τ={tau} seed {c.seed}, {length} of {c.batch_size}"


@dataclass
class Context:
    """What an experiment works with while it measures and draws.

    Attributes:
        options: as asked for.
        folder: of the experiment, for what it keeps besides. ``work/`` in it is its own; what it
            holds was made with these options and cells, or is gone.
        checkpoint: from a cell to its training run.
        embeddings: from a cell and a split to its embeddings, extracted once.
        say: a line of progress.
    """

    options: Options
    folder: Path
    checkpoint: Callable[[Cell], TrainedRun]
    embeddings: Callable[[Cell, str], Embeddings]
    say: Callable[[str], None] = field(default=lambda text: None)


@dataclass(frozen=True)
class Experiment:
    """A declaration; :mod:`geomkit.reproduce.framework.runner` does what it says.

    Attributes:
        name: on the command line and of its folder.
        title: of its report.
        question: what it is to answer, in a sentence or two.
        cells: the models it needs trained.
        measure: from the trained cells to tidy rows; what takes long should go on where it was
            killed, keeping its parts under ``context.folder / "work"``.
        draw: from rows to figures by name; looks at nothing but the rows, unless it must.
        claims: of the paper, and their tests on the rows.
        seconds: what ``measure`` itself takes, about, on two cores, besides training the cells.
        published: the name of the published experiment shown beside it.
        notes: for the report: how to read the figures, what differs from the paper's protocol.
        captions: of the figures by name, and of animations by file name.
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
