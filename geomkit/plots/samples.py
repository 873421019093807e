"""A contact sheet: samples of a data set with their captions."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np

from geomkit.data import PairData
from geomkit.errors import GeomkitError
from geomkit.plots.style import INK, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["contact_sheet"]


def contact_sheet(data: PairData, *, samples: int = 64, columns: int = 8, seed: int = 0) -> Figure:
    """Return a figure with a grid of images, each above its captions, and the attribution.

    Args:
        data: Pairs to choose from.
        samples: Number of images.
        columns: Images in a row.
        seed: Random seed for the choice.

    Raises:
        GeomkitError: If there is not at least one sample and one column.

    >>> from geomkit.data import load_data
    >>> data = load_data("openmoji,n=8", split="all")  # doctest: +SKIP
    >>> figure = contact_sheet(data, samples=4, columns=2)  # doctest: +SKIP
    """
    if samples < 1 or columns < 1:
        raise GeomkitError("expected at least one sample and one column")
    from matplotlib.figure import Figure

    count = min(samples, len(data))
    rows = np.sort(np.random.default_rng(seed).permutation(len(data))[:count])
    lines = -(-count // columns)
    cell, caption, foot = 1.0, 0.33, 0.3
    width, height = columns * cell, lines * (cell + caption) + foot
    with style():
        figure = Figure(figsize=(width, height))
        for k, (row, pixels) in enumerate(zip(rows, data.pixels(rows), strict=True)):
            line, column = divmod(k, columns)
            bottom = height - line * (cell + caption) - cell
            left, side = (column + 0.08) * cell / width, 0.84 * cell / width
            axes = figure.add_axes((left, bottom / height, side, 0.92 * cell / height))
            axes.imshow(pixels, interpolation="nearest" if data.size < 64 else None)
            axes.set_axis_off()
            text = textwrap.fill(" · ".join(data.captions[row]), 19, max_lines=3, placeholder=" …")
            figure.text(
                (column + 0.5) * cell / width, (bottom - 0.02) / height, text, ha="center",
                va="top", fontsize=5.5, linespacing=1.1, color=INK,
            )  # fmt: skip
        figure.text(0.5, 0.12 / height, data.attribution, ha="center", fontsize=6, color=INK)
    return figure
