"""Measurements for the suspected causes of the gap: cells of the main grid, and controls."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from geomkit.reproduce.controls.control_rows import control_rows, run_apart
from geomkit.reproduce.framework.cells import cell_of, grid_data, main_grid, quick_share
from geomkit.reproduce.framework.experiment import SCRATCH, Cell, Context, Options
from geomkit.reproduce.framework.measuring import kept, measured
from geomkit.reproduce.framework.results import Rows, rows_of
from geomkit.training.config import TrainConfig

if TYPE_CHECKING:
    from geomkit.reproduce.controls.control import Control

__all__ = ["LONGER", "LOSSES", "METRICS", "cells", "initial_rows", "measure", "seconds"]

DIM = 128
METRICS = ("centroid_distance", "linear_separability")
CONE = ("intra_cosine_image", "intra_cosine_text", *METRICS)
INITIALISATIONS = 20
LONGER = 3
"""Steps of the long run, in multiples of the standard run's."""
LOSSES = ("clip", "cua")
ENCODER_STEPS = 200
SECONDS_A_STEP = 0.11
"""On two cores, of a batch of 64 pairs."""

# (encoders, second view): the last shows what copies do on identical inputs.
ENCODERS = (
    ("separate", "other picture"),
    ("copied", "other picture"),
    ("shared", "other picture"),
    ("copied", "picture"),
)


def _encoders(options: Options) -> tuple[tuple[str, str], ...]:
    return ENCODERS[1:3] if options.quick else ENCODERS


def _standard(options: Options) -> list[Cell]:
    """The usual runs; from scratch, as everything is that they are compared with."""
    if options.pretrained is None:
        options = replace(options, protocol=SCRATCH)
    return main_grid(options, losses=LOSSES, dims=(DIM,))


def _long(options: Options) -> Cell:
    # cell_of shortens a quick run itself, so that the length is given in full.
    full = _standard(replace(options, quick=False))[0].config
    length = "steps" if full.epochs is None else "epochs"
    more = {length: getattr(full, length) * LONGER}
    seed = options.used_seeds[0]
    more |= {"data": full.data, "eval_metrics": full.eval_metrics}
    return cell_of(options, loss="clip", dim=DIM, seed=seed, **more)


def cells(options: Options) -> list[Cell]:
    """Cells of the main grid at one dimension, and the longer run."""
    return [*_standard(options), _long(options)]


def _scratch(options: Options, loss: str, seed: int) -> TrainConfig:
    """Configuration of a main cell, trained from scratch, for the controls."""
    plain = replace(options, pretrained=None, model=options.model or "tiny")
    return cell_of(plain, loss=loss, dim=DIM, seed=seed, data=grid_data(options)).config


def measure(context: Context) -> Rows:
    """Rows of every cause."""
    options = context.options
    rows, controls = Rows(), _controls(options)
    run_apart([control for control, _ in controls], context)
    # Random weights, before any training.
    for seed in range(_initialisations(options)):
        rows += _initial(seed, context)
    for cell in _standard(options):
        condition = "cause=mismatch;pairs=matched"
        rows += measured("causes", cell, context, metrics=METRICS, condition=condition)
    for cell in cells(options):
        rows += _training(cell, context)
    for control, condition in controls:
        rows += control_rows("causes", control, context, condition)
    return rows


def _controls(options: Options) -> list[tuple[Control, str]]:
    """Controls with the conditions of their rows."""
    found = []
    # A quick run leaves out what no claim is about.
    for loss in () if options.quick else LOSSES:
        mixed = _control(options, loss, second="name", mismatched=True)
        found.append((mixed, "cause=mismatch;pairs=mismatched"))
    for encoders, second in _encoders(options):
        views = "same" if second == "picture" else "two"
        control = _control(options, "clip", steps=ENCODER_STEPS, second=second, encoders=encoders)
        found.append((control, f"cause=encoders;encoders={encoders};views={views}"))
    # Images and captions, the gap closed by the fixed map before training.
    for loss in LOSSES:
        closed = _control(options, loss, second="name", closed=True)
        found.append((closed, "cause=start;gap=closed"))
    return found


def _initial(seed: int, context: Context) -> Rows:
    options = context.options
    config, on = _scratch(options, "clip", seed), (options.device, options.threads)
    return kept(context, f"initial-{seed}", lambda: initial_rows(config, *on))


def _initialisations(options: Options) -> int:
    return 5 if options.quick else INITIALISATIONS


def initial_rows(config: TrainConfig, device: str = "auto", threads: int = 0) -> Rows:
    """Metrics of held-out pairs under the random weights of a fresh model.

    Args:
        config: Architecture, data and random seed.
        device: Device of the model.
        threads: CPU threads; 0 changes nothing.

    Raises:
        GeomkitError: If the data cannot be loaded.
    """
    import torch

    from geomkit._core.runtime import resolve_device
    from geomkit.data import load_data
    from geomkit.extraction import embed
    from geomkit.metrics import gap
    from geomkit.training.preparation import starting_model

    before = torch.get_num_threads()
    try:
        if threads:
            torch.set_num_threads(threads)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            fresh = starting_model(config)
        data = load_data(config.data, split="val", preprocess=fresh.preprocess)
        embeddings = embed(fresh, data, device=resolve_device(device))
    finally:
        torch.set_num_threads(before)
    found = gap(embeddings, metrics=CONE, seed=config.seed)
    return rows_of("causes", config, "val", found.metrics, found.stderr, "cause=cone")


def _training(cell: Cell, context: Context) -> Rows:
    """Metrics over the training of a cell, from its history but for the last."""
    run = "long" if cell == _long(context.options) else "standard"
    condition = f"cause=training;run={run};step="
    *before, last = context.checkpoint(cell).history
    rows = Rows()
    for record in before:
        found, when = {m: record.metrics[m] for m in METRICS}, f"{condition}{record.step}"
        rows += rows_of("causes", cell.config, record.split, found, condition=when)
    when = f"{condition}{last.step}"
    return Rows(rows + measured("causes", cell, context, metrics=METRICS, condition=when))


def _control(options: Options, loss: str, *, steps: int | None = None, **fields: Any) -> Control:
    from geomkit.reproduce.controls.control import Control

    config = _scratch(options, loss, options.used_seeds[0])
    if steps is not None:
        steps = max(2, round(steps * quick_share(options)))
        config = replace(config, steps=steps, warmup=min(config.warmup, steps // 4))
    return Control(config, **fields)


def seconds(options: Options) -> float:
    """Approximate seconds of the controls and of the fresh models."""
    steps = sum(_scratch(options, loss, options.used_seeds[0]).steps for loss in LOSSES)
    mixed = 0 if options.quick else steps
    controls = steps + mixed + len(_encoders(options)) * ENCODER_STEPS * quick_share(options)
    return controls * SECONDS_A_STEP * 1.3 + 2.0 * _initialisations(options) + 15.0
