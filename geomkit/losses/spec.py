"""What a loss is called and made of: names, presets, weighted sums. Needs no torch."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from geomkit.errors import GeomkitError, unknown_name

__all__ = ["PRESETS", "TERM_NAMES", "LossSpec", "parse_loss"]

TERM_NAMES = ("clip", "uniformity", "cross_uniformity", "alignment")
"""Every term a loss can be made of; :data:`geomkit.losses.contrastive.TERMS` computes them."""

PRESETS: dict[str, str] = {
    "clip": "clip",
    "cu": "clip + uniformity",
    "ca": "clip + alignment",
    "cxu": "clip + cross_uniformity",
    "cua": "clip + uniformity + alignment",
    "cuaxu": "clip + uniformity + alignment + cross_uniformity",
    "uaxu": "uniformity + alignment + cross_uniformity",
}
"""The paper's losses and their ablations, by name."""


@dataclass(frozen=True)
class LossSpec:
    """A weighted sum of terms.

    Attributes:
        name: as the user wrote it.
        weights: term → weight, in the order written.
    """

    name: str
    weights: dict[str, float]

    def __str__(self) -> str:
        return " + ".join(
            term if weight == 1 else f"{weight:g}*{term}" for term, weight in self.weights.items()
        )


def parse_loss(text: str) -> LossSpec:
    """A preset's name, or a weighted sum of terms and presets.

    Args:
        text: such as ``cua`` or ``clip + 0.5*uniformity + 2*alignment``.

    Raises:
        GeomkitError: for an unknown name (with the nearest known one), a weight that is not a
            positive number, or a sum that does not parse.

    >>> parse_loss("clip + 0.5*uniformity").weights
    {'clip': 1.0, 'uniformity': 0.5}
    >>> str(parse_loss("cua"))
    'clip + uniformity + alignment'
    """
    weights: dict[str, float] = {}
    # A plus inside a number's exponent (1e+2) does not part two terms.
    for part in re.split(r"(?<![0-9][eE])\+", text):
        factor, name = _parse_term(part.strip(), text)
        if name in PRESETS and name not in TERM_NAMES:
            inner = parse_loss(PRESETS[name]).weights
        elif name in TERM_NAMES:
            inner = {name: 1.0}
        else:
            raise unknown_name("loss or term", name, dict.fromkeys([*PRESETS, *TERM_NAMES]))
        for term, weight in inner.items():
            if term in weights:
                raise GeomkitError(f"loss '{text}': term '{term}' stands twice; add its weights up")
            weights[term] = factor * weight
    return LossSpec(text, weights)


def _parse_term(part: str, text: str) -> tuple[float, str]:
    factor, star, name = part.rpartition("*")
    name = name.strip()
    if not name:
        raise GeomkitError(
            f"loss '{text}': expected a sum such as 'clip + 0.5*uniformity', found an empty term"
        )
    if not star:
        return 1.0, name
    try:
        weight = float(factor)
    except ValueError:
        weight = math.nan
    if not (weight > 0 and math.isfinite(weight)):
        raise GeomkitError(
            f"loss '{text}': weight '{factor.strip()}' of '{name}' is not a positive number"
        )
    return weight, name
