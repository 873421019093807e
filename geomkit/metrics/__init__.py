"""Metrics: from moments, pairwise sums and rows to numbers with their errors and nulls."""

from geomkit.functional import uniform_sphere_limit
from geomkit.metrics.comparison import Difference, compare
from geomkit.metrics.definitions.retrieval import RECALL_AT
from geomkit.metrics.definitions.spectrum import (
    explained_variance,
    explained_variance_with_error,
)
from geomkit.metrics.measure import gap
from geomkit.metrics.metric import Metric
from geomkit.metrics.number import Number
from geomkit.metrics.registry import METRICS, select
from geomkit.metrics.result import GapResult
from geomkit.metrics.separability import Separability, linear_separability
from geomkit.metrics.statistics import Reduction, Statistics
from geomkit.metrics.wording import verdict

__all__ = [
    "METRICS",
    "RECALL_AT",
    "Difference",
    "GapResult",
    "Metric",
    "Number",
    "Reduction",
    "Separability",
    "Statistics",
    "compare",
    "explained_variance",
    "explained_variance_with_error",
    "gap",
    "linear_separability",
    "select",
    "uniform_sphere_limit",
    "verdict",
]
