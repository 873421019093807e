"""The interactive sphere as one HTML page that needs no other file and no network."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geomkit._core.files import atomic_write, check_target
from geomkit._core.shown import shown
from geomkit.data import PairData
from geomkit.data.registry import datasets, parse_spec
from geomkit.errors import GeomkitError
from geomkit.plots.interactive import interactive_sphere
from geomkit.plots.spheres import Stage
from geomkit.plots.style import IMAGE_COLOUR, TEXT_COLOUR

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = [
    "Labels", "check_page_path", "compressed", "in_base64", "page_environment", "save_page",
    "sphere_page",
    "thumbnails",
]  # fmt: skip

SIZE = 8_000_000
"""Bytes that a page has at most because of its pictures."""
SIDES = (96, 64, 48, 32, 24, 16)
"""Sides in px that pictures may have: the largest with which the page is small enough."""
_AT_ONCE = 256
_SUFFIXES = (".html", ".htm")


@dataclass(frozen=True, eq=False)
class Labels:
    """What is known of each pair beside its rows.

    Attributes:
        ids: Name of each image; empty if they have none.
        captions: Captions of each image, the drawn one first; empty if they are not known.
        pictures: Pictures of the images, uint8, shape ``(side, side, 3)``; empty without.
        attribution: Attribution to show with the pictures.

    >>> Labels(captions=(("a red ball",), ("猫", "cat"))).captions[1]
    ('猫', 'cat')
    """

    ids: tuple[str, ...] = ()
    captions: tuple[tuple[str, ...], ...] = ()
    pictures: tuple[np.ndarray, ...] = ()
    attribution: str = ""

    @staticmethod
    def of(data: PairData) -> Labels:
        """Return captions and pictures of a data set.

        Args:
            data: Images that all decode, with their captions.

        Raises:
            GeomkitError: If an image does not decode.
        """
        return Labels(data.ids, data.captions, tuple(thumbnails(data)), data.attribution)


def thumbnails(data: PairData) -> Iterator[np.ndarray]:
    """Yield each image of a data set, uint8, as large as a page shows it at most.

    A data set that can draw single images draws them at that size; of others they are what the
    model sees, reduced.

    Args:
        data: Images that all decode.

    Raises:
        GeomkitError: If an image does not decode.
    """
    draw = datasets()[parse_spec(data.spec).name].picture
    if draw:
        yield from (draw(code, SIDES[0]) for code in data.ids)
        return
    for start in range(0, len(data), _AT_ONCE):
        yield from map(_within(SIDES[0]), data.pixels(slice(start, start + _AT_ONCE)))


def _within(side: int) -> Any:
    """A function that reduces a picture to at most that side."""
    from PIL import Image

    def reduce(pixels: np.ndarray) -> np.ndarray:
        if len(pixels) <= side:
            return pixels
        return np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.LANCZOS))

    return reduce


def page_environment(package: str, *, escape: bool = True) -> Environment:
    """Return the templates of a package, whose pages extend ``base.html.jinja``.

    Args:
        package: Package with a folder ``templates``.
        escape: Whether values are text to be escaped, and no HTML.
    """
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader("geomkit.plots")]),
        undefined=StrictUndefined, autoescape=escape, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.globals["colours"] = {"image": IMAGE_COLOUR, "text": TEXT_COLOUR}
    return environment


def check_page_path(path: Path, *, overwrite: bool = False) -> None:
    """Check that a page can be saved under a path, before it is made.

    Args:
        path: File to write: ``.html`` or ``.htm``.
        overwrite: Whether an existing file may be replaced.

    Raises:
        GeomkitError: For another suffix, or as :func:`geomkit._core.files.check_target`.

    >>> check_page_path(Path("sphere.html"), overwrite=True)
    """
    if path.suffix.lower() not in _SUFFIXES:
        raise GeomkitError(f"{path}: a page is saved as {_SUFFIXES[0]}, not '{path.suffix}'")
    check_target(path, overwrite=overwrite)


def save_page(page: str, path: Path, *, overwrite: bool = False) -> None:
    """Save a page atomically.

    Args:
        page: HTML.
        path: File to write: ``.html`` or ``.htm``.
        overwrite: Whether to replace an existing file.

    Raises:
        GeomkitError: As :func:`check_page_path`.
    """
    check_page_path(path, overwrite=overwrite)
    with atomic_write(path, overwrite=overwrite) as file:
        file.write(page.encode())


def sphere_page(
    stages: Sequence[Stage],
    *,
    title: str,
    labels: Labels | None = None,
    notes: Sequence[str] = (),
    pairs: int = 1000,
    modalities: tuple[str, str] = ("image", "text"),
) -> str:
    """Return the page of :func:`~geomkit.plots.interactive.interactive_sphere`.

    It shows the picture and the captions of the point under the pointer, finds points by their
    captions, joins pairs when asked, and follows the light or dark theme of the browser. Plotly's
    JavaScript is in the page, which makes no request.

    Args:
        stages: Spheres in order; the page opens on the last.
        title: Title of the page.
        labels: What is known of the pairs, row by row.
        notes: Remarks below the sphere.
        pairs: Largest number of pairs to draw.
        modalities: Names of the two clouds.

    Raises:
        GeomkitError: If the labels do not fit the stages, or as :func:`interactive_sphere` there.

    >>> rows = np.eye(3)
    >>> page = sphere_page([Stage(rows, -rows, "")], title="a <b>", labels=Labels(ids=tuple("abc")))
    >>> "<title>a &lt;b&gt;</title>" in page
    True
    """
    labels = labels or Labels()
    figure = interactive_sphere(stages, pairs=pairs, modalities=modalities)
    n = len(stages[0].image)
    drawn = min(n, pairs)
    for name in ("ids", "captions", "pictures"):
        if 0 < (found := len(getattr(labels, name))) < drawn:
            raise GeomkitError(f"labels: expected {name} of {drawn} pairs, got {found}")
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    part = f"the first {drawn:,} of {n:,} pairs" if drawn < n else f"{n:,} pairs"
    content = {
        "figure": json.loads(figure.to_json()),
        "titles": [
            [shown(line) for line in stage.title.split("\n") if line != title] for stage in stages
        ],
        "ids": [shown(name) for name in labels.ids[:drawn]],
        "captions": [[shown(text) for text in texts] for texts in labels.captions[:drawn]],
        "modalities": [shown(name) for name in modalities],
        "pictures": [],
    }
    environment = page_environment("geomkit.plots")
    template = environment.get_template("sphere.html.jinja")

    def page(pictures: Sequence[str], more: Sequence[str] = ()) -> str:
        return template.render(
            title=shown(title),
            part=part,
            notes=[shown(note) for note in (*notes, *more)],
            attribution=shown(labels.attribution) if pictures else "",
            plotly=Markup(get_plotlyjs()),  # it is no data
            content=content | {"pictures": pictures},
        )

    without = page([])
    if not labels.pictures:
        return without
    left = SIZE - len(without.encode())
    for side in SIDES:
        encoded = [in_base64(compressed(p, side)) for p in labels.pictures[:drawn]]
        if sum(len(text) + 4 for text in encoded) <= left:
            return page(encoded)
    return page([], [f"no pictures: those of {drawn:,} pairs would make the page too large"])


def compressed(pixels: np.ndarray, side: int = SIDES[0], *, kind: str = "WEBP") -> bytes:
    """Return an image as a file of at most that side: ``WEBP``, ``JPEG`` or ``PNG``."""
    from PIL import Image

    how: dict[str, Any] = {"quality": 60, "method": 2} if kind == "WEBP" else {}
    out = io.BytesIO()
    Image.fromarray(_within(side)(pixels)).save(out, kind, **how)
    return out.getvalue()


def in_base64(content: bytes) -> str:
    """Return bytes in Base64."""
    return base64.b64encode(content).decode()
