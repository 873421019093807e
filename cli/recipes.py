"""``geomkit recipes``."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

from geomkit._core.table import Table

from . import console

__all__ = ["recipes"]

_ABOUT = {
    "standard": "a model from scratch, evaluated on held-out pairs",
    "sphere": "2 or 3 dimensions, evaluated on the training pairs",
    "paper": "fine-tuning of a pretrained model as in the paper",
}


def recipes(*, as_json: bool = False) -> None:
    """List the recipes of train: the defaults of each option, where they differ.

    Args:
        as_json (--json): Print one JSON object with all defaults.

    Examples:
        $ geomkit recipes
        $ geomkit recipes --json
    """
    from geomkit.training.config import RECIPES, TrainConfig

    plain = {f.name: f.default for f in fields(TrainConfig)}
    found = {name: plain | values | {"recipe": name} for name, values in RECIPES.items()}
    for values in found.values():
        if values["epochs"]:  # they take the place of steps
            values["steps"] = None
    if as_json:
        whole = {"schema_version": 1, "recipes": found}
        console.out(json.dumps(whole, ensure_ascii=False, default=str))
        return
    rows = [
        [f"--{field.replace('_', '-')}", *(_word(found[name][field]) for name in found)]
        for field in plain
        if field != "recipe" and len({str(values[field]) for values in found.values()}) > 1
    ]
    console.table(Table(["option", *found], [rows]))
    for name, about in _ABOUT.items():
        console.line(f"{name}: {about}")
    console.line("the default, auto: paper with --pretrained, else sphere for --dim 2 or 3")


def _word(value: Any) -> str:
    return "–" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
