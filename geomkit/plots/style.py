"""One style for all figures: the paper's red and blue, plain type, vector output."""

from __future__ import annotations

import contextlib
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from geomkit._core.files import atomic_write, check_target
from geomkit._core.shown import shown
from geomkit.errors import GeomkitError
from geomkit.losses import PRESETS, Preset, parse_loss

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "COLUMN_WIDTHS", "IMAGE_COLOUR", "INK", "LOSS_COLOURS", "MODALITY_COLOURS", "TEXT_COLOUR",
    "Look", "axes_grid", "check_figure_path", "dark", "distinct_looks", "dress", "figure", "finish",
    "is_own",    "label", "loss_colour", "loss_marker", "save_figure", "style",
]  # fmt: skip

IMAGE_COLOUR = "#d1342f"
"""Red for images, as in the paper."""
TEXT_COLOUR = "#2464b4"
"""Blue for captions, as in the paper; its lightness differs from that of the red too, for readers
who cannot distinguish the hues."""
MODALITY_COLOURS = {"image": IMAGE_COLOUR, "text": TEXT_COLOUR}
INK = "#333333"

LOSS_COLOURS = {name: preset.colour for name, preset in PRESETS.items() if preset.colour}
"""Colour of each preset that declares one, the same in every figure."""
_OTHER_COLOURS = ("#7f9f3f", "#a65628", "#5f8f9f", "#b8a000", "#9f5f8f")
_OTHER_MARKERS = "Xph<>"
_MARKERS = "os^Dv*PXph<>"
_LINES = ("-", (0, (4.0, 1.5)), (0, (1.0, 1.2)), (0, (5.0, 1.2, 1.0, 1.2)))
_MADE_BY = "geomkit"
"""What the metadata of a .png name."""
_HEAD = 0.3
"""Height in inches of a title above axes of fixed places."""
_DARK = 0.07
"""Grey that white becomes on a dark figure."""

COLUMN_WIDTHS = {1: 3.3, 2: 6.9}
"""Width in inches of a figure across one or both columns of a paper."""

_SUFFIXES = (".png", ".pdf", ".svg")


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Apply the settings of matplotlib for figures; the user's own are restored afterwards."""
    import matplotlib

    settings: dict[Any, Any] = {
        "font.family": "sans-serif",
        "font.size": 9,
        "text.color": INK,
        "axes.edgecolor": INK,
        "axes.labelcolor": INK,
        "axes.linewidth": 0.7,
        "xtick.color": INK,
        "ytick.color": INK,
        "lines.linewidth": 1.2,
        "lines.markersize": 4,
        "legend.frameon": False,
        "pdf.fonttype": 42,
        "svg.fonttype": "none",
        "text.parse_math": False,  # names from files may hold dollar signs
    }
    with matplotlib.rc_context(settings):
        yield


def loss_colour(name: str) -> str:
    """Return the colour of a loss: that of its preset, or else one chosen from its name.

    Args:
        name: Preset or weighted sum of terms.

    >>> loss_colour("clip + uniformity + alignment") == LOSS_COLOURS["cua"]
    True
    """
    preset = _preset(name)
    return preset.colour if preset else _OTHER_COLOURS[_number(name, _OTHER_COLOURS)]


def loss_marker(name: str) -> str:
    """Return the marker that goes with :func:`loss_colour`.

    Args:
        name: Preset or weighted sum of terms.

    >>> loss_marker("clip")
    'o'
    """
    preset = _preset(name)
    return preset.marker if preset else _OTHER_MARKERS[_number(name, _OTHER_MARKERS)]


class Look(NamedTuple):
    """How a source is drawn, the same in every panel.

    Attributes:
        colour: Colour of its line and markers.
        marker: Marker of its points.
        line: matplotlib line style.
    """

    colour: str
    marker: str
    line: Any = "-"


