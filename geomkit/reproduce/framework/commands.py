"""Command line that trains one cell."""

from __future__ import annotations

import shlex
from dataclasses import asdict, replace
from pathlib import Path

from geomkit.reproduce.framework.experiment import Cell
from geomkit.training.config import TrainConfig, configure

__all__ = ["train_command"]

_FLAGS = {"keep_projection": "--keep-projection", "learn_temperature": "--learn-temperature"}
_NOT_OPTIONS = {"recipe", "precision", "threads"}


def train_command(cell: Cell, out: str) -> str:
    """``geomkit train`` with the options that differ from the recipe's defaults.

    >>> train_command(Cell(configure(loss="cua", dim=64, seed=24, temperature=0.05)), "a.pt")
    'geomkit train --loss cua --dim 64 --temperature 0.05 --seed 24 --out a.pt'
    """
    c = cell.config
    if cell.start is not None:  # beside the cell's own checkpoint
        c = replace(c, pretrained=str(Path(out).with_name(c.pretrained or "").as_posix()))
    words = ["geomkit", "train", "--loss", c.loss, "--dim", str(c.dim)]
    # The recipe is named where the command would choose another one.
    start = {"pretrained": c.pretrained} if c.pretrained else {}
    if c.pretrained:
        words += ["--pretrained", c.pretrained]
    if configure(dim=c.dim, **start).recipe != c.recipe:
        words += ["--recipe", c.recipe]
    usual = asdict(configure(dim=c.dim, recipe=c.recipe, loss=c.loss, **start))
    for name, value in asdict(c).items():
        if name in ("loss", "dim") or name in _NOT_OPTIONS or value == usual[name]:
            continue
        words += _option(name, value, c)
    return " ".join(shlex.quote(word) for word in [*words, "--out", out])


def _option(name: str, value: object, config: TrainConfig) -> list[str]:
    if name in _FLAGS:
        return [_FLAGS[name]]
    if name == "distinct_captions":
        return ["--repeat-captions"]
    if name in ("lock_image", "lock_text"):
        return ["--lock", f"{name[5:]}={value}"]
    if name == "epochs" and value is None:
        return [] if config.steps != TrainConfig.steps else ["--steps", str(config.steps)]
    if name == "steps" and config.epochs:
        return []
    text = f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)
    return [f"--{name.replace('_', '-')}", text]
