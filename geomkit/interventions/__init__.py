"""Closing the modality gap after training: fit on one split, apply to another, save, load."""

from geomkit.interventions.affine import Affine
from geomkit.interventions.applying import closed, halved
from geomkit.interventions.base import Intervention
from geomkit.interventions.centring import Centring, Standardisation
from geomkit.interventions.closing import Closing, Outcome, close, shifts
from geomkit.interventions.procrustes import Procrustes
from geomkit.interventions.registry import INTERVENTIONS
from geomkit.interventions.regression import Ridge
from geomkit.interventions.removal import ComponentRemoval, DimensionRemoval, GapProjection
from geomkit.interventions.translation import Translation
from geomkit.interventions.transport import Coral, GaussianTransport
from geomkit.interventions.whitening import JointWhitening, Whitening

load = Intervention.load
"""Reads what an intervention's ``save`` wrote."""

__all__ = [
    "INTERVENTIONS", "Affine", "Centring", "Closing", "ComponentRemoval", "Coral",
    "DimensionRemoval", "GapProjection", "GaussianTransport", "Intervention", "JointWhitening",
    "Outcome", "Procrustes", "Ridge", "Standardisation", "Translation", "Whitening", "close",
    "closed", "halved", "load", "shifts",
]  # fmt: skip
