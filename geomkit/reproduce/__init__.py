"""The paper's experiments as declarations, our numbers beside the published ones."""

from geomkit.reproduce.framework.claims import Claim, Interval, Verdict
from geomkit.reproduce.framework.experiment import Cell, Context, Experiment, Options
from geomkit.reproduce.framework.results import Row, Rows, published, read_rows, write_rows
from geomkit.reproduce.framework.runner import Outcome, Plan, experiments, plan, run

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
