"""The paper's losses and their ablations.

Colours: Okabe and Ito's set, darkened to be seen on white; none is the red of images or the blue
of texts.
"""

from geomkit.losses.declarations import Preset

__all__ = ["CA", "CLIP", "CU", "CUA", "CUAXU", "CXU", "UAXU"]

_PAPER = "Fahim, Murphy and Fyshe, arXiv 2405.18570"

CLIP = Preset(
    "clip", "clip", "Radford et al., arXiv 2103.00020", "#404040", "o",
    use="The baseline. At a low temperature it leaves a gap.",
)  # fmt: skip
CUA = Preset(
    "cua", "clip + uniformity + alignment", _PAPER, "#e08a00", "s",
    use="The first choice to close the gap: in the paper it leaves the smallest distance of the "
    "centres, at nearly the recall of clip.",
)  # fmt: skip
CUAXU = Preset(
    "cuaxu", "clip + uniformity + alignment + cross_uniformity", _PAPER, "#009e73", "D",
    use="To close the gap with the most uniform clouds of the paper. From scratch in few"
    " dimensions it can leave the clouds on opposite sides: give cross_uniformity a weight of 0.4.",
)  # fmt: skip
CU = Preset(
    "cu", "clip + uniformity", _PAPER, "#56b4e9", "^",
    use="An ablation: what uniformity does without alignment.",
)  # fmt: skip
CA = Preset(
    "ca", "clip + alignment", _PAPER, "#cc79a7", "v",
    use="An ablation: what alignment does without uniformity.",
)  # fmt: skip
CXU = Preset(
    "cxu", "clip + cross_uniformity", _PAPER, "#8c6d31", "P",
    use="An ablation: what cross-uniformity does alone.",
)  # fmt: skip
UAXU = Preset(
    "uaxu", "uniformity + alignment + cross_uniformity", _PAPER, "#6a3d9a", "*",
    use="An ablation: the three terms without the contrastive one.",
)  # fmt: skip
