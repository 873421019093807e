"""One style for all figures: the paper's red and blue, plain type, vector output."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geomkit._io import atomic_write, check_target
from geomkit.errors import GeomkitError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["IMAGE_COLOUR", "INK", "TEXT_COLOUR", "check_figure_path", "save_figure", "style"]

IMAGE_COLOUR = "#d1342f"
TEXT_COLOUR = "#2464b4"
"""Red for images, blue for texts, as in the paper; of unequal lightness, so that they stay apart
for a reader who does not tell hues apart."""
INK = "#333333"

_SUFFIXES = (".png", ".pdf", ".svg")


@contextlib.contextmanager
def style() -> Iterator[None]:
    """matplotlib's settings while a figure is made; the user's own are left alone."""
    import matplotlib

    settings: dict[Any, Any] = {
        "font.family": "sans-serif",
        "font.size": 9,
        "text.color": INK,
        "axes.labelcolor": INK,
        "pdf.fonttype": 42,
        "svg.fonttype": "none",
    }
    with matplotlib.rc_context(settings):
        yield


def check_figure_path(path: Path, *, overwrite: bool = False) -> None:
    """Refuse, before anything is drawn, a path that no figure can be saved under.

    Raises:
        GeomkitError: for an unknown suffix, or as :func:`geomkit._io.check_target`.
    """
    if path.suffix.lower() not in _SUFFIXES:
        raise GeomkitError(
            f"{path}: a figure is saved as {', '.join(_SUFFIXES)}, not '{path.suffix}'"
        )
    check_target(path, overwrite=overwrite)


def save_figure(figure: Figure, path: Path, *, overwrite: bool = False, dpi: int = 200) -> None:
    """Save a figure atomically, in the format of the path's suffix.

    Raises:
        GeomkitError: as :func:`check_figure_path`.
    """
    check_figure_path(path, overwrite=overwrite)
    with style(), atomic_write(path, overwrite=overwrite) as file:
        figure.savefig(file, format=path.suffix[1:].lower(), dpi=dpi)
