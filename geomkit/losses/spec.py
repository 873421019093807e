"""Names of losses: the terms and presets there are, and weighted sums of them. Needs no torch."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from geomkit._core.discovery import registry
from geomkit.errors import GeomkitError, unknown_name
from geomkit.losses.declarations import Preset, Term

__all__ = ["PRESETS", "TERMS", "LossSpec", "parse_loss"]

_MACHINERY = ("contrastive", "declarations", "spec")
TERMS = registry("geomkit.losses", Term, first=["terms"], skip=_MACHINERY)
"""Every term a loss can be made of, by name: those that the modules of this package declare."""
PRESETS = registry("geomkit.losses", Preset, first=["presets"], skip=_MACHINERY)
"""Every named loss: the presets that the modules of this package declare."""


@dataclass(frozen=True)
class LossSpec:
    """A weighted sum of terms.

    Attributes:
        name: The loss as the user wrote it.
        weights: Weight of each term, in the order written.
    """

    name: str
    weights: dict[str, float]

    def __str__(self) -> str:
        """Return the sum, such as ``clip + 0.5*uniformity``."""
        return " + ".join(
            term if weight == 1 else f"{weight:g}*{term}" for term, weight in self.weights.items()
        )

    @property
    def terms(self) -> list[Term]:
        """The terms of the sum, in the order written."""
        return [TERMS[name] for name in self.weights]

    @property
    def uses_temperature(self) -> bool:
        """Whether a term depends on the logit scale."""
        return any(term.uses_temperature for term in self.terms)

    @property
    def products(self) -> int | None:
        """Products of n × d with d × n matrices in a forward pass; ``None`` if one is unknown."""
        counts = [term.products for term in self.terms if term.products is not None]
        return sum(counts) if len(counts) == len(self.weights) else None

    @property
    def logit_bias(self) -> float | None:
        """Start value of the logit bias, from the first term with one."""
        return next((t.logit_bias for t in self.terms if t.logit_bias is not None), None)


def parse_loss(text: str) -> LossSpec:
    """Return the weighted sum that a loss's name stands for.

    Args:
        text: Name of a preset, or a weighted sum of terms and presets, such as
            ``clip + 0.5*uniformity + 2*alignment``.

    Returns:
        The weight of each term.

    Raises:
        GeomkitError: For an unknown name (with the nearest known one), a weight that is not a
            positive number, or a sum that does not parse.

    >>> parse_loss("clip + 0.5*uniformity").weights
    {'clip': 1.0, 'uniformity': 0.5}
    >>> str(parse_loss("cua"))
    'clip + uniformity + alignment'
    """
    weights: dict[str, float] = {}
    # A plus inside a number's exponent (1e+2) does not separate two terms.
    for part in re.split(r"(?<![0-9][eE])\+", text):
        factor, name = _parse_term(part.strip(), text)
        if name in TERMS:
            inner = {name: 1.0}
        elif name in PRESETS:
            inner = parse_loss(PRESETS[name].weights).weights
        else:
            raise unknown_name(
                "loss or term", name, dict.fromkeys([*PRESETS, *TERMS]), see="geomkit losses"
            )
        for term, weight in inner.items():
            if term in weights:
                raise GeomkitError(
                    f"loss '{text}': term '{term}' appears twice; combine the weights"
                )
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
