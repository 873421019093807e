"""From moments, pairwise sums and rows to numbers; METRICS names them all."""

from geomkit.metrics.measure import GapResult, gap, select
from geomkit.metrics.registry import METRICS, Metric
from geomkit.metrics.separability import Separability, linear_separability
from geomkit.metrics.sphere import uniform_sphere_limit
from geomkit.metrics.statistics import Statistics

__all__ = [
    "METRICS",
    "GapResult",
    "Metric",
    "Separability",
    "Statistics",
    "gap",
    "linear_separability",
    "select",
    "uniform_sphere_limit",
]