def distinct_looks(losses: Sequence[object]) -> list[Look]:
    """Return a look per source: that of its loss if all have different losses.

    Otherwise each source has a marker of its own, up to 12, and from the eighth on, when the
    colours are used up, another line style.

    Args:
        losses: Loss of each source; what is no text is unknown.

    >>> looks = distinct_looks([None] * 12)
    >>> len({look.marker for look in looks}), len({(look.colour, look.line) for look in looks})
    (12, 12)
    """
    found = [Look(loss_colour(one), loss_marker(one)) for one in losses if isinstance(one, str)]
    if len(found) == len(losses) and len(set(found)) == len(found):
        return found
    colours = list(LOSS_COLOURS.values())
    return [
        Look(
            colours[k % len(colours)],
            _MARKERS[k % len(_MARKERS)],
            _LINES[k // len(colours) % len(_LINES)],
        )
        for k in range(len(losses))
    ]


def finish(
    figure: Figure,
    *,
    title: str | None = None,
    about: str = "",
    inches: tuple[float, float] | None = None,
    theme: str = "light",
) -> None:
    """Give a figure a title, a size and a theme.

    Args:
        figure: Figure to change.
        title: Title above it.
        about: Small line above a figure without a title; where axes have fixed places, or the
            figure says it already, none.
        inches: Width and height; default: as they are.
        theme: ``light`` or ``dark``.
    """
    if inches:
        figure.set_size_inches(*inches)
    if title and _is_fixed(figure):  # room above the axes
        width, height = figure.get_size_inches()
        _make_room(figure, height / (height + _HEAD))
        figure.set_size_inches(width, height if inches else height + _HEAD)
    if title:
        with style():
            figure.suptitle(title, fontsize=10, color=INK)
    if about and not figure.get_suptitle() and not _is_fixed(figure):
        with style():
            # A letter of 7 points is some 1/17 of an inch wide.
            lines = textwrap.fill(about, int(17 * figure.get_size_inches()[0]))
            figure.suptitle(lines, fontsize=7, color=INK)
    if theme == "dark":
        dark(figure)


def _is_fixed(figure: Figure) -> bool:
    """Whether axes have fixed places: without a layout engine, or after one was taken away."""
    from matplotlib.layout_engine import PlaceHolderLayoutEngine

    engine = figure.get_layout_engine()
    return engine is None or isinstance(engine, PlaceHolderLayoutEngine)


def _make_room(figure: Figure, share: float) -> None:
    """Move axes of fixed places into the lower share of a figure."""
    for axes in figure.axes:
        left, bottom, width, height = axes.get_position().bounds
        axes.set_position((left, bottom * share, width, height * share))


def dark(figure: Figure) -> None:
    """Turn a figure dark: greys are mirrored between black and white, hues stay.

    A heat map stays as it is, with the numbers on it.

    Args:
        figure: Figure to change.

    >>> from matplotlib.figure import Figure
    >>> figure = Figure()
    >>> words = figure.text(0, 0, "a", color=INK)
    >>> dark(figure)
    >>> words.get_color()
    (0.758, 0.758, 0.758, 1.0)
    """
    from matplotlib.collections import Collection
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch
    from matplotlib.text import Text

    figure.draw_without_rendering()  # ticks are made when they are drawn
    numbers = {
        text for axes in figure.axes for image in axes.images for text in axes.texts
        if (values := image.get_array()) is not None and values.ndim == 2
    }  # fmt: skip
    for artist in figure.findobj():
        if isinstance(artist, Text):
            if artist in numbers:
                continue
            artist.set_color(_mirrored(artist.get_color()))
        elif isinstance(artist, Line2D):
            line, face = artist.get_color(), artist.get_markerfacecolor()
            edge = artist.get_markeredgecolor()
            artist.set_color(_mirrored(line))  # a face may follow it
            artist.set_markerfacecolor(_mirrored(face))
            artist.set_markeredgecolor(_mirrored(edge))
        elif isinstance(artist, Patch):
            face, edge = artist.get_facecolor(), artist.get_edgecolor()
            artist.set_facecolor(_mirrored(face))
            artist.set_edgecolor(_mirrored(edge))
        elif isinstance(artist, Collection) and artist.get_array() is None:
            faces, edges = artist.get_facecolor(), artist.get_edgecolor()
            artist.set_facecolor([_mirrored(colour) for colour in faces])
            artist.set_edgecolor([_mirrored(colour) for colour in edges])
    for axes in figure.axes:  # those of ticks that a later drawing makes
        axes.tick_params(colors=_mirrored(INK))


def _mirrored(colour: Any) -> Any:
    """A grey as bright as it was dark; a colour that is none a little brighter if it is dark."""
    from matplotlib.colors import to_rgba

    if isinstance(colour, str) and colour in ("none", "auto"):
        return colour
    *channels, alpha = to_rgba(colour)
    if max(channels) - min(channels) < 0.08:
        low, high = _DARK, 0.93
        channels = [round(low + (1 - c) * (high - low), 3) for c in channels]
    elif max(channels) < 0.8:
        channels = [round(c + 0.25 * (1 - c), 3) for c in channels]
    return (*channels, alpha)


def _preset(name: str) -> Preset | None:
    """The preset with a colour and marker that a loss is, however it is written."""
    try:
        weights = parse_loss(name).weights
    except GeomkitError:  # a user's own label
        return None
    same = (p for p in PRESETS.values() if parse_loss(p.weights).weights == weights)
    return next((p for p in same if p.colour and p.marker), None)


def _number(name: str, among: Sequence[str]) -> int:
    # Not hash(), which differs from one process to the next.
    return sum(k * byte for k, byte in enumerate(name.encode(), start=1)) % len(among)


def figure(*, columns: int = 1, height: float = 2.4) -> Figure:
    """Return an empty figure as wide as one column of a paper or both, laid out when it is drawn.

    Axes have to be added within :func:`style`; :func:`axes_grid` does both at once.

    Args:
        columns: Columns that the figure spans: 1 (3.3 in) or 2 (6.9 in).
        height: Height in inches.
    """
    from matplotlib.figure import Figure

    with style():
        return Figure(figsize=(COLUMN_WIDTHS[columns], height), layout="constrained")


def axes_grid(
    count: int, across: int, *, columns: int = 2, height: float = 2.4, **subplots: Any
) -> tuple[Figure, list[Axes]]:
    """Return a figure with axes in rows.

    Args:
        count: Number of axes.
        across: Axes in a row; the last row may have fewer.
        columns: Columns of a paper that the figure spans, 1 or 2.
        height: Height of the figure in inches.
        **subplots: Further arguments of ``Figure.subplots``, such as ``sharex``.

    Returns:
        The figure and its axes, row by row.
    """
    made = figure(columns=columns, height=height)
    with style():
        places = made.subplots(-(-count // across), across, squeeze=False, **subplots)
    for unused in places.flat[count:]:
        unused.remove()
    return made, [dress(axes) for axes in places.flat[:count]]


def dress(axes: Axes, *, title: str = "", x: str = "", y: str = "", grid: str = "") -> Axes:
    """Give axes the look of every figure: two spines, small ticks, labels of 7 to 8 pt.

    Args:
        axes: Axes to change and return.
        title: Title above them.
        x: Label of the horizontal axis, with unit or range.
        y: Label of the vertical axis, with unit or range.
        grid: Faint lines to read values by: ``x``, ``y`` or ``both``.
    """
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=7, length=2.5, width=0.7, pad=2)
    if grid:
        axes.grid(axis=grid, color="#dddddd", linewidth=0.5)  # type: ignore[arg-type]
        axes.set_axisbelow(True)
    label(axes, title=title, x=x, y=y)
    return axes


def label(axes: Axes, *, title: str = "", x: str = "", y: str = "") -> None:
    """Give axes a title and axis labels, where they are not empty."""
    if title:
        axes.set_title(title, fontsize=8, pad=4)
    if x:
        axes.set_xlabel(x, fontsize=8, labelpad=2)
    if y:
        axes.set_ylabel(y, fontsize=7.5, labelpad=2)


def check_figure_path(path: Path, *, overwrite: bool = False) -> None:
    """Check that a figure can be saved under a path, before it is drawn.

    Args:
        path: File to write: ``.png``, ``.pdf`` or ``.svg``.
        overwrite: Whether an existing file may be replaced.

    Raises:
        GeomkitError: For an unknown suffix, or as :func:`geomkit._core.files.check_target`.

    >>> from pathlib import Path
    >>> check_figure_path(Path("gap.pdf"), overwrite=True)
    """
    if path.suffix.lower() not in _SUFFIXES:
        raise GeomkitError(
            f"{path}: a figure is saved as {', '.join(_SUFFIXES)}, not '{path.suffix}'"
        )
    check_target(path, overwrite=overwrite)


def save_figure(figure: Figure, path: Path, *, overwrite: bool = False, dpi: int = 200) -> None:
    """Save a figure atomically, in the format of the path's suffix.

    Args:
        figure: Figure to save.
        path: File to write: ``.png``, ``.pdf`` or ``.svg``.
        overwrite: Whether to replace an existing file.
        dpi: Resolution of a ``.png``.

    Raises:
        GeomkitError: As :func:`check_figure_path`.
    """
    from matplotlib.text import Text

    check_figure_path(path, overwrite=overwrite)
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_text(shown(text.get_text()))  # an SVG with control characters is damaged
    kind = path.suffix[1:].lower()
    about = {"Software": _MADE_BY} if kind == "png" else None
    with style(), atomic_write(path, overwrite=overwrite) as file:
        figure.savefig(file, format=kind, dpi=dpi, metadata=about)


def is_own(path: Path) -> bool:
    """Return whether a path is a .png that :func:`save_figure` made, and no link to one."""
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return f"Software\0{_MADE_BY}".encode() in file.read(4096)
