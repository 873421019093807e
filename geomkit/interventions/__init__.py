"""Closing the modality gap after training: fit on one split, apply to another, save, load."""

from geomkit.interventions.base import Intervention
from geomkit.interventions.procrustes import Procrustes
from geomkit.interventions.registry import INTERVENTIONS, load

__all__ = ["INTERVENTIONS", "Intervention", "Procrustes", "load"]
