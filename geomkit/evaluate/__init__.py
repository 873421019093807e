"""Evaluation on tasks: zero-shot classification and linear probes."""

from geomkit.evaluate.classes import CLASS_DATASETS, ClassData, load_classes
from geomkit.evaluate.features import class_weights
from geomkit.evaluate.parts import load_parts
from geomkit.evaluate.probe import fit_probe, probe
from geomkit.evaluate.result import TaskResult, retrieval_json
from geomkit.evaluate.zeroshot import zeroshot

__all__ = [
    "CLASS_DATASETS",
    "ClassData",
    "TaskResult",
    "class_weights",
    "fit_probe",
    "load_classes",
    "load_parts",
    "probe",
    "retrieval_json",
    "zeroshot",
]
