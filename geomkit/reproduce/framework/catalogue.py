"""Every experiment by name."""

from __future__ import annotations

from importlib import import_module

from geomkit.reproduce.framework.experiment import Experiment

__all__ = ["EXPERIMENTS", "NAMES"]

NAMES = (
    "figure1",
    "figure2",
    "spectrum",
    "zeroshot",
    "arithmetic",
    "idealized",
    "causes",
    "sweeps",
    "ablation",
)

EXPERIMENTS: dict[str, Experiment] = {
    name: import_module(f"geomkit.reproduce.experiments.{name}").EXPERIMENT for name in NAMES
}
"""Each module of these names declares its own."""
