"""The paper's losses and their ablations.

Colours: Okabe and Ito's set, darkened to be seen on white; none is the red of images or the blue
of texts.
"""

from geomkit.losses.declarations import Preset

__all__ = ["CA", "CLIP", "CU", "CUA", "CUAXU", "CXU", "UAXU"]

_PAPER = "Fahim, Murphy and Fyshe, arXiv 2405.18570"

CLIP = Preset("clip", "clip", "Radford et al., arXiv 2103.00020", "#404040", "o")
CUA = Preset("cua", "clip + uniformity + alignment", _PAPER, "#e08a00", "s")
CUAXU = Preset("cuaxu", "clip + uniformity + alignment + cross_uniformity", _PAPER, "#009e73", "D")
CU = Preset("cu", "clip + uniformity", _PAPER, "#56b4e9", "^")
CA = Preset("ca", "clip + alignment", _PAPER, "#cc79a7", "v")
CXU = Preset("cxu", "clip + cross_uniformity", _PAPER, "#8c6d31", "P")
UAXU = Preset("uaxu", "uniformity + alignment + cross_uniformity", _PAPER, "#6a3d9a", "*")
