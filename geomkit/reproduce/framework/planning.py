"""What a run of experiments is going to do, and what of it is done already."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from geomkit.errors import unknown_name
from geomkit.reproduce.framework.estimate import Speeds, cost, model_of, speeds_of
from geomkit.reproduce.framework.experiment import Cell, Experiment, Options
from geomkit.reproduce.framework.grid import finished

__all__ = ["CELLS", "Plan", "experiments", "is_done", "plain_options", "plan"]

CELLS = "cells"
"""The folder of trained models in the folder of results."""


@dataclass(frozen=True)
class Plan:
    """What a run is going to do.

    Attributes:
        experiments: in order.
        cells: different ones, of all experiments.
        trained: how many of them are trained already.
        seconds: left, about.
        left: cells to train.
        done: names of the experiments that are finished and stay as they are.
        speeds: of models, as far as they are known.
    """

    experiments: tuple[Experiment, ...]
    cells: tuple[Cell, ...]
    trained: int
    seconds: float
    left: tuple[Cell, ...] = ()
    done: tuple[str, ...] = ()
    speeds: tuple[tuple[str, float], ...] = ()


def experiments() -> dict[str, Experiment]:
    """Every experiment by name, in the order of a report."""
    from geomkit.reproduce.framework.catalogue import EXPERIMENTS

    return EXPERIMENTS


def plan(
    names: Sequence[str],
    options: Options,
    out: Path,
    *,
    overwrite: bool = False,
    speeds: Speeds | None = None,
) -> Plan:
    """What running these experiments takes.

    Args:
        names: of experiments; ``all`` for every one.
        options: as asked for.
        out: the folder of results; cells trained there already are counted.
        overwrite: whether finished experiments are measured anew.
        speeds: of models, see ``estimate.calibrate``; as cells trained
            already tell if not given.

    Raises:
        GeomkitError: for an unknown name, or options that a cell cannot be trained with.
    """
    known = experiments()
    for name in names:
        if name != "all" and name not in known:
            raise unknown_name("experiment", name, ["all", *known])
    chosen = tuple(known[n] for n in (known if "all" in names else dict.fromkeys(names)))
    by_experiment = {e.name: list(dict.fromkeys(e.cells(options))) for e in chosen}
    done = () if overwrite else tuple(
        e.name for e in chosen if is_done(e, options, out / e.name, by_experiment[e.name])
    )  # fmt: skip
    cells = tuple(dict.fromkeys(cell for found in by_experiment.values() for cell in found))
    needed = {cell for name, found in by_experiment.items() if name not in done for cell in found}
    trained = {cell for cell in cells if finished(out / CELLS, cell)}
    left = tuple(cell for cell in cells if cell in needed and cell not in trained)
    found = dict(speeds_of(trained, out / CELLS) if speeds is None else speeds)
    typical = sum(found.values()) / len(found) if found else 1.0
    training = sum(cost(cell) * found.get(model_of(cell), typical) for cell in left)
    measuring = sum(e.seconds(options) * typical for e in chosen if e.name not in done)
    return Plan(chosen, cells, len(trained), training + measuring, left, done, tuple(found.items()))


def plain_options(options: Options) -> dict[str, Any]:
    """Options that decide what is measured."""
    plain = asdict(replace(options, device="auto", workers=None, threads=0))
    del plain["download"]
    return json.loads(json.dumps(plain))


def is_done(experiment: Experiment, options: Options, folder: Path, cells: Sequence[Cell]) -> bool:
    """Whether a folder holds this experiment with these options and these cells."""
    path = folder / "run.json"
    if not path.exists():
        return False
    try:
        stored = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return bool(
        isinstance(stored, dict)
        and stored.get("experiment") == experiment.name
        and stored.get("options") == plain_options(options)
        and sorted(c["key"] for c in stored.get("cells", [])) == sorted(c.key for c in cells)
        and (folder / "results.csv").exists()
    )
