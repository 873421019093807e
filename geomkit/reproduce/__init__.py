"""The paper's experiments as declarations, with geomkit's numbers beside the published ones."""

from geomkit.reproduce.framework.catalogue import all_experiments
from geomkit.reproduce.framework.claims import Claim, Interval, Verdict
from geomkit.reproduce.framework.experiment import Cell, Context, Experiment, Options
from geomkit.reproduce.framework.planning import Plan, plan
from geomkit.reproduce.framework.record import Outcome
from geomkit.reproduce.framework.results import Row, Rows, published, read_rows, write_rows
from geomkit.reproduce.framework.runner import run

__all__ = [
    "Cell", "Claim", "Context", "Experiment", "Interval", "Options", "Outcome", "Plan", "Row",
    "Rows", "Verdict", "all_experiments", "plan", "published", "read_rows", "run", "write_rows",
]  # fmt: skip
