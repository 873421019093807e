"""The sphere as a figure to turn, with a slider over the stages of training."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from geomkit._core.shown import shown
from geomkit.errors import GeomkitError
from geomkit.plots.charts import GREY, hover_labels, point_size
from geomkit.plots.spheres import INNER, Stage, arcs, camera_for
from geomkit.plots.style import IMAGE_COLOUR, TEXT_COLOUR

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = ["MAX_FRAMES", "interactive_sphere"]

MAX_FRAMES = 60
"""Stages that an interactive sphere or an animation has at most."""
_BODY = 0.985
"""Radius of the body: points on the near side are outside it."""
_MANY = 2000


def interactive_sphere(
    stages: Sequence[Stage],
    *,
    captions: Sequence[Sequence[str]] = (),
    pairs: int = 1000,
    lines: bool = False,
    modalities: tuple[str, str] = ("image", "text"),
) -> Figure:
    """Return a plotly figure of the sphere: images red, texts blue, one frame per stage.

    With several stages it has a slider and a button that plays them. Nothing is interpolated
    between two stages. It needs no network where plotly has its JavaScript, as in a notebook.

    Args:
        stages: Spheres in order; the figure opens on the last.
        captions: Captions of each pair, shown beside the pointer.
        pairs: Largest number of pairs to draw.
        lines: Whether to join the pairs along the sphere.
        modalities: Names of the two clouds in the legend.

    Raises:
        GeomkitError: If there are no stages, too many, or no pairs, or the stages differ in length.

    >>> rows = np.eye(3)
    >>> figure = interactive_sphere([Stage(rows, rows, "start"), Stage(rows, -rows, "end")])
    >>> [trace.name for trace in figure.data], len(figure.frames)
    (['body', 'grid', 'image', 'text'], 2)
    """
    if not stages or pairs < 1:
        raise GeomkitError("nothing to draw: expected at least one source and one pair")
    if len(stages) > MAX_FRAMES:
        raise GeomkitError(f"stages: expected 1 to {MAX_FRAMES}, got {len(stages)}")
    if len({rows.shape for stage in stages for rows in (stage.image, stage.text)}) > 1:
        raise GeomkitError("stages: expected the same number of pairs in each")
    import plotly.graph_objects as go

    points = 2 * min(pairs, len(stages[0].image))
    # Of many points each is small, and a square is drawn twice as fast as a circle.
    point = {"size": point_size(points), "symbol": "circle" if points <= _MANY else "square"}
    names = ["\n".join(captions[i]) for i in range(min(pairs, len(captions)))]
    labels = hover_labels(names)
    looks: list[dict[str, Any]] = [
        {
            "mode": "markers",
            "marker": {**point, "color": colour, "line": {"width": 0}},
            "hovertext": labels or None,
            "hoverinfo": "text" if labels else "name",
        }
        for colour in (IMAGE_COLOUR, TEXT_COLOUR)
    ]
    looks.append({"mode": "lines", "line": {"color": GREY, "width": 1}, "hoverinfo": "skip",
                  "showlegend": False})  # fmt: skip
    flat = all(stage.circle for stage in stages)
    if flat:  # as on the figure: texts on an inner circle
        stages = [replace(stage, text=INNER * stage.text) for stage in stages]
    moving = [_moving(stage, pairs, lines and not flat) for stage in stages]
    scatters = [
        go.Scatter3d(**rows, **look, name=hover_labels([name])[0])
        for rows, look, name in zip(moving[-1], looks, (*modalities, "lines"), strict=False)
    ]
    titles = [shown(stage.title).replace("\n", " · ") for stage in stages]
    order = list(range(2, 2 + len(scatters)))
    frames = [
        go.Frame(data=[go.Scatter3d(**rows) for rows in parts], traces=order, name=str(k))
        for k, parts in enumerate(moving)
    ]
    body = _body()
    body.visible = not flat
    return go.Figure(
        [body, _circles() if flat else _grid(), *scatters],
        {**_layout(stages), **(_controls(titles) if len(stages) > 1 else {})},
        frames,
    )


def _moving(stage: Stage, pairs: int, lines: bool) -> list[dict[str, np.ndarray]]:
    """Coordinates of what a stage changes: images, texts, and the lines between them."""
    clouds = [stage.image[:pairs], stage.text[:pairs]]
    if lines:
        parts = arcs(*clouds)
        gap = np.full((1, *parts.shape[1:]), np.nan)  # a line ends where its next point is none
        clouds.append(np.concatenate([parts, gap]).swapaxes(0, 1).reshape(-1, 3))
    return [dict(zip("xyz", np.asarray(rows, np.float32).T.copy(), strict=True)) for rows in clouds]


def _body() -> Any:
    """The sphere itself, which half hides what is behind it.

    It has one colour: WebGL does not sort its triangles, and shades would show their order.
    """
    import plotly.graph_objects as go

    rings, parts = 24, 48
    down, around = np.meshgrid(
        np.linspace(0, np.pi, rings + 1), np.linspace(0, 2 * np.pi, parts, False), indexing="ij"
    )
    sphere = np.stack([np.sin(down) * np.cos(around), np.sin(down) * np.sin(around), np.cos(down)])
    x, y, z = (_BODY * sphere).astype(np.float32)
    here = np.arange(rings * parts).reshape(rings, parts)
    right, below = np.roll(here, -1, axis=1), here + parts
    corners = [(here, below, right), (right, below, np.roll(below, -1, axis=1))]
    i, j, k = np.concatenate([np.reshape(corner, (3, -1)) for corner in corners], axis=1)
    return go.Mesh3d(
        x=x.ravel(), y=y.ravel(), z=z.ravel(), i=i, j=j, k=k, name="body", hoverinfo="skip",
        color="#eeeeec", opacity=0.5,
        lighting={"ambient": 1.0, "diffuse": 0.0, "specular": 0.0, "fresnel": 0.0},
    )  # fmt: skip


def _grid() -> Any:
    """Meridians and parallels, as one line with gaps."""
    import plotly.graph_objects as go

    turn = np.linspace(0, 2 * np.pi, 73)
    across, up, end = np.cos(turn), np.sin(turn), np.full((3, 1), np.nan)
    circles = [np.stack([np.cos(a) * up, np.sin(a) * up, across]) for a in np.arange(6) * np.pi / 6]
    circles += [
        np.stack([np.cos(h) * across, np.cos(h) * up, np.full_like(turn, np.sin(h))])
        for h in np.deg2rad([-60, -30, 0, 30, 60])
    ]
    points = np.concatenate([part for c in circles for part in (c, end)], axis=1)
    x, y, z = points.astype(np.float32)
    return go.Scatter3d(
        x=x, y=y, z=z, name="grid", mode="lines", hoverinfo="skip", showlegend=False,
        line={"color": GREY, "width": 1}, opacity=0.35,
    )  # fmt: skip


def _circles() -> Any:
    """The circles of images and of texts of two dimensions."""
    import plotly.graph_objects as go

    turn, end = np.linspace(0, 2 * np.pi, 181), np.full((3, 1), np.nan)
    ring = np.stack([np.cos(turn), np.sin(turn), 0 * turn])
    x, y, z = np.concatenate([ring, end, INNER * ring], axis=1).astype(np.float32)
    return go.Scatter3d(
        x=x, y=y, z=z, name="grid", mode="lines", hoverinfo="skip", showlegend=False,
        line={"color": GREY, "width": 1},
    )  # fmt: skip


def _layout(stages: Sequence[Stage]) -> dict[str, Any]:
    right_up_towards = camera_for(stages)
    axis = {"visible": False, "range": [-1.03, 1.03], "showspikes": False}
    eye, up = 1.5 * right_up_towards[2], right_up_towards[1]
    return {
        "template": "none",
        "paper_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": GREY},
        "margin": {"l": 0, "r": 0, "t": 0, "b": 0},
        "legend": {
            "orientation": "h",
            "x": 0.5,
            "xanchor": "center",
            "y": 1.0,
            "yanchor": "top",
            "itemsizing": "constant",
        },
        "uirevision": "kept",  # the view stays as it was turned, from stage to stage
        "scene": {
            **{f"{name}axis": axis for name in "xyz"},
            "aspectmode": "cube",
            "dragmode": "orbit",
            "camera": {
                "eye": dict(zip("xyz", eye.tolist(), strict=True)),
                "up": dict(zip("xyz", up.tolist(), strict=True)),
            },
        },
    }


def _controls(titles: Sequence[str]) -> dict[str, Any]:
    """Slider and button of the figure, for notebooks."""
    still = {"mode": "immediate", "transition": {"duration": 0}}
    steps = [
        {"label": html.escape(title), "method": "animate",
         "args": [[str(k)], {**still, "frame": {"duration": 0, "redraw": True}}]}
        for k, title in enumerate(titles)
    ]  # fmt: skip
    play = {
        "label": "Play", "method": "animate",
        "args": [None, {**still, "fromcurrent": False, "frame": {"duration": 600, "redraw": True}}],
    }  # fmt: skip
    pause = {"label": "Pause", "method": "animate", "args": [[None], still]}
    return {
        "margin": {"l": 0, "r": 0, "t": 0, "b": 90},
        "sliders": [{"steps": steps, "active": len(steps) - 1, "ticklen": 0, "minorticklen": 0,
                     "font": {"size": 1, "color": "rgba(0,0,0,0)"},
                     "currentvalue": {"font": {"size": 13, "color": GREY}}, "x": 0.22,
                     "len": 0.76}],
        "updatemenus": [{"type": "buttons", "direction": "left", "showactive": False, "x": 0.0,
                         "y": 0.0, "xanchor": "left", "yanchor": "top", "buttons": [play, pause]}],
    }  # fmt: skip
