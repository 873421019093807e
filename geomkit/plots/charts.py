"""Panels and planes as plotly figures, for notebooks."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from geomkit._core.shown import shown
from geomkit.errors import GeomkitError
from geomkit.plots.multiples import Panel, Series
from geomkit.plots.planes import Plane, pair_alpha
from geomkit.plots.style import MODALITY_COLOURS

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = ["GREY", "hover_labels", "interactive_panels", "interactive_planes", "point_size"]

GREY = "#808080"
"""Ink that is read on a light and on a dark page."""
_GRID = "rgba(128,128,128,0.25)"
_SYMBOLS = {"o": "circle", "s": "square", "D": "diamond", "^": "triangle-up", "v": "triangle-down",
            "<": "triangle-left", ">": "triangle-right", "P": "cross", "X": "x", "p": "pentagon",
            "h": "hexagon", "*": "star", "|": "line-ns-open"}  # fmt: skip
_BETWEEN = 70
"""Pixels between two rows, for a title and the label of an axis."""
_DARKEST = 0.06
"""Relative luminance below which a colour is not seen on a dark page."""


def interactive_panels(panels: Sequence[Panel], *, across: int = 2) -> Figure:
    """Return a plotly figure of panels in rows, with one legend for all of them.

    Its background is transparent, and its ink is read in light and dark themes.

    Args:
        panels: Panels, row by row.
        across: Panels in a row.

    Raises:
        GeomkitError: If there are no panels.

    >>> line = Series("clip", [32, 64], [0.10, 0.31], low=[0.05, 0.2], high=[0.15, 0.4])
    >>> figure = interactive_panels([Panel([line], "Centroid distance", log=True)])
    >>> figure.data[0].name, figure.layout.xaxis.type
    ('clip', 'log')
    """
    names = max((len(panel.categories) for panel in panels if panel.horizontal), default=0)
    height = 60 + 26 * names if names else 260
    figure, places = _grid([panel.title for panel in panels], across, height)
    named: set[str] = set()
    for panel, (row, column) in zip(panels, places, strict=True):
        for series in panel.series:
            first = bool(series.name) and series.name not in named
            named.add(series.name)
            for trace in _traces(series, panel, legend=first):
                figure.add_trace(trace, row, column)
        positions: dict[str, Any] = {"title": _text(panel.x)}
        values: dict[str, Any] = {"title": _text(panel.y)}
        if panel.horizontal:
            positions["title"], values["title"] = values["title"], positions["title"]
        if panel.categories:
            count = len(panel.categories)
            ends = [count - 0.4, -0.6] if panel.horizontal else [-0.6, count - 0.4]
            positions |= {"tickvals": list(range(count)), "range": ends}
            positions["ticktext"] = [_text(name) for name in panel.categories]
            positions["showticklabels"] = column == 1 or not panel.horizontal
        if panel.log:
            positions["type"] = "log"
        if any(end is not None for end in panel.limits):
            values["range"] = list(panel.limits)
        x, y = (values, positions) if panel.horizontal else (positions, values)
        figure.update_xaxes(x, row=row, col=column)
        figure.update_yaxes(y, row=row, col=column)
        for at, words in panel.references.items():
            line = figure.add_vline if panel.horizontal else figure.add_hline
            line(at, line={"color": GREY, "dash": "dot", "width": 1}, row=row, col=column,
                 annotation_text=_text(words))  # fmt: skip
    return figure


def interactive_planes(
    planes: Sequence[Plane], *, labels: Sequence[Sequence[str]] = (), lines: bool = False
) -> Figure:
    """Return a plotly figure of planes: images red, texts blue.

    Args:
        planes: Planes, row by row.
        labels: For each plane, what is shown beside the pointer at each pair; may be empty.
        lines: Whether to join the pairs.

    Raises:
        GeomkitError: If there are no planes.
    """
    import plotly.graph_objects as go

    figure, places = _grid([plane.title for plane in planes], 3, 340)
    for k, (plane, (row, column)) in enumerate(zip(planes, places, strict=True)):
        x, y = plane.image.astype(np.float32), plane.text.astype(np.float32)
        if lines:
            ends = np.stack([x, y, np.full_like(x, np.nan)], axis=1).reshape(-1, 2)
            joined = go.Scattergl(
                x=ends[:, 0], y=ends[:, 1], mode="lines", hoverinfo="skip", showlegend=False,
                line={"color": GREY, "width": 1}, opacity=pair_alpha(len(x)),
            )  # fmt: skip
            figure.add_trace(joined, row, column)
        names = hover_labels(labels[k]) if k < len(labels) else []
        for (modality, colour), points in zip(MODALITY_COLOURS.items(), (x, y), strict=True):
            cloud = go.Scattergl(
                x=points[:, 0], y=points[:, 1], mode="markers", name=f"{modality}s",
                legendgroup=modality, showlegend=k == 0, hovertext=names or None,
                hoverinfo="text" if names else "name",
                marker={"size": point_size(2 * len(x)), "color": colour, "opacity": 0.75},
            )  # fmt: skip
            figure.add_trace(cloud, row, column)
        scale = {"showticklabels": any(plane.labels), "zeroline": False}
        figure.update_xaxes({**scale, "title": _text(plane.labels[0])}, row=row, col=column)
        figure.update_yaxes({**scale, "title": _text(plane.labels[1])}, row=row, col=column)
    return figure


def hover_labels(names: Sequence[str]) -> list[str]:
    r"""Return texts as plotly shows them: it reads tags, so that a caption could hold a link.

    >>> hover_labels(["a <b>\nc"])
    ['a &lt;b&gt;<br>c']
    """
    return [html.escape(shown(name)).replace("\n", "<br>") for name in names]


def point_size(points: int) -> float:
    """Return the diameter in px of a point among that many.

    >>> point_size(200), point_size(5000)
    (7.0, 3.0)
    """
    return float(np.clip(np.round(160 / np.sqrt(points), 1), 3.0, 7.0))


def _grid(titles: Sequence[str], across: int, height: int) -> tuple[Figure, list[tuple[int, int]]]:
    """An empty figure with rows of that height in px, and the row and column of each title."""
    if not titles:
        raise GeomkitError("nothing to draw: expected at least one source")
    from plotly.subplots import make_subplots

    across = min(across, len(titles))
    rows = -(-len(titles) // across)
    tall = rows * (height + _BETWEEN)
    figure = make_subplots(
        rows, across, subplot_titles=[_text(title) for title in titles],
        vertical_spacing=_BETWEEN / tall, horizontal_spacing=0.2 / across,
    )  # fmt: skip
    figure.update_layout(
        template="none", paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)",
        font={"color": GREY}, height=tall + 80,
        margin={"l": 60, "r": 20, "t": 80, "b": _BETWEEN},
        legend={"orientation": "h", "y": 1 + 40 / tall, "yanchor": "bottom"},
    )  # fmt: skip
    axes: dict[str, Any] = {"gridcolor": _GRID, "zeroline": False, "linecolor": GREY}
    figure.update_xaxes(axes | {"automargin": True})
    figure.update_yaxes(axes | {"automargin": True})
    return figure, [(1 + k // across, 1 + k % across) for k in range(len(titles))]


def _traces(series: Series, panel: Panel, *, legend: bool) -> list[Any]:
    """A series as a trace, with a filled band before it where its intervals are bands."""
    import plotly.graph_objects as go

    x, value = np.asarray(series.x, float), np.asarray(series.value, float)
    colour = _seen(series.colour)
    low, high = (np.asarray(ends, float) for ends in (series.low, series.high))
    group = {"legendgroup": series.name} if series.name else {}
    look: dict[str, Any] = {**group, "name": _text(series.name), "showlegend": legend}
    mode = "+".join(["lines"] * bool(series.line) + ["markers"] * bool(series.marker))
    if series.marker:
        symbol = _SYMBOLS.get(series.marker, "circle")
        symbol = f"{symbol}-open" if series.published else symbol
        look["marker"] = {"symbol": symbol, "size": 2 * series.size, "color": colour,
                          "line": {"color": colour, "width": 1.5}}  # fmt: skip
    if series.line:
        dash = "dash" if series.published or series.line != "-" else "solid"
        look["line"] = {"color": colour, "width": 1.5 * series.width, "dash": dash}
    band = panel.bands and len(low) > 0
    if len(low) and not band:
        error = {"array": high - value, "arrayminus": value - low, "color": colour}
        error |= {"symmetric": False, "thickness": 1.2}
        look["error_x" if panel.horizontal else "error_y"] = error
    places = (value, x) if panel.horizontal else (x, value)
    trace = go.Scatter(x=places[0], y=places[1], mode=mode, **look)
    if not band:
        return [trace]
    red, green, blue = _rgb(colour)
    around = go.Scatter(
        x=np.concatenate([x, x[::-1]]), y=np.concatenate([high, low[::-1]]), fill="toself",
        fillcolor=f"rgba({red},{green},{blue},0.18)", mode="none", hoverinfo="skip",
        showlegend=False, **group,
    )  # fmt: skip
    return [around, trace]


def _text(words: str) -> str:
    return hover_labels([words])[0] if words else ""


def _rgb(colour: str) -> tuple[int, int, int]:
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return red, green, blue


def _seen(colour: str) -> str:
    """The colour, or grey if it would not be seen on a dark page."""
    light = np.dot((np.array(_rgb(colour)) / 255) ** 2.2, [0.2126, 0.7152, 0.0722])
    return GREY if light < _DARKEST else colour
