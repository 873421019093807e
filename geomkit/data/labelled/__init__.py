"""Labelled images: classes, attributes, prompts, and the parts of a probe."""

from geomkit.data.labelled.classes import CLASS_DATASETS, ClassData, load_classes
from geomkit.data.labelled.parts import load_parts

__all__ = ["CLASS_DATASETS", "ClassData", "load_classes", "load_parts"]
