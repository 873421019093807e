"""Tasks: zero-shot classification, linear probes and multimodal arithmetic."""

from geomkit.tasks.features import class_weights
from geomkit.tasks.probe import fit_probe, probe
from geomkit.tasks.result import TaskResult, retrieval_json
from geomkit.tasks.zeroshot import zeroshot

__all__ = ["TaskResult", "class_weights", "fit_probe", "probe", "retrieval_json", "zeroshot"]
