"""Spectra: how much of its variance each modality has in how many principal components."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from geomkit._core.array import to_numpy
from geomkit.embeddings.embeddings import Embeddings
from geomkit.errors import GeomkitError
from geomkit.metrics import explained_variance_with_error
from geomkit.metrics.wording import plural
from geomkit.plots.multiples import Panel, Series, small_multiples
from geomkit.plots.style import MODALITY_COLOURS, distinct_looks

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["cumulative_figure", "cumulative_panels", "spectrum_curves"]

_EVEN = "equal in all directions"


def spectrum_curves(embeddings: Mapping[str, Embeddings]) -> dict[str, list[Series]]:
    """Return curves of cumulative explained variance, by the title of their panel.

    The components are those of each modality, centred. Bands are 95% intervals over pairs. One
    source has a panel with a curve per modality; several sources have a panel per modality.

    Raises:
        GeomkitError: If the rows of a modality are all equal but for rounding.
    """
    looks = distinct_looks([e.meta.get("loss") for e in embeddings.values()])
    shown: dict[str, list[Series]] = {"image": [], "text": []}
    for (name, one), look in zip(embeddings.items(), looks, strict=True):
        for side, rows in zip(shown, one.pairs(), strict=True):
            values, errors, _, _ = explained_variance_with_error(to_numpy(rows[:]))
            if np.isnan(values[0]):
                raise GeomkitError(
                    f"{name}{name and ': '}the {plural(side)} are all equal but for rounding; "
                    "there is no variance to explain"
                )
            half = 1.96 * np.nan_to_num(errors)
            low, high = np.clip(values - half, 0, 1), np.clip(values + half, 0, 1)
            x = np.arange(1, len(values) + 1)
            shown[side].append(
                Series(name, x, values, low, high, colour=look.colour, line=look.line)
            )
    if len(embeddings) == 1:
        curves = [
            replace(found[0], name=f"{side}s", colour=MODALITY_COLOURS[side])
            for side, found in shown.items()
        ]
        return {next(iter(embeddings)): curves}
    return {"Images": shown["image"], "Texts": shown["text"]}


def cumulative_panels(shown: Mapping[str, Sequence[Series]]) -> list[Panel]:
    """Return a panel for each title, with its curves and what to compare them with.

    Shares of 80 and 90% are marked. The thin diagonal is a cloud with the same variance in every
    direction.
    """
    most = [max((max(s.x) for s in found if len(s.x)), default=1) for found in shown.values()]
    return [
        Panel(
            [*found, Series(_EVEN, [0, last], [0, 1], colour="#aaaaaa", width=0.6)]
            if found
            else [],
            title,
            "Principal components",
            "Cumulative variance",
            bands=True,
            limits=(0, 1.02),
            references={0.8: "80%", 0.9: "90%"},
        )
        for (title, found), last in zip(shown.items(), most, strict=True)
    ]


def cumulative_figure(
    shown: Mapping[str, Sequence[Series]], *, published: str = "paper", across: int = 2
) -> Figure:
    """Return a figure of :func:`cumulative_panels`.

    Args:
        shown: Curves of each panel, by its title.
        published: Legend entry of what is from the paper.
        across: Panels in a row.

    Raises:
        GeomkitError: If there is no curve.
    """
    panels = cumulative_panels(shown)
    most = max((len(panel.series) for panel in panels), default=0)  # the legend grows with them
    figure = small_multiples(
        panels,
        across=across,
        columns=1 if len(panels) == 1 else 2,
        height=(2.3 if min(across, len(panels)) < 3 else 1.9) + 0.05 * max(0, most - 4),
        published=published,
    )
    for axes, panel in zip(figure.axes, panels, strict=True):
        axes.set_xlim(0, max((max(s.x) for s in panel.series), default=1))
        axes.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0])
    return figure
