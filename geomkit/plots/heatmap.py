"""Heat maps with the number of each field."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

__all__ = ["colour_bar", "heat_map"]


def heat_map(
    axes: Axes,
    values: np.ndarray,
    *,
    across: Sequence[str],
    down: Sequence[str],
    ends: tuple[float, float],
    colours: str = "cividis",
    upwards: bool = False,
    text: Callable[[float], str] = "{:.2f}".format,
) -> AxesImage:
    """Draw a table as a heat map.

    Args:
        axes: Axes to draw in.
        values: Table; NaN for a field without a number.
        across: Names of the columns.
        down: Names of the rows.
        ends: Values of the first and the last colour.
        colours: matplotlib colour map.
        upwards: Whether the first row is at the bottom.
        text: Function from a number to the text of its field.

    Returns:
        The image, for :func:`colour_bar`.
    """
    image = axes.imshow(
        values, cmap=colours, vmin=ends[0], vmax=max(ends[1], ends[0] + 1e-9), aspect="auto",
        origin="lower" if upwards else "upper",
    )  # fmt: skip
    axes.set_xticks(range(len(across)), across)
    axes.set_yticks(range(len(down)), down)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for (i, j), value in np.ndenumerate(values):
        if math.isfinite(value):
            red, green, blue, _ = image.cmap(image.norm(value))
            light = 0.3 * red + 0.59 * green + 0.11 * blue > 0.5
            axes.text(j, i, text(value).replace("-", "−"), ha="center", va="center", fontsize=7.5,
                      color="black" if light else "white")  # fmt: skip
    return image


def colour_bar(figure: Figure, image: AxesImage, axes: Sequence[Axes], label: str) -> None:
    """Add a colour bar to the right of axes.

    Args:
        figure: Figure of the axes.
        image: Heat map whose colours the bar explains.
        axes: Axes to stand beside.
        label: Label of the bar.
    """
    bar = figure.colorbar(image, ax=list(axes), fraction=0.05, pad=0.015, aspect=12)
    bar.set_label(label, fontsize=7.5)
    bar.ax.tick_params(labelsize=7, length=2, width=0.6)
    bar.outline.set_visible(False)
