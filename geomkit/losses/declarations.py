"""What a loss term and a preset are. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Features", "Preset", "Term"]


@dataclass(frozen=True)
class Features:
    """The features of one batch: the pairs of this process, and those of all processes.

    Attributes:
        x, y: Unit rows of this process, shape ``(b, d)``.
        all_x, all_y: Unit rows of every process, shape ``(n, d)``; the same objects as ``x`` and
            ``y`` if there is one process.
        offset: Index in ``all_x`` of the first row of ``x``.
        scale: Logit scale s = 1/τ.
        bias: Logit bias; 0 for a model without one.
    """

    x: Tensor
    y: Tensor
    all_x: Tensor
    all_y: Tensor
    offset: int
    scale: Tensor
    bias: Tensor | float

    @property
    def alone(self) -> bool:
        """Whether this process holds the whole batch."""
        return self.all_x is self.x

    def total(self, values: Tensor) -> Tensor:
        """Sum of ``values`` over all processes; gradients pass through it."""
        if self.alone:
            return values
        from geomkit._core.collectives import sum_over_ranks

        return sum_over_ranks(values)


@dataclass(frozen=True)
class Term:
    """One term of a contrastive loss.

    Declared at the top level of any module of :mod:`geomkit.losses`, a term is found by
    :data:`geomkit.losses.TERMS`. Such a module is imported to list the names of losses, so
    ``compute`` imports what it needs (torch, :mod:`geomkit.functional`) itself.

    Attributes:
        name: Name in a weighted sum.
        compute: Function from the features of a batch to a scalar. Over several processes the mean
            of its values must be the term of the whole batch.
        summary: One line.
        source: Where the term comes from.
        logit_bias: Start value of the logit bias; given, the model gets a bias if it has none, and
            it is trained. ``None`` for a term without one.
        uses_temperature: Whether the term depends on the logit scale.
        products: Products of n × d with d × n matrices in a forward pass on one process, its cost
            in a large batch; 0 for a term that is linear in n, ``None`` if not declared.
        use: When to use it, in one to three sentences.
    """

    name: str
    compute: Callable[[Features], Tensor]
    summary: str
    source: str = ""
    logit_bias: float | None = None
    uses_temperature: bool = False
    products: int | None = None
    use: str = ""


@dataclass(frozen=True)
class Preset:
    """A named weighted sum of terms.

    Declared at the top level of any module of :mod:`geomkit.losses`, a preset is found by
    :data:`geomkit.losses.PRESETS`.

    Attributes:
        name: Name of the loss.
        weights: The sum, such as ``clip + 0.5*uniformity``.
        source: Where the preset comes from.
        colour, marker: Colour and matplotlib marker in figures; empty: chosen from the name.
        use: When to use it, in one to three sentences.
    """

    name: str
    weights: str
    source: str = ""
    colour: str = ""
    marker: str = ""
    use: str = ""
