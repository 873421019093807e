"""Labelled images: classes, attributes, prompts, and the parts of a probe.

A new labelled data set is one more module of this package that declares a
:class:`~geomkit.data.Dataset` of the kind ``classes`` at its top level.
"""

from geomkit.data.labelled.classes import ClassData, check_spec, load_classes, load_parts

__all__ = ["ClassData", "check_spec", "load_classes", "load_parts"]
