"""The paper's experiments as declarations, our numbers beside the published ones."""

from geomkit.reproduce.claims import Claim, Interval, Verdict
from geomkit.reproduce.experiment import Cell, Context, Experiment, Options
from geomkit.reproduce.results import Row, Rows, published, read_rows, write_rows
from geomkit.reproduce.runner import Outcome, Plan, experiments, plan, run

__all__ = [
    "Cell",
    "Claim",
    "Context",
    "Experiment",
    "Interval",
    "Options",
    "Outcome",
    "Plan",
    "Row",
    "Rows",
    "Verdict",
    "experiments",
    "plan",
    "published",
    "read_rows",
    "run",
    "write_rows",
]
